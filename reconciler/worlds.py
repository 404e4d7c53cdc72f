"""Making and removing a world: its generations, config files and containers, all stopped."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path

from reconciler import adoption, compose, journal, places, secretvalues, worldmodel
from reconciler.adoption import SEEN_RUNNING
from reconciler.catalog import Catalog
from reconciler.config import Stack
from reconciler.docker import (
    NETWORK,
    OUR_DATASET,
    OUR_GENERATION,
    OUR_PROJECT,
    OUR_STACK,
    OUR_WORLD,
    PROJECT,
    VOLUME,
    Compose,
    Docker,
)
from reconciler.errors import BadInput, LockstepError, Refused, Unavailable
from reconciler.ledger import (
    AnyEvent,
    Generation,
    GenerationMade,
    GenerationRemoved,
    State,
    World,
    WorldMade,
    WorldRemoved,
)
from reconciler.plan import Action, DatasetPlan, Plan
from reconciler.release import Dataset, Kind, Release

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


def remove(stack: Stack, catalog: Catalog, docker: Docker, composer: Compose, world: str) -> None:
    """Remove a world's containers and networks, and the generations that no other world needs.

    Raises Refused for the live and the previous world, one that a switch is unfinished for, one
    with running containers, and where data would be lost that is not in the store.
    """
    state = catalog.state()
    known = state.worlds.get(world)
    if known is not None:
        _guard_world(stack, catalog, state, known)
    _remove_containers(stack, docker, composer, world)
    if known is None:
        return
    for generation in _only_used_by(state, known):
        docker.remove_volume(generation.name, labels=_volume_labels(stack, generation))
    _remove_scratch(docker, world)
    removed: list[AnyEvent] = [
        GenerationRemoved(at=_now(), generation=generation.name)
        for generation in _only_used_by(state, known)
    ]
    if not known.removed:
        removed.insert(0, WorldRemoved(at=_now(), world=world))
    if removed:
        catalog.ledger.append(*removed)
    catalog.clear_work(world)
    places.clear_files(catalog, world)


def guard_images(
    stack: Stack,
    catalog: Catalog,
    docker: Docker,
    release: str,
) -> None:
    """Raises Refused while a release whose record is kept still needs its images.

    A tag that is gone or was moved to another image holds nothing of the release any more. Where
    the record cannot be read, the images get a second tag, so that they outlive the first.
    """
    good, damaged = catalog.records()
    state = catalog.state()
    if release in state.pruned:
        return
    if release in damaged:
        _keep_images_of_unreadable(stack, docker, release)
        return
    record = good.get(release)
    if record is None:
        return
    for image in record.images.values():
        found = docker.image(image.tag)
        if found is not None and found.id == image.id:
            raise Refused(
                f"image {image.tag} belongs to {release}, which is kept: not removed",
                next_step="lockstep list   shows what is kept; the window prunes what is not",
            )


def _keep_images_of_unreadable(stack: Stack, docker: Docker, release: str) -> None:
    for tag, image_id in docker.image_ids().items():
        if tag.startswith(f"{stack.project}-".lower()) and tag.endswith(f":{release}"):
            docker.tag(image_id, f"{tag}-kept")


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
        self._secure_what_is_attached()
        state = self.catalog.state()
        known = state.worlds.get(world)
        if known is not None and not known.removed:
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

    def _secure_what_is_attached(self) -> None:
        """A generation that is written again must be in the store as it was left."""
        attached = {d.generation for d in self.plan.datasets.values() if d.action is Action.ATTACH}
        owed = {d.generations[dataset] for d, dataset in self.catalog.state().debts()}
        if self.plan.from_world == self.plan.to_world or not attached & owed:
            return
        from reconciler import debts
        from snapshots.store import Store

        store = Store.open(self.stack.store)
        debts.capture_sealed(
            self.catalog, self.docker, store, self.progress, only=frozenset(attached)
        )

    # a world that is there ------------------------------------------------------------------

    def _complete(self, world: World) -> None:
        """Give a world of the ledger its missing containers back."""
        for generation in world.generations.values():
            places.place(self.docker, generation)
        release = self.catalog.record(world.release)
        present = Counter(
            c.service for c in self.docker.containers(project=world.name) if not c.one_off
        )
        missing = [
            service
            for service in compose.services(release.model)
            if present[service] < compose.replicas(release.model, service)
        ]
        if not missing:
            return
        if world.adopted:
            raise Refused(
                f"containers of the adopted project {world.name} are gone ({', '.join(missing)}): "
                "they are not Lockstep's to make",
                next_step="docker compose up --no-start   in the project's folder makes them",
            )
        self.progress(f"creating the missing containers of {world.name}: {', '.join(missing)}")
        self._create_containers(release, world.name, world.generations, created=frozenset())

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
        self._discard(world, state)
        try:
            for planned in self._new_generations():
                self._make_generation(world, planned)
            self._make_places_in_use(release)
            generations = self._generations()
            created = frozenset(
                d.name for d in self.plan.datasets.values() if d.action is Action.CREATE
            )
            self.progress(f"creating the containers of {world}")
            self._create_containers(release, world, generations, created)
        except BaseException:
            self.progress(f"removing what was begun of {world}")
            self._discard(world, state)
            raise
        self.catalog.ledger.append(*self._events(release, world, generations))

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

    def _discard(self, world: str, state: State) -> None:
        """Remove what a run that ended before the ledger knew of it has left of this world."""
        _remove_containers(self.stack, self.docker, self.composer, world)
        for planned in self._new_generations():
            if planned.generation not in state.generations:
                labels = self._labels(planned.name, planned.number)
                self.docker.remove_volume(planned.generation, labels=labels)
        self.catalog.clear_work(world)
        places.clear_files(self.catalog, world)

    def _make_generation(self, world: str, planned: DatasetPlan) -> None:
        labels = self._labels(planned.name, planned.number)
        volume = self.docker.create_volume(planned.generation, labels)
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
            from snapshots.restore import restore
            from snapshots.store import Store

            assert planned.snapshot is not None
            self.progress(f"restoring {planned.name} from snapshot {planned.snapshot[:12]}")
            restore(
                Store.open(self.stack.store),
                planned.snapshot,
                places.place(self.docker, volume.name),
                progress=places.in_mib(planned.name, self.progress),
            )

    def _labels(self, dataset: str, number: int) -> dict[str, str]:
        return _dataset_labels(self.stack, dataset, number)

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
                {PROJECT: self.stack.project, VOLUME: dataset.name},
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
        places.write_files(self.catalog, world, release)
        secrets = secretvalues.values(self.stack, release)
        model = worldmodel.world_model(
            release,
            project=self.stack.project,
            stack=self.stack.name,
            world=world,
            volumes=worldmodel.volumes_of(release, generations),
            created=created,
            networks=self._networks(release.model),
            files=places.files(self.catalog, world),
            secrets=secrets,
            engine_api=self.docker.api_version,
        )
        self.composer.create(world, model, hide=secrets.values())

    def _networks(self, model: compose.Model) -> dict[str, str]:
        """Key -> name of the networks that all worlds of the stack share; missing ones are made."""
        found = {}
        for key, body in compose.shared_networks(model).items():
            own = str(compose.plain(body.get("name", key)))
            ours = f"{self.stack.project}-{self.stack.name}_{key}"
            existing = next((n for n in (own, ours) if self.docker.network(n)), None)
            if existing is None and body.get("external"):
                raise BadInput(
                    f"the external network {own} does not exist",
                    next_step=f"docker network create {own}",
                )
            if existing is None:
                labels = {
                    OUR_PROJECT: self.stack.project,
                    OUR_STACK: self.stack.name,
                    NETWORK: key,
                }
                self.docker.create_network(ours, labels, compose.plain(dict(body)))
            found[key] = existing or ours
        return found

    def _events(
        self, release: Release, world: str, generations: Mapping[str, str]
    ) -> list[AnyEvent]:
        made: list[AnyEvent] = [
            GenerationMade(
                at=_now(),
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
                at=_now(),
                world=world,
                release=release.name,
                generations=dict(generations),
                fingerprint=secretvalues.fingerprint(self.stack, self.catalog, release),
                images={service: image.id for service, image in release.images.items()},
            )
        )
        return made


def _make_directory(dataset: Dataset) -> None:
    assert dataset.source is not None
    try:
        Path(dataset.source).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Unavailable(
            f"directory {dataset.source} of dataset {dataset.name} cannot be made: {error.strerror}"
        ) from None


def _remove_containers(stack: Stack, docker: Docker, composer: Compose, world: str) -> None:
    """Remove the containers and networks of a compose project that is one of our worlds."""
    found = docker.listing(labels=[f"{PROJECT}={world}"])
    ours = {OUR_PROJECT: stack.project, OUR_STACK: stack.name, OUR_WORLD: world}
    for container in found:
        if any(container.labels.get(key) != value for key, value in ours.items()):
            raise Refused(
                f"container {container.name} of compose project {world} is not Lockstep's: "
                "nothing of that project is removed",
                next_step=f"docker compose -p {world} ps -a   shows what it is",
            )
        if container.state in ("running", "restarting", "paused"):
            raise Refused(
                f"container {container.name} of {world} runs: not removed",
                next_step=f"docker compose -p {world} stop   stops what somebody started",
            )
    if found or docker.networks_of(world):
        composer.down(world)


def _remove_scratch(docker: Docker, world: str) -> None:
    for name, volume in docker.volumes(labels=[f"{PROJECT}={world}"]).items():
        docker.remove_volume(name, labels={PROJECT: world, VOLUME: volume.labels[VOLUME]})


def _guard_world(stack: Stack, catalog: Catalog, state: State, world: World) -> None:
    if world.name == state.live:
        raise Refused(
            f"{world.name} is live: not removed",
            next_step="declare another release first, or stop the stack with lockstep stop",
        )
    if world.name == state.previous:
        raise Refused(f"{world.name} is the previous world, where undo goes: not removed")
    if world.adopted:
        raise Refused(
            f"{world.name} was adopted, so its containers and volumes are yours: not removed",
            next_step=f"docker compose -p {world.name} rm   removes its stopped containers",
        )
    if world.name == journal.unfinished(catalog.journal):
        raise Refused(
            f"a switch to {world.name} is not finished: not removed",
            next_step="lockstep recover   finishes or reverts it",
        )
    lost = _only_copies(stack, state, world)
    if lost:
        raise Refused(
            f"{world.name} is not removed: {lost[0]} is not in the store",
            next_step="lockstep up   brings sealed data into the store",
        )


def _only_used_by(state: State, world: World) -> list[Generation]:
    """Generations of this world that no other world that still exists mounts."""
    others = {
        generation
        for other in state.worlds.values()
        if other.name != world.name and not other.removed
        for generation in other.generations.values()
    }
    return [
        state.generations[name]
        for name in world.generations.values()
        if name not in others and not state.generations[name].removed
    ]


def _only_copies(stack: Stack, state: State, world: World) -> list[str]:
    """Content that would be lost with the world's generations, in words."""
    going = {generation.name: generation for generation in _only_used_by(state, world)}
    wanted = [
        (departure, dataset, departure.snapshots.get(dataset))
        for departure in state.departures
        if departure.release not in state.pruned
        for dataset, name in departure.generations.items()
        if name in going and going[name].sealed == departure.seq
    ]
    if not wanted:
        return []
    present = _snapshots(stack)
    return [
        f"{dataset} as {departure.release} left it"
        for departure, dataset, snapshot in wanted
        if snapshot is None or snapshot not in present
    ]


def _snapshots(stack: Stack) -> set[str]:
    from snapshots.store import Store

    if not stack.store.exists():
        return set()
    return set(Store.open(stack.store, create=False).ids())


def _dataset_labels(stack: Stack, dataset: str, number: int) -> dict[str, str]:
    return {
        OUR_PROJECT: stack.project,
        OUR_STACK: stack.name,
        OUR_DATASET: dataset,
        OUR_GENERATION: str(number),
    }


def _volume_labels(stack: Stack, generation: Generation) -> dict[str, str]:
    return _dataset_labels(stack, generation.dataset, generation.number)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
