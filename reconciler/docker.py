"""The one seam to Docker and Compose.

Every error of docker-py and of `docker compose` becomes one of ours here, with the name of the
container, volume or image in question. Times are seconds, sizes bytes. docker-py costs a tenth of
a second to import, so it is imported where it is first needed.
"""

from __future__ import annotations

import functools
import io
import json
import math
import os
import re
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from reconciler.errors import BadInput, DockerFailed, LockstepError, Refused, Unavailable
from reconciler.facts import Container
from snapshots.drivers.base import ExecResult

if TYPE_CHECKING:
    from docker import APIClient

PROJECT = "com.docker.compose.project"
SERVICE = "com.docker.compose.service"
NETWORK = "com.docker.compose.network"
VOLUME = "com.docker.compose.volume"
CONFIG_HASH = "com.docker.compose.config-hash"
ONE_OFF = "com.docker.compose.oneoff"
OUR_PROJECT = "lockstep.project"
OUR_STACK = "lockstep.stack"
OUR_WORLD = "lockstep.world"
OUR_DATASET = "lockstep.dataset"
OUR_GENERATION = "lockstep.generation"

_REQUEST_TIMEOUT = 60
_DEFAULT_GRACE = 10.0
_NANOSECONDS = 1_000_000_000
_PORT_TAKEN = ("port is already allocated", "address already in use")
_START_DOCKER = "docker info   says whether the daemon answers; start it, then run this again"


class PortTaken(DockerFailed):
    """A container could not start because a port that it publishes is held by another."""


@dataclass(frozen=True)
class DockerInfo:
    """The daemon."""

    version: str
    api: str
    id: str
    root: Path
    memory: int


@dataclass(frozen=True)
class HealthTest:
    """A health check as Docker has it: `("CMD", ...)` or `("CMD-SHELL", command)`."""

    test: tuple[str, ...]
    interval: float
    timeout: float
    start_period: float
    retries: int

    @property
    def argv(self) -> tuple[str, ...]:
        """What to execute in the container."""
        kind, *rest = self.test
        return tuple(rest) if kind == "CMD" else ("/bin/sh", "-c", *rest)


@dataclass(frozen=True)
class Published:
    """A published port; `host_ip` "" means every address."""

    host_ip: str
    port: int
    protocol: str
    container_port: int


@dataclass(frozen=True)
class ContainerDetails:
    """One container in full, without the values of its environment."""

    id: str
    name: str
    project: str
    service: str
    state: str
    exit_code: int
    oom_killed: bool
    error: str
    pid: int
    started: str
    finished: str
    image: str
    """The reference it was created with."""
    image_id: str
    labels: Mapping[str, str]
    health: HealthTest | None
    stop_grace: float
    init: bool
    restart_policy: str
    ports: tuple[Published, ...]
    network_mode: str
    networks: frozenset[str]
    addresses: Mapping[str, str]
    """network -> IP address, of those that have one now."""
    env_names: tuple[str, ...]
    volumes: Mapping[str, str]
    """mount target -> volume name or bind source."""
    read_only: frozenset[str]
    """Mount targets that the container cannot write."""


@dataclass(frozen=True)
class Listed:
    """One container as a listing has it: cheap, all of them in one request."""

    id: str
    name: str
    labels: Mapping[str, str]
    state: str
    image_id: str
    mounts: tuple[str, ...]
    """Volume names and bind sources."""
    ports: tuple[Published, ...]
    network_mode: str

    @property
    def project(self) -> str:
        """The compose project, or ""."""
        return self.labels.get(PROJECT, "")


@dataclass(frozen=True)
class ImageInfo:
    """A local image."""

    id: str
    tags: tuple[str, ...]
    digests: tuple[str, ...]
    bytes: int
    health: HealthTest | None
    volumes: tuple[str, ...]
    stop_signal: str


@dataclass(frozen=True)
class VolumeInfo:
    """A volume; `path` is where its content lies on this host."""

    name: str
    labels: Mapping[str, str]
    path: Path
    driver: str
    options: Mapping[str, str]


@dataclass(frozen=True)
class NetworkInfo:
    """A network."""

    name: str
    labels: Mapping[str, str]
    subnets: tuple[str, ...]


