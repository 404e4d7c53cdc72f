"""The data of the target world, as its running engines see it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from reconciler.plan import Action, DatasetPlan
from reconciler.records.ledger import State, World
from reconciler.records.release import Release
from reconciler.switching.data import Data, Engine
from reconciler.world.hostworld import HostWorld, Service


@dataclass(frozen=True)
class Settling:
    """Makes an engine fit to be used, and proves that it still has what it had."""

    data: Data
    planned: Mapping[str, DatasetPlan]
    state: State
    left: World | None
    target: World
    new: HostWorld
    record: Release

    @property
    def services(self) -> frozenset[str]:
        """Services that serve a dataset with a driver of its own: others wait for them."""
        return frozenset(
            mount.service
            for dataset in self.record.datasets.values()
            for mount in dataset.mounts
            if dataset.driver != "directory"
        )

    def settle(self, service: Service) -> None:
        """Credentials, and content that is not this world's to spoil, are right before anybody
        uses the engine. Raises NotProved."""
        for engine in self._engines(service):
            planned = self.planned[engine.dataset]
            # Never a second time: a load that broke off half-way may have left what it had.
            self.data.load(engine)
            steps: list[Callable[[Engine], None]] = []
            if self._credentials_may_differ(planned):
                steps.append(self.data.align)
            if planned.action is not Action.FORK:
                steps.append(self.data.check)
            self.data.patiently(engine, *steps)

    def insist_on_content(self, probes: Mapping[str, Mapping[str, int]]) -> None:
        """Every dataset is sound, and what held something is not empty. Raises NotProved.

        `probes`: the counts of the world that is left.
        """
        for engine in self._engines(None):
            planned = self.planned[engine.dataset]
            if planned.action is Action.FORK:
                self.data.patiently(engine, self.data.check)
            self.data.insist_on_content(engine, held_before(self.state, planned, probes))

    def _engines(self, service: Service | None) -> list[Engine]:
        engines = self.data.engines(self.new, self.record, self.planned)
        return [e for e in engines if service is None or e.container.id in service.ids]

    def _credentials_may_differ(self, planned: DatasetPlan) -> bool:
        """Content that this very world, or one with the same secrets, wrote fits them already."""
        match planned.action:
            case Action.FORK if self.left is not None:
                known = bool(self.target.fingerprint)
                return not known or self.left.fingerprint != self.target.fingerprint
            case Action.ATTACH:
                return not self.target.proved
            case Action.CREATE | Action.LEAVE:
                return False
            case _:
                return True


def held_before(
    state: State, planned: DatasetPlan, probes: Mapping[str, Mapping[str, int]]
) -> Mapping[str, int]:
    """What a dataset of the target world held when its content was last counted; {} if unknown.

    `probes`: the counts of the world that is left.
    """
    stays = planned.action is Action.IN_PLACE and not planned.snapshot
    if planned.action is Action.FORK or stays:
        return probes.get(planned.name, {})
    for departure in reversed(state.departures):
        attached = departure.generations.get(planned.name) == planned.generation
        restored = departure.snapshots.get(planned.name) == planned.snapshot is not None
        if attached if planned.action is Action.ATTACH else restored:
            return departure.probes.get(planned.name, {})
    return {}
