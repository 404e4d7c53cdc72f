"""When a user's hook runs, where it can, and what its failure does: one table, the only place that
says it. The code goes by it and docs/hooks.md is written from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class At(StrEnum):
    """Before and after each phase."""

    PRE_PREPARE = "pre-prepare"
    POST_PREPARE = "post-prepare"
    PRE_STOP = "pre-stop"
    POST_STOP = "post-stop"
    PRE_SEAL = "pre-seal"
    POST_SEAL = "post-seal"
    PRE_START = "pre-start"
    POST_START = "post-start"
    PRE_PROVE = "pre-prove"
    POST_PROVE = "post-prove"
    PRE_COMMIT = "pre-commit"
    POST_COMMIT = "post-commit"
    PRE_REVERT = "pre-revert"
    POST_REVERT = "post-revert"
    PRE_PRUNE = "pre-prune"
    POST_PRUNE = "post-prune"

    @property
    def phase(self) -> str:
        return self.partition("-")[2]


class Failure(StrEnum):
    """What a hook's failure does."""

    ABORT = "abort"
    WARN = "warn"
    IGNORE = "ignore"


class Side(StrEnum):
    """The world that a hook works in: the one that is left, or the one that comes."""

    OLD = "old"
    NEW = "new"


class Abort(StrEnum):
    """What becomes of a move that a hook aborts."""

    REFUSED = "refused: nothing was changed (exit code 3)"
    REVERTED = "reverted: the old world goes on (exit code 4)"
    UNPROVED = "reverted, and the release is quarantined (exit code 4)"
    UNPRUNED = "nothing is pruned; the next `up` tries again (exit code 5)"
    NEVER = "cannot abort"


@dataclass(frozen=True)
class Place:
    """One row of the table."""

    moment: str
    side: Side
    """Which world it is for, where the hook does not say."""
    runs: frozenset[Side]
    """In which world containers may run then: for `exec`, and `http` of a service."""
    one_off: frozenset[Side]
    """In which world a one-off container may write the data."""
    abort: Abort
    failure: Failure
    """Where the hook does not say."""
    seconds: float
    """Its time limit, where the hook does not say."""

    @property
    def allowed(self) -> tuple[Failure, ...]:
        """What a hook may say of its failure."""
        if self.abort is Abort.NEVER:
            return (Failure.WARN, Failure.IGNORE)
        return tuple(Failure)


_OLD, _NEW, _NONE = frozenset({Side.OLD}), frozenset({Side.NEW}), frozenset[Side]()
_MINUTE, _TEN_MINUTES = 60.0, 600.0


def _place(
    moment: str,
    side: Side,
    runs: frozenset[Side],
    one_off: frozenset[Side],
    abort: Abort,
    seconds: float = _MINUTE,
) -> Place:
    failure = Failure.WARN if abort is Abort.NEVER else Failure.ABORT
    return Place(moment, side, runs, one_off, abort, failure, seconds)


PLACES: Mapping[At, Place] = {
    At.PRE_PREPARE: _place(
        "first of all; the old world serves, the new one is made and stopped",
        Side.OLD, _OLD, _OLD, Abort.REFUSED, _TEN_MINUTES,
    ),
    At.POST_PREPARE: _place(
        "all is looked at and copies are up to date; the old world serves",
        Side.OLD, _OLD, _OLD, Abort.REFUSED, _TEN_MINUTES,
    ),
    At.PRE_STOP: _place(
        "before the first service is told to stop (of a service: before that one)",
        Side.OLD, _OLD, _OLD, Abort.REVERTED,
    ),
    At.POST_STOP: _place(
        "every service of the old world is down (of a service: that one)",
        Side.OLD, _NONE, _NONE, Abort.REVERTED,
    ),
    At.PRE_SEAL: _place(
        "before any dataset gets its last copy (of a dataset: before that one does)",
        Side.OLD, _NONE, _NONE, Abort.REVERTED,
    ),
    At.POST_SEAL: _place(
        "the data of the new world is as it must be (of a dataset: that one)",
        Side.OLD, _NONE, _NONE, Abort.REVERTED,
    ),
    At.PRE_START: _place(
        "before the first service starts (of a service: when all it depends on is ready)",
        Side.NEW, _NEW, _NEW, Abort.UNPROVED, _TEN_MINUTES,
    ),
    At.POST_START: _place(
        "every service is ready (of a service: that one)",
        Side.NEW, _NEW, _NEW, Abort.UNPROVED, _TEN_MINUTES,
    ),
    At.PRE_PROVE: _place(
        "all are ready; gates are asked afterwards",
        Side.NEW, _NEW, _NEW, Abort.UNPROVED, _TEN_MINUTES,
    ),
    At.POST_PROVE: _place(
        "gates and data are proved", Side.NEW, _NEW, _NEW, Abort.UNPROVED, _TEN_MINUTES
    ),
    At.PRE_COMMIT: _place(
        "the last thing that can keep the new world from being live",
        Side.NEW, _NEW, _NEW, Abort.UNPROVED,
    ),
    At.POST_COMMIT: _place(
        "the new world is live, services for after the commit are started",
        Side.NEW, _NEW, _NEW, Abort.NEVER, _TEN_MINUTES,
    ),
    At.PRE_REVERT: _place(
        "before the failed world is stopped; nobody may be served meanwhile",
        Side.NEW, _NEW, _NEW, Abort.NEVER,
    ),
    At.POST_REVERT: _place(
        "the old world is live again", Side.OLD, _OLD, _OLD, Abort.NEVER, _TEN_MINUTES
    ),
    At.PRE_PRUNE: _place(
        "before a release that left the window is removed, once for each",
        Side.NEW, _NEW, _NEW, Abort.UNPRUNED,
    ),
    At.POST_PRUNE: _place(
        "its record is gone", Side.NEW, _NEW, _NEW, Abort.NEVER
    ),
}  # fmt: skip
"""In the order in which they come. A switch that cannot be reverted any more, or that is being
reverted, cannot be aborted: whoever would abort it is warned of."""

EXTENDS_THE_PROOF = frozenset({At.PRE_START, At.POST_START, At.PRE_PROVE})
"""What these take is added to the release's time for its proof."""

BY_SERVICE = frozenset({At.PRE_STOP, At.POST_STOP, At.PRE_START, At.POST_START})
"""A service's own hook runs at that service's own moment; elsewhere with those of the stack."""
BY_DATASET = frozenset({At.PRE_SEAL, At.POST_SEAL})
"""The same of a dataset's."""
IN_ORDER = frozenset({At.POST_STOP, At.PRE_SEAL, At.POST_SEAL, At.PRE_START})
"""With a hook of the stack here, no service of the new world starts before the data is at rest."""


def table() -> str:
    """The table as docs/hooks.md shows it."""
    lines = [
        "| at | when | world | `exec` | `run` | if it fails | or | abort means | seconds |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for at, place in PLACES.items():
        others = ", ".join(f for f in place.allowed if f is not place.failure)
        lines.append(
            f"| `{at}` | {place.moment} | {place.side} | {_yes(place.runs)} | "
            f"{_yes(place.one_off)} | {place.failure} | {others} | {place.abort} | "
            f"{place.seconds:g} |"
        )
    return "\n".join(lines)


def _yes(sides: frozenset[Side]) -> str:
    return ", ".join(sorted(sides)) or "no"
