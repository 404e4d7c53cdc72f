"""The one seam to Docker and Compose: nobody else imports docker-py or runs `docker compose`.

Every error of docker-py and of `docker compose` becomes one of ours, with the name of the
container, volume or image in question. Times are seconds, sizes bytes. docker-py costs a tenth of
a second to import, so it is imported where it is first needed.
"""

from __future__ import annotations

import functools
import io
import json
import math
import os
import signal
import subprocess
import tarfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reconciler import dockervalues as values
from reconciler.composeplugin import Compose
from reconciler.dockervalues import (
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
    failed,
)
from reconciler.errors import DockerFailed, LockstepError, Refused, Unavailable
from reconciler.execstream import Conversation, converse
from reconciler.facts import Container
from reconciler.frozen import Freezer
from snapshots.drivers.base import ExecResult

if TYPE_CHECKING:
    from docker import APIClient

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

_REQUEST_TIMEOUT = 60
HELPER = "lockstep.helper"
"""Label of helper containers: they use volumes for us, and are nobody's."""
_SESSION_ENDS = 1.0
_TRUE_HOST = "LOCKSTEP_DOCKER_HOST"
_PORT_TAKEN = ("port is already allocated", "address already in use")
_START_DOCKER = "docker info   says whether the daemon answers; start it, then run this again"


class PortTaken(DockerFailed):
    """A container could not start because a port that it publishes is held by another."""


def connect(reach: str = "auto") -> Docker:
    """The daemon of this environment (DOCKER_HOST, else the docker CLI's context, else the local
    socket); `reach`: see `reach.way`. Raises Unavailable when it does not answer."""
    endpoint = _endpoint()
    if endpoint is not None and endpoint.startswith("ssh:"):
        _speak_through_one_tunnel(endpoint)
    return Docker(endpoint, reach)


def _speak_through_one_tunnel(endpoint: str) -> None:
    """What this process starts (Compose, a plugin) asks the daemon at the same socket; one of ours
    is told the true address, and has a tunnel of its own, which lives as long as it does."""
    from reconciler import sshtunnel

    os.environ["DOCKER_HOST"] = sshtunnel.forwarded(endpoint)
    os.environ[_TRUE_HOST] = endpoint


