"""Making a world: its generations, config files and containers, all stopped."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from failpoints import failpoint
from reconciler import clock
from reconciler.catalog import Catalog
from reconciler.config import Stack
from reconciler.docker import (
    HELD,
    NETWORK,
    OUR_PROJECT,
    OUR_STACK,
    PROJECT,
    VOLUME,
    Compose,
    Docker,
)
from reconciler.errors import BadInput, CatalogDamaged, LockstepError, Refused, Unavailable
from reconciler.facts import Container
from reconciler.making import adoption
from reconciler.making.adoption import SEEN_RUNNING
from reconciler.plan import Action, DatasetPlan, Plan
from reconciler.planning import fitness
from reconciler.project import allowed, compose, secretvalues
from reconciler.reaching.reach import restore
from reconciler.records.ledger import AnyEvent, GenerationMade, State, World, WorldMade
from reconciler.records.release import Dataset, Kind, Release
from reconciler.upkeep import integrity, mending
from reconciler.world import leftovers, places, removal, worldmodel
from reconciler.world.removal import guard_images, remove
from reconciler.world.worldmodel import Injected
from snapshots.errors import Damaged

__all__ = ["guard_images", "make", "remove"]

Progress = Callable[[str], None]


def make(
    stack: Stack,
    catalog: Catalog,
    docker: Docker,
    composer: Compose,
    plan: Plan,
    progress: Progress,
) -> None:
    """Make the plan's target world, as far as that is possible while the old world runs.

    Safe to repeat after any crash: what a dead run left half-made is made anew, a world that is in
    the ledger only gets its missing containers back. Needs the host lock. Raises Refused,
    BadInput, DockerFailed and errors of `snapshots`; what was begun is removed again.
    """
    _Making(stack, catalog, docker, composer, plan, progress).make()


def insist_on_images(docker: Docker, release: Release, services: Iterable[str]) -> None:
    """Raises Refused unless the images of these services are what the release recorded."""
    for service in services:
        image = release.images[service]
        found = docker.image(image.tag)
        if found is None or found.id != image.id:
            what = "is missing" if found is None else "is another image now"
            raise Refused(
                f"image {image.tag} of {release.name} {what}",
                next_step="lockstep doctor   names what is missing",
            )


class _Making:
    def __init__(
        self,
        stack: Stack,
        catalog: Catalog,
        docker: Docker,
        composer: Compose,
        plan: Plan,
        progress: Progress,
    ) -> None:
        self.stack = stack
        self.catalog = catalog
        self.docker = docker
        self.composer = composer
        self.plan = plan
        self.progress = progress

    def make(self) -> None:
        world = self.plan.to_world
        if world is None:
            raise LockstepError("the plan names no world to make")
        self._adopt_first()
        state = self.catalog.state()
        known = state.worlds.get(world)
        if known is not None and not known.removed:
            leftovers.forget(self.catalog, world)
            self._complete(known)
        else:
            self._make_anew(world, state)

    def _adopt_first(self) -> None:
        if self.plan.adopt_project is None or self.catalog.state().live is not None:
            return
        self.progress(f"adopting {self.plan.adopt_project} as {self.plan.adopted_release}")
        found = adoption.draft(self.stack, self.docker, self.composer)
        if found is None:
            raise Refused(
                f"nothing of compose project {self.plan.adopt_project} runs any more",
                next_step="run it again: the plan is made from what runs now",
            )
        adoption.adopt(self.stack, self.catalog, self.docker, found)

    # a world that is there ------------------------------------------------------------------

    def _complete(self, world: World) -> None:
        """Give a world of the ledger its missing containers back."""
        for generation in world.generations.values():
            places.place(self.docker, generation)
        present = Counter(
            c.service for c in self.docker.containers(project=world.name) if not c.one_off
        )
        try:
            release = self.catalog.record(world.release)
        except CatalogDamaged as error:
            if not present:
                raise
            self.progress(f"{error.message}: the containers of {world.name} are left as they are")
            return
        missing = [
            service
            for service in compose.services(release.model)
            if present[service] < compose.replicas(release.model, service)
        ]
        self._put_files_right(release, world)
        if not missing:
            if not world.adopted:
                # A run that died after it created containers would leave them without.
                self._inject(release, world.name)
            return
        if world.adopted:
            raise Refused(
                f"containers of the adopted project {world.name} are gone ({', '.join(missing)}): "
                "they are not Lockstep's to make",
                next_step="docker compose up --no-start   in the project's folder makes them",
            )
        self.progress(f"creating the missing containers of {world.name}: {', '.join(missing)}")
        self._create_containers(release, world.name, world.generations, created=frozenset())

    def _put_files_right(self, release: Release, world: World) -> None:
        """Containers mount them from a folder, where whoever is root could write since."""
        if world.adopted:
            return
        altered = places.altered_files(self.catalog, world.name, release)
        if altered:
            self.progress(f"{altered[0]} is not as {release.name} has it: put back")
            places.write_files(self.catalog, world.name, release)

    # a new world ----------------------------------------------------------------------------

    def _make_anew(self, world: str, state: State) -> None:
        release = self.catalog.record(self._release_of_target())
        if release.model.get(SEEN_RUNNING):
            raise Refused(
                f"a new world of {release.name} cannot be made: its compose file had changed "
                "when it was adopted, so only its own containers are what it was",
                next_step="lockstep new   with the old compose file makes a release like it",
            )
        secretvalues.values(self.stack, release)
        live = state.worlds.get(state.live or "")
        fitness.insist_on_sources(
            self.stack, self.docker, self.plan.datasets.values(), self._record_of(live), release
        )
        volumes = {d.generation: self._labels(d) for d in self._new_generations()}
        leftovers.clear(self.stack, self.catalog, self.docker, self.composer, state)
        leftovers.insist_on_none(self.stack, self.docker, state, world, volumes)
        leftovers.note(self.catalog, world, volumes)
        failpoint("worlds.noted")
        try:
            for planned in self._new_generations():
                self._make_generation(world, planned)
                if planned.action is Action.RESTORE:
                    fitness.insist_on_restored(self.stack, self.docker, planned, release)
            failpoint("worlds.filled")
            self._make_places_in_use(release)
            generations = self._generations()
            created = frozenset(
                d.name for d in self.plan.datasets.values() if _may_be_filled_by_image(d)
            )
            self.progress(f"creating the containers of {world}")
            self._create_containers(release, world, generations, created)
            failpoint("worlds.created")
        except BaseException:
            self.progress(f"removing what was begun of {world}")
            leftovers.clear(self.stack, self.catalog, self.docker, self.composer, state)
            raise
        self.catalog.ledger.append(*self._events(release, world, generations))
        failpoint("worlds.recorded")
        leftovers.forget(self.catalog, world)

    def _record_of(self, world: World | None) -> Release | None:
        """None also when it cannot be read: a world can be left without its record."""
        if world is None:
            return None
        with suppress(CatalogDamaged):
            return self.catalog.record(world.release)
        return None

    def _release_of_target(self) -> str:
        if self.plan.target is None:
            raise LockstepError("the plan names no release")
        return self.plan.target

    def _new_generations(self) -> list[DatasetPlan]:
        return [planned for planned in self.plan.datasets.values() if planned.new]

    def _generations(self) -> dict[str, str]:
        return {
            name: planned.generation
            for name, planned in self.plan.datasets.items()
            if planned.new or planned.action is Action.ATTACH
        }

    def _make_generation(self, world: str, planned: DatasetPlan) -> None:
        labels = self._own_labels(planned.name) | self._labels(planned)
        self.docker.create_volume(planned.generation, labels, options=HELD)
        failpoint("worlds.volume")
        if planned.action is Action.FORK:
            assert planned.source is not None
            self.progress(f"forking {planned.name} from {planned.source}")
            places.fork(
                self.catalog,
                self.docker,
                world,
                planned.name,
                planned.source,
                planned.generation,
                self.progress,
            ).first_pass()
        elif planned.action is Action.RESTORE:
            self._restore(world, planned)

    def _restore(self, world: str, planned: DatasetPlan) -> None:
        """From the store; what is damaged there is mended first, if it can be."""

        assert planned.snapshot is not None
        store = self.stack.open_store()
        snapshot = planned.snapshot
        fill = partial(
            restore,
            store,
            snapshot,
            places.place(self.docker, planned.generation),
            twins=places.twins(self.catalog, world, planned.name),
            pace=places.pace(self.stack) if self.catalog.state().live else None,
            progress=places.in_mib(planned.name, self.progress),
        )
        self.progress(f"restoring {planned.name} from snapshot {snapshot[:12]}")
        try:
            fill()
        except Damaged:
            mending.insist_on_whole(
                store,
                [snapshot],
                lambda: integrity.sealed_folders(self.catalog.state(), self.docker),
                self.progress,
                state=self.catalog.state(),
                release=self.plan.target,
            )
            fill(in_place=True)

    def _own_labels(self, dataset: str) -> dict[str, str]:
        """What the compose file gives the volume as labels: backup tools go by them."""
        model = self.catalog.record(self._release_of_target()).model
        return compose.labels((model.get("volumes") or {}).get(dataset))

    def _labels(self, planned: DatasetPlan) -> dict[str, str]:
        return removal.generation_labels(self.stack, planned.name, planned.number)

    def _make_places_in_use(self, release: Release) -> None:
        """Volumes and directories worked on in place have to exist before containers do."""
        for dataset in release.datasets.values():
            planned = self.plan.datasets.get(dataset.name)
            if planned is not None and planned.action in (Action.IN_PLACE, Action.LEAVE):
                self._make_place(release, dataset)

    def _make_place(self, release: Release, dataset: Dataset) -> None:
        if dataset.source is None or not dataset.mounts:
            return
        if dataset.kind is Kind.BIND:
            _make_directory(dataset)
        elif self.docker.volume(dataset.source) is None:
            if dataset.kind is Kind.EXTERNAL:
                raise BadInput(
                    f"the external volume {dataset.source} of dataset {dataset.name} does not "
                    "exist",
                    next_step=f"docker volume create {dataset.source}",
                )
            body = (release.model.get("volumes") or {}).get(dataset.name) or {}
            # As plain compose would have made it, so that it can still be used that way.
            self.docker.create_volume(
                dataset.source,
                compose.labels(body) | {PROJECT: self.stack.project, VOLUME: dataset.name},
                driver=body.get("driver", "local"),
                options=compose.plain(body.get("driver_opts") or {}),
            )

    def _create_containers(
        self,
        release: Release,
        world: str,
        generations: Mapping[str, str],
        created: frozenset[str],
    ) -> None:
        allowed.insist_on_record(self.stack, release)
        places.write_files(self.catalog, world, release)
        failpoint("worlds.files")
        secrets = secretvalues.values(self.stack, release)
        model = worldmodel.world_model(
            release,
            project=self.stack.project,
            stack=self.stack.name,
            world=world,
            volumes=worldmodel.volumes_of(release, generations),
            created=created,
            networks=networks(self.stack, self.docker, release.model),
            files=places.files(self.catalog, world),
            secrets=secrets,
            engine_api=self.docker.api_version,
            ingress=self.stack.settings.ingress,
        )
        self.composer.create(world, model, hide=secrets.values())
        failpoint("worlds.containers")
        self._inject(release, world)

    def _inject(self, release: Release, world: str) -> None:
        """Give containers that never ran the files that Compose would give them at their start."""
        if not worldmodel.has_injected(release):
            return
        waiting = [c for c in self.docker.containers(project=world) if c.state == "created"]
        if not waiting:
            return  # then a secret that is not in the config any more is not missed
        files = worldmodel.injected(release, secretvalues.values(self.stack, release))
        inject(self.docker, waiting, files)

    def _events(
        self, release: Release, world: str, generations: Mapping[str, str]
    ) -> list[AnyEvent]:
        made: list[AnyEvent] = [
            GenerationMade(
                at=clock.now(),
                name=planned.generation,
                dataset=planned.name,
                number=planned.number,
                parent=planned.source if planned.action is Action.FORK else None,
                action=planned.action.value,
                snapshot=planned.snapshot,
                world=world,
            )
            for planned in self._new_generations()
        ]
        made.append(
            WorldMade(
                at=clock.now(),
                world=world,
                release=release.name,
                generations=dict(generations),
                fingerprint=secretvalues.fingerprint(self.stack, self.catalog, release),
                images={service: image.id for service, image in release.images.items()},
            )
        )
        return made


def networks(stack: Stack, docker: Docker, model: compose.Model) -> dict[str, str]:
    """Key -> name of the networks that all worlds of the stack share; missing ones are made."""
    found = {}
    for key, body in compose.shared_networks(model).items():
        own = str(compose.plain(body.get("name", key)))
        ours = f"{stack.project}-{stack.name}_{key}"
        if compose.has_own_name(model, key):
            ours = own  # others join it by this name
        existing = next((n for n in (own, ours) if docker.network(n)), None)
        if existing is None and body.get("external"):
            raise BadInput(
                f"the external network {own} does not exist",
                next_step=f"docker network create {own}",
            )
        if existing is None:
            labels = compose.labels(body) | {
                OUR_PROJECT: stack.project,
                OUR_STACK: stack.name,
                NETWORK: key,
            }
            docker.create_network(ours, labels, compose.plain(dict(body)))
        found[key] = existing or ours
    return found


def one_off_model(
    stack: Stack, catalog: Catalog, docker: Docker, release: Release, world: World
) -> dict[str, Any]:
    """The model of a world that is there, for one-off containers of its services. It holds
    secrets. Raises BadInput when one is missing."""
    return worldmodel.world_model(
        release,
        project=stack.project,
        stack=stack.name,
        world=world.name,
        volumes=worldmodel.volumes_of(release, world.generations),
        created=frozenset(),
        networks=networks(stack, docker, release.model),
        files=places.files(catalog, world.name),
        secrets=secretvalues.values(stack, release),
        engine_api=docker.api_version,
        one_off=True,
    )


def inject(
    docker: Docker, waiting: Iterable[Container], files: Mapping[str, Sequence[Injected]]
) -> None:
    """Put into each container, before it is started, the `files` of its service."""
    for container in waiting:
        for file in files.get(container.service, ()):
            docker.put_file(
                container.id,
                file.target,
                file.content,
                mode=file.mode,
                uid=file.uid,
                gid=file.gid,
            )


def _may_be_filled_by_image(planned: DatasetPlan) -> bool:
    """Docker fills an empty volume from the image, but never one that was restored or forked."""
    in_use = planned.action in (Action.IN_PLACE, Action.LEAVE)
    return planned.action is Action.CREATE or (in_use and planned.snapshot is None)


def _make_directory(dataset: Dataset) -> None:
    assert dataset.source is not None
    try:
        Path(dataset.source).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Unavailable(
            f"directory {dataset.source} of dataset {dataset.name} cannot be made: {error.strerror}"
        ) from None
