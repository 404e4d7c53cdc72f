"""Whether what a move is about to attach is still what was sealed: nobody may write into a sealed
volume, but whoever is root on the host can."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from reconciler import lineage, places
from reconciler.docker import Docker
from reconciler.errors import Refused
from reconciler.ledger import State
from reconciler.plan import Action, Plan
from reconciler.reach import capture
from snapshots.errors import SnapshotError
from snapshots.store import Store

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
    for planned in plan.datasets.values():
        generation = state.generations.get(planned.generation)
        if planned.action is not Action.ATTACH or planned.new or generation is None:
            continue
        if generation.captured is None or generation.sealed is None or generation.spoiled:
            continue
        left = next(d for d in state.departures if d.seq == generation.sealed)
        sealed, path = generation.captured, places.place(docker, generation.name)
        by_path = streams(left.release, planned.name)
        now = _captured(store, path, planned.name, sealed, by_path, tags)
        if now is None:
            continue
        if store.read(sealed).root == store.read(now).root:
            store.forget(now)
            continue
        raise Refused(
            f"dataset {planned.name}: somebody changed files in volume {generation.name} since "
            f"{left.release} was left",
            next_step=f"{lineage.way_to(plan.target, sealed)}   takes what {left.release} left, "
            f"from the store\n  {lineage.way_to(plan.target, now)}   takes what is there now",
        )


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
