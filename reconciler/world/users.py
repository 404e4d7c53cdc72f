"""Who works on a volume or directory now, and which of them is the engine that it belongs to."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from reconciler.docker import ContainerDetails, Docker
from reconciler.errors import LockstepError
from snapshots.drivers import Driver


def users(docker: Docker, place: str, *, first: str = "") -> list[ContainerDetails]:
    """Running containers that mount a volume or a host path; those of the project `first` first."""
    found = []
    for listed in docker.listing(running=True):
        if place in listed.mounts:
            with suppress(LockstepError):  # gone meanwhile
                found.append(docker.inspect(listed.id))
    return sorted(found, key=lambda user: user.project != first)


def writes(user: ContainerDetails, place: str) -> bool:
    """Whether a container may write what it mounts from there."""
    return any(target not in user.read_only for target in _targets(user, place))


def engine(
    docker: Docker, driver: Driver, users: Sequence[ContainerDetails], place: str
) -> ContainerDetails | None:
    """The one whose image the driver knows, else the first that writes; None: only readers."""
    writing = [user for user in users if writes(user, place)]
    known = [user for user in writing if _is_known(docker, driver, user, place)]
    return next(iter(known or writing), None)


def _is_known(docker: Docker, driver: Driver, user: ContainerDetails, place: str) -> bool:
    image = docker.image(user.image_id)
    names = (user.image, *(image.tags if image else ()))
    return any(driver.recognises(name, at) for name in names for at in _targets(user, place))


def _targets(user: ContainerDetails, place: str) -> list[str]:
    return [target for target, source in user.volumes.items() if source == place]
