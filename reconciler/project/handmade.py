"""A container that was started by hand, as a compose model that makes the same one. Pure.

What `docker inspect` says of the container is compared with its image: only what somebody chose
is written down.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

Inspected = Mapping[str, Any]
Taken = tuple[str, Any]

_SECOND = 1_000_000_000
_SHARED_MEMORY = 64 << 20
_ANONYMOUS = re.compile(r"[0-9a-f]{64}")
_OF_COMPOSE = "com.docker.compose."

_SAME = {
    "CpuShares": "cpu_shares", "CpuQuota": "cpu_quota", "CpuPeriod": "cpu_period",
    "CpusetCpus": "cpuset", "Memory": "mem_limit", "MemoryReservation": "mem_reservation",
    "PidsLimit": "pids_limit", "OomScoreAdj": "oom_score_adj", "CapAdd": "cap_add",
    "CapDrop": "cap_drop", "SecurityOpt": "security_opt", "ExtraHosts": "extra_hosts",
    "Dns": "dns", "DnsSearch": "dns_search", "DnsOptions": "dns_opt", "GroupAdd": "group_add",
    "Sysctls": "sysctls", "Privileged": "privileged", "ReadonlyRootfs": "read_only",
    "Init": "init", "PidMode": "pid", "UTSMode": "uts", "UsernsMode": "userns_mode",
    "CgroupParent": "cgroup_parent", "DeviceCgroupRules": "device_cgroup_rules",
    "OomKillDisable": "oom_kill_disable", "VolumesFrom": "volumes_from",
}  # fmt: skip
"""Member of HostConfig -> key of a service, where the value means the same."""
_HARMLESS = ("private", "shareable", "host", "none")


@dataclass
class Handmade:
    """`model`: the compose model; `secrets`: values that the model names as `${NAME}`; `left_out`:
    what cannot be said in a compose file, in words."""

    model: dict[str, Any]
    secrets: dict[str, str] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)


def model_of(container: Inspected, image: Inspected, looks_secret: re.Pattern[str]) -> Handmade:
    """The model of one container. `looks_secret`: names of variables whose values go into .env."""
    return _Reading(container, image, looks_secret).handmade()


class _Reading:
    def __init__(
        self, container: Inspected, image: Inspected, looks_secret: re.Pattern[str]
    ) -> None:
        self.name = str(container["Name"]).lstrip("/")
        self.id = str(container["Id"])
        self.config: Inspected = container["Config"]
        self.host: Inspected = container["HostConfig"]
        self.networks: Inspected = container["NetworkSettings"]["Networks"] or {}
        self.mounts: list[Inspected] = container.get("Mounts") or []
        self.image: Inspected = image.get("Config") or {}
        self.looks_secret = looks_secret
        self.made = Handmade({})
        self.volumes: dict[str, Any] = {}
        self.external: dict[str, Any] = {}

    def handmade(self) -> Handmade:
        service: dict[str, Any] = {"image": str(self.config["Image"])}
        for part in (
            self._process, self._environment, self._labels, self._places, self._health,
            self._networking, self._limits, self._restart, self._rest,
        ):  # fmt: skip
            service |= dict(part())
        model: dict[str, Any] = {"services": {self.name: service}}
        if self.external:
            model["networks"] = self.external
        if self.volumes:
            model["volumes"] = self.volumes
        self.made.model = model
        return self.made

    def _process(self) -> Iterator[Taken]:
        entrypoint, command = self.config.get("Entrypoint"), self.config.get("Cmd")
        replaced = entrypoint != self.image.get("Entrypoint")
        if replaced:
            yield "entrypoint", _escaped(entrypoint or [])
        if command and (replaced or command != self.image.get("Cmd")):
            yield "command", _escaped(command)
        for member, key in (("User", "user"), ("WorkingDir", "working_dir")):
            if self.config.get(member) and self.config[member] != self.image.get(member):
                yield key, _escaped(self.config[member])
        if self.config.get("Tty"):
            yield "tty", True
        if self.config.get("OpenStdin"):
            yield "stdin_open", True
        if self.config.get("Hostname") not in ("", None, self.id[:12]) and not self._shares():
            yield "hostname", self.config["Hostname"]
        if self.config.get("Domainname"):
            yield "domainname", self.config["Domainname"]
        signal = self.config.get("StopSignal")
        if signal and signal != (self.image.get("StopSignal") or "SIGTERM"):
            yield "stop_signal", signal
        if self.config.get("StopTimeout") is not None:
            yield "stop_grace_period", f"{self.config['StopTimeout']}s"

    def _shares(self) -> bool:
        return str(self.host.get("NetworkMode") or "").startswith(("host", "container:"))

    def _environment(self) -> Iterator[Taken]:
        known = set(self.image.get("Env") or ())
        chosen: dict[str, str] = {}
        for entry in self.config.get("Env") or ():
            name, _, value = entry.partition("=")
            if entry in known:
                continue
            if self.looks_secret.search(name) and value and name.isidentifier():
                self.made.secrets[name] = value
                chosen[name] = f"${{{name}}}"
            else:
                chosen[name] = _escaped(value)
        if chosen:
            yield "environment", chosen

    def _labels(self) -> Iterator[Taken]:
        of_image = self.image.get("Labels") or {}
        chosen = {
            key: _escaped(value)
            for key, value in (self.config.get("Labels") or {}).items()
            if of_image.get(key) != value and not key.startswith(_OF_COMPOSE)
        }
        if chosen:
            yield "labels", chosen

    def _health(self) -> Iterator[Taken]:
        said = self.config.get("Healthcheck")
        if not said or said == self.image.get("Healthcheck"):
            return
        if said.get("Test") == ["NONE"]:
            yield "healthcheck", {"disable": True}
            return
        check: dict[str, Any] = {"test": _escaped(said["Test"])} if said.get("Test") else {}
        for member in ("Interval", "Timeout", "StartPeriod", "StartInterval"):
            if said.get(member):
                key = re.sub(r"(?<!^)(?=[A-Z])", "_", member).lower()
                check[key] = _duration(said[member])
        if said.get("Retries"):
            check["retries"] = said["Retries"]
        yield "healthcheck", check

    # data ---------------------------------------------------------------------------------------

    def _places(self) -> Iterator[Taken]:
        said = [self._mount(mount) for mount in self.mounts if mount["Type"] in ("volume", "bind")]
        said += [
            {"type": "tmpfs", "target": _escaped(m["Target"]), **_tmpfs(m.get("TmpfsOptions"))}
            for m in self.host.get("Mounts") or ()
            if m["Type"] == "tmpfs"
        ]
        if said:
            yield "volumes", sorted(said, key=str)
        if self.host.get("Tmpfs"):
            yield "tmpfs", [f"{k}:{v}" if v else k for k, v in self.host["Tmpfs"].items()]

    def _mount(self, mount: Inspected) -> str | dict[str, Any]:
        target = _escaped(mount["Destination"])
        flags = self._flags(mount)
        is_bind = mount["Type"] == "bind"
        source = _escaped(mount["Source"]) if is_bind else self._volume(mount)
        if (is_bind and self._by_mount(mount)) or ":" in source + target:
            said = {"type": mount["Type"], "source": source, "target": target}
            return said if mount["RW"] else {**said, "read_only": True}
        return ":".join([source, target, *([flags] if flags else [])])

    def _flags(self, mount: Inspected) -> str:
        """What `-v` said behind the target: `ro,z`."""
        for bind in self.host.get("Binds") or ():
            _, _, rest = bind.partition(":")
            target, _, flags = rest.partition(":")
            if target == mount["Destination"]:
                return str(flags)
        return "" if mount["RW"] else "ro"

    def _by_mount(self, mount: Inspected) -> bool:
        """Whether it was asked for by `--mount`, which has no short form."""
        return any(m["Target"] == mount["Destination"] for m in self.host.get("Mounts") or ())

    def _volume(self, mount: Inspected) -> str:
        """The key of a volume; it keeps its name, and so its content."""
        name = str(mount["Name"])
        key = name
        if _ANONYMOUS.fullmatch(name):
            key = f"{self.name}-{re.sub('[^A-Za-z0-9_.-]+', '-', mount['Destination']).strip('-')}"
        self.volumes[key] = {"name": name}
        return key

    # network ------------------------------------------------------------------------------------

    def _networking(self) -> Iterator[Taken]:
        mode = str(self.host.get("NetworkMode") or "default")
        if mode in ("default", "bridge"):
            yield "network_mode", "bridge"
        elif mode in ("host", "none") or mode.startswith("container:"):
            yield "network_mode", mode
        else:
            self.external = {name: {"external": True} for name in self.networks}
            yield "networks", {name: self._endpoint(said) for name, said in self.networks.items()}
        if self.config.get("MacAddress"):
            yield "mac_address", self.config["MacAddress"]
        if ports := list(self._ports()):
            yield "ports", ports
        published = set(self.host.get("PortBindings") or ())
        known = set(self.image.get("ExposedPorts") or ()) | published
        if exposed := sorted(set(self.config.get("ExposedPorts") or ()) - known):
            yield "expose", exposed
        if self.host.get("Links"):
            self.made.left_out.append("links to other containers (--link): name them by a network")

    def _endpoint(self, said: Inspected) -> dict[str, Any] | None:
        found: dict[str, Any] = {}
        aliases = [a for a in said.get("Aliases") or () if a not in (self.id[:12], self.name)]
        if aliases:
            found["aliases"] = aliases
        for member, key in (("IPv4Address", "ipv4_address"), ("IPv6Address", "ipv6_address")):
            if (said.get("IPAMConfig") or {}).get(member):
                found[key] = said["IPAMConfig"][member]
        return found or None

    def _ports(self) -> Iterator[str]:
        for inside, bindings in sorted((self.host.get("PortBindings") or {}).items()):
            port = inside.removesuffix("/tcp")
            for binding in bindings or [{}]:
                address, outside = binding.get("HostIp") or "", binding.get("HostPort") or ""
                address = f"[{address}]" if ":" in address else address
                yield ":".join([*([address] if address else []), *([outside] if outside or address
                                else []), port])  # fmt: skip

    # the rest -----------------------------------------------------------------------------------

    def _restart(self) -> Iterator[Taken]:
        policy = self.host.get("RestartPolicy") or {}
        name, attempts = policy.get("Name") or "no", policy.get("MaximumRetryCount")
        if name != "no":
            yield "restart", f"{name}:{attempts}" if attempts else name

    def _limits(self) -> Iterator[Taken]:
        for member, key in _SAME.items():
            value = self.host.get(member)
            if value and not (member == "PidsLimit" and value < 0):
                yield key, _escaped(value)
        if self.host.get("NanoCpus"):
            yield "cpus", self.host["NanoCpus"] / _SECOND
        memory, swap = self.host.get("Memory"), self.host.get("MemorySwap")
        if swap and swap != 2 * (memory or 0):
            yield "memswap_limit", swap
        swappiness = self.host.get("MemorySwappiness")
        if swappiness is not None and swappiness >= 0:
            yield "mem_swappiness", swappiness
        if self.host.get("ShmSize") not in (None, 0, _SHARED_MEMORY):
            yield "shm_size", self.host["ShmSize"]
        if self.host.get("BlkioWeight"):
            yield "blkio_config", {"weight": self.host["BlkioWeight"]}
        limits = self.host.get("Ulimits") or ()
        if limits:
            yield "ulimits", {u["Name"]: {"soft": u["Soft"], "hard": u["Hard"]} for u in limits}
        devices = [
            f"{d['PathOnHost']}:{d['PathInContainer']}:{d['CgroupPermissions']}"
            for d in self.host.get("Devices") or ()
        ]
        if devices:
            yield "devices", devices
        if self.host.get("DeviceRequests"):
            self.made.left_out.append("GPUs (--gpus): see deploy.resources.reservations.devices")

    def _rest(self) -> Iterator[Taken]:
        log = self.host.get("LogConfig") or {}
        if log.get("Config") or log.get("Type") not in (None, "", "json-file"):
            said = {"driver": log["Type"], "options": log.get("Config")}
            yield "logging", {key: value for key, value in said.items() if value}
        ipc = str(self.host.get("IpcMode") or "")
        if ipc and ipc != "private" and (ipc in _HARMLESS or ipc.startswith("container:")):
            yield "ipc", ipc
        if self.host.get("AutoRemove"):
            self.made.left_out.append("--rm: a container that is removed when it stops")


def _tmpfs(options: Inspected | None) -> dict[str, Any]:
    said = options or {}
    found = {"size": said.get("SizeBytes"), "mode": said.get("Mode")}
    kept = {key: value for key, value in found.items() if value}
    return {"tmpfs": kept} if kept else {}


def _duration(nanoseconds: int) -> str:
    seconds = nanoseconds / _SECOND
    return f"{seconds:g}s" if seconds * 1000 >= 1 else f"{nanoseconds}ns"


def _escaped(value: Any) -> Any:
    """As a compose file has it: a `$` that is meant is doubled."""
    if isinstance(value, str):
        return value.replace("$", "$$")
    return [_escaped(item) for item in value] if isinstance(value, list) else value
