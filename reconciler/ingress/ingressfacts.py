"""What is there of a stack's ingress, and what is wrong with it: nothing here changes anything but
`leave`, which makes room for a network's removal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from reconciler.catalog import Catalog
from reconciler.config import Stack
from reconciler.docker import Docker, Listed
from reconciler.errors import LockstepError
from reconciler.facts import Container
from reconciler.ingress import ingressfile as file
from reconciler.ingress import ingresssocket
from reconciler.ingress.ingressfile import Pointing
from reconciler.ingress.ingressports import Door, of_service, read
from reconciler.plan import Move, Plan, Refusal
from reconciler.project import compose
from reconciler.records.release import Release

OF_STACK = "lockstep.ingress"
"""Label of an ingress container: the stack that it is of."""
DOOR = "lockstep.ingress-port"

LOCAL = "lockstep-base/"
"""What set-up makes or pulls, and no registry has by this name."""
GET_IMAGE = "make setup   makes it; or lockstep config set --path ingress.image haproxy@sha256:..."


def units(stack: Stack, docker: Docker) -> dict[Door, Listed]:
    """The stack's ingress containers by what they own, running or not."""
    return among(docker.listing(labels=[f"{OF_STACK}={stack_of(stack)}"]), stack)


def among(listed: Iterable[Listed], stack: Stack) -> dict[Door, Listed]:
    """The same, of containers that were listed already."""
    return {door_of(unit): unit for unit in listed if is_of(unit, stack)}


def is_of(unit: Listed, stack: Stack) -> bool:
    """Whether a container is the stack's ingress."""
    return unit.labels.get(OF_STACK) == stack_of(stack)


def folder(catalog: Catalog, door: Door) -> Path:
    """Where the configuration and the socket of a door lie."""
    return catalog.root / "ingress" / catalog.stack.name / door.slug


def examine(
    catalog: Catalog, listed: Mapping[Door, Listed], live: tuple[Container, ...]
) -> tuple[str, ...]:
    """What is not as it should be, as sentences. `listed`: the ingress containers there are."""
    wanted = {b.door: Pointing(c.name, b.target, b.proxy) for c in live for b in read(c.behind)}
    wrong = [
        f"port {door} is held by an ingress that the live world does not need"
        for door in sorted(listed.keys() - wanted.keys())
    ]
    for door, pointing in sorted(wanted.items()):
        said = _wrong(catalog, door, pointing, listed.get(door))
        if said is not None:
            wrong.append(f"the ingress of port {door} {said}")
    return tuple(wrong)


def _wrong(catalog: Catalog, door: Door, pointing: Pointing, unit: Listed | None) -> str | None:
    if unit is None:
        return "is missing"
    if unit.state != "running":
        return f"does not run ({unit.state})"
    here = folder(catalog, door)
    try:
        if file.pointing_of((here / "config" / file.FILE).read_text()) != pointing:
            return f"is not configured for {pointing.container}"
        said = ingresssocket.ask(here / "run" / file.SOCKET, "show servers state world")
        counted = file.counted(ingresssocket.ask(here / "run" / file.SOCKET, "show stat"))
    except PermissionError:
        return None  # another user's: he cannot put it right either
    except (OSError, LockstepError):
        return "does not answer"
    if not file.serves(file.servers(said), pointing):
        return f"does not serve {pointing.container}"
    if counted.waiting and counted.limit < file.UNLIMITED:
        return f"serves no more than {counted.limit} clients of {pointing.container} at once"
    return None


def leave(docker: Docker, stack: Stack, networks: tuple[str, ...]) -> None:
    """Disconnect the ingress from networks that are about to be removed."""
    for unit in units(stack, docker).values():
        for network in docker.inspect(unit.id).networks & set(networks):
            docker.leave_network(unit.id, network)


def images_in_use(stack: Stack, docker: Docker) -> dict[str, str]:
    """Id -> name, of what the ingress runs: a stopped one would not hold it against a prune."""
    name = stack.settings.ingress.image
    return {unit.image_id: name for unit in units(stack, docker).values()}


def insisting_on_image(stack: Stack, docker: Docker, plan: Plan, record: Release | None) -> Plan:
    """The plan, refused when it needs an image of HAProxy that is not here and no registry has."""
    settings = stack.settings.ingress
    if record is None or plan.move is Move.STAY or not settings.image.startswith(LOCAL):
        return plan
    services = compose.services(record.model)
    if not any(of_service(record.model, service, settings) for service in services):
        return plan
    if docker.image(settings.image) is not None:
        return plan
    refusal = Refusal(f"the image of the ingress, {settings.image}, is missing", GET_IMAGE)
    return replace(plan, refusals=(*plan.refusals, refusal))


def stack_of(stack: Stack) -> str:
    return f"{stack.project}/{stack.name}"


def door_of(unit: Listed) -> Door:
    ip, _, port = unit.labels[DOOR].rpartition(" ")
    return Door(ip, int(port))
