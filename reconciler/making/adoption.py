"""Adopting: the compose project that ran before Lockstep came, seen as a release and a world.

Nothing of the running containers is changed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from failpoints import failpoint
from reconciler import clock, names
from reconciler.catalog import Catalog
from reconciler.config import DatasetSetting, Stack
from reconciler.docker import (
    CONFIG_HASH,
    PROJECT,
    VOLUME,
    Compose,
    ContainerDetails,
    Docker,
    VolumeInfo,
)
from reconciler.errors import BadInput
from reconciler.facts import Container
from reconciler.project import compose, jobs, source
from reconciler.records.ledger import Adopted
from reconciler.records.release import Dataset, Image, Release, Strategy
from reconciler.world import places

SEEN_RUNNING = "x-seen-running"
"""Marks the model of an adopted release that its containers were not made from exactly."""
_ANONYMOUS = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True)
class Draft:
    """The plain project as a release, not yet recorded."""

    release: Release
    contents: Mapping[str, bytes]
    generations: Mapping[str, str]
    """dataset -> its volume (or path), of datasets that can be forked."""


def plain_project(
    project: str, containers: Iterable[Container], services: Iterable[str]
) -> tuple[Container, ...]:
    """The containers of a project that can be adopted: some run, of services that are known."""
    found = tuple(c for c in containers if c.project == project and not c.one_off)
    running = {c.service for c in found if c.state == "running"}
    return found if running & set(services) else ()


def draft(stack: Stack, docker: Docker, composer: Compose) -> Draft | None:
    """The running project of the stack's name as a release; None when nothing of it runs."""
    containers = [c for c in docker.containers(project=stack.project) if not c.one_off]
    if not any(c.state == "running" for c in containers):
        return None
    by_service: dict[str, ContainerDetails] = {}
    for container in containers:
        by_service.setdefault(container.service, docker.inspect(container.id))
    model = _declared_model(stack, docker, composer, by_service)
    if model is not None:
        model = jobs.marked(model, containers)
        defined = source.define(
            stack, model, _image_volumes(docker, by_service), partial(places.plain, docker, stack)
        )
    else:
        model = jobs.marked(_seen_model(stack, docker, by_service), containers)
        defined = source.define(
            _speaking_only_of(stack, model), model, {}, partial(places.plain, docker, stack)
        )
    datasets, generations = _as_mounted(defined.datasets, by_service)
    release = Release(
        name=names.release_name(stack.name, names.ADOPTED_NUMBER),
        parent=None,
        created=clock.now(),
        description="the compose project that ran before Lockstep came",
        model=defined.model,
        images=_images(stack, docker, by_service),
        datasets=datasets,
        configs=defined.configs,
        secrets=defined.secrets,
        adopted=True,
    )
    return Draft(release, defined.contents, generations)


def adopt(stack: Stack, catalog: Catalog, docker: Docker, found: Draft) -> None:
    """Record the drafted release as the first world, live; needs the host lock."""
    for image in found.release.images.values():
        docker.tag(image.id, image.tag)
    failpoint("worlds.adopt-tagged")
    catalog.write(found.release, found.contents)
    failpoint("worlds.adopt-recorded")
    catalog.ledger.append(
        Adopted(
            at=found.release.created,
            world=stack.project,
            release=found.release.name,
            generations=dict(found.generations),
        )
    )


def _declared_model(
    stack: Stack,
    docker: Docker,
    composer: Compose,
    by_service: Mapping[str, ContainerDetails],
) -> dict[str, Any] | None:
    """What the compose file says now, if it still has the services and volumes that run; marked
    as only seen when the containers were not made from exactly this."""
    try:
        model = source.read_model(stack, composer)
    except BadInput:
        return None
    if set(compose.services(model)) != set(by_service):
        return None
    if _volumes_declared(model) != _volumes_mounted(stack, docker, by_service):
        return None
    hashes = source.hashes(stack, composer)
    exact = all(hashes.get(s) == c.labels.get(CONFIG_HASH) for s, c in by_service.items())
    return model if exact else {**model, SEEN_RUNNING: True}


def _volumes_declared(model: compose.Model) -> set[tuple[str, str, str]]:
    """(service, target, volume) of the named volumes."""
    declared: Mapping[str, Any] = model.get("volumes") or {}
    return {
        (service, compose.plain(m["target"]), compose.plain(declared[m["source"]]["name"]))
        for service, body in compose.services(model).items()
        for m in body.get("volumes") or ()
        if m.get("type") == "volume" and m.get("source")
    }


