"""Containers, images and volumes as Docker describes them. Times are seconds, sizes bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reconciler.errors import DockerFailed
from reconciler.facts import Container

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
BEHIND = "lockstep.behind-ingress"
"""Label of a world's container: the ports that the ingress has in its stead (ingressports)."""

_NO_SUBNET = ("fully subnetted", "non-overlapping IPv4 address pool")
_MORE_SUBNETS = (
    "docker network ls   shows who has them: remove what nobody needs, or give Docker more "
    "(default-address-pools in /etc/docker/daemon.json), then run this again"
)
_DEFAULT_GRACE = 10.0
_NANOSECONDS = 1_000_000_000


def failed(what: str, said: str) -> DockerFailed:
    """What was asked of Docker or Compose, and their own words, as an error; with what to do where
    that is known."""
    if any(words in said for words in _NO_SUBNET):
        text = "Docker's address pools are used up, no other network can be made"
        return DockerFailed(f"{what}: {text}", next_step=_MORE_SUBNETS)
    return DockerFailed(f"{what}: {said}")


@dataclass(frozen=True)
class DockerInfo:
    """The daemon."""

    version: str
    api: str
    id: str
    root: Path
    memory: int
    rootless: bool = False


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
    unhealthy: bool
    """Docker's own verdict: the check failed `retries` times in a row after its start period."""
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
    health_status: str = ""
    """Docker's verdict in a word: starting, healthy, unhealthy; "" without a health check."""
    restarts: int = 0
    """How often Docker itself started it again."""
    behind: str = ""
    """The ports that the ingress has in its stead, as its label says it (ingressports)."""


@dataclass(frozen=True)
class Usage:
    """What a container uses now."""

    memory: int
    """Bytes without the page cache that can be given back."""
    memory_limit: int
    """Of the container, or of the host."""
    cpu_percent: float | None
    """Of one core, over the daemon's last interval; None if it was not asked."""


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
    created: int = 0
    """Seconds since 1970, by the daemon's clock."""

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
class Row:
    """A line of `docker compose ps`."""

    id: str
    name: str
    service: str
    image: str
    state: str
    status: str
    """In Docker's words: `Up 3 minutes (healthy)`."""
    ports: str


HELD: Mapping[str, str] = {"size": "0"}
"""Options of a volume that `docker volume prune` and `docker system prune` leave alone: they take
no local volume that has any option, and this one means nothing (no quota)."""


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


def listed(said: Mapping[str, Any]) -> Listed:
    """An entry of the list of containers."""
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
        created=int(said.get("Created") or 0),
    )


def row(said: Mapping[str, Any]) -> Row:
    """An entry of the list of containers, as people read it."""
    entry = listed(said)
    ports = {f"{p.host_ip}:{p.port}->{p.container_port}/{p.protocol}" for p in entry.ports}
    return Row(
        id=entry.id,
        name=entry.name,
        service=entry.labels.get(SERVICE, ""),
        image=str(said.get("Image") or ""),
        state=entry.state,
        status=str(said.get("Status") or ""),
        ports=", ".join(sorted(ports)),
    )


def stats(said: Mapping[str, Any]) -> dict[str, int | float]:
    """Bytes, CPU seconds since its start, processes; what the daemon does not count is left out."""
    memory, cpu = said.get("memory_stats") or {}, said.get("cpu_stats") or {}
    found: dict[str, int | float | None] = {
        "memory_limit_bytes": memory.get("limit"),
        "cpu_seconds": None,
        "processes": (said.get("pids_stats") or {}).get("current"),
    }
    if "usage" in memory:
        # As `docker stats`: without the cache that the kernel would give back at once.
        inner = memory.get("stats") or {}
        cache = inner.get("inactive_file", inner.get("total_inactive_file", 0))
        found["memory_bytes"] = max(0, memory["usage"] - cache)
    if "cpu_usage" in cpu:
        found["cpu_seconds"] = round(cpu["cpu_usage"]["total_usage"] / _NANOSECONDS, 3)
    for network in (said.get("networks") or {}).values():
        for key, name in (("rx_bytes", "received_bytes"), ("tx_bytes", "sent_bytes")):
            found[name] = (found.get(name) or 0) + network.get(key, 0)
    for entry in (said.get("blkio_stats") or {}).get("io_service_bytes_recursive") or ():
        kind = str(entry.get("op", "")).lower()
        if kind in ("read", "write"):
            name = f"{kind}_bytes"
            found[name] = (found.get(name) or 0) + entry["value"]
    return {name: value for name, value in found.items() if value is not None}


def container(said: Mapping[str, Any]) -> Container:
    """An inspected container, as `decide` sees it."""
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
        started=said["State"].get("StartedAt") or "",
        created=said.get("Created") or "",
        behind=labels.get(BEHIND, ""),
    )


def details(said: Mapping[str, Any]) -> ContainerDetails:
    """An inspected container in full."""
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
        unhealthy=(state.get("Health") or {}).get("Status") == "unhealthy",
        stop_grace=grace(said),
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
        health_status=(state.get("Health") or {}).get("Status") or "",
        restarts=int(said.get("RestartCount") or 0),
        behind=labels.get(BEHIND, ""),
    )


def usage(said: Mapping[str, Any]) -> Usage | None:
    """A container's statistics; None when it does not run, or cgroups do not tell its memory."""
    memory = said.get("memory_stats") or {}
    if "usage" not in memory:
        return None
    details = memory.get("stats") or {}
    cache = int(details.get("inactive_file", details.get("total_inactive_file", 0)))
    return Usage(
        max(0, int(memory["usage"]) - cache), int(memory.get("limit") or 0), _cpu_percent(said)
    )


def _cpu_percent(said: Mapping[str, Any]) -> float | None:
    now, before = said.get("cpu_stats") or {}, said.get("precpu_stats") or {}
    whole = int(now.get("system_cpu_usage") or 0) - int(before.get("system_cpu_usage") or 0)
    if not before.get("system_cpu_usage") or whole <= 0:
        return None
    used = now["cpu_usage"]["total_usage"] - before["cpu_usage"]["total_usage"]
    cores = int(now.get("online_cpus") or 0) or len(now["cpu_usage"].get("percpu_usage") or ()) or 1
    return float(used / whole * cores * 100)


def _restart(said: Mapping[str, Any]) -> str:
    policy = said["HostConfig"].get("RestartPolicy") or {}
    name, retries = policy.get("Name") or "no", policy.get("MaximumRetryCount") or 0
    return f"{name}:{retries}" if name == "on-failure" and retries else str(name)


def grace(said: Mapping[str, Any]) -> float:
    """Seconds between the stop signal and the kill."""
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


def image(said: Mapping[str, Any]) -> ImageInfo:
    """An inspected image."""
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


def volume(said: Mapping[str, Any]) -> VolumeInfo:
    """An inspected volume, or an entry of the list of volumes."""
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
