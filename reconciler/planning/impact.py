"""A Plan in the forms that people and programs read. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from reconciler.plan import Action, Count, DatasetPlan, Kept, Plan, Refusal
from reconciler.planning.outlook import Outlook, ServiceChange

SCHEMA = 1
MOST_COUNTS = 6
"""What is told of one dataset to a person; a program gets all."""
UNDO = "lockstep undo"


def document(plan: Plan, release_left: str | None) -> dict[str, Any]:
    """The JSON document of a preview (docs/preview.md). `release_left`: the one that runs now."""
    return {
        "schema": SCHEMA,
        "move": plan.move.value,
        "says": plan.says,
        "from": release_left or plan.adopted_release,
        "to": plan.target,
        "services": [_service(change) for change in plan.outlook.services],
        "unchanged_services": list(plan.outlook.unchanged),
        "other_changes": list(plan.outlook.others),
        "changed_files": list(plan.outlook.files),
        "engines": [
            {
                "dataset": jump.dataset,
                "engine": jump.engine,
                "from": jump.before,
                "to": jump.after,
                "major": jump.major,
            }
            for jump in plan.outlook.engines
        ],
        "migrations": _migrations(plan.outlook),
        "datasets": {name: _dataset(planned) for name, planned in plan.datasets.items()},
        "downtime_estimate_seconds": plan.downtime_estimate_seconds,
        "downtime": {
            "seconds": plan.downtime_estimate_seconds,
            "worst_seconds": plan.downtime_worst_seconds,
            "measured_switches": plan.downtime_measured,
            "guess": is_guess(plan),
            "basis": plan.downtime_basis,
        },
        "disk": {
            "needed_bytes": plan.disk.needed,
            "free_bytes": plan.disk.free,
            "store_free_bytes": plan.disk.store_free,
        },
        "hooks": list(plan.hooks),
        "owed": list(plan.debts),
        "prune": list(plan.prune),
        "keep": kept(plan.keep),
        "warnings": list(plan.warnings),
        "refusals": [refusal(r) for r in plan.refusals],
    }


def output(plan: Plan) -> dict[str, Any]:
    """The stack output `impact`: the same facts as sentences, for Pulumi shows each value of it."""
    return {
        "schema": SCHEMA,
        "says": plan.says,
        "changes": [f"{name}: {text}" for name, text in changes(plan.outlook)],
        "datasets": {name: _sentence(planned) for name, planned in plan.datasets.items()},
        "downtime": downtime(plan),
        "pruned": list(plan.prune),
    }


def _sentence(planned: DatasetPlan) -> str:
    parts = [f"{planned.action.value}: {_source(planned)}"]
    parts += [f"set aside: {', '.join(texts)}" for texts in [set_aside(planned)] if texts]
    parts += [f"comes back: {', '.join(texts)}" for texts in [comes_back(planned)] if texts]
    return "; ".join(parts)


def _service(change: ServiceChange) -> dict[str, Any]:
    before, after = change.image or (None, None)
    return {
        "service": change.service,
        "change": change.change,
        "image": None if change.image is None else {"from": before, "to": after},
        "definition": list(change.definition),
    }


def _migrations(outlook: Outlook) -> dict[str, Any] | None:
    found = outlook.migrations
    if found is None:
        return None
    return {
        "new": list(found.new),
        "unknown_there": list(found.unknown),
        "altered": list(found.altered),
    }


def _dataset(planned: DatasetPlan) -> dict[str, Any]:
    return {
        "action": planned.action.value,
        "source": planned.source_text,
        "age_seconds": planned.age_seconds,
        "bytes": planned.bytes,
        "set_aside": dict(planned.set_aside),
        "counts": {
            what: {"now": count.now, "then": count.then, "estimated": count.estimated}
            for what, count in planned.counts.items()
        },
        "brought_back_by": UNDO if planned.set_aside else None,
    }


def refusal(said: Refusal) -> dict[str, Any]:
    """What is refused, and the way to allow it."""
    return {"message": said.message, "remedy": said.remedy, "exit_code": int(said.code)}


def kept(releases: Sequence[Kept]) -> list[dict[str, Any]]:
    """Releases with the reasons why they are kept."""
    return [{"release": k.release, "reasons": list(k.reasons)} for k in releases]


# sentences that the screen and Pulumi's diagnostics share ----------------------------------------


def lines(plan: Plan) -> list[str]:
    """The impact in plain lines, as Pulumi's diagnostics show it."""
    found = [plan.says]
    found += [f"  {name}: {text}" for name, text in changes(plan.outlook)]
    for planned in plan.datasets.values():
        found.append(f"  {planned.name}: {planned.action.value}, {_source(planned)}")
        found += [f"    set aside: {text}" for text in set_aside(planned)]
        found += [f"    comes back: {text}" for text in comes_back(planned)]
        if planned.set_aside:
            found.append(f"    {UNDO}   brings it back")
    if plan.downtime_estimate_seconds is not None and plan.from_world != plan.to_world:
        found.append(f"  downtime: {downtime(plan)}")
    if plan.disk.needed:
        found.append(f"  disk: {size(plan.disk.needed)} needed, {size(plan.disk.free)} free")
    found += [f"  {line}" for line in plan.hooks]
    found += [f"  owed: {debt}" for debt in plan.debts]
    if plan.prune:
        found.append(f"  leaves the window: {', '.join(plan.prune)}")
    found += [f"  kept: {releases} ({why})" for releases, why in window(plan.keep)]
    return found


