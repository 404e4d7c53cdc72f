"""Containers: found, made, started, stopped, removed."""

from __future__ import annotations

import io
import math
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from reconciler.docker import dockervalues as values
from reconciler.docker.client import Client
from reconciler.docker.dockervalues import (
    OUR_PROJECT,
    OUR_STACK,
    PROJECT,
    SERVICE,
    ContainerDetails,
    Listed,
    Published,
)
from reconciler.docker.failing import PortTaken, mapped, suppress_conflict
from reconciler.errors import DockerFailed, LockstepError
from reconciler.facts import Container

HELPER = "lockstep.helper"
"""Label of helper containers: they use volumes for us, and are nobody's."""
_PORT_TAKEN = ("port is already allocated", "address already in use")


class Containers(Client):
    """What is done with containers from outside."""

    def listing(
        self,
        *,
        running: bool = False,
        labels: Sequence[str] = (),
        volume: str | None = None,
        helpers: bool = False,
    ) -> tuple[Listed, ...]:
        """All containers in one request, our own helpers only if asked for; `labels` as `name` or
        `name=value`, all of which must fit."""
        filters: dict[str, Any] = {"label": list(labels)} if labels else {}
        if volume is not None:
            filters["volume"] = volume
        with mapped("the list of containers"):
            found = self._api.containers(all=not running, filters=filters)
        listed = (values.listed(entry) for entry in found)
        return tuple(each for each in listed if helpers or HELPER not in each.labels)

    def containers(
        self,
        *,
        project: str | None = None,
        stack: tuple[str, str] | None = None,
        volume: str | None = None,
        running: bool = False,
    ) -> tuple[Container, ...]:
        """The containers of a compose project, of a stack's worlds, or that mount a volume."""
        labels = [f"{PROJECT}={project}"] if project else []
        if stack is not None:
            labels += [f"{OUR_PROJECT}={stack[0]}", f"{OUR_STACK}={stack[1]}"]
        listed = self.listing(running=running, labels=labels, volume=volume)
        return self.facts(entry.id for entry in listed)

    def facts(self, container_ids: Iterator[str] | Sequence[str]) -> tuple[Container, ...]:
        """Each container as `decide` sees it; one that went away meanwhile is left out."""
        found = []
        for container_id in container_ids:
            said = self._inspect(container_id)
            if said is not None:
                found.append(values.container(said))
        return tuple(found)

    def inspect(self, container_id: str) -> ContainerDetails:
        """One container in full. Raises DockerFailed when there is none."""
        said = self._inspect(container_id)
        if said is None:
            raise DockerFailed(f"container {container_id[:12]} does not exist any more")
        return values.details(said)

    def start(self, container_id: str) -> None:
        """Start a container, or let one that is frozen go on. Raises PortTaken when a port it
        publishes is not free (yet)."""
        from docker.errors import APIError

        with self._mapped_container("start", container_id):
            try:
                self._api.start(container_id)
            except APIError:
                if not self._api.inspect_container(container_id)["State"]["Paused"]:
                    raise
                self._api.unpause(container_id)

    def stop(self, container_id: str, grace: float | None = None) -> None:
        """Stop it with its stop signal, and kill it after `grace` (default: its own) seconds."""
        with self._mapped_container("stop", container_id):
            if grace is None:
                grace = values.grace(self._api.inspect_container(container_id))
            self._api.stop(container_id, timeout=max(0, math.ceil(grace)))

    def kill(self, container_id: str) -> None:
        """Kill it at once; one that does not run is left as it is."""
        from docker.errors import APIError

        with self._mapped_container("kill", container_id), suppress_conflict(APIError):
            self._api.kill(container_id)

    def create_idle(self, name: str, image_id: str, labels: Mapping[str, str]) -> str:
        """A container that does nothing and comes back with the daemon; its id. It is of no compose
        project, whatever its image's labels say, and has no network and no volume."""
        from docker.types import LogConfig

        with mapped(f"container {name}"):
            api: Any = self._api
            config = api.inspect_image(image_id)["Config"] or {}
            said = api.create_container(
                image_id,
                name=name,
                entrypoint=["tail"],
                command=["-f", "/dev/null"],
                labels={**dict.fromkeys((PROJECT, SERVICE), ""), **labels},
                stop_signal="SIGKILL",
                healthcheck={"test": ["NONE"]},
                host_config=api.create_host_config(
                    network_mode="none",
                    restart_policy={"Name": "always"},
                    read_only=True,
                    cap_drop=["ALL"],
                    security_opt=["no-new-privileges"],
                    pids_limit=4,
                    log_config=LogConfig(type="none"),
                    # An image's VOLUME would become one.
                    tmpfs=dict.fromkeys(config.get("Volumes") or (), "size=4k"),
                ),
            )
        return str(said["Id"])

    def create_server(
        self,
        name: str,
        image_id: str,
        *,
        command: Sequence[str],
        labels: Mapping[str, str],
        user: str,
        network: str,
        publish: Published,
        folders: Mapping[str, tuple[str, bool]],
        sysctls: Mapping[str, str],
    ) -> str:
        """A container that serves one port for us, not started; its id. It may do nothing but that:
        no root, no capability, nothing to write. `folders`: of the host -> (inside, writable)."""
        from docker.types import LogConfig

        with mapped(f"container {name}"):
            api: Any = self._api
            config = api.inspect_image(image_id)["Config"] or {}
            address = (publish.host_ip, publish.port) if publish.host_ip else publish.port
            said = api.create_container(
                image_id,
                name=name,
                entrypoint=[command[0]],
                command=list(command[1:]),
                user=user,
                labels={**dict.fromkeys((PROJECT, SERVICE), ""), **labels},
                ports=[publish.container_port],
                stop_signal="SIGKILL",  # nothing of it is worth waiting for
                healthcheck={"test": ["NONE"]},
                host_config=api.create_host_config(
                    network_mode=network,
                    port_bindings={publish.container_port: address},
                    binds={
                        folder: {"bind": inside, "mode": "rw" if writable else "ro"}
                        for folder, (inside, writable) in folders.items()
                    },
                    read_only=True,
                    cap_drop=["ALL"],
                    security_opt=["no-new-privileges"],
                    sysctls=dict(sysctls),
                    log_config=LogConfig(type="json-file", config={"max-size": "1m"}),
                    tmpfs=dict.fromkeys(config.get("Volumes") or (), "size=4k"),
                ),
            )
        return str(said["Id"])

    def remove_container(self, container_id: str, force: bool = False) -> None:
        """Remove it with its anonymous volumes; named ones stay. Gone already is fine."""
        from docker.errors import NotFound

        with self._mapped_container("remove", container_id), suppress(NotFound):
            self._api.remove_container(container_id, v=True, force=force)

    def pause(self, container_id: str) -> None:
        """Freeze all its processes."""
        with self._mapped_container("freeze", container_id):
            self._api.pause(container_id)

    def unpause(self, container_id: str) -> None:
        """Let its processes go on; one that is not frozen, or gone, is left as it is."""
        from docker.errors import APIError, NotFound

        with self._mapped_container("thaw", container_id), suppress(NotFound):
            try:
                self._api.unpause(container_id)
            except APIError:
                if self._api.inspect_container(container_id)["State"]["Paused"]:
                    raise

    def wait_exit(self, container_id: str, timeout: float) -> int | None:
        """Its exit code, or None when it still runs after `timeout` or was never started."""
        import requests

        with (
            self._mapped_container("wait for", container_id),
            suppress(requests.ReadTimeout, requests.ConnectionError),
        ):
            api: Any = self._api  # its stubs know no fractions of a second
            if api.inspect_container(container_id)["State"]["Status"] == "created":
                return None
            said = api.wait(container_id, timeout=timeout, condition="not-running")
            return int(said["StatusCode"])
        return None

    def put_file(
        self, container_id: str, target: str, content: bytes, *, mode: int, uid: int, gid: int
    ) -> None:
        """Put a file into a container's own file system, running or not; folders are made."""
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w") as tar:
            entry = tarfile.TarInfo(target.lstrip("/"))
            entry.size, entry.mode, entry.uid, entry.gid = len(content), mode, uid, gid
            tar.addfile(entry, io.BytesIO(content))
        with self._mapped_container(f"put {target} into", container_id):
            self._api.put_archive(container_id, "/", archive.getvalue())

    def set_restart(self, container_id: str, policy: str) -> None:
        """`no`, `always`, `unless-stopped`, `on-failure` or `on-failure:3`."""
        name, _, retries = policy.partition(":")
        value: Any = {"Name": name, "MaximumRetryCount": int(retries or 0)}
        with self._mapped_container("restart policy of", container_id):
            self._api.update_container(container_id, restart_policy=value)

    def as_made(self, name: str) -> tuple[dict[str, Any], dict[str, Any]] | None:
        """A container, by name or id, and its image, in Docker's own words, its environment
        included; None when there is no such container."""
        found = self._inspect(name)
        if found is None:
            return None
        with mapped(f"image of {name}"):
            image: dict[str, Any] = self._api.inspect_image(found["Image"])  # type: ignore[no-untyped-call]
            return found, image

    def told(self, container_id: str) -> dict[str, Any]:
        """All that `docker inspect` says of a container, secret values too. Raises DockerFailed."""
        said = self._inspect(container_id)
        if said is None:
            raise DockerFailed(f"container {container_id[:12]} does not exist any more")
        return said

    def _inspect(self, container_id: str) -> dict[str, Any] | None:
        from docker.errors import NotFound

        with mapped(f"container {container_id[:12]}"), suppress(NotFound):
            return dict(self._api.inspect_container(container_id))
        return None

    @contextmanager
    def _mapped_container(self, doing: str, container_id: str) -> Iterator[None]:
        try:
            with mapped(doing):
                yield
        except DockerFailed as error:
            name = self._name(container_id)
            reason = error.message.removeprefix(f"{doing}: ")
            kind = PortTaken if any(t in reason for t in _PORT_TAKEN) else DockerFailed
            raise kind(f"{doing} container {name}: {reason}") from None

    def _name(self, container_id: str) -> str:
        with suppress(LockstepError):
            said = self._inspect(container_id)
            if said is not None:
                return str(said["Name"]).lstrip("/")
        return container_id[:12]

    def command(self, container_id: str) -> tuple[str, ...]:
        """What a container was started with, entrypoint first; it may say a secret. Nothing where
        there is none."""
        said = self._inspect(container_id) or {}
        return (*([said["Path"]] if said.get("Path") else []), *(said.get("Args") or ()))

    def networks_labelled(self, labels: Sequence[str]) -> tuple[str, ...]:
        """Names of the networks that have all of these labels (`name=value`)."""
        with mapped("the list of networks"):
            found = self._api.networks(filters={"label": list(labels)})
        return tuple(sorted(entry["Name"] for entry in found))