def _volumes_mounted(
    stack: Stack, docker: Docker, by_service: Mapping[str, ContainerDetails]
) -> set[tuple[str, str, str]]:
    known = docker.volumes()
    return {
        (service, target, name)
        for service, container in by_service.items()
        for target, name in container.volumes.items()
        if name in known and _key(stack, known[name]) is not None
    }


def _key(stack: Stack, volume: VolumeInfo) -> str | None:
    """What the project calls a volume; None for one without a name."""
    if volume.labels.get(PROJECT) == stack.project and volume.labels.get(VOLUME):
        return volume.labels[VOLUME]
    return None if _ANONYMOUS.fullmatch(volume.name) else volume.name


def _seen_model(
    stack: Stack, docker: Docker, by_service: Mapping[str, ContainerDetails]
) -> dict[str, Any]:
    """The least that is true of the containers: images and volumes, no environment."""
    services: dict[str, Any] = {}
    volumes: dict[str, Any] = {}
    known = docker.volumes()
    for service, container in by_service.items():
        mounts: list[dict[str, Any]] = []
        for target, name in container.volumes.items():
            if name not in known:
                continue
            key = _key(stack, known[name])
            if key is not None:
                own = known[name].labels.get(PROJECT) == stack.project
                volumes[key] = {"name": name} if own else {"name": name, "external": True}
                mounts.append({"type": "volume", "source": key, "target": target})
            elif any(_speaks_of(s, service, target) for s in stack.settings.datasets.values()):
                mounts.append({"type": "volume", "target": target})
        services[service] = {
            "image": container.image,
            "restart": container.restart_policy,
            "volumes": mounts,
        }
    return {"name": stack.project, "services": services, "volumes": volumes, SEEN_RUNNING: True}


def _speaks_of(said: DatasetSetting, service: str, target: str) -> bool:
    return said.service == service and (said.target or "").rstrip("/") == target.rstrip("/")


def _speaking_only_of(stack: Stack, model: compose.Model) -> Stack:
    """The stack without settings for datasets that the containers do not have."""
    nameless = [
        (service, mount["target"])
        for service, body in compose.services(model).items()
        for mount in body["volumes"]
        if "source" not in mount
    ]
    known = {
        name: said
        for name, said in stack.settings.datasets.items()
        if name in model["volumes"] or any(_speaks_of(said, *place) for place in nameless)
    }
    settings = stack.settings.model_copy(update={"datasets": known})
    return stack.model_copy(update={"settings": settings})


def _image_volumes(
    docker: Docker, by_service: Mapping[str, ContainerDetails]
) -> dict[str, tuple[str, ...]]:
    found = {}
    for service, container in by_service.items():
        image = docker.image(container.image_id)
        found[service] = image.volumes if image else ()
    return found


def _as_mounted(
    datasets: Mapping[str, Dataset], by_service: Mapping[str, ContainerDetails]
) -> tuple[dict[str, Dataset], dict[str, str]]:
    """The datasets that the containers really mount, with the volumes that they mount."""
    found: dict[str, Dataset] = {}
    generations: dict[str, str] = {}
    for name, dataset in datasets.items():
        mounted = mounted_volume(dataset, by_service)
        if mounted is None and dataset.mounts:
            continue
        found[name] = dataset.model_copy(update={"source": mounted or dataset.source, "was": None})
        if mounted is not None and dataset.strategy is Strategy.FORK and not dataset.shared:
            generations[name] = mounted
    return found, generations


def mounted_volume(dataset: Dataset, by_service: Mapping[str, ContainerDetails]) -> str | None:
    """The volume (or path) that containers have where a dataset is mounted."""
    for mount in dataset.mounts:
        container = by_service.get(mount.service)
        if container is not None:
            for target, name in container.volumes.items():
                if target.rstrip("/") == mount.target.rstrip("/"):
                    return name
    return None


def _images(
    stack: Stack, docker: Docker, by_service: Mapping[str, ContainerDetails]
) -> dict[str, Image]:
    found = {}
    release = names.release_name(stack.name, names.ADOPTED_NUMBER)
    for service, container in by_service.items():
        image = docker.image(container.image_id)
        if image is None:
            raise BadInput(
                f"the image of the running service {service} was removed: it cannot be adopted",
                next_step="docker compose up -d   in the project's folder, then run this again",
            )
        found[service] = Image(
            service=service,
            tag=names.image_tag(stack.project, service, release),
            id=image.id,
            digests=image.digests,
            source=container.image,
            bytes=image.bytes,
        )
    return found
