"""The data of a switch: made ready, sealed, put in place, counted."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as TooLong
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from failpoints import failpoint
from reconciler.catalog import Catalog
from reconciler.config import Stack
from reconciler.docker import ContainerDetails, Docker
from reconciler.errors import LockstepError, Refused
from reconciler.plan import DatasetPlan
from reconciler.reaching.inside import Inside, counted
from reconciler.reaching.reach import capture, capture_live, driver_for, entries, restore
from reconciler.records.ledger import State
from reconciler.records.release import Dataset, Release
from reconciler.switching.services import NotProved
from reconciler.upkeep import integrity, mending
from reconciler.world import places
from reconciler.world.hostworld import HostWorld
from reconciler.world.users import engine as engine_of
from reconciler.world.users import users as users_of
from snapshots.drivers import Driver, Exec
from snapshots.errors import EngineFailed, SnapshotError, Unsupported
from snapshots.livepoint import LivePoint
from snapshots.store import Store

_CATCH_UPS = 4
_LITTLE = 16 << 20
"""Bytes that a fork's final pass writes in no time."""

_ANSWER_SECONDS = 60.0
"""How long an engine without a health check may take until it answers."""
_PAUSE_SECONDS = 0.2

Probes = dict[str, dict[str, int]]

_FOREIGN = (LockstepError, SnapshotError, OSError)


class NoAnswer(NotProved):
    """The engine could not be asked: it does not listen yet, or never will."""


@dataclass(frozen=True)
class Engine:
    """A dataset together with the running container that serves or mounts it."""

    dataset: str
    driver: Driver
    container: ContainerDetails
    place: str
    """The volume or host path with the data."""
    docker: Docker

    @property
    def run(self) -> Exec:
        """How the driver runs commands in it."""
        return Inside(self.docker, self.container.id)


