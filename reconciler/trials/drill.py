"""A drill: a release's snapshots restored into scratch volumes, its engines started on them.

Without network and port, beside whatever runs. All of it carries a label, and is removed when the
drill ends; what a killed one left, the next one removes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from reconciler import worlds
from reconciler.catalog import Catalog
from reconciler.config import Stack
from reconciler.docker import Compose, Docker
from reconciler.errors import LockstepError
from reconciler.project import secretvalues
from reconciler.reaching.inside import counted
from reconciler.reaching.reach import driver_for, restore
from reconciler.records.release import Dataset, Release
from reconciler.switching.data import Data, Engine
from reconciler.switching.services import Services
from reconciler.trials import drillplan
from reconciler.trials.aside import Aside
from reconciler.trials.drillplan import Wanted
from reconciler.world import hostworld, places
from reconciler.world.hostworld import Service
from snapshots.drivers import Driver
from snapshots.errors import SnapshotError
from snapshots.progress import Progress
from snapshots.store import Store

Say = Callable[[str], None]
KIND = "drill"
_FORESEEN = (LockstepError, SnapshotError, OSError)


@dataclass
class Drilled:
    """What came of one dataset. `seconds` by step: restore, start, ready, probe."""

    dataset: str
    driver: str
    snapshot: str | None
    engine: str | None = None
    """The service that was started on it; None: only its files were looked at."""
    bytes: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    recorded: Mapping[str, int] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)
    sums: Mapping[str, int] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


@dataclass
class Drill:
    """A drill that was carried out."""

    release: str
    at: str
    datasets: list[Drilled]
    seconds: float

    @property
    def passed(self) -> bool:
        """Whether everything came back."""
        return not any(drilled.problems for drilled in self.datasets)


def carry_out(
    stack: Stack,
    catalog: Catalog,
    docker: Docker,
    composer: Compose,
    record: Release,
    at: str,
    say: Say,
    progress: Progress | None = None,
) -> Drill:
    """Restore what `record`'s release had at `at` (departure, arrival or a snapshot's id), start
    and ask its engines, remove everything again.

    What does not come back is in the result's problems. Raises BadInput where there is nothing to
    restore or a secret is missing, Busy while another drill of the stack runs.
    """
    store = stack.open_store(create=False)
    wanted = drillplan.wanted(catalog.state(), record, at, _present(store))
    secrets = secretvalues.values(stack, record)
    began = time.monotonic()
    aside = Aside(KIND, stack, catalog, docker)
    with aside.alone():
        for name in aside.clear():
            say(f"removed {name}, which a drill left that did not end")
        work = _Drill(
            stack, catalog, docker, composer, record, store, secrets, say, progress, aside
        )
        try:
            datasets = work.carry_out(wanted)
        finally:
            aside.clear()
    return Drill(record.name, at, datasets, round(time.monotonic() - began, 3))


def _present(store: Store) -> dict[str, str]:
    """snapshot -> dataset, of all that can be read."""
    found = {}
    for snapshot in store.ids():
        with suppress(SnapshotError):
            found[snapshot] = store.read(snapshot).dataset
    return found


@dataclass
class _Drill:
    stack: Stack
    catalog: Catalog
    docker: Docker
    composer: Compose
    record: Release
    store: Store
    secrets: Mapping[str, str]
    say: Say
    progress: Progress | None
    aside: Aside

    def __post_init__(self) -> None:
        self.services = Services(self.docker, self.say, hide=self.secrets.values())
        self.data = Data(self.stack, self.catalog, self.docker, self.say)
        self._asked: set[str] = set()

    def carry_out(self, wanted: list[Wanted]) -> list[Drilled]:
        drilled = [self._restored(w) for w in wanted]
        whole = [d for d in drilled if not d.problems]
        for found in whole:
            mount = drillplan.engine_of(
                self._dataset(found), self.record, self._driver(found).recognises
            )
            found.engine = mount.service if mount is not None else None
        coming = self._created([d for d in whole if d.engine is not None])
        for found in whole:
            with self._noting(found):
                if found.engine is None:
                    self._count_files(found)
                elif found.engine in coming:
                    self._start_and_ask(found, coming[found.engine])
        return drilled

    def _dataset(self, found: Drilled) -> Dataset:
        return self.record.datasets[found.dataset]

    def _driver(self, found: Drilled) -> Driver:
        return driver_for(found.driver, self.stack.settings.commands(found.dataset))

    @contextmanager
    def _noting(self, found: Drilled) -> Iterator[None]:
        """What fails for one dataset is its problem, and keeps no other from being tried."""
        try:
            yield
        except _FORESEEN as error:
            text = getattr(error, "message", None) or str(error)
            found.problems.append(self.services.masked(text))

    # restoring ------------------------------------------------------------------------------

    def _restored(self, wanted: Wanted) -> Drilled:
        name = wanted.dataset.name
        found = Drilled(
            name, wanted.dataset.driver, wanted.snapshot, recorded=dict(wanted.recorded)
        )
        if wanted.snapshot is None:
            found.problems.append("is not in the store: lockstep up   captures what is due")
            return found
        with self._noting(found), _timed(found, "restore"):
            self.say(f"restoring {name} from snapshot {wanted.snapshot[:12]}")
            found.bytes = self.store.read(wanted.snapshot).bytes
            path = places.place(self.docker, self.aside.volume(name))
            restore(self.store, wanted.snapshot, path, progress=self.progress)
            found.problems += self._driver(found).check_path(path)
        return found

    # starting -------------------------------------------------------------------------------

    def _created(self, served: list[Drilled]) -> Mapping[str, Service]:
        """The services that serve these datasets, their containers created but not started."""
        names = {str(found.engine) for found in served}
        if not names:
            return {}
        try:
            worlds.insist_on_images(self.docker, self.record, sorted(names))
            self._create(names)
        except _FORESEEN as error:
            for found in served:
                with self._noting(found):
                    raise error
            return {}
        world = hostworld.look(self.docker, self.aside.world, self.record, self.stack.settings)
        return world.services

    def _create(self, services: set[str]) -> None:
        self.aside.create(
            self.composer,
            self.record,
            self.secrets,
            datasets=drillplan.mounted(self.record, services),
            shape=lambda model, files: drillplan.alone(model, services, self.aside.owner, files),
        )

    # asking ---------------------------------------------------------------------------------

    def _start_and_ask(self, found: Drilled, service: Service) -> None:
        if service.name not in self._asked:
            self._asked.add(service.name)
            self.say(f"starting {service.name} without network")
            self.services.allow(self.stack.settings.deadline)
            with _timed(found, "start"):
                self.services.start(service)
        engine = self._engine(found, service)
        with _timed(found, "ready"):
            self.services.await_ready(service)
            self._settle(engine)
        with _timed(found, "probe"):
            found.counts = counted(engine.driver.probe(engine.run))
            found.sums = engine.driver.data_sums(engine.run)
            found.problems += engine.driver.examine(engine.run)
        found.problems += drillplan.lost(found.recorded, found.counts)

    def _engine(self, found: Drilled, service: Service) -> Engine:
        container = self.docker.inspect(service.ids[0])
        place = self.aside.volume(found.dataset)
        return Engine(found.dataset, self._driver(found), container, place, self.docker)

    def _settle(self, engine: Engine) -> None:
        """As a switch does: credentials follow the environment, then the engine is asked for its
        own opinion. Raises NotProved."""
        self.data.patiently(engine, self.data.load, self.data.align, self.data.check)

    def _count_files(self, found: Drilled) -> None:
        with _timed(found, "probe"):
            path = places.place(self.docker, self.aside.volume(found.dataset))
            found.counts = self._driver(found).probe_path(path)
        found.problems += drillplan.lost(found.recorded, found.counts)


@contextmanager
def _timed(found: Drilled, step: str) -> Iterator[None]:
    began = time.monotonic()
    try:
        yield
    finally:
        found.seconds[step] = round(time.monotonic() - began, 3)
