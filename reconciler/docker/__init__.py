"""The one seam to Docker and Compose: nobody else imports docker-py or runs `docker compose`.

Every error of docker-py and of `docker compose` becomes one of ours, with the name of the
container, volume or image in question. Times are seconds, sizes bytes. docker-py costs a tenth of
a second to import, so it is imported where it is first needed.
"""

from __future__ import annotations

from reconciler.docker.client import endpoint, speak_through_one_tunnel
from reconciler.docker.composeplugin import Compose
from reconciler.docker.containers import HELPER
from reconciler.docker.dockervalues import (
    CONFIG_HASH,
    HELD,
    NETWORK,
    ONE_OFF,
    OUR_DATASET,
    OUR_GENERATION,
    OUR_PROJECT,
    OUR_STACK,
    OUR_WORLD,
    PROJECT,
    SERVICE,
    VOLUME,
    ContainerDetails,
    DockerInfo,
    HealthTest,
    ImageInfo,
    Listed,
    NetworkInfo,
    Published,
    Usage,
    VolumeInfo,
)
from reconciler.docker.failing import PortTaken
from reconciler.docker.images import Images
from reconciler.docker.inside import Inside
from reconciler.docker.networks import Networks
from reconciler.docker.seen import Seen
from reconciler.docker.volumes import Volumes
from snapshots.drivers.base import ExecResult

__all__ = [
    "CONFIG_HASH",
    "HELD",
    "HELPER",
    "NETWORK",
    "ONE_OFF",
    "OUR_DATASET",
    "OUR_GENERATION",
    "OUR_PROJECT",
    "OUR_STACK",
    "OUR_WORLD",
    "PROJECT",
    "SERVICE",
    "VOLUME",
    "Compose",
    "ContainerDetails",
    "Docker",
    "DockerInfo",
    "ExecResult",
    "HealthTest",
    "ImageInfo",
    "Listed",
    "NetworkInfo",
    "PortTaken",
    "Published",
    "Usage",
    "VolumeInfo",
    "connect",
]


class Docker(Inside, Seen, Images, Volumes, Networks):
    """The daemon: all that is asked of it, by subject."""


def connect(reach: str = "auto") -> Docker:
    """The daemon of this environment (DOCKER_HOST, else the docker CLI's context, else the local
    socket); `reach`: see `reach.way`. Raises Unavailable when it does not answer."""
    address = endpoint()
    if address is not None and address.startswith("ssh:"):
        speak_through_one_tunnel(address)
    return Docker(address, reach)
