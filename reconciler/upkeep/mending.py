"""What a move will take from the store is proved before anything stops for it, and mended if it
can be: damage that shows when the old world is down would come too late."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from reconciler.errors import Damage
from reconciler.plan import Action, Plan, Refusal
from reconciler.reaching.reach import repair
from reconciler.records import lineage
from reconciler.records.ledger import State
from reconciler.world import places
from snapshots.report import Finding
from snapshots.store import Store
from snapshots.verify import verify_all


def insist_on_whole(
    store: Store,
    snapshots: Sequence[str],
    folders: Callable[[], Mapping[str, Sequence[Path]]],
    say: Callable[[str], None],
    *,
    state: State,
    release: str | None,
) -> None:
    """Read every byte of these snapshots; what is damaged is mended from other packs, and from the
    folders (dataset -> where its content may still lie, asked for only then).

    Raises Damage, with the files, when a snapshot is still damaged then; it offers the nearest
    one of the dataset that is whole, for the `release` that is declared, and never takes it.
    """
    progress = places.in_mib("store", say)
    report = verify_all(store, snapshots, read_data=True, progress=progress)
    if not report.damages:
        return
    for finding in report.damages:
        say(f"the store is damaged: {finding}")
    say("mending the store")
    for mended in repair(store, folders(), progress).mended:
        say(f"mended: {mended}")
    left = verify_all(store, snapshots, read_data=True, progress=progress).damages
    if left:
        damaged = [s for s in snapshots if _damaged(store, s, quick=False)]
        offers = [_offer(store, state, s, release, quick=False) for s in damaged]
        raise Damage(_says(left), next_step=_ways(offers))


def foreseen(
    state: State, store: Store, plan: Plan, folders: Callable[[], Mapping[str, Sequence[Path]]]
) -> tuple[list[Refusal], list[str]]:
    """For the preview, as far as records, trees and indexes tell: what `insist_on_whole` would
    raise, and warnings where it might mend from a sealed volume, which only `up` reads."""
    refusals, warnings = [], []
    for planned in plan.datasets.values():
        if planned.snapshot is None or planned.action not in (Action.RESTORE, Action.IN_PLACE):
            continue
        found = verify_all(store, [planned.snapshot], read_data=False).damages
        if not found:
            continue
        if planned.action is Action.IN_PLACE or folders().get(planned.name):
            warnings.append(
                f"{_says(found)}; `up` mends it if a volume still has the content, as "
                "`lockstep repair` does now, and refuses otherwise"
            )
        else:
            offer = _offer(store, state, planned.snapshot, plan.target, quick=True)
            refusals.append(Refusal(_says(found), _ways([offer])))
    return refusals, warnings


def _says(damages: Sequence[Finding]) -> str:
    return "; ".join(["the store is damaged where this move needs it", *map(str, damages)])


def _ways(offers: Sequence[str]) -> str:
    return "\n  ".join(
        [
            *filter(None, offers),
            "lockstep verify --read-data   tells what else is damaged",
            "lockstep config set data keep   goes back with the data as it is now",
        ]
    )


def _offer(store: Store, state: State, snapshot: str, release: str | None, *, quick: bool) -> str:
    """How to take the nearest snapshot that is whole in place of a damaged one; "" if there is
    none. `quick`: without reading data."""
    present = set(store.ids())
    at = lineage.taken_at(state, snapshot)
    for other, whose in lineage.neighbours(state, *at) if at is not None else []:
        if other in present and other != snapshot and not _damaged(store, other, quick=quick):
            return (
                f"{lineage.way_to(release, other)}   takes {whose}, the nearest of "
                f"{store.read(other).dataset} that is whole; then run this again"
            )
    return ""


def _damaged(store: Store, snapshot: str, *, quick: bool) -> bool:
    return bool(verify_all(store, [snapshot], read_data=not quick).damages)
