"""How the switches of a stack went, in figures, from the ledger's sum. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from statistics import median

from reconciler.records.ledger import Committed, Outcome, Recovered, Reverted, State

ROLLBACK = "back"
"""The move whose time is the rollback time."""

Counts = Mapping[str, Mapping[str, int]]
"""dataset -> what -> how many."""
Numbered = tuple[int, Committed | Reverted | Recovered]
"""(seq, outcome)."""


@dataclass(frozen=True)
class Spread:
    """Several measured values, in seconds."""

    count: int
    median: float
    worst: float
    total: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread | None:
        """None of nothing."""
        if not values:
            return None
        return cls(
            len(values), round(median(values), 3), round(max(values), 3), round(sum(values), 3)
        )


@dataclass(frozen=True)
class Figures:
    """How switches of one move went (or all)."""

    switches: int = 0
    committed: int = 0
    reverted: int = 0
    recovered: int = 0
    repeats: int = 0
    """Switches to the very release that the switch before them failed to make live."""
    seconds: Spread | None = None
    """From the plan to the end: copies, restores, the switch itself; of those that ended well."""
    downtime: Spread | None = None
    """Without an answer, reverted switches included."""
    missed_estimate: Spread | None = None
    """|measured - expected downtime|, where both are known."""
    set_aside: Counts = field(default_factory=dict)
    """What the data that was left had more than the data that went live."""
    set_aside_switches: int = 0
    written: Counts = field(default_factory=dict)
    """What worlds wrote that were not proved."""

    @property
    def success_rate(self) -> float | None:
        """Of the switches that were to make a world live, those that did: 0 to 1."""
        tried = self.committed + self.reverted
        return round(self.committed / tried, 4) if tried else None


@dataclass(frozen=True)
class Metrics:
    """All figures of a stack."""

    since: str | None
    until: str | None
    all: Figures
    moves: Mapping[str, Figures]
    interrupted: int
    """Switches that a crash left unfinished and that were put right afterwards."""

    @property
    def rollback(self) -> Figures:
        """Going back to a release that was live before."""
        return self.moves.get(ROLLBACK, Figures())


def measure(state: State, since: datetime | None = None) -> Metrics:
    """The figures of every switch that ended after `since` (an aware time), or of all."""
    repeats = _repeats(state)
    outcomes = [(seq, o) for seq, o in state.outcomes if _is_after(o.at, since)]
    moves = dict.fromkeys(outcome.move for _, outcome in outcomes)
    return Metrics(
        since=outcomes[0][1].at if outcomes else None,
        until=outcomes[-1][1].at if outcomes else None,
        all=_figures(outcomes, repeats),
        moves={
            move: _figures([(seq, o) for seq, o in outcomes if o.move == move], repeats)
            for move in moves
        },
        interrupted=sum(_is_after(found.at, since) for _, found in state.found)
        + sum(_was_interrupted(outcome) for _, outcome in outcomes),
    )


def duration(outcome: Outcome) -> float | None:
    """Seconds from the plan (of older entries: from the switch's begin) to the end; None when a
    clock that was set makes it senseless."""
    begin = outcome.planned or outcome.started
    if not begin:
        return None
    seconds = (_time(outcome.at) - _time(begin)).total_seconds()
    return round(seconds, 3) if seconds >= 0 else None


def written(outcome: Outcome) -> Counts:
    """What a failed world had more than the data it was given, as far as both were counted."""
    if not isinstance(outcome, Reverted):
        return {}
    forked = {d for d, action in outcome.datasets.items() if action == "fork"}
    return _without_nothing(
        {
            dataset: {
                what: count - outcome.probes.get(dataset, {}).get(what, 0)
                for what, count in counts.items()
            }
            for dataset, counts in outcome.written.items()
            if dataset in forked and outcome.probes.get(dataset)
        }
    )


def _figures(outcomes: Sequence[Numbered], repeats: frozenset[int]) -> Figures:
    found = [outcome for _, outcome in outcomes]
    well = [o for o in found if not isinstance(o, Reverted)]
    aside = [o for o in found if isinstance(o, Committed) and o.set_aside]
    return Figures(
        switches=len(found),
        committed=sum(isinstance(o, Committed) for o in found),
        reverted=sum(isinstance(o, Reverted) for o in found),
        recovered=sum(isinstance(o, Recovered) for o in found),
        repeats=sum(seq in repeats for seq, _ in outcomes),
        seconds=Spread.of([s for s in map(duration, well) if s is not None]),
        downtime=Spread.of([o.downtime_seconds for o in found if o.downtime_seconds is not None]),
        missed_estimate=Spread.of(
            [
                abs(o.downtime_seconds - o.expected_seconds)
                for o in well
                if o.downtime_seconds is not None and o.expected_seconds is not None
            ]
        ),
        set_aside=_sum(o.set_aside for o in aside),
        set_aside_switches=len(aside),
        written=_sum(map(written, found)),
    )


def _repeats(state: State) -> frozenset[int]:
    """seq of each switch to a release that the switch just before it failed to make live."""
    found, failed = set(), None
    for seq, outcome in state.outcomes:
        if isinstance(outcome, Recovered):
            continue
        world = state.worlds.get(outcome.to_world)
        release = world.release if world else None
        if release is not None and release == failed:
            found.add(seq)
        failed = release if isinstance(outcome, Reverted) else None
    return frozenset(found)


def _was_interrupted(outcome: Outcome) -> bool:
    return isinstance(outcome, Reverted) and outcome.reason.startswith("interrupted at ")


def _sum(all_counts: Iterable[Counts]) -> Counts:
    total: dict[str, dict[str, int]] = {}
    for datasets in all_counts:
        for dataset, counts in datasets.items():
            of_dataset = total.setdefault(dataset, {})
            for what, count in counts.items():
                of_dataset[what] = of_dataset.get(what, 0) + count
    return total


def _without_nothing(datasets: Counts) -> Counts:
    some = {d: {w: n for w, n in counts.items() if n > 0} for d, counts in datasets.items()}
    return {dataset: counts for dataset, counts in some.items() if counts}


def _is_after(at: str, since: datetime | None) -> bool:
    return since is None or _time(at) >= since


def _time(at: str) -> datetime:
    found = datetime.fromisoformat(at)
    return found if found.tzinfo else found.replace(tzinfo=UTC)
