"""What in a compose model would let a container take over its host. Pure.

Each danger has a key; the stack's config may allow it for one service by `allow: [SERVICE.KEY]`.
"""

from __future__ import annotations

import os.path
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from reconciler.project import compose

_FORBIDDEN_BELOW = (
    "/bin", "/boot", "/dev", "/etc", "/lib", "/lib64", "/proc", "/run", "/sbin", "/sys", "/usr",
    "/var/lib/containerd", "/var/lib/docker", "/var/run", "/var/spool/cron", "/root/.docker",
    "/root/.pulumi", "/root/.ssh",
)  # fmt: skip
_HARMLESS_TO_READ = (
    "/etc/ca-certificates", "/etc/localtime", "/etc/pki/ca-trust", "/etc/resolv.conf",
    "/etc/ssl/certs", "/etc/timezone", "/usr/share/ca-certificates", "/usr/share/zoneinfo",
)  # fmt: skip
_SOCKETS = ("containerd.sock", "crio.sock", "docker.sock", "podman.sock")
_HARMLESS_CAPABILITIES = {
    "AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "IPC_LOCK", "KILL",
    "NET_BIND_SERVICE", "NET_RAW", "SETFCAP", "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT",
    "SYS_NICE", "SYS_RESOURCE",
}  # fmt: skip
_OF_THE_HOST = {
    "pid": "pid", "ipc": "ipc", "uts": "uts", "cgroup": "cgroup", "userns_mode": "userns",
    "network_mode": "network",
}  # fmt: skip


@dataclass(frozen=True)
class Danger:
    """One thing that a service asks for. `place`: the member of the service that says it."""

    service: str
    place: str
    key: str
    what: str

    @property
    def allowed_by(self) -> str:
        """The entry of the config's `allow` that permits it."""
        return f"{self.service}.{self.key}"


def find(
    model: compose.Model,
    *,
    own: Sequence[str] = (),
    resolve: Callable[[str], str] = os.path.normpath,
) -> list[Danger]:
    """Every danger in a model, in the order of its services.

    `own`: folders with state of Lockstep, absolute; `resolve`: a path with its links followed.
    """
    looking = _Looking(model, own, resolve)
    return [d for service in compose.services(model) for d in looking.in_service(service)]


def refused(found: Sequence[Danger], allow: Sequence[str]) -> list[Danger]:
    """Those that the config does not allow."""
    return [danger for danger in found if danger.allowed_by not in allow]


def remedy(found: Sequence[Danger], allow: Sequence[str]) -> str:
    """The commands that allow them, one a line."""
    wanted = dict.fromkeys(danger.allowed_by for danger in found)
    return "\n  ".join(
        f"lockstep config set --path 'allow[{number}]' {shlex.quote(entry)}"
        for number, entry in enumerate(wanted, start=len(allow))
    )


