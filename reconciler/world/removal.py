"""Removing a world, and what stands before it: no data that is needed may go."""

from __future__ import annotations

from failpoints import failpoint
from reconciler import clock
from reconciler.catalog import Catalog
from reconciler.config import Stack
from reconciler.docker import (
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
from reconciler.errors import Refused
from reconciler.ingress import ingressfacts
from reconciler.records import journal
from reconciler.records.ledger import (
    AnyEvent,
    Generation,
    GenerationRemoved,
    State,
    World,
    WorldRemoved,
)
from reconciler.world import places


def remove(stack: Stack, catalog: Catalog, docker: Docker, composer: Compose, world: str) -> None:
    """Remove a world's containers and networks, and the generations that no other world needs.

    Raises Refused for the live and the previous world, one that a switch is unfinished for, one
    with running containers, and where data would be lost that is not in the store.
    """
    state = catalog.state()
    known = state.worlds.get(world)
    if known is not None:
        guard_world(catalog, docker, state, known)
        _insist_on_copies(stack, state, known)
    from reconciler.evidence import evidence  # nothing else in a preview needs it

    evidence.keep(stack, catalog, docker, world)
    failpoint("worlds.remove")
    remove_containers(stack, docker, composer, world)
    failpoint("worlds.remove-volumes")
    if known is None:
        return
    for generation in only_used_by(state, known):
        docker.remove_volume(generation.name, labels=_volume_labels(stack, generation))
        failpoint("worlds.volume-removed")
    _remove_scratch(docker, world)
    removed: list[AnyEvent] = [
        GenerationRemoved(at=clock.now(), generation=generation.name)
        for generation in only_used_by(state, known)
    ]
    if not known.removed:
        removed.insert(0, WorldRemoved(at=clock.now(), world=world))
    if removed:
        failpoint("worlds.remove-record")
        catalog.ledger.append(*removed)
    failpoint("worlds.removed")
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
    state = catalog.state()
    good, damaged = catalog.records(state)
    if state.was_pruned(release):
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


def remove_containers(stack: Stack, docker: Docker, composer: Compose, world: str) -> None:
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
    networks = docker.networks_of(world)
    if found or networks:
        ingressfacts.leave(docker, stack, networks)
        composer.down(world)


def _remove_scratch(docker: Docker, world: str) -> None:
    for name, volume in docker.volumes(labels=[f"{PROJECT}={world}"]).items():
        docker.remove_volume(name, labels={PROJECT: world, VOLUME: volume.labels[VOLUME]})


def guard_world(catalog: Catalog, docker: Docker, state: State, world: World) -> None:
    """Raises Refused when a world may not be removed, whatever is in the store."""
    if world.name == state.live:
        raise Refused(
            f"{world.name} is live: not removed",
            next_step="declare another release first, or stop the stack with lockstep stop",
        )
    if world.name == state.previous and not world.removed:
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
    listed = docker.listing(labels=[f"{PROJECT}={world.name}"])
    if not world.touched and any(container.state != "created" for container in listed):
        raise Refused(
            f"containers of {world.name} ran, but the ledger knows nothing of it: what they wrote "
            "may be the only copy, so it is not removed",
            next_step="put the newest copy of the ledger back; or, if nobody needs that data, "
            f"docker compose -p {world.name} rm",
        )


def _insist_on_copies(stack: Stack, state: State, world: World) -> None:
    lost = _only_copies(stack, state, world)
    if lost:
        raise Refused(
            f"{world.name} is not removed: {lost[0]} is not in the store",
            next_step="lockstep up   brings sealed data into the store",
        )


def only_used_by(state: State, world: World) -> list[Generation]:
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
    going = {generation.name: generation for generation in only_used_by(state, world)}
    wanted = [
        (departure, dataset, departure.snapshots.get(dataset))
        for departure in state.departures
        if not state.was_pruned(departure.release)
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
    if not stack.store.exists():
        return set()
    store = stack.open_store(create=False)
    return set(store.ids())


def generation_labels(stack: Stack, dataset: str, number: int) -> dict[str, str]:
    """What marks a generation's volume as ours."""
    return {
        OUR_PROJECT: stack.project,
        OUR_STACK: stack.name,
        OUR_DATASET: dataset,
        OUR_GENERATION: str(number),
    }


def _volume_labels(stack: Stack, generation: Generation) -> dict[str, str]:
    return generation_labels(stack, generation.dataset, generation.number)
