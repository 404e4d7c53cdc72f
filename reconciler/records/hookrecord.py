"""What is kept of a hook that ran."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from reconciler.records.release import Frozen

SAID = 200
"""Characters of its last words that stand in journal and ledger."""


class HookRun(Frozen):
    """One hook, run once: for journal and ledger."""

    name: str
    at: str
    of: str = Field("", description="the service, the dataset or (prune) the release")
    result: Literal["begun", "passed", "failed", "timed-out"]
    seconds: float = 0.0
    said: str = Field("", description="the last of what it said, masked")
    one_off: str = Field("", description="the service of the new world that it ran a container of")

    @property
    def key(self) -> str:
        """It is run at most once in a switch under this."""
        return f"{self.at} {self.name} {self.of}".rstrip()

    @property
    def passed(self) -> bool:
        return self.result == "passed"

    def __str__(self) -> str:
        """One line: `migrate (pre-start of web) failed: ended with exit code 5 (1.2 s)`."""
        of = f" of {self.of}" if self.of else ""
        why = f": {self.said}" if self.said and not self.passed else ""
        return f"{self.name} ({self.at}{of}) {self.result}{why} ({self.seconds:.1f} s)"


def log_path(logs: Path, started: str, world: str) -> Path:
    """Where all that a switch's hooks said is kept; `logs`: the catalog's folder of logs."""
    return logs / "hooks" / f"{started.replace(':', '').replace('+0000', '')}-{world}.jsonl"