def connect() -> Docker:
    """The daemon of this environment (DOCKER_HOST, else the docker CLI's context, else the local
    socket). Raises Unavailable when it does not answer."""
    return Docker(_endpoint())


class Docker:
    """The daemon. Safe to use from several threads: each has its own connection."""

    def __init__(self, endpoint: str | None = None) -> None:
        self.endpoint = endpoint
        self._local = threading.local()
        self._version = "auto"
        with _mapped(f"Docker at {endpoint or 'the local socket'}"):
            self._version = self._api.api_version

    @property
    def _api(self) -> APIClient:
        client: APIClient | None = getattr(self._local, "client", None)
        if client is None:
            from docker import APIClient
            from docker.utils import kwargs_from_env

            options: dict[str, Any] = dict(kwargs_from_env())
            if self.endpoint is not None:
                options["base_url"] = self.endpoint
            options["version"] = self._version
            client = APIClient(timeout=_REQUEST_TIMEOUT, **options)
            self._local.client = client
        return client

    @property
    def api_version(self) -> str:
        """The API's version, negotiated: `1.41`."""
        return self._version

    @functools.cached_property
    def info(self) -> DockerInfo:
        """What the daemon says of itself."""
        with _mapped("docker info"):
            said = self._api.info()
        return DockerInfo(
            version=said["ServerVersion"],
            api=self._version,
            id=said.get("ID", ""),
            root=Path(said["DockerRootDir"]),
            memory=int(said.get("MemTotal", 0)),
        )

    # Containers

    def listing(
        self, *, running: bool = False, labels: Sequence[str] = (), volume: str | None = None
    ) -> tuple[Listed, ...]:
        """All containers in one request; `labels` as `name=value`, all of which must fit."""
        filters: dict[str, Any] = {"label": list(labels)} if labels else {}
        if volume is not None:
            filters["volume"] = volume
        with _mapped("the list of containers"):
            found = self._api.containers(all=not running, filters=filters)
        return tuple(_listed(entry) for entry in found)

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
                found.append(_container(said))
        return tuple(found)

    def inspect(self, container_id: str) -> ContainerDetails:
        """One container in full. Raises DockerFailed when there is none."""
        said = self._inspect(container_id)
        if said is None:
            raise DockerFailed(f"container {container_id[:12]} does not exist any more")
        return _details(said)

    def start(self, container_id: str) -> None:
        """Start a container. Raises PortTaken when a port it publishes is not free (yet)."""
        with self._mapped_container("start", container_id):
            self._api.start(container_id)

    def stop(self, container_id: str, grace: float | None = None) -> None:
        """Stop it with its stop signal, and kill it after `grace` (default: its own) seconds."""
        with self._mapped_container("stop", container_id):
            if grace is None:
                grace = _grace(self._api.inspect_container(container_id))
            self._api.stop(container_id, timeout=max(0, math.ceil(grace)))

    def kill(self, container_id: str) -> None:
        """Kill it at once; one that does not run is left as it is."""
        from docker.errors import APIError

        with self._mapped_container("kill", container_id), _suppress_conflict(APIError):
            self._api.kill(container_id)

    def remove_container(self, container_id: str, force: bool = False) -> None:
        """Remove it with its anonymous volumes; named ones stay. Gone already is fine."""
        from docker.errors import NotFound

        with self._mapped_container("remove", container_id), suppress(NotFound):
            self._api.remove_container(container_id, v=True, force=force)

    def exec(
        self,
        container_id: str,
        argv: Sequence[str],
        *,
        stdin: str | None = None,
        timeout: float = 30,
        user: str | None = None,
    ) -> ExecResult:
        """Run a command in a running container; one that takes longer than `timeout` is killed
        and has code 124."""
        api = self._api
        deadline = time.monotonic() + timeout
        with self._mapped_container("exec in", container_id):
            made = api.exec_create(
                container_id, list(argv), stdin=stdin is not None, user=user or ""
            )
            stream = api.exec_start(made["Id"], socket=True)
            ended, out, err = _converse(stream, stdin, deadline)
            state = api.exec_inspect(made["Id"])
            if not ended:
                _kill_in_container(int(state.get("Pid") or 0), container_id)
                return ExecResult(124, out, f"{err}not finished after {timeout:g} s")
        code = state.get("ExitCode")
        return ExecResult(-1 if code is None else int(code), out, err)

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

    def logs(self, container_id: str, tail: int = 30) -> str:
        """The last lines of its output, both streams, with `\\n` between."""
        with self._mapped_container("logs of", container_id):
            said = self._api.logs(container_id, stdout=True, stderr=True, tail=tail)
        return bytes(said).decode(errors="replace")

    def set_restart(self, container_id: str, policy: str) -> None:
        """`no`, `always`, `unless-stopped`, `on-failure` or `on-failure:3`."""
        name, _, retries = policy.partition(":")
        value: Any = {"Name": name, "MaximumRetryCount": int(retries or 0)}
        with self._mapped_container("restart policy of", container_id):
            self._api.update_container(container_id, restart_policy=value)

    # Images

    def image(self, reference: str) -> ImageInfo | None:
        """A local image by tag, digest or id; None when there is none."""
        from docker.errors import ImageNotFound

        with _mapped(f"image {reference}"), suppress(ImageNotFound):
            api: Any = self._api  # its stubs leave this one out
            return _image(api.inspect_image(reference))
        return None

    def image_ids(self) -> dict[str, str]:
        """Tag -> id, of every local image, in one request."""
        with _mapped("the list of images"):
            found = self._api.images()
        return {tag: image["Id"] for image in found for tag in image["RepoTags"] or ()}

    def pull(self, reference: str, progress: Callable[[str], None] = lambda _: None) -> ImageInfo:
        """Pull an image. Raises DockerFailed with the registry's own words."""
        name, tag = _repository(reference)
        with _mapped(f"pull of {reference}"):
            for step in self._api.pull(name, tag=tag or "latest", stream=True, decode=True):
                if "error" in step:
                    raise DockerFailed(f"pull of {reference}: {step['error']}")
                if step.get("status", "").startswith(("Status", "Digest")):
                    progress(f"{reference}: {step['status']}")
        found = self.image(reference)
        if found is None:
            raise DockerFailed(f"pull of {reference}: done, but no such image is there")
        return found

    def tag(self, image_id: str, tag: str) -> None:
        """Give an image a (further) tag `repository:tag`."""
        repository, name = _repository(tag)
        with _mapped(f"tag {tag}"):
            self._api.tag(image_id, repository, name, force=True)

    def untag(self, tag: str) -> None:
        """Remove a tag, and the image when it was the last one. Gone already is fine."""
        from docker.errors import ImageNotFound

        with _mapped(f"remove tag {tag}"), suppress(ImageNotFound):
            self._api.remove_image(tag)

    # Volumes and networks

    def volumes(
        self, *, stack: tuple[str, str] | None = None, labels: Sequence[str] = ()
    ) -> dict[str, VolumeInfo]:
        """All volumes by name, or those of one stack, or with labels (`name=value`), in one
        request."""
        if stack is not None:
            labels = [*labels, f"{OUR_PROJECT}={stack[0]}", f"{OUR_STACK}={stack[1]}"]
        filters: dict[str, Any] = {"label": list(labels)} if labels else {}
        with _mapped("the list of volumes"):
            found = self._api.volumes(filters=filters).get("Volumes") or ()
        return {volume["Name"]: _volume(volume) for volume in found}

    def volume(self, name: str) -> VolumeInfo | None:
        """One volume; None when there is none."""
        from docker.errors import NotFound

        with _mapped(f"volume {name}"), suppress(NotFound):
            return _volume(self._api.inspect_volume(name))
        return None

    def create_volume(
        self,
        name: str,
        labels: Mapping[str, str],
        *,
        driver: str = "local",
        options: Mapping[str, str] | None = None,
    ) -> VolumeInfo:
        """A new volume. Raises Refused when somebody else's of that name exists: Docker itself
        would hand out the existing one, with its content."""
        with _mapped(f"volume {name}"):
            made = _volume(
                self._api.create_volume(
                    name, driver=driver, driver_opts=dict(options or {}), labels=dict(labels)
                )
            )
        if dict(made.labels) != dict(labels):
            raise Refused(
                f"a volume {name} exists already and is not of this stack",
                next_step=f"docker volume inspect {name}   shows whose it is",
            )
        return made

    def remove_volume(self, name: str, *, labels: Mapping[str, str]) -> None:
        """Remove a volume that has these labels; gone already is fine.

        Raises Refused when a volume of that name has not every one of them.
        """
        from docker.errors import NotFound

        found = self.volume(name)
        if found is None:
            return
        if not labels or any(found.labels.get(k) != v for k, v in labels.items()):
            raise Refused(f"volume {name} is not labelled as ours: not removed")
        with _mapped(f"remove volume {name}"), suppress(NotFound):
            self._api.remove_volume(name)

    def network(self, name: str) -> NetworkInfo | None:
        """One network by its exact name; None when there is none."""
        with _mapped(f"network {name}"):
            found = self._api.networks(names=[name])
        for entry in found:
            if entry["Name"] == name:
                pools = (entry.get("IPAM") or {}).get("Config") or ()
                subnets = tuple(pool["Subnet"] for pool in pools if "Subnet" in pool)
                return NetworkInfo(name, entry.get("Labels") or {}, subnets)
        return None

    def networks_of(self, project: str) -> tuple[str, ...]:
        """Names of the networks that Compose made for a project."""
        with _mapped("the list of networks"):
            found = self._api.networks(filters={"label": [f"{PROJECT}={project}"]})
        return tuple(sorted(entry["Name"] for entry in found))

    def create_network(
        self, name: str, labels: Mapping[str, str], model: Mapping[str, Any]
    ) -> None:
        """A network as a compose model describes it (driver, ipam, options)."""
        from docker.types import IPAMConfig, IPAMPool

        ipam = model.get("ipam") or {}
        pools = [
            IPAMPool(
                subnet=pool.get("subnet"),
                iprange=pool.get("ip_range"),
                gateway=pool.get("gateway"),
                aux_addresses=pool.get("aux_addresses"),
            )
            for pool in ipam.get("config") or ()
        ]
        with _mapped(f"network {name}"):
            self._api.create_network(
                name,
                driver=model.get("driver"),
                options=model.get("driver_opts"),
                ipam=IPAMConfig(driver=ipam.get("driver", "default"), pool_configs=pools),
                internal=bool(model.get("internal", False)),
                attachable=bool(model.get("attachable", False)),
                enable_ipv6=bool(model.get("enable_ipv6", False)),
                labels=dict(labels),
                check_duplicate=True,
            )

    def remove_network(self, name: str, *, labels: Mapping[str, str]) -> None:
        """Remove a network that has these labels; gone already is fine. Raises Refused else."""
        found = self.network(name)
        if found is None:
            return
        if not labels or any(found.labels.get(k) != v for k, v in labels.items()):
            raise Refused(f"network {name} is not labelled as ours: not removed")
        with _mapped(f"remove network {name}"):
            self._api.remove_network(name)

    def _inspect(self, container_id: str) -> dict[str, Any] | None:
        from docker.errors import NotFound

        with _mapped(f"container {container_id[:12]}"), suppress(NotFound):
            return dict(self._api.inspect_container(container_id))
        return None

    @contextmanager
    def _mapped_container(self, doing: str, container_id: str) -> Iterator[None]:
        try:
            with _mapped(doing):
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


