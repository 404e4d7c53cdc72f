"""What a check of `lockstep doctor` saw."""

from __future__ import annotations

from dataclasses import dataclass

OK, WARNING, FAILED = "ok", "warning", "failed"


@dataclass(frozen=True)
class Finding:
    """What one check saw."""

    check: str
    level: str
    text: str
    remedy: str = ""
