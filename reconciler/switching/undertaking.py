"""What one switch works with, whoever carries it on: the switch itself, or its recovery."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reconciler import clock
from reconciler.catalog import Catalog
from reconciler.config import Stack
from reconciler.docker import Docker
from reconciler.errors import CatalogDamaged
from reconciler.gates.results import GateResult
from reconciler.hooks.hooks import Hooks
from reconciler.hooks.hookscene import Scene
from reconciler.ingress.ingress import Ingress
from reconciler.records.journal import Intent, JournalFile
from reconciler.records.ledger import World
from reconciler.records.release import Release
from reconciler.switching import detached
from reconciler.switching.data import Data
from reconciler.switching.services import Services
from reconciler.world.hostworld import HostWorld, Service, look

if TYPE_CHECKING:
    from reconciler.evidence.evidence import Evidence


@dataclass
class Gap:
    """The time in which nobody answered: from the first outward service that was told to stop to
    the last one that was ready again. Outward is what publishes ports, itself
    or by the ingress; if nothing does, all."""

    _stopped: float | None = None
    _ready: float | None = None

    def stopping(self, service: Service, world: HostWorld | None) -> None:
        """`service` of the leaving world is told to stop now."""
        if self._stopped is None and _outward(service, world):
            self._stopped = time.monotonic()

    def answers(self, service: Service, world: HostWorld | None) -> None:
        """`service` of the coming world is ready, or passed its gate, now."""
        if _outward(service, world):
            self._ready = time.monotonic()

    @property
    def seconds(self) -> float | None:
        """None when nothing was stopped, or when it was another process that stopped it."""
        if self._stopped is None or self._ready is None or self._ready < self._stopped:
            return None
        return round(self._ready - self._stopped, 3)


def _outward(service: Service, world: HostWorld | None) -> bool:
    return service.outward or world is None or not any(s.outward for s in world.services.values())


@dataclass
class Undertaking:
    """One switch under way: its journal, both its worlds, and the hands that do the work."""

    stack: Stack
    catalog: Catalog
    docker: Docker
    intent: Intent
    say: Callable[[str], None]
    began: float = field(default_factory=time.monotonic)
    gap: Gap = field(default_factory=Gap)
    _guard: threading.RLock = field(default_factory=threading.RLock)

    def __post_init__(self) -> None:
        self.file = JournalFile(self.catalog.journal)
        self.say = self._without_secrets(self.say)
        self.to_world = self._world(self.intent.to_world)
        left = self.intent.from_world
        self.from_world = self._world(left) if left is not None else None
        self.new_record = self._record(self.to_world.release)
        self.old_record = self._record(self.from_world.release) if self.from_world else None
        self.services = self.new_services()
        self.data = Data(self.stack, self.catalog, self.docker, self.say)
        self.evidence = self._evidence()
        self.hooks = Hooks(
            self._scene(),
            self.say,
            ran=self.intent.hooks,
            note=lambda hooks: self.note(hooks=hooks),
            extend=lambda seconds: self.services.extend(seconds),
        )
        self.ingress = Ingress(self.stack, self.catalog, self.docker, self.say)

    def new_services(self) -> Services:
        """Hands that have not given up anything yet."""
        made = Services(self.docker, self.say, hide=self.stack.secret_values.values())
        departures = self.catalog.state().departures
        made.lived = any(d.world == self.intent.to_world and not d.failed for d in departures)
        return made

    def look_new(self) -> HostWorld:
        """The target world as it stands now."""
        return look(self.docker, self.intent.to_world, self.new_record, self.stack.settings)

    def look_old(self) -> HostWorld | None:
        """The world that is left, as it stands now."""
        if self.intent.from_world is None:
            return None
        return look(self.docker, self.intent.from_world, self.old_record, self.stack.settings)

    def note(self, step: str | None = None, **changes: Any) -> None:
        """Write to the journal how far the switch is and what it has found out."""
        with self._guard:
            if step is not None:
                self.intent.step = step
                detached.log_step(self.intent.log, step)
                self.intent.steps[step] = round(time.monotonic() - self.began, 3)
            for name, value in changes.items():
                setattr(self.intent, name, value)
            self.file.write(self.intent)

    def gate_told(self, result: GateResult) -> None:
        """What became of a gate is said, and in the journal before the switch goes on."""
        self.say(str(result))
        with self._guard:
            self.intent.gates = (*self.intent.gates, result)
            with suppress(OSError):  # a full disk stops the switch at its next step
                self.note()

    @property
    def away_seconds(self) -> float | None:
        """How long nobody was answered: by a closed port, or by an ingress that held him."""
        held = self.ingress.held_seconds
        return self.gap.seconds if held is None else held

    def outcome(self) -> dict[str, Any]:
        """What every kind of outcome in the ledger says of this switch."""
        intent = self.intent
        return {
            "at": clock.now("milliseconds"),
            "who": intent.who,
            "move": intent.move,
            "from_world": intent.from_world,
            "to_world": intent.to_world,
            "started": intent.started,
            "datasets": intent.datasets,
            "probes": intent.probes,
            "steps": intent.steps,
            "gates": intent.gates,
            "hooks": tuple(intent.hooks.values()),
            "ingress": intent.ingress,
            "planned": intent.planned,
            "expected_seconds": intent.expected_seconds,
            "set_aside": intent.set_aside,
            "operator_reason": intent.operator_reason,
            "logs": tuple(Path(log).name for log in (*intent.earlier_logs, intent.log)),
        }

    def _evidence(self) -> Evidence:
        from reconciler.evidence.evidence import Evidence  # a preview does not need it

        worlds = {self.to_world.name: self.new_record}
        if self.from_world is not None:
            worlds[self.from_world.name] = self.old_record
        return Evidence(self.stack, self.catalog, self.docker, self.intent, worlds, self.say)

    def _scene(self) -> Scene:
        datasets = self.new_record.datasets if self.new_record is not None else {}
        return Scene(
            stack=self.stack,
            catalog=self.catalog,
            docker=self.docker,
            move=self.intent.move,
            started=self.intent.started,
            old=self.from_world,
            new=self.to_world,
            old_record=self.old_record,
            new_record=self.new_record,
            actions=self.intent.datasets,
            sources={name: d.source for name, d in datasets.items() if d.source},
            old_ran=lambda: bool(self.intent.old_running),
        )

    def _world(self, name: str) -> World:
        known = self.catalog.state().worlds.get(name)
        if known is None:
            raise CatalogDamaged(
                f"the ledger {self.catalog.ledger.path} does not know {name}, which a switch is "
                "under way from or to",
                next_step="put back the newest copy of the ledger",
            )
        return known

    def _without_secrets(self, say: Callable[[str], None]) -> Callable[[str], None]:
        return lambda text: say(self.services.masked(text))

    def _record(self, release: str) -> Release | None:
        """The world to leave can be left, and found again, without its record."""
        with suppress(CatalogDamaged):
            return self.catalog.record(release)
        return None
