"""What the next `up` removes, and why all the rest stays. Pure, but for what it is told."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from reconciler import names
from reconciler.config import Stack
from reconciler.plan import Plan
from reconciler.planning import retention
from reconciler.records.ledger import Departure, Generation, State, World
from reconciler.records.release import Release
from reconciler.world import removal

BACKUP = "backup"
"""Tag of snapshots that a person asked for: kept as long as their release."""

Guard = Callable[[World], str | None]
"""Why a world may not be removed as things stand; None: it may."""


class Stored(Protocol):
    """What has to be known of a snapshot."""

    @property
    def dataset(self) -> str: ...
    @property
    def bytes(self) -> int: ...
    @property
    def tags(self) -> dict[str, str]: ...


@dataclass(frozen=True)
class Fate:
    """What becomes of one thing at the next `up`."""

    kind: str
    """release, world, generation, snapshot, image or incident."""
    name: str
    goes: bool
    why: str
    bytes: int | None = None
    """What it holds, where that is known; not what is freed, for content may be shared."""


def fates(
    stack: Stack,
    state: State,
    plan: Plan,
    records: Mapping[str, Release],
    volumes: Mapping[str, int],
    snapshots: Mapping[str, Stored],
    guard: Guard,
) -> list[Fate]:
    """Everything of a stack, with what becomes of it by a plan that moves nothing.

    `volumes`: bytes of each; `snapshots`: those of the store that can be read, by id.
    """
    worlds = list(_worlds(state, plan, guard))
    gone = {fate.name for fate in worlds if fate.goes}
    return [
        *_releases(plan),
        *worlds,
        *_generations(state, gone, volumes),
        *_snapshots(stack, state, plan, gone, snapshots),
        *_images(plan, records),
    ]


def reasons(
    stack: Stack, state: State, kept: Sequence[str]
) -> Callable[[str, Mapping[str, str]], str | None]:
    """Why a snapshot (its id and tags) stays while these releases are kept; None when nothing
    needs it."""
    needed = _needed(state, kept)
    # Those that came with an import have the tags of another stack.
    known = {s for d in (*state.departures, *state.brought.values()) for s in d.snapshots.values()}

    def reason(snapshot: str, tags: Mapping[str, str]) -> str | None:
        if snapshot in needed:
            return needed[snapshot]
        if snapshot not in known and not _is_of(stack, tags):
            return "of no release of this stack"
        release = tags.get("release")
        if tags.get("kind") == BACKUP and release in kept:
            return f"a backup of {release}"
        return None

    return reason


def _needed(state: State, kept: Sequence[str]) -> dict[str, str]:
    """snapshot -> which kept release, or failed world, needs it."""
    found: dict[str, str] = {}
    staying = set(kept)
    for departure in [d for d in state.departures if d.release in staying]:
        for snapshot in departure.snapshots.values():
            found.setdefault(snapshot, f"what {departure.release} left")
    for release, departure in retention.all_arrivals(state):
        if release in staying:
            for snapshot in departure.snapshots.values():
                found.setdefault(snapshot, f"what {release} started from")
    for departure in _failed(state):
        for snapshot in departure.snapshots.values():
            found.setdefault(snapshot, f"what the failed {departure.world} wrote")
    return found


def _failed(state: State) -> list[Departure]:
    """What failed worlds left that still exist for a look."""
    return [d for d in state.departures if d.failed and not state.worlds[d.world].removed]


def _is_of(stack: Stack, tags: Mapping[str, str]) -> bool:
    """Whether a snapshot was taken of a world of this stack: others may use the same store."""
    release, world = tags.get("release", ""), tags.get("world", "")
    own = names.world_name(stack.project, release, 1)
    adopted = world == stack.project
    return release.startswith(f"{stack.name}-") and (
        adopted or world == own or world.startswith(f"{own}_")
    )


def _releases(plan: Plan) -> Iterator[Fate]:
    for kept in plan.keep:
        yield Fate("release", kept.release, False, ", ".join(kept.reasons))
    for release in plan.prune:
        yield Fate("release", release, True, "it left the window, and nothing else keeps it")


def _worlds(state: State, plan: Plan, guard: Guard) -> Iterator[Fate]:
    for world in state.worlds.values():
        if world.removed:
            continue
        why = _why_world_stays(state, plan, world) or guard(world)
        yield Fate("world", world.name, why is None, why or "nothing goes back to it as it stands")


def _why_world_stays(state: State, plan: Plan, world: World) -> str | None:
    if world.name == state.live:
        return "live"
    if world.name == state.previous:
        return "previous: where undo goes"
    if world.adopted:
        return "adopted: its containers and volumes are yours"
    if world.name not in plan.leftovers:
        return "failed, kept for a look" if world.failed else "the next up starts it"
    return None


def _generations(state: State, gone: set[str], volumes: Mapping[str, int]) -> Iterator[Fate]:
    after = _without(state, gone)
    going: set[str] = set()
    for world in gone:
        going |= {g.name for g in removal.only_used_by(after, state.worlds[world])}
    for generation in state.generations.values():
        if generation.removed:
            continue
        why = _who_has(after, generation)
        goes = generation.name in going
        yield Fate(
            "generation",
            generation.name,
            goes,
            "no world has it any more" if goes else why,
            volumes.get(generation.name),
        )


def _without(state: State, worlds: set[str]) -> State:
    left = {n: replace(w, removed=w.removed or n in worlds) for n, w in state.worlds.items()}
    return replace(state, worlds=left)


def _who_has(state: State, generation: Generation) -> str:
    users = [
        world.name
        for world in state.worlds.values()
        if not world.removed and generation.name in world.generations.values()
    ]
    return f"of {', '.join(users)}" if users else "of a world that was not removed by Lockstep"


def _snapshots(
    stack: Stack, state: State, plan: Plan, gone: set[str], snapshots: Mapping[str, Stored]
) -> Iterator[Fate]:
    kept = [k.release for k in plan.keep]
    why_kept = reasons(stack, _without(state, gone), kept)
    for snapshot, stored in snapshots.items():
        why = why_kept(snapshot, stored.tags)
        # The store is cleared when a release is pruned, and only then.
        goes = why is None and bool(plan.prune)
        unneeded = "no kept release needs it"
        if why is None and not goes:
            why = f"{unneeded}: it goes with the next release that is pruned"
        yield Fate("snapshot", snapshot, goes, f"{stored.dataset}: {why or unneeded}", stored.bytes)


def _images(plan: Plan, records: Mapping[str, Release]) -> Iterator[Fate]:
    """A tag that goes frees only what no other tag holds."""
    for name, record in records.items():
        goes = name in plan.prune
        for image in record.images.values():
            why = f"{name} is pruned" if goes else f"{name} is kept"
            yield Fate("image", image.tag, goes, why, image.bytes)
