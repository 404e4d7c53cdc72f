"""Everything that Docker has of one stack, and its removal for good. What is not labelled as the
stack's own is never touched; nor are records, ledger, store and what the project itself has."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from reconciler import clock
from reconciler.catalog import Catalog
from reconciler.config import Stack
from reconciler.docker import OUR_PROJECT, OUR_STACK, Compose, Docker
from reconciler.errors import LockstepError, Refused
from reconciler.records.ledger import AnyEvent, GenerationRemoved, State, WorldRemoved
from reconciler.records.release import Kind
from reconciler.world import imagehold
from reconciler.world.removal import remove_containers


@dataclass(frozen=True)
class Belongings:
    """What is removed, by full names; and what stays because it is not the stack's own."""

    containers: tuple[str, ...]
    networks: tuple[str, ...]
    volumes: tuple[str, ...]
    tags: tuple[str, ...]
    unsaved: tuple[str, ...]
    """Volumes with data of the live world: what it wrote since it is live may be nowhere else."""
    stays: tuple[str, ...]

    @property
    def any(self) -> bool:
        return bool(self.containers or self.networks or self.volumes or self.tags)


def belongings(stack: Stack, catalog: Catalog, docker: Docker) -> Belongings:
    """Raises Refused while any container of the stack runs."""
    state = catalog.state()
    containers = docker.listing(labels=_labels(stack))
    running = [c.name for c in containers if c.state in ("running", "restarting", "paused")]
    if running:
        raise Refused(
            f"{', '.join(sorted(running))} run: nothing is removed",
            next_step="lockstep snapshot   keeps today's data;   lockstep stop   stops everything",
        )
    volumes = docker.volumes(stack=(stack.project, stack.name))
    live = state.worlds[state.live].generations.values() if state.live else ()
    return Belongings(
        containers=tuple(
            sorted(c.name for c in (*containers, *imagehold.holders(stack, docker)))
        ),
        networks=tuple(sorted({n for w in _worlds(state) for n in docker.networks_of(w)}
                              | {*docker.networks_labelled(_labels(stack))})),
        volumes=tuple(sorted(volumes)),
        tags=tuple(sorted(_tags(catalog, docker, state))),
        unsaved=tuple(sorted(name for name in live if name in volumes)),
        stays=tuple(_stays(catalog, docker, state)),
    )  # fmt: skip


def dissolve(
    stack: Stack,
    catalog: Catalog,
    docker: Docker,
    composer: Compose,
    found: Belongings,
    say: Callable[[str], None],
) -> None:
    """Remove them; needs the host lock. Cut off anywhere, it can be run again. Raises Refused for
    what is not labelled as the stack's."""
    state = catalog.state()
    labels = {OUR_PROJECT: stack.project, OUR_STACK: stack.name}
    for world in _worlds(state):
        remove_containers(stack, docker, composer, world)
    for container in docker.listing(labels=_labels(stack)):
        docker.remove_container(container.id)
    imagehold.hold(stack, docker, {})
    for network in docker.networks_labelled(_labels(stack)):
        docker.remove_network(network, labels=labels)
    for volume in found.volumes:
        say(f"removing volume {volume}")
        docker.remove_volume(volume, labels=labels)
    for tag in found.tags:
        try:
            docker.untag(tag)
        except LockstepError as error:  # a container of somebody else runs it
            say(f"image tag {tag} stays: {error.message}")
    gone: list[AnyEvent] = [
        WorldRemoved(at=clock.now(), world=name)
        for name in _worlds(state)
        if not state.worlds[name].removed
    ]
    gone += [
        GenerationRemoved(at=clock.now(), generation=name)
        for name, generation in state.generations.items()
        if not generation.removed and name in found.volumes
    ]
    if gone:
        catalog.ledger.append(*gone)


def _labels(stack: Stack) -> list[str]:
    return [f"{OUR_PROJECT}={stack.project}", f"{OUR_STACK}={stack.name}"]


def _worlds(state: State) -> list[str]:
    """Worlds that are ours to remove: what was adopted we did not make."""
    return [world.name for world in state.worlds.values() if not world.adopted]


def _tags(catalog: Catalog, docker: Docker, state: State) -> set[str]:
    """Tags that releases gave, where they still are on the image that they were given to; of a
    pruned release also those that a container of an adopted project held until now."""
    there, own = docker.image_ids(), f"{catalog.stack.project}-"
    held = {t for t in there if t.startswith(own) and t.rpartition(":")[2] in state.pruned}
    images = [i for r in catalog.records()[0].values() for i in r.images.values()]
    found = {image.tag for image in images if there.get(image.tag) == image.id}
    latest = {(f"{image.tag.rpartition(':')[0]}:latest", image.id) for image in images}
    return found | held | {tag for tag, image_id in latest if there.get(tag) == image_id}


def _stays(catalog: Catalog, docker: Docker, state: State) -> list[str]:
    """Data in its own place, and a project that was adopted: whose they are removes them."""
    records = catalog.records()[0]
    places = {
        f"{'folder' if d.kind is Kind.BIND else 'volume'} {d.source or d.name} (dataset {d.name})"
        for record in records.values()
        for d in record.datasets.values()
        if d.shared or d.strategy == "in-place" or d.kind in (Kind.BIND, Kind.EXTERNAL)
    }
    adopted = {
        f"the compose project {world.name}, which was adopted, with its volumes "
        f"({', '.join(sorted(world.generations.values())) or 'none'})"
        for world in state.worlds.values()
        if world.adopted and docker.containers(project=world.name)
    }
    return sorted(places) + sorted(adopted)
