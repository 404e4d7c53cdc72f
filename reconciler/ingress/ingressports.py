"""Which published ports the stack's ingress owns, and which container stands behind each. Pure.

What a world's containers publish themselves is settled when they are made, and written down in a
label of theirs; so whoever looks at a container knows it, whatever the config says by then.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from reconciler.config import Ingress
from reconciler.docker.dockervalues import BEHIND
from reconciler.facts import Container
from reconciler.project import compose


@dataclass(frozen=True, order=True)
class Door:
    """An address of the host that the ingress owns; `ip` "" means every address."""

    ip: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.ip}]" if ":" in self.ip else self.ip
        return f"{host}:{self.port}" if self.ip else str(self.port)

    @property
    def slug(self) -> str:
        """The same, as part of a file's or a container's name."""
        return "-".join((str(self.port), *self.ip.replace(":", "_").split()))


@dataclass(frozen=True, order=True)
class Behind:
    """What stands behind a door: a port of a container; `proxy`: it is told clients' addresses."""

    door: Door
    target: int
    proxy: bool


def of_service(model: compose.Model, service: str, settings: Ingress) -> tuple[Behind, ...]:
    """The published ports of a service that go through the ingress: fixed TCP ports, where the
    service has networks of its own."""
    body = compose.services(model)[service]
    if body.get("network_mode"):
        return ()
    found = (_behind(service, port, settings) for port in body.get("ports") or ())
    return tuple(sorted(b for b in found if b is not None))


def _behind(service: str, port: Mapping[str, Any], settings: Ingress) -> Behind | None:
    published = str(port.get("published") or "")
    if not published.isdigit() or not int(published) or (port.get("protocol") or "tcp") != "tcp":
        return None
    number = int(published)
    if settings.way_of(service, number) == "direct":
        return None
    door = Door(str(port.get("host_ip") or ""), number)
    return Behind(door, int(port["target"]), settings.tells_address(service, number))


def put_behind(body: dict[str, Any], service: str, settings: Ingress) -> None:
    """Take from a service of a compose model the ports that go through the ingress, and say so in
    its label."""
    found = of_service({"services": {service: body}}, service, settings)
    if not found:
        return
    body["ports"] = [p for p in body["ports"] if _behind(service, p, settings) is None]
    body.setdefault("labels", {})[BEHIND] = label(found)


def label(found: Iterable[Behind]) -> str:
    """As a container's label has it; "" for none."""
    entries = [[b.door.ip, b.door.port, b.target, b.proxy] for b in found]
    return json.dumps(entries) if entries else ""


def read(text: str) -> tuple[Behind, ...]:
    """The other way round."""
    return tuple(
        Behind(Door(ip, port), target, proxy)
        for ip, port, target, proxy in json.loads(text or "[]")
    )


def changed(model: compose.Model, containers: Iterable[Container], settings: Ingress) -> bool:
    """Whether containers of a world were made with other ports behind the ingress than the
    settings want."""
    return any(
        read(c.behind) != of_service(model, c.service, settings)
        for c in containers
        if not c.one_off and c.service in compose.services(model)
    )


def as_made(settings: Ingress, containers: Iterable[Container]) -> Ingress:
    """The settings by which containers of a world that are missing fit those that are there: what
    is known of a service by its containers comes before what the settings say of it today."""
    by_service = {c.service: read(c.behind) for c in containers if not c.one_off}
    ports = {k: w for k, w in settings.ports.items() if k.partition(":")[0] not in by_service}
    proxy = [name for name in settings.proxy if name.partition(":")[0] not in by_service]
    for service, found in by_service.items():
        ports[service] = "direct"
        ports |= {f"{service}:{b.door.port}": "haproxy" for b in found}
        proxy += [f"{service}:{b.door.port}" for b in found if b.proxy]
    return settings.model_copy(update={"ports": ports, "proxy": tuple(proxy)})
