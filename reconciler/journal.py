"""The journal: what a switch under way has done and means to do, for whoever must finish it.

It holds ids, names and snapshots, never a secret. It is on disk before anything is changed and
gone when the switch has ended; where it is found, a switch was interrupted.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from reconciler.catalog import write_durably
from reconciler.errors import CatalogDamaged
from reconciler.ledger import fsync_directory


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


class Intent(BaseModel):
    """All that is needed to finish or to revert one switch."""

    model_config = ConfigDict(extra="forbid", validate_assignment=True)

    head: int
    """State.head when the switch began: an outcome in the ledger after it is this switch's."""
    move: str
    from_world: str | None
    to_world: str
    started: str
    """UTC, ISO 8601."""
    who: str = ""
    pid: int = 0
    log: str
    """The progress file of this switch."""
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
    downtime_seconds: float | None = None


class JournalFile:
    """Where the intent of a stack's switch lies."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> Intent | None:
        """The intent of an interrupted switch, or None. Raises CatalogDamaged."""
        try:
            return Intent.model_validate_json(self.path.read_bytes())
        except FileNotFoundError:
            return None
        except ValidationError as error:
            problem = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(str(part) for part in problem["loc"])
            raise CatalogDamaged(
                f"the journal {self.path} of an interrupted switch is damaged: "
                f"{where} {problem['msg']}",
                next_step="lockstep stop   stops everything; then remove the file and run "
                "lockstep up",
            ) from None

    def write(self, intent: Intent) -> None:
        """Make the intent durable; 0600."""
        write_durably(self.path, intent.model_dump_json(indent=1).encode())

    def remove(self) -> None:
        """The switch has ended."""
        self.path.unlink(missing_ok=True)
        fsync_directory(self.path.parent)


def unfinished(path: Path) -> str | None:
    """The world that an interrupted switch was to make live."""
    intent = JournalFile(path).read()
    return intent.to_world if intent is not None else None