@contextmanager
def _suppress_conflict(api_error: type[Exception]) -> Iterator[None]:
    """Swallow Docker's answer 409: the container is already in the state that was asked for."""
    try:
        yield
    except api_error as error:
        if getattr(error, "status_code", None) != 409:
            raise


@contextmanager
def _mapped(what: str) -> Iterator[None]:
    """Turn every error of docker-py and its transport into one of ours; `what` begins it."""
    import requests
    import urllib3
    from docker.errors import APIError, DockerException

    try:
        yield
    except APIError as error:
        said = error.explanation or str(error)
        raise DockerFailed(f"{what}: {_as_text(said)}") from None
    except (DockerException, requests.RequestException, urllib3.exceptions.HTTPError) as error:
        reason = _shortest(error)
        raise Unavailable(
            f"Docker does not answer ({what}): {reason}", next_step=_START_DOCKER
        ) from None


def _as_text(said: object) -> str:
    return said.decode(errors="replace") if isinstance(said, bytes) else str(said)


def _shortest(error: BaseException) -> str:
    """The operating system's reason at the bottom of a chain of library errors."""
    cause: BaseException | None = error
    while cause is not None:
        for value in (cause, *cause.args, getattr(cause, "reason", None)):
            if isinstance(value, OSError) and value.strerror:
                return f"{value.strerror} ({value.filename})" if value.filename else value.strerror
            for inner in getattr(value, "args", ()):
                if isinstance(inner, OSError) and inner.strerror:
                    return inner.strerror
        cause = cause.__cause__ or cause.__context__
    return str(error)


