"""What `decide` returns: the one description of a move that preview shows and `up` carries out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from reconciler.planning.outlook import Outlook

AGREED = "LOCKSTEP_AGREED_PLAN"
"""Environment variable, set by a caller whose plan was agreed to (savedplan): the program carries
out that one, or nothing."""


class Move(StrEnum):
    """The moves Lockstep knows."""

    STAY = "stay"
    FIRST = "first"
    ADOPT = "adopt"
    FORWARD = "forward"
    BACK = "back"
    REFRESH = "refresh"
    REPAIR = "repair"


class Action(StrEnum):
    """How a dataset of the target world gets its generation."""

    FORK = "fork"
    ATTACH = "attach"
    RESTORE = "restore"
    CREATE = "create"
    IN_PLACE = "in-place"
    LEAVE = "leave"


@dataclass(frozen=True)
class Count:
    """One thing that a probe counts: rows of a table, keys, files, bytes."""

    now: int
    """In the live data."""
    then: int | None = None
    """In the source, when it and the live data parted; None where the live data goes along."""
    estimated: bool = False
    """The engine guessed, for counting would take long."""


@dataclass(frozen=True)
class DatasetPlan:
    """One dataset of the target world."""

    name: str
    action: Action
    generation: str
    """The volume that the target world mounts (for a bind directory in place: its path)."""
    number: int
    new: bool
    """The generation has to be made."""
    source: str | None = None
    """fork: the generation that is copied; in-place: the dataset's own volume or path."""
    snapshot: str | None = None
    """restore, and in-place with content to be put there: which snapshot."""
    source_text: str = ""
    """For the reader: `the data prod-002 left`."""
    source_release: str | None = None
    age_seconds: float | None = None
    bytes: int | None = None
    set_aside: Mapping[str, int] = field(default_factory=dict)
    """What the live world has more than the source, by the driver's probe: table -> rows."""
    counts: Mapping[str, Count] = field(default_factory=dict)
    """What the driver's probe counts in the live data, and what it counted in the source."""
    driver: str = "directory"
    shared: bool = False
    stop_owner: bool = False


@dataclass(frozen=True)
class Kept:
    """A release of the window, and why it is kept."""

    release: str
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class Refusal:
    """Why the plan may not be carried out, and what would allow it."""

    message: str
    remedy: str = ""
    code: int = 3
    """The exit code (errors.Exit)."""


@dataclass(frozen=True)
class DiskNeed:
    """Bytes."""

    needed: int
    free: int
    store_free: int


@dataclass(frozen=True)
class Plan:
    """A move with everything it will do; carried out exactly so, or not at all."""

    move: Move
    head: int
    """State.head that the plan was made from: a different one at the switch stops it."""
    target: str | None
    """The declared release."""
    from_world: str | None
    to_world: str | None
    """stay: the live world."""
    new_world: bool
    """The target world has to be made."""
    datasets: Mapping[str, DatasetPlan] = field(default_factory=dict)
    worlds: tuple[str, ...] = ()
    """Worlds declared to Pulumi, the target (or live) first."""
    images: tuple[str, ...] = ()
    """Releases whose images are declared: the window, without unusable ones."""
    keep: tuple[Kept, ...] = ()
    prune: tuple[str, ...] = ()
    debts: tuple[str, ...] = ()
    """What `kept` has to make good although nothing moves, beside `prune`: one sentence each."""
    leftovers: tuple[str, ...] = ()
    """Worlds that nothing declares any more and Pulumi may not know: `kept` removes them."""
    adopt_project: str | None = None
    """adopt: the compose project that becomes the first world."""
    adopted_release: str | None = None
    wish: str | None = None
    """Key of the one-shot wish that this move fulfils."""
    says: str = ""
    """The move in one sentence."""
    warnings: tuple[str, ...] = ()
    refusals: tuple[Refusal, ...] = ()
    hooks: tuple[str, ...] = ()
    """The user's hooks that will run, and what they say to it beforehand: for the reader."""
    downtime_estimate_seconds: float | None = None
    downtime_basis: str = ""
    downtime_worst_seconds: float | None = None
    """Of the measured switches."""
    downtime_measured: int = 0
    """How many switches the estimate is of; 0: a guess, or nothing is stopped."""
    made: str = ""
    """When its facts were read; UTC, ISO 8601."""
    disk: DiskNeed = DiskNeed(0, 0, 0)
    outlook: Outlook = field(default_factory=Outlook)
    """What differs between both releases; only looked at when the plan is to be shown."""
