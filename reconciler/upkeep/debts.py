"""What is owed after a switch: sealed data brought into the store, and what left the window."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

from failpoints import failpoint
from reconciler import clock, worlds
from reconciler.catalog import Catalog
from reconciler.config import Stack
from reconciler.docker import Compose, Docker
from reconciler.errors import CatalogDamaged, DebtsUnpaid, LockstepError
from reconciler.evidence import incidents
from reconciler.hooks.hooks import of_pruning
from reconciler.hooks.hooktable import At
from reconciler.plan import Action, Move, Plan
from reconciler.planning import pruning
from reconciler.reaching.reach import capture, driver_for
from reconciler.records.ledger import Captured, GenerationRemoved, Hooked, Pruned, State
from reconciler.upkeep import untouched
from reconciler.world import places
from snapshots.errors import Damaged, SnapshotError, StoreBusy, Unsupported
from snapshots.livepoint import never
from snapshots.pace import Pace
from snapshots.store import Store


def pay(
    stack: Stack,
    catalog: Catalog,
    docker: Docker,
    compose: Compose,
    plan: Plan,
    progress: Callable[[str], None],
) -> None:
    """Capture every sealed generation that is not in the store, then prune; needs the host lock.

    Raises DebtsUnpaid when the store cannot take the data: the switch stands, nothing is pruned,
    and the next up tries again.
    """
    try:
        store = stack.open_store()
        capture_sealed(catalog, docker, store, progress, pace=places.pace(stack))
    except (SnapshotError, OSError) as error:
        raise DebtsUnpaid(
            f"{plan.to_world} is live, but sealed data is not in the store yet: {error}",
            next_step="lockstep up   tries again; nothing is pruned before",
        ) from None
    incidents.refresh(catalog, catalog.state())
    for world in plan.leftovers:
        progress(f"removing {world}")
        worlds.remove(stack, catalog, docker, compose, world)
    if plan.prune:
        _prune_records(stack, catalog, docker, plan, progress)
    _prune(stack, catalog, store, plan, progress)
    _prune_incidents(stack, catalog, progress)


def keep_failed(
    stack: Stack, catalog: Catalog, docker: Docker, progress: Callable[[str], None]
) -> str | None:
    """After a revert: bring what the failed world wrote into the store; needs the host lock.

    Returns why it could not, as a warning: the next up tries again.
    """
    failed = {g for d, name in catalog.state().debts() if d.failed for g in [d.generations[name]]}
    if not failed:
        return None
    try:
        pace = places.pace(stack)
        capture_sealed(catalog, docker, stack.open_store(), progress, frozenset(failed), pace)
    except (LockstepError, SnapshotError, OSError) as error:
        return f"what the failed world wrote is not in the store yet: {error}"
    incidents.refresh(catalog, catalog.state())
    return None


def capture_sealed(
    catalog: Catalog,
    docker: Docker,
    store: Store,
    progress: Callable[[str], None],
    only: frozenset[str] | None = None,
    pace: Pace | None = None,
) -> None:
    """Bring sealed generations (all, or `only` the named ones) into the store, one event each.

    `pace`: where nobody waits for it but a live world uses the disk.
    """
    for departure, dataset in catalog.state().debts():
        generation = departure.generations[dataset]
        if only is not None and generation not in only:
            continue
        if _is_lost(catalog.state(), docker, generation):
            progress(
                f"{dataset} as {departure.release} left it is lost: volume {generation} was "
                "removed before it was in the store"
            )
            catalog.ledger.append(GenerationRemoved(at=clock.now(), generation=generation))
            continue
        try:
            path = places.place(docker, generation)
        except LockstepError as error:
            raise DebtsUnpaid(
                f"the data {departure.release} left cannot be captured: {error.message}",
                next_step=error.next_step,
            ) from None
        progress(f"capturing {dataset} of {departure.release}")
        state = catalog.state()
        record = capture(
            path,
            store,
            dataset=dataset,
            parent=_parent_snapshot(state, generation, store),
            twins=_twins(catalog, state, generation),
            tags={"release": departure.release, "world": departure.world},
            streams=_streams(catalog, departure.release, dataset),
            pace=pace,
        )
        failpoint("debts.captured")
        catalog.ledger.append(
            Captured(
                at=clock.now(),
                generation=generation,
                sealing=departure.seq,
                snapshot=record.id,
                bytes=record.bytes,
                store_bytes=_size(store),
            )
        )
        failpoint("debts.recorded")


def _size(store: Store) -> int | None:
    """For the report only: what cannot be measured is left out."""
    with suppress(SnapshotError, OSError):
        return store.size()
    return None


def _is_lost(state: State, docker: Docker, generation: str) -> bool:
    """Whether its volume was removed. Where the live ones are not there either, this may be
    another daemon, or all of its volumes are away for a while."""
    live = state.worlds[state.live].generations.values() if state.live else ()
    there = docker.volumes()
    return generation not in there and bool(live) and all(name in there for name in live)


def capture_before_use(
    stack: Stack,
    catalog: Catalog,
    docker: Docker,
    plan: Plan,
    progress: Callable[[str], None],
) -> str | None:
    """Capture what the move is about to attach and is only in its volume; needs the host lock.

    A store that cannot take it must not keep anybody from going back: then a warning is
    returned, for the content goes live all the same. Raises Refused when somebody changed what
    was sealed.
    """
    attached = frozenset(
        d.generation for d in plan.datasets.values() if d.action is Action.ATTACH and not d.new
    )
    owed = {d.generations[name] for d, name in catalog.state().debts()} & attached
    if not attached or plan.move is Move.REPAIR:
        return None
    try:
        store = stack.open_store()
        tags = {"release": plan.target or "", "world": plan.to_world or "", "kind": "check"}
        streams = partial(_streams, catalog)
        untouched.insist(catalog.state(), docker, store, plan, streams, tags=tags)
        capture_sealed(catalog, docker, store, progress, frozenset(owed))
    except (SnapshotError, OSError) as error:
        return (
            f"{', '.join(sorted(owed))} could not be captured before it is used again ({error}): "
            "what was left there can no longer be told from what is written now"
        )
    return None


def clear_drafts(stack: Stack) -> None:
    """Remove what killed processes had begun to write into the store."""
    with suppress(SnapshotError, OSError):  # whoever writes there next says what is wrong
        Store(stack.store).clear_drafts()


def _streams(catalog: Catalog, release: str, dataset: str) -> Callable[[bytes], bool]:
    """What its driver says of its files; without a record they are files like any."""
    with suppress(CatalogDamaged, Unsupported, KeyError):
        return driver_for(catalog.record(release).datasets[dataset].driver).is_stream
    return never


def _parent_snapshot(state: State, generation: str, store: Store) -> str | None:
    """The newest snapshot of this generation, the one it was filled from, or the same of one it
    descends from."""
    present = set(store.ids())
    newest: dict[str, str] = {}
    for departure in state.departures:
        for dataset, name in departure.generations.items():
            snapshot = departure.snapshots.get(dataset)
            if snapshot in present:
                newest[name] = snapshot
    seen: str | None = generation
    while seen is not None and seen in state.generations:
        if seen in newest:
            return newest[seen]
        made = state.generations[seen]
        if made.snapshot in present:
            return made.snapshot
        seen = made.parent
    return None


def _twins(catalog: Catalog, state: State, generation: str) -> Path | None:
    made = state.generations.get(generation)
    return places.twins(catalog, made.world, made.dataset) if made else None


def _prune_records(
    stack: Stack,
    catalog: Catalog,
    docker: Docker,
    plan: Plan,
    progress: Callable[[str], None],
) -> None:
    """Remove the records that left the window, with the user's hooks before and after each."""
    hooks = of_pruning(stack, catalog, docker, progress)
    for release in plan.prune:
        progress(f"pruning {release}")
        hooks.boundary(At.PRE_PRUNE, of=release)
        # The event first: a kill in between leaves a record that nobody uses, never a release
        # that is listed and cannot be restored.
        catalog.ledger.append(Pruned(at=clock.now(), release=release))
        failpoint("debts.pruned")
        catalog.remove(release)
        failpoint("debts.record-removed")
        hooks.boundary(At.POST_PRUNE, of=release)
    if ran := tuple(hooks.ran.values()):
        catalog.ledger.append(Hooked(at=clock.now(), world=plan.to_world or "", hooks=ran))


def _prune(
    stack: Stack, catalog: Catalog, store: Store, plan: Plan, progress: Callable[[str], None]
) -> None:
    """Remove the snapshots that no kept release needs, when any left the window."""
    if plan.prune:
        why_kept = pruning.reasons(stack, catalog.state(), [k.release for k in plan.keep])
        for snapshot in store.ids():
            # The sweep frees nothing while a record is damaged.
            with suppress(Damaged):
                if why_kept(snapshot, store.read(snapshot).tags) is None:
                    store.forget(snapshot)
                    failpoint("debts.forgotten")
        # Not by what is to be kept: somebody may take a snapshot of their own meanwhile.
        try:
            store.sweep()
        except StoreBusy:
            progress("the store is in use, so its space is freed when a release is pruned next")
    failpoint("debts.swept")
    catalog.write_manifest()


def _prune_incidents(stack: Stack, catalog: Catalog, progress: Callable[[str], None]) -> None:
    gone = incidents.prune(catalog, stack.settings.incidents, catalog.state(), time.time())
    for retained in gone:
        progress(f"pruning incident {retained.incident.id}: {retained.why_not}")
