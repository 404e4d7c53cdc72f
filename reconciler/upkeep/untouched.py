"""Whether what a move is about to attach is still what was sealed: nobody may write into a sealed
volume, but whoever is root on the host can.

The preview tells by names, sizes and times, which costs one look at each file; before anything
stops for it, `insist` reads what they do not vouch for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from reconciler.docker import Docker
from reconciler.errors import LockstepError, Refused
from reconciler.plan import Action, DatasetPlan, Plan, Refusal
from reconciler.reaching.reach import capture, touched
from reconciler.records import lineage
from reconciler.records.ledger import Generation, State
from reconciler.world import places
from snapshots.errors import SnapshotError
from snapshots.store import Store
from snapshots.touched import Touched

Streams = Callable[[str, str], Callable[[bytes], bool]]
"""(release, dataset) -> what its driver says of its files."""


def insist(
    state: State,
    docker: Docker,
    store: Store,
    plan: Plan,
    streams: Streams,
    *,
    tags: Mapping[str, str],
) -> None:
    """Each sealed volume that the move attaches is compared with the snapshot of it; what did not
    change since (size, times, inode) is not read. Raises Refused, with the ways out, when one
    differs: then what it holds now is a snapshot with these `tags`."""
    for planned, left, sealed in _sealed(state, plan):
        path = places.place(docker, planned.generation)
        by_path = streams(left, planned.name)
        now = _captured(store, path, planned.name, sealed, by_path, tags)
        if now is None:
            continue
        if store.read(sealed).root == store.read(now).root:
            store.forget(now)
            continue
        raise Refused(
            f"dataset {planned.name}: somebody changed files in volume {planned.generation} since "
            f"{left} was left",
            next_step=f"{lineage.way_to(plan.target, sealed)}   takes what {left} left, "
            f"from the store\n  {lineage.way_to(plan.target, now)}   takes what is there now",
        )


def foreseen(
    state: State, docker: Docker, store: Store, plan: Plan
) -> tuple[list[Refusal], list[str]]:
    """For the preview, as far as it can be told without reading: what `insist` would raise, and
    warnings where it would have to read."""
    refusals, warnings = [], []
    for planned, left, sealed in _sealed(state, plan):
        found = _look(docker, store, planned.generation, sealed)
        where = f"in volume {planned.generation} since {left} was left"
        if found.changed:
            refusals.append(
                Refusal(
                    f"dataset {planned.name}: somebody changed files {where}: "
                    f"{', '.join(found.changed)}",
                    f"{lineage.way_to(plan.target, sealed)}   takes what {left} left, from the "
                    f"store\n  lockstep snapshot create {planned.generation} --name "
                    f"{planned.name}   captures what is there now: restore.at takes its id as well",
                )
            )
        elif found.unsure:
            warnings.append(
                f"dataset {planned.name}: somebody touched files {where}: "
                f"{', '.join(found.unsure)}; `up` reads them, and refuses if their content is "
                "another"
            )
    return refusals, warnings


def edited(state: State, docker: Docker, store: Store) -> Iterator[tuple[str, str, Sequence[str]]]:
    """(volume, release that left it, files): sealed volumes that somebody changed for certain,
    whatever is declared."""
    live = state.worlds[state.live].generations.values() if state.live else ()
    for generation in state.generations.values():
        sealed = _left(state, generation)
        if sealed is None or generation.removed or generation.name in live:
            continue
        release, snapshot = sealed
        found = _look(docker, store, generation.name, snapshot)
        if found.changed:
            yield generation.name, release, found.changed


def _look(docker: Docker, store: Store, generation: str, snapshot: str) -> Touched:
    """Nothing where nothing can be told: the volume is gone, or the snapshot has no hints."""
    with suppress(SnapshotError, LockstepError):
        return touched(places.place(docker, generation), store, snapshot)
    return Touched()


def _sealed(state: State, plan: Plan) -> Iterator[tuple[DatasetPlan, str, str]]:
    """What is attached as it was sealed: (dataset, the release that left it, its snapshot)."""
    for planned in plan.datasets.values():
        generation = state.generations.get(planned.generation)
        if planned.action is not Action.ATTACH or planned.new or generation is None:
            continue
        sealed = _left(state, generation)
        if sealed is not None:
            yield planned, *sealed


def _left(state: State, generation: Generation) -> tuple[str, str] | None:
    """(release, snapshot) of a generation that is as a release left it and was captured."""
    if generation.captured is None or generation.sealed is None or generation.spoiled:
        return None
    left = state.departure_at(generation.sealed)
    return (left.release, generation.captured) if left is not None else None


def _captured(
    store: Store,
    path: Path,
    dataset: str,
    parent: str,
    streams: Callable[[bytes], bool],
    tags: Mapping[str, str],
) -> str | None:
    """None when the store cannot take it: that must not keep anybody from going back."""
    with suppress(SnapshotError, OSError):
        return capture(path, store, dataset=dataset, parent=parent, tags=tags, streams=streams).id
    return None
