"""Times, sizes and counts as people read them. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

from reconciler.planning import impact

JOINED = "\u00a0"
"""A number and its unit stay on one line."""


def size(count: int) -> str:
    """`12.3 MiB`."""
    return impact.size(count).replace(" ", JOINED)


def age(past: float) -> str:
    """Seconds as `3 min`, `5 h`, `12 days`."""
    return impact.age(past).replace(" ", JOINED)


def moment(text: str | None) -> datetime | None:
    """A time of a record; None where there is none, or none that can be read."""
    try:
        found = datetime.fromisoformat(text or "")
    except ValueError:
        return None
    return found.astimezone(UTC) if found.tzinfo else found.replace(tzinfo=UTC)


def when(time: datetime) -> str:
    """`22 Nov 2026, 00:12`, in UTC."""
    return f"{time.day} {time:%b %Y, %H:%M}"


def ago(time: datetime, now: datetime) -> str:
    """`3 h ago`."""
    past = (now - time).total_seconds()
    return "just now" if past < 5 else f"{age(past)} ago"


def seconds(value: float | None) -> str:
    """`0.82 s`, `14.1 s`, `3 min 20 s`; nothing for unknown."""
    if value is None:
        return ""
    if value < 10:
        return f"{value:.2f}{JOINED}s"
    if value < 120:
        return f"{value:.1f}{JOINED}s"
    minutes, rest = divmod(round(value), 60)
    return f"{minutes}{JOINED}min {rest}{JOINED}s" if minutes < 60 else age(value)


def counts(found: Mapping[str, int]) -> str:
    """`1874 orders, 46.4 MiB`."""
    return ", ".join(
        size(count) if what == "bytes" else f"{count:,} {what}".replace(",", "\u202f")
        for what, count in sorted(found.items())
    )


def ranges(releases: list[str]) -> str:
    """`prod-001 to prod-994, prod-996`: of names in the order of their numbers."""
    runs: list[list[str]] = []
    for name in releases:
        number = int(name.rpartition("-")[2])
        if runs and int(runs[-1][-1].rpartition("-")[2]) == number - 1:
            runs[-1].append(name)
        else:
            runs.append([name])
    return ", ".join(run[0] if len(run) == 1 else f"{run[0]} to {run[-1]}" for run in runs)