class Docker:
    """The daemon. Safe to use from several threads: each has its own connection."""

    def __init__(self, endpoint: str | None = None, reach: str = "auto") -> None:
        self.endpoint = endpoint
        self.reach = reach
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
        from reconciler import sshtunnel

        return sshtunnel.forwarded(self.endpoint)

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

    # Containers

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
        with _mapped("the list of containers"):
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

    def command(self, container_id: str) -> tuple[str, ...]:
        """What a container was started with, entrypoint first; it may say a secret. Nothing where
        there is none."""
        said = self._inspect(container_id) or {}
        return (*([said["Path"]] if said.get("Path") else []), *(said.get("Args") or ()))

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

        with self._mapped_container("kill", container_id), _suppress_conflict(APIError):
            self._api.kill(container_id)

    def create_idle(self, name: str, image_id: str, labels: Mapping[str, str]) -> str:
        """A container that does nothing and comes back with the daemon; its id. It is of no compose
        project, whatever its image's labels say, and has no network and no volume."""
        from docker.types import LogConfig

        with _mapped(f"container {name}"):
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

        with _mapped(f"container {name}"):
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

    def join_network(self, container_id: str, network: str, address: str | None = None) -> None:
        """Connect a container to a network, running or not; there already is fine. `address`: if
        the network lets one be chosen."""
        from docker.errors import APIError

        api: Any = self._api  # its stubs want to know no addresses
        with self._mapped_container("connect", container_id), _suppress_there(APIError):
            try:
                api.connect_container_to_network(container_id, network, ipv4_address=address)
            except APIError as error:
                if address is None or "user configured subnets" not in str(error):
                    raise
                api.connect_container_to_network(container_id, network)

    def leave_network(self, container_id: str, network: str) -> None:
        """Disconnect a container from a network; not connected, or gone, is fine."""
        from docker.errors import APIError, NotFound

        with self._mapped_container("disconnect", container_id), suppress(NotFound):
            try:
                self._api.disconnect_container_from_network(container_id, network)
            except APIError as error:
                if "is not connected" not in str(error):
                    raise

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
        environment: Mapping[str, str] | None = None,
    ) -> ExecResult:
        """Run a command in a running container; one that takes longer than `timeout` is killed
        and has code 124."""
        api = self._api
        deadline = time.monotonic() + timeout
        with self._mapped_container("exec in", container_id):
            made = api.exec_create(
                container_id,
                list(argv),
                stdin=stdin is not None,
                user=user or "",
                environment=dict(environment or {}),
            )
            stream = api.exec_start(made["Id"], socket=True)
            ended, out, err = converse(stream, stdin, deadline)
            state = api.exec_inspect(made["Id"])
            if not ended:
                _kill_in_container(int(state.get("Pid") or 0), container_id)
                return ExecResult(124, out, f"{err}not finished after {timeout:g} s")
        code = state.get("ExitCode")
        return ExecResult(-1 if code is None else int(code), out, err)

    @contextmanager
    def session(
        self,
        container_id: str,
        argv: Sequence[str],
        *,
        environment: Mapping[str, str] | None = None,
    ) -> Iterator[Conversation]:
        """Start a command in a running container and talk to it; it is ended on exit, and loses
        its standard input when this process dies."""
        api = self._api
        with self._mapped_container("exec in", container_id):
            made = api.exec_create(
                container_id, list(argv), stdin=True, environment=dict(environment or {})
            )
            stream = api.exec_start(made["Id"], socket=True)
        talk = Conversation(stream, f"{argv[0]} in container {self._name(container_id)}")
        try:
            yield talk
        finally:
            talk.close()
            with suppress(LockstepError), self._mapped_container("exec in", container_id):
                self._end_exec(made["Id"], container_id)

    def _end_exec(self, exec_id: str, container_id: str) -> None:
        """A command that does not end with its input is killed."""
        give_up = time.monotonic() + _SESSION_ENDS
        while (state := self._api.exec_inspect(exec_id)).get("Running"):
            if time.monotonic() > give_up:
                _kill_in_container(int(state.get("Pid") or 0), container_id)
                return
            time.sleep(0.02)

    @contextmanager
    def frozen(self, container_ids: Sequence[str], seconds: float) -> Iterator[None]:
        """Running containers stand still inside the context, for at most `seconds`; see
        `frozen.Freezer`."""
        with Freezer(self, container_ids, seconds) as freezer, freezer.frozen(container_ids):
            yield

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

    def ask(self, image_id: str, argv: Sequence[str], *, timeout: float = 60) -> ExecResult:
        """Run a command in a throw-away container of an image, without network and volumes; the
        daemon removes it, whatever becomes of us. Code 124 when it takes longer than `timeout`."""
        options = ["--rm", "--pull", "never", "--network", "none", "--entrypoint", argv[0]]
        try:
            done = subprocess.run(
                ["docker", "run", *options, image_id, *argv[1:]],
                env=self.cli_environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                encoding="utf-8",
                errors="replace",
                timeout=timeout,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return ExecResult(124, "", f"not finished after {timeout:g} s")
        except OSError as error:
            raise Unavailable(f"docker run cannot be run: {error.strerror}") from None
        return ExecResult(done.returncode, done.stdout, done.stderr)

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

    def logs(self, container_id: str, tail: int = 30, since: float | None = None) -> str:
        """The last lines of its output, both streams, with `\\n` between; `since`: only what it
        said after that time (seconds since 1970)."""
        api: Any = self._api  # its stubs know no fractions of a second
        with self._mapped_container("logs of", container_id):
            said = api.logs(container_id, stdout=True, stderr=True, tail=tail, since=since)
        return bytes(said).decode(errors="replace")

    def usage(self, container_id: str, *, cpu: bool) -> Usage | None:
        """What it uses now, None if it does not run; `cpu` takes a second or two more."""
        api: Any = self._api  # its stubs leave one_shot out
        options = {} if cpu else {"one_shot": True}
        with self._mapped_container("stats of", container_id):
            return values.usage(api.stats(container_id, stream=False, **options))

    # What evidence is made of

    def told(self, container_id: str) -> dict[str, Any]:
        """All that `docker inspect` says of a container, secret values too. Raises DockerFailed."""
        said = self._inspect(container_id)
        if said is None:
            raise DockerFailed(f"container {container_id[:12]} does not exist any more")
        return said

    def rows(self, project: str) -> tuple[values.Row, ...]:
        """What `docker compose ps --all` shows of a project, one-off containers too."""
        with _mapped("the list of containers"):
            found = self._api.containers(all=True, filters={"label": [f"{PROJECT}={project}"]})
        return tuple(sorted(map(values.row, found), key=lambda row: row.name))

    def stats(self, container_id: str) -> dict[str, int | float]:
        """What a running container uses, by one look at its counters; see `values.stats`."""
        from docker.errors import InvalidVersion

        with self._mapped_container("stats of", container_id):
            try:
                said = self._api.stats(container_id, stream=False, one_shot=True)
            except InvalidVersion:  # that daemon would take two seconds for each
                return {}
        return values.stats(dict(said))

    def events(self, since: float, until: float) -> list[dict[str, Any]]:
        """What Docker still remembers of its events between two times (seconds since 1970)."""
        with _mapped("docker events"):
            api: Any = self._api  # its stubs know no fractions of a second
            return list(api.events(since=since, until=until, decode=True))

    def log_tail(self, container_id: str, *, since: float, lines: int, limit: int) -> bytes:
        """Its newest output since then, both streams, each line with its time; at most so many
        lines and bytes. Raises DockerFailed, also where its logging driver cannot be read."""
        kept: deque[bytes] = deque()
        size = 0
        with self._mapped_container("logs of", container_id):
            for chunk in self._api.logs(
                container_id,
                stream=True,
                follow=False,  # of its own accord a stream would wait for what comes
                timestamps=True,
                tail=lines,
                since=since or None,
            ):
                kept.append(chunk)
                size += len(chunk)
                while size - len(kept[0]) >= limit:
                    size -= len(kept.popleft())
        return b"".join(kept)[-limit:]

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

    # Images

    def image(self, reference: str) -> ImageInfo | None:
        """A local image by tag, digest or id; None when there is none."""
        from docker.errors import ImageNotFound

        with _mapped(f"image {reference}"), suppress(ImageNotFound):
            api: Any = self._api  # its stubs leave this one out
            return values.image(api.inspect_image(reference))
        return None

    def images(self) -> dict[str, tuple[str, ...]]:
        """Id -> tags, of every local image, in one request."""
        with _mapped("the list of images"):
            found = self._api.images()
        return {
            image["Id"]: tuple(t for t in image["RepoTags"] or () if t != "<none>:<none>")
            for image in found
        }

    def image_ids(self) -> dict[str, str]:
        """Tag -> id, of every local image, in one request."""
        return {tag: image_id for image_id, tags in self.images().items() for tag in tags}

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

    def save_image(self, image_id: str) -> Iterator[bytes]:
        """What `docker save` writes of an image."""
        with _mapped(f"save of image {image_id[:19]}"):
            yield from self._api.get_image(image_id)

    def load_image(self, content: Iterable[bytes]) -> None:
        """Take in what `save_image` gave."""
        with _mapped("load of an image"):
            api: Any = self._api
            for said in api.load_image(iter(content)):
                if "error" in said:
                    raise DockerFailed(f"load of an image: {said['error']}")

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
        return {volume["Name"]: values.volume(volume) for volume in found}

    def volume(self, name: str) -> VolumeInfo | None:
        """One volume; None when there is none."""
        from docker.errors import NotFound

        with _mapped(f"volume {name}"), suppress(NotFound):
            return values.volume(self._api.inspect_volume(name))
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
            made = values.volume(
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
        for user in self.listing(labels=[HELPER], volume=name, helpers=True):
            self.remove_container(user.id, force=True)  # it waits for work, or works for a dead one
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
        return self.networks_labelled([f"{PROJECT}={project}"])

    def networks_labelled(self, labels: Sequence[str]) -> tuple[str, ...]:
        """Names of the networks that have all of these labels (`name=value`)."""
        with _mapped("the list of networks"):
            found = self._api.networks(filters={"label": list(labels)})
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

    def as_made(self, name: str) -> tuple[dict[str, Any], dict[str, Any]] | None:
        """A container, by name or id, and its image, in Docker's own words, its environment
        included; None when there is no such container."""
        found = self._inspect(name)
        if found is None:
            return None
        with _mapped(f"image of {name}"):
            image: dict[str, Any] = self._api.inspect_image(found["Image"])  # type: ignore[no-untyped-call]
            return found, image

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
def _suppress_there(api_error: type[Exception]) -> Iterator[None]:
    """Swallow Docker's answer that a container is in a network already."""
    try:
        yield
    except api_error as error:
        if "already exists in network" not in str(error):
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
        raise failed(what, _as_text(said)) from None
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


def _kill_in_container(pid: int, container_id: str) -> None:
    """Docker cannot end an exec; the process is killed here when it is surely that container's."""
    with suppress(OSError):
        if pid > 1 and container_id[:12] in Path(f"/proc/{pid}/cgroup").read_text():
            os.kill(pid, signal.SIGKILL)


def _repository(reference: str) -> tuple[str, str | None]:
    """`registry:5000/shop/web:v1` -> (`registry:5000/shop/web`, `v1`); a digest is its own tag."""
    if "@" in reference:
        name, _, digest = reference.partition("@")
        return name, digest
    name, colon, tag = reference.rpartition(":")
    return (name, tag) if colon and "/" not in tag else (reference, None)
