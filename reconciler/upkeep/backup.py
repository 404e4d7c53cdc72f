"""A backup of the live world's data as it stands: nothing is stopped, nothing in it changes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from reconciler.catalog import Catalog
from reconciler.config import Stack
from reconciler.docker import Docker
from reconciler.errors import BadInput
from reconciler.planning.pruning import BACKUP
from reconciler.reaching.inside import Inside
from reconciler.reaching.reach import capture, capture_live, driver_for
from reconciler.records.ledger import World
from reconciler.records.release import Dataset, Release
from reconciler.upkeep import onepoint
from reconciler.world import places
from reconciler.world.users import engine, users
from snapshots.drivers import Driver
from snapshots.errors import EngineFailed, Unsupported
from snapshots.livepoint import LivePoint
from snapshots.progress import Progress
from snapshots.store import SnapshotRecord, Store


@dataclass(frozen=True)
class Backup:
    """What came of one dataset."""

    dataset: str
    snapshot: str | None
    bytes: int | None
    why_not: str = ""
    """Why there is no snapshot of it: its engine gave no usable point without a stop."""


def take(
    stack: Stack,
    catalog: Catalog,
    docker: Docker,
    world: World,
    only: Sequence[str],
    progress: Callable[[str], None],
) -> list[Backup]:
    """Capture the datasets of the live world (all, or `only` the named); needs the host lock.

    Raises BadInput for an unknown dataset, and whatever keeps the store from taking the data.
    """
    record = catalog.record(world.release)
    store = stack.open_store()
    taken = []
    for dataset in _chosen(record, only):
        source = world.generations.get(dataset.name) or dataset.source or dataset.name
        progress(f"capturing {dataset.name}")
        tags = {
            "kind": BACKUP,
            "release": world.release,
            "world": world.name,
            "generation": source,
        }
        try:
            driver = driver_for(dataset.driver, stack.settings.commands(dataset.name))
            told = places.in_mib(dataset.name, progress)
            snapshot = _capture(docker, world, dataset, driver, source, store, tags, told)
        except (EngineFailed, Unsupported) as error:
            taken.append(Backup(dataset.name, None, None, str(error)))
            continue
        taken.append(Backup(dataset.name, snapshot.id, snapshot.bytes))
    return taken


def take_group(
    stack: Stack,
    catalog: Catalog,
    docker: Docker,
    world: World,
    group: str,
    progress: Callable[[str], None],
    freeze_limit: float,
) -> list[Backup]:
    """Capture all datasets of a group of the config at one point; see `onepoint.take`."""
    taken = onepoint.take(stack, catalog, docker, world, group, progress, freeze_limit=freeze_limit)
    return [Backup(name, snapshot.id, snapshot.bytes) for name, snapshot in taken.items()]


def _chosen(record: Release, only: Sequence[str]) -> list[Dataset]:
    for name in only:
        if name not in record.datasets:
            near = get_close_matches(name, record.datasets, n=1)
            hint = f"; do you mean {near[0]}?" if near else ""
            raise BadInput(
                f"{record.name} has no dataset {name}{hint}",
                next_step=f"lockstep info {record.name}   shows its datasets",
            )
    return [dataset for name, dataset in record.datasets.items() if not only or name in only]


def _capture(
    docker: Docker,
    world: World,
    dataset: Dataset,
    driver: Driver,
    source: str,
    store: Store,
    tags: Mapping[str, str],
    progress: Progress,
) -> SnapshotRecord:
    """Raises Unsupported where the engine gives no usable point."""
    path, parent = places.place(docker, source), _parent(store, source)
    owner = engine(docker, driver, users(docker, source, first=world.name), source)
    if owner is not None:
        run = Inside(docker, owner.id)
        return capture_live(
            driver, run, path, store,
            dataset=dataset.name, parent=parent, tags=tags, progress=progress,
        )  # fmt: skip
    if dataset.driver != "directory" and not _ended_cleanly(docker, world, dataset, source):
        raise Unsupported("its engine does not run and did not end cleanly")
    return capture(
        path, store,
        dataset=dataset.name, parent=parent, tags=tags, live=LivePoint(), progress=progress,
    )  # fmt: skip


def _ended_cleanly(docker: Docker, world: World, dataset: Dataset, source: str) -> bool:
    """Whether the engine was the last to use it, and closed its files by itself."""
    writers = {mount.service for mount in dataset.mounts if not mount.read_only}
    engines = [
        container
        for container in docker.containers(project=world.name)
        if source in container.volumes.values() and container.service in writers
    ]
    return bool(engines) and all(c.state == "exited" and c.exit_code == 0 for c in engines)


def _parent(store: Store, source: str) -> str | None:
    """The newest backup of the same generation: what did not change since is not read again."""
    found: list[SnapshotRecord] = [store.read(snapshot) for snapshot in store.ids()]
    same = [record for record in found if record.tags.get("generation") == source]
    return max(same, key=lambda record: record.created).id if same else None