def _endpoint() -> str | None:
    """Where the docker CLI would connect: Compose and we must speak to one daemon."""
    if os.environ.get("DOCKER_HOST"):
        return os.environ["DOCKER_HOST"]
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


def _converse(stream: Any, stdin: str | None, deadline: float) -> tuple[bool, str, str]:
    """Write stdin, read both streams to their end: (ended in time, stdout, stderr)."""
    raw: socket.socket = getattr(stream, "_sock", stream)
    streams = {1: bytearray(), 2: bytearray()}
    ended = True
    writer = threading.Thread(target=_feed, args=(raw, stdin), daemon=True)
    if stdin is not None:
        writer.start()
    try:
        for kind, part in _frames(raw, deadline):
            streams.get(kind, streams[2]).extend(part)
    except TimeoutError:
        ended = False
    finally:
        with suppress(OSError):
            raw.shutdown(socket.SHUT_RDWR)
        stream.close()
    return ended, streams[1].decode(errors="replace"), streams[2].decode(errors="replace")


def _feed(raw: socket.socket, stdin: str | None) -> None:
    """Write from a thread of its own: a command may answer before it has read everything."""
    with suppress(OSError):
        raw.sendall((stdin or "").encode())
        raw.shutdown(socket.SHUT_WR)


def _frames(raw: socket.socket, deadline: float) -> Iterator[tuple[int, bytes]]:
    while header := _receive(raw, 8, deadline):
        yield header[0], _receive(raw, int.from_bytes(header[4:8], "big"), deadline)


