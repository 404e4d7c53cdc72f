"""What became of a gate: written to journal and ledger, and shown."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

from pydantic import Field

from reconciler.records.release import Frozen

MOST_SAID, LOG_LINES, LOG_LINE = 600, 10, 300
"""Characters of what was said, lines of a log, and characters of each of them."""


class Result(StrEnum):
    """How a gate ended; `warned`: it failed, and only had to warn."""

    PASSED = "passed"
    FAILED = "failed"
    INCONCLUSIVE = "inconclusive"
    WARNED = "warned"


class GateResult(Frozen):
    """One gate of one service, asked until it was decided. No secret is in it."""

    gate: str
    service: str = Field("", description='"": the whole stack')
    kind: str = Field(description="a kind of gate, or `ready`: health check and start itself")
    result: Result
    means: Literal["pass", "warn", "fail"]
    tries: int = 0
    since: str = Field("", description="UTC, ISO 8601: when it was first asked")
    seconds: float = 0.0
    said: str = Field("", description="why it is so")
    excerpt: str = Field("", description="what was answered")
    log: tuple[str, ...] = Field((), description="the container's last lines")

    def __str__(self) -> str:
        """One line: `gate checkout of web failed: answered 503 (12 tries, 4.0 s)`."""
        of = f" of {self.service}" if self.service else ""
        why = f": {self.said}" if self.said and self.result is not Result.PASSED else ""
        tries = f"{self.tries} tries, " if self.tries > 1 else ""
        return f"gate {self.gate}{of} {self.result}{why} ({tries}{self.seconds:.1f} s)"


def bounded(text: str) -> str:
    """A text as it may be kept."""
    shown = text.strip()
    return shown if len(shown) <= MOST_SAID else f"{shown[: MOST_SAID - 3]}..."
