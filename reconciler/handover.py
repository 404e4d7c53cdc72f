"""The hand-over from one world to another: what waits for what.

Services stop dependents first and start dependencies first. A service whose data and networks
nobody of the leaving world shares need not wait for more than its port: then the world that leaves
gives up its ports first, and the rest of it stops while the other already starts.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from reconciler.graph import Act, perform
from reconciler.hostworld import STARTED, HostWorld, Service
from reconciler.services import Services

AT_REST = "the data is as it must be"
PORTS_FREE = "the ports are free"
STRAYS = "stop one-off containers"


@dataclass(frozen=True)
class Seal:
    """Work on a dataset that needs all who mount `place` (volume or host path) to stand still."""

    dataset: str
    place: str
    do: Callable[[], None]
    beside: frozenset[str] = frozenset()
    """Places of the datasets that are sealed at the same point: their users stand still, too."""


@dataclass(frozen=True)
class HandOver:
    """One hand-over; `leaving` None: nothing runs yet."""

    services: Services
    leaving: HostWorld | None
    coming: HostWorld
    seals: tuple[Seal, ...]
    independent: frozenset[str]
    """Services of the coming world that wait only for the leaving world's ports."""
    settle: Callable[[Service], None]
    """What has to be done in a service once it is ready, before others use it."""
    settled: frozenset[str]
    """Services for which `settle` does something."""
    proof_seconds: float
    gates: Sequence[Act] = ()
    """What is asked of the coming world beside its readiness."""
    on_answer: Callable[[Service], None] = lambda _: None
    """Told when a service of the coming world is ready."""
    on_stop: Callable[[Service], None] = lambda _: None
    at_rest: Callable[[], None] = lambda: None
    """Told when the leaving world is down and the data is as it must be."""

    def carry_out(self) -> None:
        """Returns when the coming world is ready, and its gates let it pass."""
        acts = [*self._stops(), *self._seals(), *self._starts(), *self.gates]
        perform(acts, self.services.abandoned)

    def _stops(self) -> list[Act]:
        if self.leaving is None:
            return [Act(PORTS_FREE, self._clock_starts)]
        services = self.leaving.services
        in_advance = self._port_holders() if self.independent else frozenset()
        acts = []
        for service in services.values():
            dependents = {f"stop {s.name}" for s in services.values() if service.name in s.needs}
            after = frozenset() if service.name in in_advance else frozenset(dependents)
            acts.append(Act(f"stop {service.name}", partial(self._stop, service), after))
        strays = partial(self.services.stop_containers, self.leaving.strays)
        holders = frozenset(f"stop {name}" for name in self._port_holders())
        return [*acts, Act(STRAYS, strays), Act(PORTS_FREE, self._clock_starts, holders)]

    def _stop(self, service: Service) -> None:
        self.on_stop(service)
        self.services.stop(service)

    def _port_holders(self) -> frozenset[str]:
        services = self.leaving.services.values() if self.leaving else ()
        return frozenset(s.name for s in services if s.ports or s.on_host_network)

    def _seals(self) -> list[Act]:
        services = self.leaving.services.values() if self.leaving else ()
        acts = []
        for seal in self.seals:
            quiet = {seal.place, *seal.beside}
            users = {f"stop {s.name}" for s in services if any(map(s.mounts, quiet))}
            acts.append(Act(f"seal {seal.dataset}", seal.do, frozenset(users | {STRAYS})))
        everything = {f"stop {s.name}" for s in services} | {act.name for act in acts}
        return [*acts, Act(AT_REST, self._all_at_rest, frozenset(everything | {STRAYS}))]

    def _all_at_rest(self) -> None:
        self._clock_starts()
        self.at_rest()

    def _clock_starts(self) -> None:
        """The proof has its time from the moment that nothing but the start is waited for."""
        self.services.allow(self.proof_seconds)

    def _starts(self) -> list[Act]:
        return start_acts(
            self.services,
            self.coming.services,
            settle=self._settle,
            settled=self.settled,
            after=lambda name: PORTS_FREE if name in self.independent else AT_REST,
        )

    def _settle(self, service: Service) -> None:
        self.settle(service)
        self.on_answer(service)


def start_acts(
    services: Services,
    coming: Mapping[str, Service],
    *,
    settle: Callable[[Service], None] = lambda _: None,
    settled: Collection[str] = (),
    after: Callable[[str], str] = lambda _: "",
) -> list[Act]:
    """Start and prove services, dependencies first, each not before the act `after(name)`."""
    acts = []
    for name, service in coming.items():
        needs = {
            # Others may use an engine only once its data and credentials are settled.
            f"start {other}" if condition == STARTED and other not in settled else f"ready {other}"
            for other, condition in service.needs.items()
            if other in coming
        }
        begin = Act(
            f"start {name}", partial(services.start, service), frozenset(needs | {after(name)})
        )
        ready = Act(
            f"ready {name}",
            partial(_ready, services, service, settle),
            frozenset({begin.name}),
        )
        acts += [begin, ready]
    return acts


def _ready(services: Services, service: Service, settle: Callable[[Service], None]) -> None:
    services.await_ready(service)
    settle(service)