def _receive(raw: socket.socket, size: int, deadline: float) -> bytes:
    """Exactly `size` bytes, fewer at the end of the stream. Raises TimeoutError."""
    part = io.BytesIO()
    while part.tell() < size:
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        raw.settimeout(left)
        received = raw.recv(size - part.tell())
        if not received:
            return b"" if part.tell() < size else part.getvalue()
        part.write(received)
    return part.getvalue()


def _kill_in_container(pid: int, container_id: str) -> None:
    """Docker cannot end an exec; the process is killed here when it is surely that container's."""
    with suppress(OSError):
        if pid > 1 and container_id[:12] in Path(f"/proc/{pid}/cgroup").read_text():
            os.kill(pid, signal.SIGKILL)


def _listed(said: Mapping[str, Any]) -> Listed:
    mounts = tuple(str(m.get("Name") or m.get("Source") or "") for m in said.get("Mounts") or ())
    ports = tuple(
        Published(p.get("IP", ""), p["PublicPort"], p["Type"], p["PrivatePort"])
        for p in said.get("Ports") or ()
        if p.get("PublicPort")
    )
    return Listed(
        id=said["Id"],
        name=next(iter(said.get("Names") or ("",))).lstrip("/"),
        labels=said.get("Labels") or {},
        state=said["State"],
        image_id=said["ImageID"],
        mounts=mounts,
        ports=ports,
        network_mode=(said.get("HostConfig") or {}).get("NetworkMode") or "",
    )


def _container(said: Mapping[str, Any]) -> Container:
    labels = said["Config"].get("Labels") or {}
    return Container(
        id=said["Id"],
        name=said["Name"].lstrip("/"),
        project=labels.get(PROJECT, ""),
        service=labels.get(SERVICE, ""),
        state=said["State"]["Status"],
        exit_code=said["State"]["ExitCode"],
        restart_policy=_restart(said),
        image_id=said["Image"],
        volumes=_volumes(said),
        one_off=labels.get(ONE_OFF) == "True",
    )


