"""The connection to the daemon, and what it says of itself."""

from __future__ import annotations

import functools
import json
import os
import threading
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reconciler.docker.dockervalues import (
    DockerInfo,
)
from reconciler.docker.failing import mapped
from reconciler.errors import Unavailable

if TYPE_CHECKING:
    from docker import APIClient


_REQUEST_TIMEOUT = 60
_TRUE_HOST = "LOCKSTEP_DOCKER_HOST"


class Client:
    """A daemon. Safe to use from several threads: each has its own connection."""

    def __init__(self, endpoint: str | None = None, reach: str = "auto") -> None:
        self.endpoint = endpoint
        self.reach = reach
        self._local = threading.local()
        self._version = "auto"
        with mapped(f"Docker at {endpoint or 'the local socket'}"):
            self._version = self._api.api_version

    @property
    def _api(self) -> APIClient:
        client: APIClient | None = getattr(self._local, "client", None)
        if client is None:
            from docker import APIClient
            from docker.utils import kwargs_from_env

            options: dict[str, Any] = dict(kwargs_from_env())
            if self.endpoint is not None:
                options["base_url"] = self._address
            options["version"] = self._version
            client = APIClient(timeout=_REQUEST_TIMEOUT, **options)
            if client.base_url.startswith("http+docker:"):
                # No proxy leads to a socket, and looking for one takes longer than the request.
                client.trust_env = False
            self._local.client = client
        return client

    @property
    def _address(self) -> str:
        """Where the daemon is asked; one by ssh at a socket of this host."""
        assert self.endpoint is not None
        if not self.endpoint.startswith("ssh:"):
            return self.endpoint
        from reconciler.docker import sshtunnel

        return sshtunnel.forwarded(self.endpoint)

    @property
    def api_version(self) -> str:
        """The API's version, negotiated: `1.41`."""
        return self._version

    @functools.cached_property
    def info(self) -> DockerInfo:
        """What the daemon says of itself."""
        with mapped("docker info"):
            said = self._api.info()
        return DockerInfo(
            version=said["ServerVersion"],
            api=self._version,
            id=said.get("ID", ""),
            root=Path(said["DockerRootDir"]),
            memory=int(said.get("MemTotal", 0)),
            rootless="name=rootless" in (said.get("SecurityOptions") or ()),
        )

    @property
    def is_local(self) -> bool:
        """Whether it is asked through a socket of this host."""
        return self.endpoint is None or self.endpoint.startswith("unix:")

    @property
    def cli_environment(self) -> dict[str, str]:
        """The environment in which the docker command speaks to the same daemon."""
        return {**os.environ, **({"DOCKER_HOST": self._address} if self.endpoint else {})}


def endpoint() -> str | None:
    """Where the docker CLI would connect: Compose and we must speak to one daemon."""
    if os.environ.get("DOCKER_HOST"):
        return os.environ.get(_TRUE_HOST) or os.environ["DOCKER_HOST"]
    folder = Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker")
    context = os.environ.get("DOCKER_CONTEXT")
    if not context:
        with suppress(OSError, ValueError, AttributeError):
            context = json.loads((folder / "config.json").read_text()).get("currentContext")
    if not context or context == "default":
        return None
    from docker.context import ContextAPI

    found = ContextAPI.get_context(context)
    if found is None:
        raise Unavailable(
            f"the docker context {context} does not exist",
            next_step="docker context ls   shows those there are",
        )
    return str(found.Host)


def speak_through_one_tunnel(endpoint: str) -> None:
    """What this process starts (Compose, a plugin) asks the daemon at the same socket; one of ours
    is told the true address, and has a tunnel of its own, which lives as long as it does."""
    from reconciler.docker import sshtunnel

    os.environ["DOCKER_HOST"] = sshtunnel.forwarded(endpoint)
    os.environ[_TRUE_HOST] = endpoint
