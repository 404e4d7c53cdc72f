"""Work beside the live world: containers and volumes that are of no world, all under one label.

Nothing that looks for worlds finds them, and nobody who has to go back waits for them. What a
killed one left is found by its label, and removed by the next.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from reconciler import worlds
from reconciler.catalog import Catalog
from reconciler.config import Stack
from reconciler.docker import PROJECT, VOLUME, Compose, Docker
from reconciler.errors import Busy
from reconciler.project.compose import Model
from reconciler.records.release import Release
from reconciler.world import places, worldmodel
from snapshots import private


@dataclass(frozen=True)
class Aside:
    """One kind of such work of a stack: `drill`, `rehearsal`."""

    kind: str
    stack: Stack
    catalog: Catalog
    docker: Docker

    @property
    def label(self) -> str:
        """Marks its containers and volumes; the value is `owner`."""
        return f"lockstep.{self.kind}"

    @property
    def owner(self) -> str:
        return f"{self.stack.project}/{self.stack.name}"

    @property
    def world(self) -> str:
        """The compose project of its containers: no release can have that name."""
        return f"{self.stack.project}-{self.stack.name}-{self.kind}"

    @contextmanager
    def alone(self) -> Iterator[None]:
        """One of its kind at a time; a dead one's lock is free. Raises Busy."""
        private.make_folder(self.catalog.root)
        path = self.catalog.root / f"{self.kind}-{self.stack.name}.lock"
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield
        except BlockingIOError:
            raise Busy(
                f"another {self.kind} of stack {self.stack.name} is under way",
                next_step="wait until it has ended, then run this again",
            ) from None
        finally:
            os.close(descriptor)

    def under_way(self) -> bool:
        """Whether one runs now."""
        try:
            with self.alone():
                return False
        except Busy:
            return True

    def volume_name(self, dataset: str) -> str:
        """What the scratch volume of a dataset is called."""
        return f"{self.world}_{dataset}"

    def volume(self, dataset: str) -> str:
        """A scratch volume for a dataset, made where it is missing; its name."""
        return self.docker.create_volume(self.volume_name(dataset), {self.label: self.owner}).name

    def model(
        self,
        release: Release,
        secrets: Mapping[str, str],
        *,
        datasets: Iterable[str],
        created: Collection[str] = (),
        shape: Callable[[Model, str], Model],
        one_off: bool = False,
    ) -> Model:
        """What Compose creates its containers from, or (`one_off`) runs one of a service.

        `shape`: gets the model of a world, and the folder of its config files as Compose reads
        it, and says what is created of it.
        """
        folder = places.files(self.catalog, self.world)
        model = worldmodel.world_model(
            release,
            project=self.stack.project,
            stack=self.stack.name,
            world=self.world,
            volumes={name: self.volume(name) for name in datasets},
            created=created,
            networks={},
            files=folder,
            secrets=secrets,
            engine_api=self.docker.api_version,
            one_off=one_off,
        )
        return shape(model, str(folder).replace("$", "$$"))

    def create(
        self,
        composer: Compose,
        release: Release,
        secrets: Mapping[str, str],
        *,
        datasets: Iterable[str],
        created: Collection[str] = (),
        shape: Callable[[Model, str], Model],
    ) -> None:
        """Create containers of a release, on the scratch volumes of these datasets, not started.

        `created`: datasets whose volumes an image may fill; `shape`: see `model`.
        """
        places.write_files(self.catalog, self.world, release)
        wanted = self.model(release, secrets, datasets=datasets, created=created, shape=shape)
        composer.create(self.world, wanted, hide=secrets.values())
        given = worldmodel.injected(release, secrets)
        worlds.inject(self.docker, self.docker.containers(project=self.world), given)

    def leftovers(self) -> list[str]:
        """Containers and volumes that are there now."""
        label = f"{self.label}={self.owner}"
        found = [container.name for container in self.docker.listing(labels=[label])]
        return [*sorted(found), *sorted(self.docker.volumes(labels=[label]))]

    def clear(self) -> list[str]:
        """Remove every container, volume, network and file of it; the names of the first two."""
        found = self.leftovers()
        mine = {self.label: self.owner}
        label = f"{self.label}={self.owner}"
        for container in self.docker.listing(labels=[label]):
            self.docker.remove_container(container.id, force=True)
        for name in self.docker.volumes(labels=[label]):
            self.docker.remove_volume(name, labels=mine)
        project = {PROJECT: self.world}
        for name, volume in self.docker.volumes(labels=[f"{PROJECT}={self.world}"]).items():
            self.docker.remove_volume(name, labels={**project, VOLUME: volume.labels[VOLUME]})
        for network in self.docker.networks_of(self.world):
            self.docker.remove_network(network, labels=project)
        places.clear_files(self.catalog, self.world)
        self.catalog.clear_work(self.world)
        return found