class Data:
    """What a switch does with datasets."""

    def __init__(
        self, stack: Stack, catalog: Catalog, docker: Docker, say: Callable[[str], None]
    ) -> None:
        self.stack = stack
        self.catalog = catalog
        self.docker = docker
        self.say = say
        self._advances: dict[str, str] = {}
        """dataset -> what was read of it before its users were stopped."""

    @cached_property
    def store(self) -> Store:
        """The snapshot store."""
        return self.stack.open_store()

    # while the old world runs ---------------------------------------------------------------

    def shorten_stop(self, world: HostWorld, record: Release | None, names: Iterable[str]) -> None:
        """Let engines write out what they hold, so that their stop is short; failures only warn."""
        for engine in self.engines(world, record, names):
            try:
                engine.driver.before_stop(engine.run)
            except _FOREIGN as error:
                self.say(f"{engine.dataset}: {_text(error)}; its stop may take longer")

    def probe(self, world: HostWorld, record: Release | None, seconds: float) -> Probes:
        """dataset -> the driver's counts, of all running engines at once; what fails or takes
        longer than `seconds` is left out with a warning."""
        found: Probes = {}
        engines = list(self.engines(world, record, None))
        if not engines:
            return found
        pool = ThreadPoolExecutor(len(engines), thread_name_prefix="probe")
        counting = [(engine, pool.submit(self._count, engine)) for engine in engines]
        for engine, future in counting:
            try:
                found[engine.dataset] = future.result(timeout=seconds)
            except TooLong:
                self.say(f"{engine.dataset} could not be counted within {seconds:g} s")
            except _FOREIGN as error:
                self.say(f"{engine.dataset} could not be counted: {_text(error)}")
        pool.shutdown(wait=False, cancel_futures=True)
        return found

    def capture_shared(self, planned: DatasetPlan, tags: Mapping[str, str]) -> str | None:
        """A snapshot of a shared dataset while others use it; None when its engine cannot give
        one, which is said."""
        driver = self._driver(planned)
        users = users_of(self.docker, planned.generation)
        serving = engine_of(self.docker, driver, users, planned.generation)
        failpoint("data.shared")
        self.say(f"taking a snapshot of shared dataset {planned.name}")
        path = places.place(self.docker, planned.generation)
        parent = self._parent(planned.name)
        try:
            if serving is None:
                live = LivePoint() if users else None
                return capture(
                    path, self.store, dataset=planned.name, parent=parent, tags=tags, live=live
                ).id
            run = Inside(self.docker, serving.id)
            return capture_live(
                driver, run, path, self.store, dataset=planned.name, parent=parent, tags=tags
            ).id
        except (EngineFailed, Unsupported) as error:
            self.say(f"no snapshot of shared dataset {planned.name}: {_text(error)}")
            return None

    def advance(self, planned: DatasetPlan, tags: Mapping[str, str]) -> None:
        """Read what `safety` would have to read while the dataset's users stand still: then it
        reads only what changed since. By itself this is no usable point, and it is not kept."""
        path = places.place(self.docker, planned.generation)
        self.say(f"reading {planned.name} in advance of its safety snapshot")
        parent = self._parent(planned.name)
        self._advances[planned.name] = capture(
            path,
            self.store,
            dataset=planned.name,
            parent=parent,
            tags={**tags, "kind": "advance"},
            live=LivePoint(),
            streams=self._driver(planned).is_stream,
        ).id
        failpoint("data.advanced")

    def insist_on_whole(self, planned: DatasetPlan) -> None:
        """What a change in place takes from the store is there to its last byte: the snapshot that
        is put there, and what the safety snapshot builds on. Raises Refused."""
        needed = (planned.snapshot, self._advances.get(planned.name))

        def folders() -> dict[str, list[Path]]:
            # No generation is sealed of what is worked on in place: it may still have most of it.
            place = places.place(self.docker, planned.generation)
            sealed = integrity.sealed_folders(self.catalog.state(), self.docker)
            return {**sealed, planned.name: [*sealed.get(planned.name, []), place]}

        try:
            mending.insist_on_whole(
                self.store,
                [s for s in needed if s],
                folders,
                self.say,
                state=self.catalog.state(),
                release=self.stack.settings.release,
            )
        except Refused:
            for advance in self._advances.values():
                with suppress(SnapshotError):
                    self.store.forget(advance)
            raise

    # when the old world is down -------------------------------------------------------------

    def final_pass(self, world: str, planned: DatasetPlan) -> None:
        """Bring what changed since the last pass into the fork: now both are equal."""
        assert planned.source is not None
        fork = places.fork(
            self.catalog, self.docker, world, planned.name, planned.source, planned.generation
        )
        failpoint("data.final-pass")
        stats = fork.final_pass()
        mib = stats.bytes_written / (1 << 20)
        self.say(f"{planned.name}: the last {mib:.1f} MiB forked in {stats.seconds:.1f} s")

    def catch_up(self, world: str, planned: DatasetPlan) -> None:
        """Bring what changed since the first pass into the fork while the source is in use, until
        little is left for the time that nothing runs, or it gets no less."""
        assert planned.source is not None
        fork = places.fork(
            self.catalog, self.docker, world, planned.name, planned.source, planned.generation
        )
        before = fork.catch_up().bytes_written
        for _ in range(_CATCH_UPS - 1):
            if before <= _LITTLE:
                break
            failpoint("data.catch-up")
            written = fork.catch_up().bytes_written
            if written > before // 2:
                break
            before = written

    def safety(self, planned: DatasetPlan, tags: Mapping[str, str]) -> str:
        """A snapshot of the content of a dataset at rest, before it is changed in place."""
        path = places.place(self.docker, planned.generation)
        self.say(f"taking a safety snapshot of {planned.name}")
        failpoint("data.safety")
        advance = self._advances.pop(planned.name, None)
        parent = advance or self._parent(planned.name)
        streams = self._driver(planned).is_stream
        taken = capture(
            path, self.store, dataset=planned.name, parent=parent, tags=tags, streams=streams
        ).id
        if advance is not None:
            with suppress(SnapshotError):  # it only costs its record's space
                self.store.forget(advance)
        return taken

    def restore_in_place(self, name: str, place: str, snapshot: str) -> None:
        """Make the content of a dataset at rest that of a snapshot."""
        self.say(f"putting snapshot {snapshot[:12]} of {name} in place")
        failpoint("data.in-place")
        restore(self.store, snapshot, places.place(self.docker, place), in_place=True)

    def capture_failed(self, name: str, place: str, tags: Mapping[str, str]) -> str | None:
        """A snapshot of what a failed world wrote in place; a failure only warns."""
        path = places.place(self.docker, place)
        try:
            return capture(path, self.store, dataset=name, parent=self._parent(name), tags=tags).id
        except _FOREIGN as error:
            self.say(f"what the failed world wrote into {name} could not be kept: {_text(error)}")
            return None

    def owners(self, planned: DatasetPlan, ours: Collection[str]) -> tuple[str, ...]:
        """Running containers of others (ids not in `ours`) that use a dataset.

        Raises Refused when there are some and the config does not let them be stopped.
        """
        users = [u for u in users_of(self.docker, planned.generation) if u.id not in ours]
        if users and not planned.stop_owner:
            names = ", ".join(u.name for u in users)
            raise Refused(
                f"dataset {planned.name} is in use by {names}, which must be stopped to restore it",
                next_step=f"lockstep config set --path datasets.{planned.name}.stop_owner true",
            )
        return tuple(u.id for u in users)

    # in the new world -----------------------------------------------------------------------

    def load(self, engine: Engine) -> None:
        """What a snapshot holds beside the files, such as a dump, goes into the engine. Raises
        NotProved."""
        try:
            engine.driver.load(engine.run, places.place(self.docker, engine.place))
        except EngineFailed as error:
            raise NoAnswer(f"{engine.dataset}: {error}") from None

    def align(self, engine: Engine) -> None:
        """Credentials inside the data follow the container's environment. Raises NotProved."""
        try:
            engine.driver.align(engine.run)
        except EngineFailed as error:
            raise NoAnswer(f"{engine.dataset}: {error}") from None

    def check(self, engine: Engine) -> None:
        """The engine finds nothing wrong with its data. Raises NotProved."""
        try:
            problems = engine.driver.check(engine.run)
        except EngineFailed as error:
            raise NoAnswer(f"{engine.dataset}: {error}") from None
        if problems:
            raise NotProved(f"{engine.dataset}: {'; '.join(problems)}")

    def patiently(self, engine: Engine, *steps: Callable[[Engine], None]) -> None:
        """Load, align or check. An engine without a health check may not listen yet when its
        container runs: it is asked again for a while. Raises NotProved."""
        give_up = time.monotonic() + (0.0 if engine.container.health else _ANSWER_SECONDS)
        while True:
            try:
                for step in steps:
                    step(engine)
                return
            except NoAnswer:
                if time.monotonic() > give_up:
                    raise
                if self.docker.inspect(engine.container.id).state != "running":
                    raise
            time.sleep(_PAUSE_SECONDS)

    def insist_on_content(self, engine: Engine, before: Mapping[str, int]) -> None:
        """A dataset that held something must not be empty now. Raises NotProved."""
        if not any(before.values()):
            return
        counts = engine.driver.probe(engine.run)
        if not counts:
            place = places.place(self.docker, engine.place)
            known = engine.driver.name == "sqlite"
            counts = engine.driver.probe_path(place) if known else {"entries": entries(place)}
        if not any(counts.values()) and not self._truly_empty(engine):
            had = ", ".join(f"{what} {count}" for what, count in list(before.items())[:5])
            raise NotProved(f"{engine.dataset} is empty, although it held {had}")

    def _truly_empty(self, engine: Engine) -> bool:
        with suppress(*_FOREIGN):
            return engine.driver.truly_empty(engine.run, places.place(self.docker, engine.place))
        return False

    def advice(self, world: HostWorld, record: Release | None) -> list[str]:
        """What is not wrong with the data, but wants somebody's hand, as far as it can be asked."""
        found: list[str] = []
        for engine in self.engines(world, record, None):
            with suppress(*_FOREIGN):
                found += [f"{engine.dataset}: {a}" for a in engine.driver.advise(engine.run)]
        return found

    # the rest -------------------------------------------------------------------------------

    def engines(
        self, world: HostWorld, record: Release | None, names: Iterable[str] | None
    ) -> list[Engine]:
        """The datasets of a world (all, or the named ones) with a running container of each."""
        if record is None:
            return []
        wanted = record.datasets if names is None else set(names) & record.datasets.keys()
        found = (self._engine(world, record, record.datasets[name]) for name in sorted(wanted))
        return [engine for engine in found if engine is not None]

    def _engine(self, world: HostWorld, record: Release, dataset: Dataset) -> Engine | None:
        """Among the services that mount a dataset the one whose image the driver knows."""
        driver = self._driver(dataset)
        found: list[Engine] = []
        for mount in dataset.mounts:
            service = world.services.get(mount.service)
            for container in service.containers if service else ():
                now = self.docker.inspect(container.id)
                place = now.volumes.get(mount.target.rstrip("/") or "/")
                if now.state != "running" or place is None:
                    continue
                engine = Engine(dataset.name, driver, now, place, self.docker)
                image = record.images.get(mount.service)
                if driver.recognises(image.source if image else now.image, mount.target):
                    return engine
                found.append(engine)
        return found[0] if found else None

    def _driver(self, dataset: Dataset | DatasetPlan) -> Driver:
        return driver_for(dataset.driver, self.stack.settings.commands(dataset.name))

    def _count(self, engine: Engine) -> dict[str, int]:
        counts = counted(engine.driver.probe(engine.run))
        return counts or engine.driver.probe_path(places.place(self.docker, engine.place))

    def _parent(self, dataset: str) -> str | None:
        """The newest snapshot of the dataset that the store has."""
        state: State = self.catalog.state()
        present = set(self.store.ids())
        for departure in reversed(state.departures):
            snapshot = departure.snapshots.get(dataset)
            if snapshot in present:
                return snapshot
        return None


def _text(error: Exception) -> str:
    return getattr(error, "message", None) or str(error)