def changes(outlook: Outlook) -> Iterator[tuple[str, str]]:
    """(name, what changes) of each service, and of what is beside them."""
    for change in outlook.services:
        for text in _changed(change):
            yield change.service, text
    for text in outlook.others:
        yield "compose", text
    if outlook.files:
        yield "config files", some(outlook.files)
    for jump in outlook.engines:
        kind = "another major version" if jump.major else "another version"
        versions = f"{jump.before or 'unknown'} -> {jump.after or 'unknown'}"
        yield jump.dataset, f"{jump.engine} {versions}, {kind}"
    found = outlook.migrations
    if found is None:
        return
    if found.new:
        yield "migrations", f"{len(found.new)} new: {some(found.new)}"
    if found.unknown:
        yield "migrations", f"{len(found.unknown)} that it does not know: {some(found.unknown)}"
    if found.altered:
        yield "migrations", f"{len(found.altered)} altered: {some(found.altered)}"


def _changed(change: ServiceChange) -> Iterator[str]:
    if change.image is not None:
        before, after = change.image
        if change.change == "changed":
            yield f"image {before} -> {after}"
        else:
            yield f"{change.change}, image {after or before}"
    elif change.change != "changed":
        yield change.change
    yield from change.definition


def some(names: Sequence[str], most: int = 5) -> str:
    """The first few of many names, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def set_aside(planned: DatasetPlan) -> list[str]:
    """What the live data has more than the source: `1874 orders (now 5012, then 3138)`."""
    return _first(
        [
            _counted(what, more, planned.counts.get(what))
            for what, more in sorted(planned.set_aside.items())
        ]
    )


def where_aside(plan: Plan) -> str:
    """What becomes of what is set aside."""
    ways = {d.action is Action.IN_PLACE for d in plan.datasets.values() if d.set_aside}
    if ways == {True}:
        return "is captured into the store before it is changed"
    return (
        "stays sealed" if ways == {False} else "stays sealed, or is captured before it is changed"
    )


def comes_back(planned: DatasetPlan) -> list[str]:
    """What the source has more than the live data."""
    missing = {
        what: (count.then or 0) - count.now
        for what, count in planned.counts.items()
        if (count.then or 0) > count.now
    }
    return _first(
        [_counted(what, more, planned.counts[what]) for what, more in sorted(missing.items())]
    )


def _counted(what: str, more: int, count: Count | None) -> str:
    about = "about " if count is not None and count.estimated else ""
    word = what.removesuffix("s") if what == "files" and more == 1 else what
    amount = size(more) if what == "bytes" else f"{more} {word}"
    if count is None or count.then is None:
        return f"{about}{amount}"
    now, then = (size(n) if what == "bytes" else str(n) for n in (count.now, count.then))
    return f"{about}{amount} (now {now}, then {then})"


def _first(texts: list[str]) -> list[str]:
    more = len(texts) - MOST_COUNTS
    return [*texts[:MOST_COUNTS], f"and {more} more, which --json lists"] if more > 0 else texts


def is_guess(plan: Plan) -> bool:
    """Whether the downtime told is no measured one of this stack."""
    return bool(plan.downtime_estimate_seconds) and not plan.downtime_measured


def downtime(plan: Plan) -> str:
    """`about 1.3 s (median of ...)`."""
    if not plan.downtime_estimate_seconds:
        return plan.downtime_basis or "none"
    return f"about {plan.downtime_estimate_seconds:.1f} s ({plan.downtime_basis})"


def window(keep: Sequence[Kept]) -> list[tuple[str, str]]:
    """(releases, why they are kept), those that are kept for the same reasons together."""
    by_reasons: dict[tuple[str, ...], list[str]] = {}
    for one in keep:
        by_reasons.setdefault(one.reasons, []).append(one.release)
    return [(_run(names), ", ".join(reasons)) for reasons, names in by_reasons.items()]


def _run(names: Sequence[str]) -> str:
    """Many names by their first, their last and their number."""
    return ", ".join(names) if len(names) <= 4 else f"{names[0]} ... {names[-1]} ({len(names)})"


def _source(planned: DatasetPlan) -> str:
    text = planned.source_text
    if planned.age_seconds:
        text += f" {age(planned.age_seconds)} ago"
    if planned.bytes:
        text += f" ({size(planned.bytes)})"
    return text


def size(count: int) -> str:
    """Bytes for people: `12.3 MiB`."""
    amount = float(count)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if amount < 1024 or unit == "TiB":
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1024
    raise AssertionError("unreachable")


def age(seconds: float) -> str:
    """Seconds for people: `3 min`, `5 h`, `12 days`."""
    for limit, length, unit in ((90, 1, "s"), (5400, 60, "min"), (129600, 3600, "h")):
        if seconds < limit:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds / 86400:.0f} days"


def totals(planned: Mapping[str, DatasetPlan]) -> str:
    """What a whole move sets aside, in a few words: `3 datasets: 1874 orders, 2 files`."""
    parts = [
        _counted(what, more, None)
        for dataset in planned.values()
        for what, more in sorted(dataset.set_aside.items(), key=lambda item: -item[1])
        if what != "bytes" or len(dataset.set_aside) == 1
    ]
    return some(parts, 3) if parts else "nothing"
