"""Where two lines of a dataset's content parted, and what came before and after. Pure."""

from __future__ import annotations

from reconciler.records.ledger import Departure, Generation, State


def parting(state: State, dataset: str, generation: str, other: Departure) -> Departure | None:
    """The departure up to which `generation` as it is now and what `other` left are the same;
    None when the ledger does not know one."""
    ours = _ancestors(state, dataset, generation, None)
    theirs = _ancestors(state, dataset, other.generations.get(dataset, ""), other)
    for name, left in theirs.items():
        if name in ours:
            found = [d for d in (left, ours[name]) if d is not None]
            return min(found, key=lambda d: d.seq, default=None)
    return None


def _ancestors(
    state: State, dataset: str, generation: str, left: Departure | None
) -> dict[str, Departure | None]:
    """Each generation of a line, youngest first, with the departure up to which the line shares
    its content; None: all of it."""
    found: dict[str, Departure | None] = {}
    name: str | None = generation
    while name is not None and name in state.generations and name not in found:
        found[name] = left
        left = _beginning(state, dataset, state.generations[name])
        name = left.generations.get(dataset) if left is not None else None
    return found


def _beginning(state: State, dataset: str, made: Generation) -> Departure | None:
    """The departure whose content a generation began with: the snapshot it was filled from, or
    what its parent had when its own world first went live."""
    if made.snapshot is not None:
        return state.departure_with(dataset, made.snapshot)
    left = state.departure_at(state.first_outcome_to(made.world))
    return left if left is not None and left.generations.get(dataset) == made.parent else None


def taken_at(state: State, snapshot: str) -> tuple[str, int] | None:
    """(dataset, seq) of the departure that a snapshot is of."""
    for departure in state.departures:
        for dataset, taken in departure.snapshots.items():
            if taken == snapshot:
                return dataset, departure.seq
    return None


def neighbours(state: State, dataset: str, seq: int) -> list[tuple[str, str]]:
    """(snapshot, whose it is) of a dataset, nearest to this point of the ledger first, but none of
    that very point; of two equally near the older."""
    left = [d for d in state.departures if dataset in d.snapshots and not d.failed and d.seq != seq]
    left.sort(key=lambda d: (abs(d.seq - seq), d.seq))
    return list({d.snapshots[dataset]: f"what {d.release} left" for d in left}.items())


def way_to(release: str | None, snapshot: str) -> str:
    """The commands that declare a snapshot as the data of a release."""
    return (
        f"lockstep config set --path restore.release {release} && "
        f"lockstep config set --path restore.at {snapshot}"
    )
