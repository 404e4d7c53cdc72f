"""A rehearsal: a release started on copies of the data, beside whatever runs, and proved.

It gets what `up` would give it, copied: live data by its engine's own live snapshot, or file by
file at the pace that the live world bears. No port, networks of its own, no label of a world. All
of it is removed when it ends; what a killed one left, the next one removes.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial

from reconciler import clock, worlds
from reconciler.catalog import Catalog
from reconciler.config import Stack
from reconciler.docker import Compose, Docker
from reconciler.errors import LockstepError, Refused
from reconciler.gates.results import GateResult
from reconciler.hooks.hookscene import Scene
from reconciler.hooks.hooktable import At
from reconciler.plan import Action, DatasetPlan, Plan
from reconciler.project import allowed, secretvalues
from reconciler.project.compose import Model
from reconciler.reaching.inside import Inside
from reconciler.reaching.reach import Fork, capture_live, driver_for, restore
from reconciler.records.ledger import World
from reconciler.records.release import Release
from reconciler.switching import memory
from reconciler.switching.data import Data
from reconciler.switching.handover import HandOver
from reconciler.switching.proof import Proof, returned, told_to_host
from reconciler.switching.services import Services, in_parallel
from reconciler.trials import rehearsalplan
from reconciler.trials.aside import Aside
from reconciler.trials.rehearsalhooks import RehearsalHooks, RehearsedHook
from reconciler.trials.rehearsalplan import Wrong
from reconciler.world import hostworld, places
from reconciler.world.hostworld import HostWorld, Service
from reconciler.world.users import engine as engine_of
from reconciler.world.users import users as users_of
from snapshots.errors import EngineFailed, SnapshotError, Unsupported
from snapshots.pace import Pace
from snapshots.store import Store

Say = Callable[[str], None]
KIND = "rehearsal"

_PROBE_SECONDS = 30.0
_LOG_LINES = 2000
_SPARE_BYTES = 256 << 20
_FORESEEN = (LockstepError, SnapshotError, OSError)


@dataclass
class Copied:
    """One dataset of a rehearsal. `seconds`: until its copy was there."""

    dataset: str
    action: str
    """What `up` would do: fork, attach, restore, create, in-place, leave."""
    how: str = ""
    """What was done instead: how the copy was made."""
    bytes: int | None = None
    seconds: float = 0.0
    before: Mapping[str, int] = field(default_factory=dict)
    """Counts of the live data, when the rehearsal began."""
    after: Mapping[str, int] = field(default_factory=dict)
    """Counts of the copy, when the release had been proved on it."""


@dataclass
class Rehearsal:
    """A rehearsal that was carried out."""

    release: str
    live: str | None
    problem: str = ""
    """Why the release was not proved; "" if it was."""
    datasets: list[Copied] = field(default_factory=list)
    services: dict[str, float] = field(default_factory=dict)
    """service -> seconds from the start of all until it was ready, its gate included."""
    gates: list[GateResult] = field(default_factory=list)
    held_back: dict[str, str] = field(default_factory=dict)
    log_errors: dict[str, Wrong] = field(default_factory=dict)
    steps: dict[str, float] = field(default_factory=dict)
    """copy, create, prove, count, remove -> seconds."""
    refusals: tuple[str, ...] = ()
    """Why `up` would be refused all the same."""
    hooks: list[RehearsedHook] = field(default_factory=list)
    """The user's hooks, in the order of their places: run, or held back and why."""

    @property
    def passed(self) -> bool:
        return not self.problem


