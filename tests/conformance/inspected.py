"""Two compose projects as `docker inspect` has them, compared field by field."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.reconciler.trial import docker_cli

PROJECT = "com.docker.compose.project"
SERVICE = "com.docker.compose.service"
NUMBER = "com.docker.compose.container-number"
_ID = re.compile(r"[0-9a-f]{64}")
_IN_NO_ORDER = ("HostConfig/ExtraHosts", "HostConfig/CapAdd", "HostConfig/CapDrop")
_DEPENDS_ON = "Config/Labels/com.docker.compose.depends_on"


@dataclass(frozen=True)
class Seen:
    """What Docker has of a project: containers by `web 1`, networks and volumes by name."""

    project: str
    containers: Mapping[str, Mapping[str, Any]]
    networks: Mapping[str, Mapping[str, Any]]
    volumes: Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Names:
    """What a world calls otherwise than the plain project."""

    files: str
    """Folder of the world's config files."""
    volumes: Mapping[str, str] = field(default_factory=dict)
    """generation -> the volume or folder that the plain project has."""


@dataclass(frozen=True)
class Pair:
    """A field that is not the same. `place`: `web 1`, `network lan` or `volume data`."""

    place: str
    path: str
    plain: Any
    world: Any


def look(project: str) -> Seen:
    """What Docker has of a compose project, and of all that its containers use."""
    ids = docker_cli("ps", "--all", "-q", "--no-trunc", "--filter", f"label={PROJECT}={project}")
    listed = _inspect("container", ids.split())
    containers = {
        f"{one['Config']['Labels'][SERVICE]} {one['Config']['Labels'][NUMBER]}": one
        for one in listed
    }
    joined = {str(name) for one in listed for name in one["NetworkSettings"]["Networks"]}
    known = set(docker_cli("network", "ls", "--format", "{{.Name}}").split())
    mounted = {m["Name"] for one in listed for m in one["Mounts"] if m["Type"] == "volume"}
    return Seen(
        project,
        containers,
        {n["Name"]: n for n in _inspect("network", sorted(joined & known))},
        {v["Name"]: v for v in _inspect("volume", sorted(mounted)) if not _ID.fullmatch(v["Name"])},
    )


def _inspect(kind: str, names: list[str]) -> list[dict[str, Any]]:
    return list(json.loads(docker_cli(kind, "inspect", *names))) if names else []


def pairs(plain: Seen, world: Seen, names: Names) -> Iterator[Pair]:
    """Every field that is not the same, once the same thing is called the same."""
    before, after = _Naming(plain, Names("")), _Naming(world, names, like=plain)
    for key in sorted(plain.containers.keys() | world.containers.keys()):
        one, other = plain.containers.get(key), world.containers.get(key)
        yield from _differing(
            key,
            before.flat(_by_purpose(one), key) if one else {},
            after.flat(_by_purpose(other), key) if other else {},
        )
    for kind, there, here in (
        ("network", plain.networks, world.networks),
        ("volume", plain.volumes, world.volumes),
    ):
        renamed = {after.text(name): body for name, body in here.items()}
        for name in sorted(there.keys() | renamed.keys()):
            one, other = there.get(name), renamed.get(name)
            yield from _differing(
                f"{kind} {name}",
                before.flat(one) if one else {},
                after.flat(other) if other else {},
            )


def _differing(place: str, plain: Mapping[str, Any], world: Mapping[str, Any]) -> Iterator[Pair]:
    for path in sorted(plain.keys() | world.keys()):
        if plain.get(path) != world.get(path):
            yield Pair(place, path, plain.get(path), world.get(path))


class _Naming:
    """Ids and names of a project as they would be in the plain one."""

    def __init__(self, seen: Seen, names: Names, like: Seen | None = None) -> None:
        self._is_world = like is not None
        self._files = names.files
        self._volumes = sorted(names.volumes.items(), key=lambda pair: -len(pair[0]))
        self._world, self._plain = seen.project, like.project if like else seen.project
        self._shown = {one["Id"]: f"container {key}" for key, one in seen.containers.items()}
        self._shown |= {key[:12]: said for key, said in self._shown.items()}
        self._called = {
            self.text(one["Name"].lstrip("/")): f"name of {key}"
            for key, one in seen.containers.items()
        }

    def flat(self, value: Any, own: str = "", path: str = "") -> dict[str, Any]:
        """Fields by path. What is empty is as good as absent: Docker says null, [], {} and ""."""
        if isinstance(value, Mapping) and value:
            found: dict[str, Any] = {}
            for key, inner in value.items():
                place = self.text(str(key))
                found |= self.flat(inner, own, f"{path}/{place}" if path else place)
            return found
        if isinstance(value, list):
            value = [self._of(item) for item in value]
            if path.endswith("/Links"):
                value = [self._link(v) for v in value]
            if path in _IN_NO_ORDER:
                value = sorted(value)
        elif isinstance(value, str):
            value = self.text(value)
            if path == _DEPENDS_ON:
                value = ",".join(sorted(value.split(",")))  # Compose writes them in any order
        return {} if value in (None, "", [], {}) else {path: value}

    def _of(self, value: Any) -> Any:
        if isinstance(value, Mapping):
            return {self.text(str(k)): self._of(v) for k, v in value.items()}
        return self.text(value) if isinstance(value, str) else value

    def _link(self, link: str) -> str:
        to, colon, alias = link.partition(":")
        return self._called.get(to, to) + colon + alias

    def text(self, text: str) -> str:
        """A text in which ids and names are those of the plain project."""
        for known, shown in self._shown.items():
            text = text.replace(known, shown)
        if not self._is_world:
            return text
        for generation, plain in self._volumes:
            if text == generation or text.startswith(f"{generation}:"):
                text = plain + text.removeprefix(generation)
        text = text.replace(self._files, "").replace(self._world, self._plain)
        return text.replace(f"{self._plain}-prod_", f"{self._plain}_")


def _by_purpose(container: Mapping[str, Any]) -> dict[str, Any]:
    """A container whose mounts, devices, variables and aliases are known by what they are for."""
    host = dict(container["HostConfig"])
    host["Binds"] = {b.split(":")[1]: b for b in host.get("Binds") or ()}
    host["Mounts"] = {m["Target"]: m for m in host.get("Mounts") or ()}
    host["Ulimits"] = {u["Name"]: u for u in host.get("Ulimits") or ()}
    host["Devices"] = {d["PathInContainer"]: d for d in host.get("Devices") or ()}
    config = dict(container["Config"])
    config["Env"] = dict(v.partition("=")[::2] for v in config.get("Env") or ())
    settings = dict(container["NetworkSettings"])
    settings["Networks"] = {
        name: {**endpoint, "Aliases": dict.fromkeys(endpoint.get("Aliases") or (), True)}
        for name, endpoint in settings["Networks"].items()
    }
    mounts = {m["Destination"]: m for m in container.get("Mounts") or ()}
    return {
        **container,
        "HostConfig": host,
        "Config": config,
        "NetworkSettings": settings,
        "Mounts": mounts,
    }