def _details(said: Mapping[str, Any]) -> ContainerDetails:
    config, host, state = said["Config"], said["HostConfig"], said["State"]
    labels = config.get("Labels") or {}
    networks = (said.get("NetworkSettings") or {}).get("Networks") or {}
    return ContainerDetails(
        id=said["Id"],
        name=said["Name"].lstrip("/"),
        project=labels.get(PROJECT, ""),
        service=labels.get(SERVICE, ""),
        state=state["Status"],
        exit_code=state["ExitCode"],
        oom_killed=bool(state.get("OOMKilled")),
        error=state.get("Error") or "",
        pid=int(state.get("Pid") or 0),
        started=state.get("StartedAt") or "",
        finished=state.get("FinishedAt") or "",
        image=config.get("Image") or "",
        image_id=said["Image"],
        labels=labels,
        health=_health(config.get("Healthcheck")),
        stop_grace=_grace(said),
        init=bool(host.get("Init")),
        restart_policy=_restart(said),
        ports=_bindings(host.get("PortBindings") or {}),
        network_mode=host.get("NetworkMode") or "",
        networks=frozenset(networks),
        addresses={n: a["IPAddress"] for n, a in networks.items() if a.get("IPAddress")},
        env_names=tuple(sorted(e.partition("=")[0] for e in config.get("Env") or ())),
        volumes=_volumes(said),
        read_only=frozenset(
            m["Destination"] for m in said.get("Mounts") or () if not m.get("RW", True)
        ),
    )


def _restart(said: Mapping[str, Any]) -> str:
    policy = said["HostConfig"].get("RestartPolicy") or {}
    name, retries = policy.get("Name") or "no", policy.get("MaximumRetryCount") or 0
    return f"{name}:{retries}" if name == "on-failure" and retries else str(name)


def _grace(said: Mapping[str, Any]) -> float:
    seconds = said["Config"].get("StopTimeout")
    return _DEFAULT_GRACE if seconds is None else float(seconds)


def _volumes(said: Mapping[str, Any]) -> dict[str, str]:
    return {m["Destination"]: m.get("Name") or m["Source"] for m in said.get("Mounts") or ()}


def _bindings(said: Mapping[str, Sequence[Mapping[str, str]] | None]) -> tuple[Published, ...]:
    found = []
    for inside, outside in said.items():
        port, _, protocol = inside.partition("/")
        for binding in outside or ():
            if binding.get("HostPort", "").isdigit() and int(binding["HostPort"]):
                host_port = int(binding["HostPort"])
                host_ip = binding.get("HostIp") or ""
                found.append(Published(host_ip, host_port, protocol or "tcp", int(port)))
    return tuple(found)


def _health(said: Mapping[str, Any] | None) -> HealthTest | None:
    test = tuple((said or {}).get("Test") or ())
    if said is None or not test or test[0] == "NONE":
        return None
    return HealthTest(
        test=test,
        interval=(said.get("Interval") or 30 * _NANOSECONDS) / _NANOSECONDS,
        timeout=(said.get("Timeout") or 30 * _NANOSECONDS) / _NANOSECONDS,
        start_period=(said.get("StartPeriod") or 0) / _NANOSECONDS,
        retries=said.get("Retries") or 3,
    )


def _image(said: Mapping[str, Any]) -> ImageInfo:
    config = said.get("Config") or {}
    return ImageInfo(
        id=said["Id"],
        tags=tuple(said.get("RepoTags") or ()),
        digests=tuple(said.get("RepoDigests") or ()),
        bytes=int(said.get("Size") or 0),
        health=_health(config.get("Healthcheck")),
        volumes=tuple(sorted(config.get("Volumes") or ())),
        stop_signal=config.get("StopSignal") or "SIGTERM",
    )


def _volume(said: Mapping[str, Any]) -> VolumeInfo:
    options = said.get("Options") or {}
    # A volume that is itself a bind has its content at the device: its mountpoint is empty
    # while no container uses it.
    bound = "bind" in options.get("o", "").split(",") and options.get("device")
    return VolumeInfo(
        name=said["Name"],
        labels=said.get("Labels") or {},
        path=Path(options["device"] if bound else said["Mountpoint"]),
        driver=said["Driver"],
        options=options,
    )


def _repository(reference: str) -> tuple[str, str | None]:
    """`registry:5000/shop/web:v1` -> (`registry:5000/shop/web`, `v1`); a digest is its own tag."""
    if "@" in reference:
        name, _, digest = reference.partition("@")
        return name, digest
    name, colon, tag = reference.rpartition(":")
    return (name, tag) if colon and "/" not in tag else (reference, None)