class _Looking:
    def __init__(
        self, model: compose.Model, own: Sequence[str], resolve: Callable[[str], str]
    ) -> None:
        self._model, self._own, self._resolve = model, own, resolve

    def in_service(self, service: str) -> Iterator[Danger]:
        body = compose.plain(compose.services(self._model)[service])
        for place, key, what in (
            *self._rights(service, body),
            *self._shared_with(body),
            *self._mounts(body),
            *self._files(body),
            *self._build(body),
        ):
            yield Danger(service, place, key, what)

    def _rights(self, service: str, body: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
        if body.get("privileged"):
            yield "privileged", "privileged", "is privileged: it is root on the host"
        if body.get("use_api_socket"):
            yield "use_api_socket", "api-socket", "gets Docker's socket: it is root on the host"
        for capability in _texts(body.get("cap_add")):
            name = capability.upper().removeprefix("CAP_")
            if name not in _HARMLESS_CAPABILITIES:
                yield "cap_add", f"cap:{name}", f"gets the capability {name}"
        if compose.runs_on_host(self._model, service):
            yield compose.NOTE, "host-gate", "has a gate that runs a command on the host"
        for device in body.get("devices") or ():
            source = device.get("source") if isinstance(device, Mapping) else str(device)
            name = str(source).split(":", 1)[0]
            yield "devices", f"device:{name}", f"gets the host's device {name}"
        for rule in _texts(body.get("device_cgroup_rules")):
            yield "device_cgroup_rules", f"device:{rule}", f"may use devices by the rule {rule}"
        for option in _texts(body.get("security_opt")):
            said = option.replace("=", ":", 1)
            if said.split(":")[-1] in ("unconfined", "disable"):
                yield "security_opt", f"security:{said}", f"runs with {said}"

    def _shared_with(self, body: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
        for place, key in _OF_THE_HOST.items():
            kind, _, other = str(body.get(place) or "").partition(":")
            if kind == "host":
                yield place, f"{key}:host", f"shares the host's {key}"
            elif kind == "container" and other:
                yield place, f"{key}:container:{other}", f"shares the {key} of container {other}"
        for source in _texts(body.get("volumes_from")):
            if source.startswith("container:"):
                yield "volumes_from", source, f"gets all volumes of {source}"

    def _mounts(self, body: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
        for mount in body.get("volumes") or ():
            source = str(mount.get("source") or "")
            read_only = bool(mount.get("read_only"))
            if mount.get("type") == "volume":
                source, by_option = self._device_of(source)
                read_only = read_only or by_option
            elif mount.get("type") != "bind":
                continue
            why = self._why_not(source, read_only=read_only) if source else None
            if why is not None:
                yield "volumes", f"bind:{source}", f"mounts {source}, {why}"

    def _device_of(self, volume: str) -> tuple[str, bool]:
        """(the folder that a volume is by its options, mounted read-only); ("", False): none."""
        declared = compose.plain((self._model.get("volumes") or {}).get(volume) or {})
        options = declared.get("driver_opts") or {}
        device, flags = str(options.get("device") or ""), str(options.get("o") or "").split(",")
        if {"bind", "rbind"} & set(flags) or options.get("type") in ("none", "bind"):
            return device, "ro" in flags
        return "", False

    def _files(self, body: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
        for kind in ("configs", "secrets"):
            for use in body.get(kind) or ():
                name = use.get("source") if isinstance(use, Mapping) else use
                said = compose.plain((self._model.get(kind) or {}).get(name) or {})
                source = str(said.get("file") or "")
                why = self._why_not(source, read_only=True) if source else None
                if why is not None:
                    yield kind, f"bind:{source}", f"gets {source}, {why}"

    def _build(self, body: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
        build = body.get("build") or {}
        if build.get("privileged") or build.get("entitlements"):
            yield "build", "build-privileged", "is built with rights on the host"
        contexts = [build.get("context"), *(build.get("additional_contexts") or {}).values()]
        for context in filter(None, contexts):
            if str(context).startswith("/"):
                why = self._why_not(str(context), read_only=True, build=True)
                if why is not None:
                    yield "build", f"build:{context}", f"is built from {context}, {why}"

    def _why_not(self, source: str, *, read_only: bool, build: bool = False) -> str | None:
        """Why a path of the host is no container's business; None if it may be."""
        for path in {_absolute(os.path.normpath(source)), _absolute(self._resolve(source))}:
            if path.name in _SOCKETS:
                return "through which it is root on the host"
            if not build:  # a project's folder is what it is built from
                for own in map(PurePosixPath, self._own):
                    if path == own or path in own.parents or own in path.parents:
                        return f"where Lockstep keeps {own}"
            harmless = read_only and any(_within(path, h) for h in _HARMLESS_TO_READ)
            if harmless:
                continue
            for system in _FORBIDDEN_BELOW:
                if _within(path, system):
                    return f"which belongs to the host ({system})"
                if PurePosixPath(system).is_relative_to(path):
                    return f"which holds the host's {system}"
        return None


def _absolute(path: str) -> PurePosixPath:
    """Two slashes at the beginning are one."""
    return PurePosixPath("/" + path.lstrip("/"))


def _within(path: PurePosixPath, folder: str) -> bool:
    return path.is_relative_to(folder)


def _texts(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    return [str(v) for v in value] if isinstance(value, list | tuple) else []
