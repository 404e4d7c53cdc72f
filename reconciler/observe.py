"""What the host runs now: facts only, no judgement. Lists once, looks closer only at our own."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from reconciler import names
from reconciler.catalog import Catalog
from reconciler.config import Stack
from reconciler.docker import OUR_PROJECT, OUR_STACK, OUR_WORLD, Docker, Listed, VolumeInfo
from reconciler.errors import BadInput
from reconciler.facts import Container, Deaf, Disk, Facts, PortHolder, Restored, Snapshot
from reconciler.ingress import ingressfacts, ingressports
from reconciler.making import adoption
from reconciler.planning.pruning import BACKUP
from reconciler.project import compose, ports, secretvalues
from reconciler.reaching.reach import can_reflink, measure
from reconciler.records import journal, trust
from reconciler.records.ledger import State
from reconciler.records.release import Release
from reconciler.switching import deaf
from reconciler.world import hostnotes, places
from snapshots.counts import Counts
from snapshots.errors import Damaged, UnknownSnapshot

_PROBE_SECONDS = 5.0


def observe(
    stack: Stack,
    catalog: Catalog,
    state: State,
    docker: Docker,
    *,
    probe: bool,
    distrusted: Mapping[str, str] = {},
) -> Facts:
    """The facts of this moment. `probe`: also count what the live world's data holds, when there
    is something to compare it with. `distrusted`: release -> why its record is not to be believed.
    Raises Unavailable, BadInput when the store cannot be used."""
    return _Observation(stack, catalog, state, docker, distrusted).facts(probe)


@dataclass
class _Observation:
    stack: Stack
    catalog: Catalog
    state: State
    docker: Docker
    distrusted: Mapping[str, str]

    def facts(self, probe: bool) -> Facts:
        records, damaged = self._records
        if self._moving:
            self._insist_on_store()
        counted = self._live_probe() if probe and self._moving else {}
        return Facts(
            now=time.time(),
            containers=self._containers,
            images=self._images(),
            image_ids=frozenset(self._all_images),
            volumes={name: size for name, (size, _) in self._volumes.items()},
            files={name: files for name, (_, files) in self._volumes.items()},
            foreign_mounts=self._foreign_mounts(),
            ports=self._ports(),
            disk=self._disk(),
            records=records,
            damaged=damaged,
            snapshots=self._snapshots,
            fingerprint=self._fingerprint,
            live_probe=counted,
            estimated={
                name: counts.estimated
                for name, counts in counted.items()
                if isinstance(counts, Counts) and counts.estimated
            },
            missing_mounts=self._missing_mounts() if self.docker.is_local else {},
            deaf=self._deaf() if self._moving else (),
            restored=self._restored(),
            ingress=self._ingress(),
            unfinished=journal.unfinished(self.catalog.journal),
        )

    @cached_property
    def _records(self) -> tuple[dict[str, Release], dict[str, str]]:
        good, damaged = self.catalog.records(self.state)
        broken = trust.broken(self.catalog, self.state, good)
        damaged = {**broken, **self.distrusted, **damaged}
        return {name: r for name, r in good.items() if name not in damaged}, damaged

    @cached_property
    def _target(self) -> Release | None:
        return self._records[0].get(self.stack.settings.release or "")

    @cached_property
    def _live(self) -> Release | None:
        return self._records[0].get(self.state.live_release or "")

    @cached_property
    def _moving(self) -> bool:
        """Whether data may have to move, so that sizes and counts are worth their time."""
        settings = self.stack.settings
        if self._target is None:
            return False
        wish = settings.restore
        wished = wish is not None and wish.key not in self.state.wishes
        given = self.state.worlds[self.state.live].fingerprint if self.state.live else ""
        rotated = bool(given and self._fingerprint) and given != self._fingerprint
        return settings.release != self.state.live_release or wished or rotated or self._other_way

    @property
    def _other_way(self) -> bool:
        """Whether the ports of the live world are to go to the ingress, or back."""
        if self._live is None or self._live.adopted:
            return False
        live = self._containers.get(self.state.live or "", ())
        return ingressports.changed(self._live.model, live, self.stack.settings.ingress)

    # containers -----------------------------------------------------------------------------

    @cached_property
    def _listed(self) -> tuple[Listed, ...]:
        return self.docker.listing()

    @cached_property
    def _containers(self) -> dict[str, tuple[Container, ...]]:
        listed = [c for c in self._listed if self._is_of_a_world(c) or self._is_plain(c)]
        found: dict[str, list[Container]] = {}
        for container in self.docker.facts(entry.id for entry in listed):
            found.setdefault(container.project, []).append(container)
        plain = found.get(self.stack.project, [])
        if not self._was_adopted:
            services = compose.services(self._target.model) if self._target else ()
            taken = self.state.live is None and self.catalog.another_stack_adopted()
            if taken or not adoption.plain_project(self.stack.project, plain, services):
                found.pop(self.stack.project, None)
        return {project: tuple(containers) for project, containers in found.items()}

    def _is_of_a_world(self, container: Listed) -> bool:
        labels = container.labels
        return (
            labels.get(OUR_PROJECT) == self.stack.project
            and labels.get(OUR_STACK) == self.stack.name
            and labels.get(OUR_WORLD) == container.project
        )

    def _is_plain(self, container: Listed) -> bool:
        return container.project == self.stack.project

    @property
    def _was_adopted(self) -> bool:
        return any(world.adopted for world in self.state.worlds.values())

    def _is_ours(self, container: Listed) -> bool:
        """Of one of our worlds, adopted, or about to be adopted."""
        if self._is_plain(container):
            # Started by hand beside another live world, its containers are as foreign as any.
            adopting = self.state.live is None and self.stack.project in self._containers
            return adopting or self.state.live == self.stack.project
        return self._is_of_a_world(container)

    def _foreign_mounts(self) -> dict[str, tuple[str, ...]]:
        interesting = set(self._volumes)
        found: dict[str, list[str]] = {}
        for container in self._listed:
            if container.state == "running" and not self._is_ours(container):
                for mounted in interesting.intersection(container.mounts):
                    found.setdefault(mounted, []).append(container.name)
        return {volume: tuple(sorted(names)) for volume, names in found.items()}

    def _ports(self) -> tuple[PortHolder, ...]:
        if self._target is None:
            return ()
        leaving = self.state.live or self.stack.project
        running = [c for c in self._listed if c.state == "running"]
        wanted = compose.published_ports(self._target.model)

        def is_ours(container: Listed) -> bool:
            leaves = container.project == leaving and self._is_ours(container)
            return leaves or ingressfacts.is_of(container, self.stack)

        return ports.holders(wanted, running, is_ours)

    def _ingress(self) -> tuple[str, ...]:
        if self.state.live is None or self.state.stopped:
            return ()
        units = ingressfacts.among(self._listed, self.stack)
        return ingressfacts.examine(self.catalog, units, self._containers.get(self.state.live, ()))

    # images, data, disk ---------------------------------------------------------------------

    @cached_property
    def _all_images(self) -> dict[str, tuple[str, ...]]:
        return self.docker.images()

    def _images(self) -> dict[str, str]:
        known = {tag: image_id for image_id, tags in self._all_images.items() for tag in tags}
        named = [i.tag for record in self._records[0].values() for i in record.images.values()]
        named += [
            names.image_tag(self.stack.project, service, world.release)
            for world in self.state.worlds.values()
            for service in world.images
        ]
        return {tag: known[tag] for tag in named if tag in known}

    @cached_property
    def _all_volumes(self) -> Mapping[str, VolumeInfo]:
        return self.docker.volumes()

    @cached_property
    def _volumes(self) -> dict[str, tuple[int, int]]:
        """volume or path -> (bytes, files): measured where a move may copy it, else as captured."""
        generations = {g.name: g for g in self.state.generations.values() if not g.removed}
        own = {d.source for r in self._involved for d in r.datasets.values() if d.source}
        live = self.state.worlds[self.state.live].generations if self.state.live else {}
        copied = {*own, *live.values()} if self._moving else set()
        found = {}
        for name in {*generations, *own}:
            if not self._exists(name):
                continue
            generation = generations.get(name)
            captured = self._snapshots.get((generation.captured if generation else "") or "")
            if captured is not None:
                found[name] = captured.bytes, captured.files
            else:
                found[name] = self._measured(name) if name in copied else (0, 0)
        return found

    @property
    def _involved(self) -> list[Release]:
        return [record for record in (self._target, self._live) if record is not None]

    def _exists(self, place: str) -> bool:
        return Path(place).exists() if place.startswith("/") else place in self._all_volumes

    def _measured(self, place: str) -> tuple[int, int]:
        size = measure(places.place(self.docker, place, self._all_volumes))
        return size.bytes, size.files

    @cached_property
    def _snapshots(self) -> dict[str, Snapshot]:
        if not (self.stack.store / "format").exists():
            return {}
        store = self.stack.open_store(create=False)
        found = {}
        for snapshot_id in store.ids():
            # One that is damaged is none to rely on; `verify` names it.
            with suppress(Damaged, UnknownSnapshot):
                record = store.read(snapshot_id)
                tags = record.tags
                backup_of = tags.get("world") if tags.get("kind") == BACKUP else None
                found[snapshot_id] = Snapshot(
                    record.dataset, record.bytes, record.files, record.created, backup_of
                )
        return found

    def _insist_on_store(self) -> None:
        existing = _nearest(self.stack.store)
        if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
            raise BadInput(
                f"the store {self.stack.store} cannot be written: {existing} is "
                + ("not writable for this user" if existing.is_dir() else "not a directory"),
                next_step="lockstep config set store PATH   puts it elsewhere",
            )

    def _missing_mounts(self) -> dict[str, tuple[str, ...]]:
        found = {}
        for world, containers in self._containers.items():
            sources = {s for c in containers for s in c.volumes.values() if s.startswith("/")}
            missing = tuple(sorted(s for s in sources if not _is_there(s)))
            if missing:
                found[world] = missing
        return found

    def _deaf(self) -> tuple[Deaf, ...]:
        leaving = self.state.live or self.stack.project
        return deaf.services(self.docker, self._containers.get(leaving, ()))

    def _restored(self) -> tuple[Restored, ...]:
        """News for this stack: what its last switch did not know yet."""
        places = {d.source for r in self._involved for d in r.datasets.values() if d.source}
        known = hostnotes.seen(self.catalog)
        notes = hostnotes.restored(self._all_volumes, places, self.stack)
        return tuple(note for note in notes if note.name not in known)

    def _disk(self) -> Disk:
        root = self.docker.info.root / "volumes"
        volumes, store = _room(root), _room(self.stack.store)
        return Disk(
            volumes_free=volumes.bytes,
            store_free=store.bytes,
            reflink=self._moving and self._reflinks(root),
            one=volumes.device == store.device,
            volumes_inodes=volumes.inodes,
            store_inodes=store.inodes,
        )

    def _reflinks(self, root: Path) -> bool:
        """Whether every dataset with content that a move may fork can be cloned."""
        live = self.state.worlds[self.state.live].generations if self.state.live else {}
        sources = set(live.values())
        if not self.state.live and self._target:
            sources = {d.source for d in self._target.datasets.values() if d.source}
        full = [name for name in sources if self._volumes.get(name, (0, 0))[0]]
        return bool(full) and all(
            can_reflink(places.place(self.docker, name, self._all_volumes), root) for name in full
        )

    # secrets and counts ---------------------------------------------------------------------

    @cached_property
    def _fingerprint(self) -> str:
        record = self._target or self._live
        return secretvalues.fingerprint(self.stack, self.catalog, record) if record else ""

    def _live_probe(self) -> dict[str, dict[str, int]]:
        if self.state.live is None or self._live is None:
            return {}
        from reconciler.switching.data import Data
        from reconciler.world import hostworld

        world = hostworld.look(self.docker, self.state.live, self._live, self.stack.settings)
        data = Data(self.stack, self.catalog, self.docker, lambda _: None)
        return data.probe(world, self._live, _PROBE_SECONDS)


def _nearest(path: Path) -> Path:
    """The path itself, or the nearest folder above it that exists."""
    while not path.exists() and path != path.parent:
        path = path.parent
    return path


def _is_there(path: str) -> bool:
    """Also what this user may not look at."""
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True
    return True


@dataclass(frozen=True)
class _Room:
    """What this user may still write on a file system; `inodes` None: it knows no such limit."""

    device: int
    bytes: int
    inodes: int | None


def _room(path: Path) -> _Room:
    """Of the path's file system; a folder that may not be looked into is answered for by the one
    above it."""
    for folder in (path, *path.parents):
        with suppress(OSError):
            found = os.statvfs(folder)
            free = found.f_bavail * found.f_frsize
            return _Room(folder.stat().st_dev, free, found.f_favail if found.f_files else None)
    return _Room(0, 0, None)