class _Loader(yaml.SafeLoader):
    """YAML as Compose writes it: what looks like a date or `yes` is text, as Compose means it."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012


for _tag, _pattern, _first in (
    ("bool", r"^(?:true|false)$", "tf"),
    ("int", r"^-?(?:0|[1-9][0-9]*)$", "-0123456789"),
    ("float", r"^-?[0-9]+(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?$", "-0123456789"),
    ("null", r"^(?:null|~|)$", ["n", "~", ""]),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(_pattern), list(_first))


class Compose:
    """The Compose plugin. `root`: the project's folder, whose .tools may hold the plugin."""

    def __init__(self, root: Path | None = None, *, endpoint: str | None = None) -> None:
        self.environment = _compose_environment(root)
        if endpoint is not None:
            self.environment["DOCKER_HOST"] = endpoint

    def model(
        self,
        files: Sequence[Path],
        *,
        project: str,
        env: Mapping[str, str],
        profiles: Sequence[str] = (),
        warn: Callable[[str], None] = lambda _: None,
    ) -> dict[str, Any]:
        """The model of one folder, or of compose files in order, as `docker compose config` has
        it; `$` in values stays doubled. Read as YAML: its JSON loses x-lockstep of volumes.

        Raises BadInput with Compose's own message.
        """
        where, options = _place(files, profiles)
        done = self._run(["-p", project, *options, "config"], env=env, cwd=where, timeout=60)
        warnings, complaint = _split_messages(done.stderr)
        if done.returncode != 0:
            shown = ", ".join(str(f) for f in files)
            raise BadInput(
                f"the compose file cannot be used ({shown}): {complaint}",
                next_step="docker compose config   in its folder shows the same",
            )
        for warning in warnings:
            warn(warning)
        model = yaml.load(done.stdout, Loader=_Loader)
        if not isinstance(model, dict) or not model.get("services"):
            raise BadInput(f"no service is declared in {', '.join(str(f) for f in files)}")
        return model

    def hashes(
        self,
        files: Sequence[Path],
        *,
        project: str,
        env: Mapping[str, str],
        profiles: Sequence[str] = (),
    ) -> dict[str, str]:
        """service -> the hash that Compose labels its containers with (CONFIG_HASH)."""
        where, options = _place(files, profiles)
        argv = ["-p", project, *options, "config", "--hash", "*"]
        done = self._run(argv, env=env, cwd=where, timeout=60)
        if done.returncode != 0:
            raise BadInput(f"the compose file cannot be used: {_split_messages(done.stderr)[1]}")
        return dict(line.split(" ", 1) for line in done.stdout.splitlines() if " " in line)

    def build(
        self,
        files: Sequence[Path],
        *,
        project: str,
        env: Mapping[str, str],
        profiles: Sequence[str] = (),
        services: Sequence[str],
        progress: Callable[[str], None],
    ) -> None:
        """Build the images of services. Raises DockerFailed with the end of the build's output."""
        where, options = _place(files, profiles)
        environment = dict(env)
        if not _plugin("docker-buildx", self.environment):
            environment.setdefault("DOCKER_BUILDKIT", "0")
        argv = [*_COMPOSE, "-p", project, *options, "build", *services]
        tail: list[str] = []
        with subprocess.Popen(
            argv,
            cwd=where,
            env={**os.environ, **self.environment, **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        ) as child:
            for line in child.stdout or ():
                if text := line.strip():
                    tail = [*tail[-19:], text]
                    progress(text)
        if child.returncode != 0:
            raise DockerFailed(
                f"the build of {', '.join(services)} failed:\n    " + "\n    ".join(tail)
            )

    def create(self, world: str, model: Mapping[str, Any], *, hide: Collection[str] = ()) -> None:
        """Create the world's missing containers and networks, stopped; existing ones stay as they
        are. The model goes in by stdin; `hide`: values that no message may show."""
        argv = ["-p", world, "-f", "-", "--env-file", os.devnull, "create"]
        argv += ["--no-build", "--no-recreate", "--pull", "never"]
        done = self._run(argv, stdin=json.dumps(model), cwd=Path("/"), timeout=600)
        if done.returncode != 0:
            said = _split_messages(done.stderr)[1]
            for value in hide:
                said = said.replace(value, "***") if value else said
            raise DockerFailed(f"the containers of {world} could not be created: {said}")

    def down(self, world: str) -> None:
        """Remove the world's containers and its own networks; volumes stay."""
        argv = ["-p", world, "down", "--remove-orphans"]
        done = self._run(argv, cwd=Path("/"), timeout=300)
        if done.returncode != 0:
            said = _split_messages(done.stderr)[1]
            raise DockerFailed(f"the containers of {world} could not be removed: {said}")

    def passthrough(self, world: str, args: Sequence[str]) -> int:
        """`docker compose -p WORLD ARGS` on this terminal; its exit code."""
        return subprocess.call(
            [*_COMPOSE, "-p", world, *args], env={**os.environ, **self.environment}
        )

    def _run(
        self,
        argv: Sequence[str],
        *,
        cwd: Path,
        timeout: float,
        env: Mapping[str, str] | None = None,
        stdin: str = "",
    ) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, **self.environment, **(env or {})}
        try:
            return subprocess.run(
                [*_COMPOSE, "--ansi", "never", *argv],
                cwd=cwd,
                env=environment,
                input=stdin,
                capture_output=True,
                encoding="utf-8",
                errors="replace",
                timeout=timeout,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise DockerFailed(
                f"docker compose {argv[-1]} did not end within {timeout:g} s"
            ) from None
        except OSError as error:
            raise Unavailable(f"docker compose cannot be run: {error.strerror}") from None


_COMPOSE = ("docker", "compose")
_PLUGIN_FOLDERS = (
    "/usr/local/lib/docker/cli-plugins",
    "/usr/local/libexec/docker/cli-plugins",
    "/usr/lib/docker/cli-plugins",
    "/usr/libexec/docker/cli-plugins",
)


def _compose_environment(root: Path | None) -> dict[str, str]:
    """What has to be added to the environment so that `docker compose` is there."""
    if shutil.which("docker") is None:
        raise Unavailable("the docker command is missing", next_step="install Docker's CLI")
    if _plugin("docker-compose", {}):
        return {}
    for folder in (root, Path(__file__).parent.parent):
        config = folder / ".tools" / "docker-config" if folder else None
        if config and (config / "cli-plugins" / "docker-compose").exists():
            return {"DOCKER_CONFIG": str(config.resolve())}
    answer = subprocess.run([*_COMPOSE, "version"], capture_output=True, timeout=30, check=False)
    if answer.returncode != 0:
        raise Unavailable(
            "the Compose plugin is missing: `docker compose version` fails",
            next_step="install docker-compose-plugin, or run `make setup` in Lockstep's clone",
        )
    return {}


def _plugin(name: str, environment: Mapping[str, str]) -> bool:
    own = environment.get("DOCKER_CONFIG") or os.environ.get("DOCKER_CONFIG")
    folders = [Path(own or Path.home() / ".docker") / "cli-plugins", *map(Path, _PLUGIN_FOLDERS)]
    return any((folder / name).exists() for folder in folders)


def _place(files: Sequence[Path], profiles: Sequence[str]) -> tuple[Path, list[str]]:
    """(working folder, options) that make Compose read these files with these profiles."""
    chosen = [option for profile in profiles for option in ("--profile", profile)]
    if len(files) == 1 and files[0].is_dir():
        names = ("compose.yaml", "compose.yml", "docker-compose.yaml", "docker-compose.yml")
        if not any((files[0] / name).exists() for name in names):
            raise BadInput(
                f"there is no compose file in {files[0]}",
                next_step="lockstep config set compose PATH   names its folder, or the file",
            )
        return files[0], chosen
    for file in files:
        if not file.is_file():
            raise BadInput(
                f"the compose file {file} does not exist",
                next_step="lockstep config set compose PATH   names its folder, or the file",
            )
    return files[0].parent, [o for file in files for o in ("-f", str(file))] + chosen


_LOGGED = re.compile(r'^time="[^"]*" level=(\w+) msg="(.*)"$')


def _split_messages(stderr: str) -> tuple[list[str], str]:
    """Compose's stderr -> (its warnings, each once; the rest as one text)."""
    warnings: list[str] = []
    rest: list[str] = []
    for line in stderr.splitlines():
        match = _LOGGED.match(line)
        if match is None:
            rest.append(line.strip())
            continue
        text = match[2].replace('\\"', '"')
        if match[1] != "warning":
            rest.append(text)
        elif text not in warnings:
            warnings.append(text)
    return warnings, "\n".join(line for line in rest if line)
