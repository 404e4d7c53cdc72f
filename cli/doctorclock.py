"""What `lockstep doctor` says of the host's clock. No order depends on it, but ages, the times in
logs, and whether a volume was used since it was sealed do."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from cli.finding import OK, WARNING, Finding

if TYPE_CHECKING:
    from cli.context import Context

_TIME_ERROR = 5
"""What adjtimex(2) says of a clock that nothing keeps right."""
_BEARABLE_SECONDS = 60.0
_STRUCT_BYTES = 512
"""More than a struct timex has anywhere."""


def clock(here: Context) -> Iterator[Finding]:
    """Whether it stands behind the ledger, and whether anything keeps it right."""
    outcomes = here.catalog.state().outcomes
    newest = datetime.fromisoformat(outcomes[-1][1].at) if outcomes else None
    yield judged(newest, datetime.now(UTC), kept_right())


def judged(newest: datetime | None, now: datetime, kept: bool | None) -> Finding:
    """`newest`: when the last switch ended; `kept`: as `kept_right` has it."""
    ahead = (newest - now).total_seconds() if newest is not None else 0.0
    if ahead > _BEARABLE_SECONDS:
        return Finding(
            "clock",
            WARNING,
            f"the ledger's newest switch is {ahead / 60:.0f} min in the future: the clock was set "
            "back, or was wrong then",
            "set the clock; nothing is pruned and nothing put in order by it",
        )
    if kept is False:
        return Finding(
            "clock",
            WARNING,
            "nothing synchronises it, as far as the kernel knows: ages and the times in logs drift",
            "timedatectl set-ntp true   where systemd keeps the time; else chrony, or ntpd",
        )
    return Finding("clock", OK, "it is not behind the ledger's newest switch")


def kept_right() -> bool | None:
    """Whether the kernel's clock is synchronised; None where that cannot be asked."""
    try:
        state = ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(_STRUCT_BYTES))
    except (OSError, AttributeError):
        return None
    return None if state < 0 else bool(state != _TIME_ERROR)
