"""A world as it stands on the host: its services, read from their containers.

The containers carry Compose's labels, so a world can be stopped, and started again, even when
its record cannot be read.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from reconciler.config import Settings
from reconciler.docker import ONE_OFF, PROJECT, ContainerDetails, Docker, Published
from reconciler.gates.written import Gates
from reconciler.ingress import ingressports
from reconciler.ingress.ingressports import Behind
from reconciler.project import compose
from reconciler.records.release import Release

DEPENDS_ON = "com.docker.compose.depends_on"
STARTED = "service_started"
COMPLETED = "service_completed_successfully"

_UP = ("running", "restarting", "paused")


@dataclass(frozen=True)
class Service:
    """One service of a world, with its containers (several when it is scaled)."""

    name: str
    containers: tuple[ContainerDetails, ...]
    needs: Mapping[str, str]
    """Services of this world that come first -> Compose's condition."""
    gates: Gates
    job: bool
    """Ends by itself: proved by exit code 0."""
    after_commit: bool
    restart_policy: str
    """The one that its release gives it while it is live."""
    again: bool = False
    """A job that runs each time that its world is started."""

    @property
    def ids(self) -> tuple[str, ...]:
        return tuple(c.id for c in self.containers)

    @property
    def done(self) -> bool:
        """Whether it is a job whose work was done when the world was looked at."""
        ended = all(c.state == "exited" and c.exit_code == 0 for c in self.containers)
        return self.job and not self.again and ended

    @property
    def up(self) -> bool:
        """Whether any of its containers ran when the world was looked at."""
        return any(c.state in _UP for c in self.containers)

    @property
    def ports(self) -> frozenset[Published]:
        """What it publishes on the host."""
        return frozenset(port for c in self.containers for port in c.ports)

    @property
    def behind(self) -> tuple[Behind, ...]:
        """What of it is reached through the stack's ingress."""
        return tuple(b for c in self.containers for b in ingressports.read(c.behind))

    @property
    def outward(self) -> bool:
        """Whether anybody outside the world can reach it."""
        return bool(self.ports or self.behind)

    @property
    def networks(self) -> frozenset[str]:
        return frozenset().union(*(c.networks for c in self.containers))

    @property
    def on_host_network(self) -> bool:
        return any(c.network_mode == "host" for c in self.containers)

    @property
    def writes(self) -> frozenset[str]:
        """Volumes and host paths that it can write."""
        return frozenset(
            source
            for c in self.containers
            for target, source in c.volumes.items()
            if target not in c.read_only
        )

    def mounts(self, place: str) -> bool:
        """Whether it sees this volume or host path at all."""
        return any(place in c.volumes.values() for c in self.containers)


@dataclass(frozen=True)
class HostWorld:
    """All services of a world."""

    name: str
    services: Mapping[str, Service]
    strays: tuple[str, ...] = ()
    """Ids of its containers that belong to no service: `docker compose run`."""

    @property
    def ids(self) -> tuple[str, ...]:
        return tuple(i for s in self.services.values() for i in s.ids)

    @property
    def running(self) -> tuple[str, ...]:
        """Ids of service containers that ran when the world was looked at."""
        return tuple(c.id for s in self.services.values() for c in s.containers if c.state in _UP)

    @property
    def ports(self) -> frozenset[Published]:
        return frozenset().union(*(s.ports for s in self.services.values()))

    def only(self, names: Collection[str]) -> HostWorld:
        """The same world, reduced to these services."""
        kept = {name: service for name, service in self.services.items() if name in names}
        return HostWorld(self.name, kept)


def look(docker: Docker, world: str, record: Release | None, settings: Settings) -> HostWorld:
    """The world's containers as they are now. `record`: its release, when it can be read."""
    by_service: dict[str, list[ContainerDetails]] = {}
    strays = []
    for listed in docker.listing(labels=[f"{PROJECT}={world}"]):
        if listed.labels.get(ONE_OFF) == "True":
            strays.append(listed.id)
            continue
        details = docker.inspect(listed.id)
        by_service.setdefault(details.service, []).append(details)
    needs = {name: _needs(name, found[0].labels, record) for name, found in by_service.items()}
    later = compose.after_commit(record.model) if record is not None else set()
    services = {}
    for name, found in sorted(by_service.items()):
        services[name] = Service(
            name,
            tuple(sorted(found, key=lambda c: c.name)),
            needs[name],
            gates=_gates(name, record, settings),
            job=_is_job(name, record, needs),
            after_commit=name in later,
            restart_policy=_policy(name, record, found[0]),
            again=_runs_again(name, record),
        )
    return HostWorld(world, services, tuple(strays))


def _needs(name: str, labels: Mapping[str, str], record: Release | None) -> dict[str, str]:
    """From Compose's label (`db:service_healthy:false,cache:service_started:false`)."""
    label = labels.get(DEPENDS_ON)
    if label is None and record is not None and name in record.model["services"]:
        return dict(compose.dependencies(record.model, name))
    entries = [entry.split(":") for entry in (label or "").split(",") if entry]
    return {entry[0]: entry[1] if len(entry) > 1 else STARTED for entry in entries}


def _gates(name: str, record: Release | None, settings: Settings) -> Gates:
    if record is None or name not in record.model["services"]:
        return settings.gates.get(name, ())
    return compose.gates(record.model, settings, name)


def _is_job(name: str, record: Release | None, needs: Mapping[str, Mapping[str, str]]) -> bool:
    if record is not None and name in record.model["services"]:
        return compose.is_job(record.model, name)
    return any(of.get(name) == COMPLETED for of in needs.values())


def _runs_again(name: str, record: Release | None) -> bool:
    if record is None or name not in record.model["services"]:
        return False
    return compose.runs_again(record.model, name)


def _policy(name: str, record: Release | None, container: ContainerDetails) -> str:
    if record is not None and name in record.model["services"]:
        return compose.restart_policy(record, name)
    return container.restart_policy