def carry_out(
    stack: Stack,
    catalog: Catalog,
    docker: Docker,
    composer: Compose,
    plan: Plan,
    say: Say,
    *,
    outgoing: bool = False,
) -> Rehearsal:
    """Rehearse the plan's release. What fails its proof is the result's problem.

    `plan`: the decision for a stack that declares the release. `outgoing`: its services may reach
    other hosts. Raises Refused where the host has too little memory or disk for it, or the release
    asks for what is not allowed; BadInput for a missing secret; Busy while another one runs.
    """
    release = catalog.record(str(plan.target))
    allowed.insist_on_record(stack, release)
    secrets = secretvalues.values(stack, release)
    aside = Aside(KIND, stack, catalog, docker)
    with aside.alone():
        for name in aside.clear():
            say(f"removed {name}, which a rehearsal left that did not end")
        work = _Rehearsing(
            stack, catalog, docker, composer, plan, release, secrets, say, aside, outgoing
        )
        work.insist_on_room()
        try:
            return work.carry_out()
        finally:
            work.remove()


class _Rehearsing:
    def __init__(
        self,
        stack: Stack,
        catalog: Catalog,
        docker: Docker,
        composer: Compose,
        plan: Plan,
        release: Release,
        secrets: Mapping[str, str],
        say: Say,
        aside: Aside,
        outgoing: bool,
    ) -> None:
        self.stack, self.catalog, self.docker, self.composer = stack, catalog, docker, composer
        self.plan, self.release, self.secrets, self.say = plan, release, secrets, say
        self.aside, self.outgoing = aside, outgoing
        self.services = Services(docker, say, hide=secrets.values())
        self.data = Data(stack, catalog, docker, say)
        state = catalog.state()
        self.live = state.worlds.get(state.live or "")
        self.result = Rehearsal(
            release.name,
            self.live.release if self.live else None,
            held_back=rehearsalplan.held_back(release.model),
            refusals=tuple(refusal.message for refusal in plan.refusals),
        )
        self.hooks = RehearsalHooks(
            self._scene(),
            lambda text: say(self.services.masked(text)),
            held=self.result.held_back,
            extend=self.services.extend,
        )

    @property
    def pace(self) -> Pace | None:
        """Nobody is disturbed where nothing is live."""
        return places.pace(self.stack) if self.live else None

    def insist_on_room(self) -> None:
        """Raises Refused where the live world would feel it, or the copies do not fit."""
        missing = self.release.datasets.keys() - self.plan.datasets.keys()
        if missing:
            raise Refused(
                f"{self.release.name} cannot be rehearsed: {'; '.join(self.result.refusals)}",
                next_step="lockstep info   shows what there is of it",
            )
        live = self._live_world()
        if live is not None and not memory.suffices_for(self.docker, live):
            raise Refused(
                f"there is too little free memory to run {self.release.name} beside {live.name}",
                next_step="a rehearsal needs as much as the live world uses, and a quarter more",
            )
        needed = sum(d.bytes or 0 for d in self.plan.datasets.values())
        free = self.plan.disk.free
        if needed + _SPARE_BYTES > free:
            raise Refused(
                f"the copies for {self.release.name} need {needed >> 20} MiB, and "
                f"{free >> 20} MiB are free",
                next_step="lockstep prune   shows what could go",
            )

    def carry_out(self) -> Rehearsal:
        before = self._counts_of_live()
        try:
            with self._step("copy"):
                for planned in self.plan.datasets.values():
                    self._copy(planned, before.get(planned.name, {}))
            with self._step("create"):
                world = self._create()
            with self._step("prove"):
                self._prove(world, before)
        except _FORESEEN as error:
            text = getattr(error, "message", None) or str(error)
            self.result.problem = self.services.masked(text)
        self.result.hooks = self.hooks.report()
        with self._step("count"):
            self._look_at_what_it_did()
        return self.result

    def remove(self) -> None:
        """Everything of it, whatever happened."""
        with self._step("remove"):
            self.aside.clear()
            self._forget_snapshots()

    @contextmanager
    def _step(self, name: str) -> Iterator[None]:
        began = time.monotonic()
        try:
            yield
        finally:
            self.result.steps[name] = round(time.monotonic() - began, 3)

    # the data -------------------------------------------------------------------------------

    def _live_world(self) -> HostWorld | None:
        if self.live is None:
            return None
        return hostworld.look(self.docker, self.live.name, self._live_record(), self.stack.settings)

    def _live_record(self) -> Release | None:
        with suppress(LockstepError):
            return self.catalog.record(self.live.release) if self.live else None
        return None

    def _counts_of_live(self) -> Mapping[str, Mapping[str, int]]:
        world = self._live_world()
        if world is None:
            return {}
        return self.data.probe(world, self._live_record(), _PROBE_SECONDS)

    def _copy(self, planned: DatasetPlan, before: Mapping[str, int]) -> None:
        copied = Copied(planned.name, planned.action.value, bytes=planned.bytes, before=before)
        self.result.datasets.append(copied)
        began = time.monotonic()
        target = self.aside.volume(planned.name)
        source = planned.source or planned.generation
        if planned.snapshot is not None:
            self.say(f"restoring {planned.name} from snapshot {planned.snapshot[:12]}")
            self._restore(self.data.store, planned.snapshot, planned.name)
            copied.how = f"snapshot {planned.snapshot[:12]}"
        elif planned.action is Action.CREATE or not self._is_there(source):
            copied.how = "empty"
        elif not self._by_its_engine(planned, source):
            self.say(f"copying {planned.name} beside the live world")
            self._file_by_file(planned.name, source, target)
            copied.how = "copied file by file"
        else:
            copied.how = "a live snapshot by its engine"
        copied.seconds = round(time.monotonic() - began, 3)

    def _is_there(self, source: str) -> bool:
        return source.startswith("/") or self.docker.volume(source) is not None

    def _by_its_engine(self, planned: DatasetPlan, source: str) -> bool:
        """Whether a running engine gave a usable point of it."""
        if planned.driver == "directory":
            return False
        driver = driver_for(planned.driver, self.stack.settings.commands(planned.name))
        engine = engine_of(self.docker, driver, users_of(self.docker, source), source)
        if engine is None:
            return False
        self.say(f"taking a live snapshot of {planned.name}")
        try:
            taken = capture_live(
                driver,
                Inside(self.docker, engine.id),
                places.place(self.docker, source),
                self.data.store,
                dataset=planned.name,
                tags=self._tags(),
                pace=self.pace,
            )
        except (EngineFailed, Unsupported) as error:
            self.say(f"{planned.name}: no live snapshot ({error})")
            return False
        self._restore(self.data.store, taken.id, planned.name)
        return True

    def _restore(self, store: Store, snapshot: str, dataset: str) -> None:
        path = places.place(self.docker, self.aside.volume(dataset))
        restore(store, snapshot, path, pace=self.pace)

    def _file_by_file(self, dataset: str, source: str, target: str) -> None:
        fork = Fork(
            places.place(self.docker, source),
            places.place(self.docker, target),
            index=self.catalog.work(self.aside.world) / f"{dataset}.index",
            pace=self.pace,
        )
        fork.first_pass()
        if users_of(self.docker, source):
            fork.catch_up()

    def _tags(self) -> dict[str, str]:
        """Of no use to any release, so that a prune removes what a killed one left."""
        live = self.live
        whose = {"release": live.release, "world": live.name} if live else {}
        return {**whose, "kind": KIND}

    def _forget_snapshots(self) -> None:
        if not self.stack.store.exists():
            return
        for snapshot in self.data.store.ids():
            with suppress(SnapshotError):
                if self.data.store.read(snapshot).tags.get("kind") == KIND:
                    self.data.store.forget(snapshot)

    # the world ------------------------------------------------------------------------------

    def _create(self) -> HostWorld:
        world = self.aside.world
        self.say(f"creating the containers of {world}")
        worlds.insist_on_images(self.docker, self.release, self.release.images)
        self.aside.create(
            self.composer,
            self.release,
            self.secrets,
            datasets=self._mounted,
            created={c.dataset for c in self.result.datasets if c.how == "empty"},
            shape=self._beside,
        )
        return hostworld.look(self.docker, world, self.release, self.stack.settings)

    @property
    def _mounted(self) -> list[str]:
        return [d.name for d in self.release.datasets.values() if d.mounts]

    def _beside(self, model: Model, files: str) -> Model:
        return rehearsalplan.beside(
            model,
            self.result.held_back.keys(),
            label=(self.aside.label, self.aside.owner),
            files=files,
            outgoing=self.outgoing,
        )

    def _one_off_model(self) -> Model:
        """What Compose makes a hook's container from."""
        return self.aside.model(
            self.release, self.secrets, datasets=self._mounted, shape=self._beside, one_off=True
        )

    def _scene(self) -> Scene:
        """What the user's hooks are told of: a move from the live world to the rehearsal's."""
        volumes = {name: self.aside.volume_name(name) for name in self._mounted}
        return Scene(
            stack=self.stack,
            catalog=self.catalog,
            docker=self.docker,
            move=self.plan.move.value,
            started=clock.now("milliseconds"),
            old=self.live,
            new=World(self.aside.world, self.release.name, volumes, ""),
            old_record=self._live_record(),
            new_record=self.release,
            actions={name: d.action.value for name, d in self.plan.datasets.items()},
            rehearsed=self._one_off_model,
        )

    def _prove(self, world: HostWorld, before: Mapping[str, Mapping[str, int]]) -> None:
        """As a switch does it, but for what is said to nobody: nothing goes live."""
        began = time.monotonic()
        guard = threading.Lock()

        def answers(service: Service) -> None:
            with guard:
                self.result.services[service.name] = round(time.monotonic() - began, 3)

        self.services.expect(world.services)
        proof = Proof(
            self.stack,
            self.services,
            world,
            self.release,
            returned=returned(self.release, self.plan.datasets),
            facts=lambda: told_to_host(self._look(), self.release.name),
            tell=self._gate_told,
        )
        held = {name: self._held(name, before) for name in self.release.datasets}
        HandOver(
            services=self.services,
            leaving=None,
            coming=world,
            seals=(),
            independent=frozenset(),
            settle=partial(self._settle, world, proof),
            settled=proof.resetting
            | {
                mount.service
                for dataset in self.release.datasets.values()
                for mount in dataset.mounts
                if dataset.driver != "directory"
            },
            proof_seconds=self.stack.settings.deadline,
            gates=proof.acts(held, (), answers),
            on_answer=answers,
            hooks=self.hooks,
        ).carry_out()
        in_parallel(self.services.insist_on_standing, world)
        proof.last_look(held)
        for engine in self.data.engines(world, self.release, None):
            self.data.insist_on_content(engine, self._held(engine.dataset, before))
        self.hooks.boundary(At.POST_PROVE)
        self.hooks.boundary(At.PRE_COMMIT)

    def _held(self, dataset: str, before: Mapping[str, Mapping[str, int]]) -> Mapping[str, int]:
        """What a copy of the live data must not have lost."""
        of_live = (Action.FORK.value, Action.LEAVE.value)
        copied = next(c for c in self.result.datasets if c.dataset == dataset)
        return before.get(dataset, {}) if copied.action in of_live else {}

    def _gate_told(self, result: GateResult) -> None:
        self.result.gates.append(result)
        self.say(str(result))

    def _look(self) -> HostWorld:
        return hostworld.look(self.docker, self.aside.world, self.release, self.stack.settings)

    def _settle(self, world: HostWorld, proof: Proof, service: Service) -> None:
        for engine in self.data.engines(world, self.release, None):
            if engine.container.id in service.ids:
                self.data.patiently(engine, self.data.load, self.data.align, self.data.check)
        proof.reset(service)

    def _look_at_what_it_did(self) -> None:
        world = self._look()
        counts = self.data.probe(world, self.release, _PROBE_SECONDS)
        for copied in self.result.datasets:
            copied.after = counts.get(copied.dataset, {})
        for service in world.services.values():
            for container in service.ids:
                with suppress(LockstepError):
                    log = self.services.masked(self.docker.logs(container, tail=_LOG_LINES))
                    wrong = rehearsalplan.wrong_lines(log)
                    if wrong.count:
                        self.result.log_errors[service.name] = wrong
