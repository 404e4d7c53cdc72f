"""What damage of the store means: for which releases, and from which volumes it can be mended."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from reconciler.docker import Docker
from reconciler.errors import LockstepError
from reconciler.planning import retention
from reconciler.records.ledger import Generation, State
from reconciler.upkeep import alone
from reconciler.world import places
from snapshots.errors import SnapshotError
from snapshots.store import Store


def snapshots_of(state: State, store: Store, release: str) -> tuple[list[str], list[str]]:
    """(snapshots of a release that the store has, those that it should have and has not).

    What it left, what it started from, and the backups that were made while it was live.
    """
    needed = retention.needed_snapshots(state, [release])
    present = set(store.ids())
    backups = {i for i in present - needed if _tags(store, i).get("release") == release}
    return sorted(needed & present | backups), sorted(needed - present)


def missing(state: State, store: Store, releases: Iterable[str]) -> dict[str, list[str]]:
    """Release -> the snapshots that it should have and the store has not; without the others."""
    present = set(store.ids())
    lost = {r: sorted(retention.needed_snapshots(state, [r]) - present) for r in releases}
    return {release: ids for release, ids in lost.items() if ids}


def _tags(store: Store, snapshot: str) -> Mapping[str, str]:
    with suppress(SnapshotError):
        return store.read(snapshot).tags
    return {}


def touched(state: State, store: Store, snapshots: Collection[str]) -> dict[str, list[str]]:
    """Release -> how these snapshots are its own: left, started from, backup; without a release:
    "" -> what they were taken of."""
    found: dict[str, list[str]] = {}
    for release in sorted({w.release for w in state.worlds.values()} - set(state.pruned)):
        left = {i for d in state.departures if d.release == release for i in d.snapshots.values()}
        arrivals = retention.arrivals(state, release).values()
        came = {i for departure in arrivals for i in departure.snapshots.values()}
        for word, ids in (("left", left), ("started from", came)):
            if ids & set(snapshots):
                found.setdefault(release, []).append(word)
    for snapshot in snapshots:
        tags = _tags(store, snapshot)
        if "kind" in tags:
            release = tags.get("release", "")
            word = tags["kind"] if release else tags.get("of", snapshot)
            if word not in found.setdefault(release, []):
                found[release].append(word)
    return found


def still_in_volume(state: State, snapshots: Collection[str]) -> list[str]:
    """Generations whose volume still holds exactly what one of these snapshots was taken of."""
    return [g.name for g in _sealed(state) if g.captured in snapshots and not g.spoiled]


def folders(state: State, store: Store, docker: Docker | None) -> dict[str, list[Path]]:
    """Dataset or name -> where its content may still lie, and nobody writes."""
    found = sealed_folders(state, docker) if docker is not None else {}
    for name, paths in resting_folders(store, docker).items():
        found.setdefault(name, []).extend(paths)
    return found


def sealed_folders(state: State, docker: Docker) -> dict[str, list[Path]]:
    """Dataset -> folders of its sealed generations, newest first: nobody writes there. What a
    failed world spoiled may still hold most of what it held."""
    found: dict[str, list[Path]] = {}
    for generation in reversed(_sealed(state)):
        with suppress(LockstepError):  # somebody removed the volume
            path = places.place(docker, generation.name)
            found.setdefault(generation.dataset, []).append(path)
    return found


def resting_folders(store: Store, docker: Docker | None) -> dict[str, list[Path]]:
    """Name -> the volumes and folders that were captured without a release, where nobody runs who
    could write there."""
    found: dict[str, list[Path]] = {}
    for record in alone.records(store)[0]:
        given = record.tags.get("of")
        if given is None or (docker is None and not alone.is_folder(given)):
            continue
        with suppress(LockstepError):  # it is gone
            place = alone.find(docker, given)
            known = found.setdefault(record.dataset, [])
            if place.path not in known and not alone.users(docker, place):
                known.append(place.path)
    return found


def _sealed(state: State) -> Sequence[Generation]:
    live = state.worlds[state.live].generations.values() if state.live else ()
    return [
        generation
        for generation in state.generations.values()
        if generation.sealed is not None and not generation.removed and generation.name not in live
    ]
