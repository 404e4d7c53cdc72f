"""The journal: what a switch under way has done and means to do, for whoever must finish it.

It holds ids, names and snapshots, never a secret. It is on disk before anything is changed and
gone when the switch has ended; where it is found, a switch was interrupted.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from failpoints import failpoint
from reconciler.catalog import write_durably
from reconciler.errors import CatalogDamaged
from reconciler.gates.results import GateResult
from reconciler.records.hookrecord import HookRun
from reconciler.records.ledger import fsync_directory


class InPlace(BaseModel):
    """A dataset whose content the switch may change where it is."""

    model_config = ConfigDict(extra="forbid")

    place: str
    """The volume, or the path of the directory."""
    safety: str = ""
    """The snapshot of its content before, which a revert puts back; "" until it is taken."""
    restored: bool = False
    """The switch itself puts other content there."""
    owners: tuple[str, ...] = ()
    """Ids of containers of others that the switch stops for it."""
    put_back: bool = False
    """On the way back, what it held before is there again: from then on the old world writes."""
    set_aside: str = ""
    """The snapshot of what the failed world left in it, taken before that was put back."""


class Intent(BaseModel):
    """All that is needed to finish or to revert one switch."""

    model_config = ConfigDict(extra="forbid", validate_assignment=True)

    head: int
    """State.head when the switch began: an outcome in the ledger after it is this switch's."""
    seq: int = 0
    """State.seq when the switch began."""
    chain: str = ""
    """State.chain then: a ledger that has another there is not the one the switch began with."""
    move: str
    from_world: str | None
    to_world: str
    started: str
    """UTC, ISO 8601."""
    who: str = ""
    operator_reason: str = ""
    asked: str = ""
    """The command that asked for it, where that says more than the move: rollback, undo."""
    incident: str = ""
    """The name of its incident, if it becomes one."""
    pid: int = 0
    log: str
    """The progress file of this switch, or of its recovery."""
    earlier_logs: tuple[str, ...] = ()
    """Those of whoever carried it on before, in order."""
    wish: str | None = None
    step: str = "prepare"
    reverting: bool = False
    datasets: dict[str, str] = {}
    """dataset -> action."""
    sealed: dict[str, str] = {}
    """dataset -> generation of the old world that the commit seals."""
    probes: dict[str, dict[str, int]] = {}
    snapshots: dict[str, str] = {}
    in_place: dict[str, InPlace] = {}
    old_running: tuple[str, ...] = ()
    """Ids of the old world's containers that ran when the switch began."""
    new_started_at: dict[str, str] = {}
    """Container of the new world -> when Docker says it last started, before the switch."""
    steps: dict[str, float] = {}
    hooks: dict[str, HookRun] = {}
    """The user's hooks that were run, or begun, by what they are run once under."""
    ingress: dict[str, dict[str, float]] = {}
    """port -> HAProxy's figures of the world that is left, and of the wait."""
    downtime_seconds: float | None = None
    gates: tuple[GateResult, ...] = ()
    """What became of the gates that were asked so far."""
    planned: str = ""
    """When the facts were read that the plan was made from; UTC, ISO 8601."""
    expected_seconds: float | None = None
    """The downtime that the plan foresaw."""
    set_aside: dict[str, dict[str, int]] = {}
    """dataset -> what the old world's data has more, as the plan counted it."""


class _Sealed(BaseModel):
    """The journal's file: the intent, and what its content has to be."""

    model_config = ConfigDict(extra="forbid")

    sha256: str
    intent: Intent


def _digest(intent: str) -> str:
    return hashlib.sha256(intent.encode()).hexdigest()


class JournalFile:
    """Where the intent of a stack's switch lies."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> Intent | None:
        """The intent of an interrupted switch, or None. Raises CatalogDamaged."""
        try:
            sealed = _Sealed.model_validate_json(self.path.read_bytes())
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._damaged(str(error.strerror)) from None
        except ValidationError as error:
            problem = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(str(part) for part in problem["loc"])
            raise self._damaged(f"{where} {problem['msg']}".strip()) from None
        # A journal that an older version left has fewer fields: only what it says counts.
        if sealed.sha256 != _digest(sealed.intent.model_dump_json(exclude_unset=True)):
            raise self._damaged("it was altered")
        return sealed.intent

    def _damaged(self, what: str) -> CatalogDamaged:
        return CatalogDamaged(
            f"the journal {self.path} of an interrupted switch is damaged: {what}",
            next_step="lockstep stop   stops everything; then remove the file and run lockstep up",
        )

    def write(self, intent: Intent) -> None:
        """Make the intent durable; 0600."""
        failpoint("journal.write")
        sealed = _Sealed(sha256=_digest(intent.model_dump_json()), intent=intent)
        write_durably(self.path, sealed.model_dump_json(indent=1).encode())
        failpoint("journal.written")

    def remove(self) -> None:
        """The switch has ended."""
        failpoint("journal.remove")
        self.path.unlink(missing_ok=True)
        failpoint("journal.removed")
        fsync_directory(self.path.parent)


def unfinished(path: Path) -> str | None:
    """The world that an interrupted switch was to make live."""
    intent = JournalFile(path).read()
    return intent.to_world if intent is not None else None
