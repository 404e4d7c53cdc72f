"""The hand-over from one world to another: what waits for what.

Services stop dependents first and start dependencies first. A service whose data and networks
nobody of the leaving world shares need not wait for more than its port: then the world that leaves
gives up its ports first, and the rest of it stops while the other already starts.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from reconciler.hooks.hooks import Hooks
from reconciler.hooks.hooktable import At
from reconciler.host.graph import Act, perform
from reconciler.switching.services import Services
from reconciler.world.hostworld import STARTED, HostWorld, Service

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
    ports_free: Callable[[], None] = lambda: None
    """Told when nobody of the leaving world holds a port any more."""
    at_rest: Callable[[], None] = lambda: None
    """Told when the leaving world is down and the data is as it must be."""
    hooks: Hooks | None = None
    """The user's; none on the way back."""

    def carry_out(self) -> None:
        """Returns when the coming world is ready, and its gates let it pass."""
        before = {_hook(At.POST_START), _hook(At.PRE_PROVE)}
        gates = [replace(gate, after=gate.after | before) for gate in self.gates]
        acts = [*self._stops(), *self._seals(), *self._starts(), *gates, *self._hooks()]
        perform(acts, self.services.abandoned)

    def _stops(self) -> list[Act]:
        if self.leaving is None:
            return [Act(PORTS_FREE, self._ports_are_free)]
        services = self.leaving.services
        in_advance = self._port_holders() if self.independent else frozenset()
        acts = []
        for service in services.values():
            dependents = {f"stop {s.name}" for s in services.values() if service.name in s.needs}
            after = frozenset() if service.name in in_advance else frozenset(dependents)
            acts.append(Act(f"stop {service.name}", partial(self._stop, service), after))
        strays = partial(self.services.stop_containers, self.leaving.strays)
        holders = frozenset(f"stop {name}" for name in self._port_holders())
        return [*acts, Act(STRAYS, strays), Act(PORTS_FREE, self._ports_are_free, holders)]

    def _stop(self, service: Service) -> None:
        hooks = self.hooks if service.up else None
        if hooks is not None:
            hooks.of_service(At.PRE_STOP, service.name)
        self.on_stop(service)
        self.services.stop(service)
        if hooks is not None:
            hooks.of_service(At.POST_STOP, service.name)

    def _port_holders(self) -> frozenset[str]:
        services = self.leaving.services.values() if self.leaving else ()
        return frozenset(s.name for s in services if s.ports or s.on_host_network)

    def _seals(self) -> list[Act]:
        services = self.leaving.services.values() if self.leaving else ()
        acts = []
        for seal in self.seals:
            quiet = {seal.place, *seal.beside}
            users = {f"stop {s.name}" for s in services if any(map(s.mounts, quiet))}
            first = {STRAYS, _hook(At.POST_STOP), _hook(At.PRE_SEAL)}
            acts.append(
                Act(f"seal {seal.dataset}", partial(self._seal, seal), frozenset(users | first))
            )
        everything = {f"stop {s.name}" for s in services} | {act.name for act in acts}
        everything |= {_hook(at) for at in (At.POST_STOP, At.PRE_SEAL, At.POST_SEAL)}
        return [*acts, Act(AT_REST, self._all_at_rest, frozenset(everything | {STRAYS}))]

    def _seal(self, seal: Seal) -> None:
        if self.hooks is not None:
            self.hooks.of_dataset(At.PRE_SEAL, seal.dataset)
        seal.do()
        if self.hooks is not None:
            self.hooks.of_dataset(At.POST_SEAL, seal.dataset)

    def _all_at_rest(self) -> None:
        self._clock_starts()
        self.at_rest()

    def _ports_are_free(self) -> None:
        self._clock_starts()
        self.ports_free()

    def _clock_starts(self) -> None:
        """The proof has its time from the moment that nothing but the start is waited for."""
        self.services.allow(self.proof_seconds)

    def _starts(self) -> list[Act]:
        return start_acts(
            self.services,
            self.coming.services,
            settle=self._settle,
            settled=self.settled,
            after=self._free_to_start,
            hooks=self.hooks,
        )

    def _free_to_start(self, service: str) -> frozenset[str]:
        if service in self.independent:
            return frozenset({PORTS_FREE})
        return frozenset({AT_REST, _hook(At.PRE_START)})

    def _hooks(self) -> list[Act]:
        """The user's hooks between two phases: what comes after them waits."""
        leaving = self.leaving.services if self.leaving else {}
        stopped = {f"stop {name}" for name in leaving} | {STRAYS}
        sealed = {f"seal {seal.dataset}" for seal in self.seals}
        ready = {f"ready {name}" for name in self.coming.services}
        after = {
            At.POST_STOP: stopped,
            At.PRE_SEAL: stopped | {_hook(At.POST_STOP)},
            At.POST_SEAL: stopped | sealed | {_hook(At.PRE_SEAL)},
            At.PRE_START: {AT_REST},
            At.POST_START: ready | {_hook(At.PRE_START)},
            At.PRE_PROVE: ready | {_hook(At.POST_START)},
        }
        hooks = self.hooks
        if hooks is None:
            return []
        return [
            Act(_hook(at), partial(hooks.boundary, at), frozenset(first))
            for at, first in after.items()
            if hooks.has(at) and (leaving or at.phase in ("start", "prove"))
        ]

    def _settle(self, service: Service) -> None:
        self.settle(service)
        self.on_answer(service)


def start_acts(
    services: Services,
    coming: Mapping[str, Service],
    *,
    settle: Callable[[Service], None] = lambda _: None,
    settled: Collection[str] = (),
    after: Callable[[str], frozenset[str]] = lambda _: frozenset(),
    hooks: Hooks | None = None,
) -> list[Act]:
    """Start and prove services, dependencies first, each not before the acts `after(name)`."""
    acts = []
    for name, service in coming.items():
        needs = {
            # Others may use an engine only once its data and credentials are settled.
            f"start {other}" if condition == STARTED and other not in settled else f"ready {other}"
            for other, condition in service.needs.items()
            if other in coming
        }
        begin = Act(
            f"start {name}",
            partial(_start, services, service, hooks),
            frozenset(needs | after(name)),
        )
        ready = Act(
            f"ready {name}",
            partial(_ready, services, service, settle, hooks),
            frozenset({begin.name}),
        )
        acts += [begin, ready]
    return acts


def _start(services: Services, service: Service, hooks: Hooks | None) -> None:
    if hooks is not None:
        hooks.of_service(At.PRE_START, service.name)
    services.start(service)


def _ready(
    services: Services,
    service: Service,
    settle: Callable[[Service], None],
    hooks: Hooks | None,
) -> None:
    services.await_ready(service)
    settle(service)
    if hooks is not None:
        hooks.of_service(At.POST_START, service.name)


def _hook(at: At) -> str:
    """The act of the user's hooks at a place; there is none where no hook is due."""
    return f"hooks {at}"
