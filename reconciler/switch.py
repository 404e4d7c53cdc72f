"""The switch: the only thing that stops and starts containers.

    prepare   look at everything, bring copies up to date, while the old world runs
    early     start what depends on nothing that has to stop first
    hand over stop the old world, seal its data, start the new one, ask its gates
    prove     all stands, and no dataset has lost its content
    commit    one line in the ledger; before it the old world is live, after it the new one
    finish    restart policies, services that wait for the commit

On any failure before the commit: stop the new world, start the old one, prove it, say why.
`python -m reconciler.switch` is the process that does it, apart from everybody else's.
"""

from __future__ import annotations

import getpass
import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

from pydantic import TypeAdapter

from reconciler import detached, memory, outcomes
from reconciler.catalog import Catalog
from reconciler.compose import not_early
from reconciler.config import Stack
from reconciler.data import Engine, held_before
from reconciler.docker import OUR_PROJECT, OUR_STACK, Docker, connect
from reconciler.errors import LockstepError, Refused, Reverted, WorldChanged
from reconciler.graph import Act, perform
from reconciler.handover import HandOver, Seal, independent, start_acts
from reconciler.hostlock import HostLock
from reconciler.hostworld import HostWorld, Service
from reconciler.journal import InPlace, Intent, JournalFile, crash_point
from reconciler.ledger import Committed, Recovered, State, Stopped
from reconciler.ledger import Reverted as RevertedEvent
from reconciler.plan import Action, DatasetPlan, Move, Plan
from reconciler.services import NotProved, Services, in_parallel
from reconciler.undertaking import Undertaking, now

Say = Callable[[str], None]

_PLAN: TypeAdapter[Plan] = TypeAdapter(Plan)
_PROBE_SECONDS = 20.0


# What others call -------------------------------------------------------------------------------


def carry_out(stack: Stack, catalog: Catalog, plan: Plan, lock: HostLock, progress: Say) -> None:
    """Carry out the plan's move in a process of its own, and follow it to its end.

    The caller may die: the switch goes on, and holds the host lock until it has ended. Raises
    Reverted (the old world is live again, and why), WorldChanged or Refused (nothing was done).
    """
    document = _document("switch", stack) | {"plan": _PLAN.dump_python(plan, mode="json")}
    log = detached.log_path(catalog.logs(), f"switch-{plan.to_world}")
    try:
        for warning in detached.carry_out(document, lock, log, progress):
            progress(warning)
    except detached.Killed as killed:
        progress(killed.message)
        said = recover(stack, catalog, None, lock, progress)
        if catalog.state().live != plan.to_world:
            raise Reverted(
                "; ".join([f"the switch to {plan.to_world} was killed", *said]),
                next_step="lockstep up   tries again",
            ) from None


def recover(
    stack: Stack, catalog: Catalog, docker: Docker | None, lock: HostLock, progress: Say
) -> list[str]:
    """Finish or revert a switch that was interrupted; what was found and done, as sentences.

    Also in a process of its own, so that a second interruption is not the user's to fear; it
    can be done again from any point.
    """
    del docker
    if not catalog.journal.exists():
        return []
    log = detached.log_path(catalog.logs(), "recover")
    return detached.carry_out(_document("recover", stack), lock, log, progress, crash=False)


def follow_running(catalog: Catalog, progress: Say) -> bool:
    """Follow a switch that another caller began and that still runs, to its end.

    False when none runs. Raises what it ended with.
    """
    intent = JournalFile(catalog.journal).read()
    if intent is None or not _alive(intent.pid):
        return False
    path = catalog.logs() / intent.log
    detached.follow(path, progress, lambda: _alive(intent.pid))
    return True


def stop_all(
    stack: Stack, catalog: Catalog, docker: Docker, progress: Say, reason: str = ""
) -> int:
    """The emergency stop: every running container of the stack at once, each with its own grace
    period. Returns how many. They stay down over a reboot until `lockstep up`."""
    state = catalog.state()
    worlds = [w.name for w in state.worlds.values() if not w.removed]
    of_stack = {(OUR_PROJECT, stack.project), (OUR_STACK, stack.name)}
    running = [
        listed
        for listed in docker.listing(running=True)
        if listed.project in worlds or of_stack <= set(listed.labels.items())
    ]
    progress(f"stopping {len(running)} containers")
    Services(docker, progress, hide=()).stop_containers([c.id for c in running])
    for listed in running:
        docker.set_restart(listed.id, "no")
    if state.live is not None:
        catalog.ledger.append(Stopped(at=now(), who=_who(), reason=reason))
    return len(running)


# The story --------------------------------------------------------------------------------------


class Switch:
    """One switch to a world that is made and stopped, from a world that runs (or from nothing)."""

    def __init__(self, undertaking: Undertaking, plan: Plan) -> None:
        self.u = undertaking
        self.plan = plan
        self.say = undertaking.say
        self.docker = undertaking.docker
        self.services = undertaking.services
        self.data = undertaking.data
        self.state = undertaking.catalog.state()
        self.old = undertaking.look_old()
        self.new = undertaking.look_new()
        later = {s.name for s in self.new.services.values() if s.after_commit}
        self.before_commit = self.new.only(self.new.services.keys() - later)
        self.early: frozenset[str] = frozenset()
        self.stopped_at: float | None = None
        self.answered_at: float | None = None

    def carry_out(self) -> list[str]:
        """Returns warnings. Raises Reverted, or what stood against it before anything changed."""
        self._begin()
        try:
            self._prepare()
        except Exception:
            self.u.file.remove()
            raise
        try:
            self._start_early()
            self._hand_over()
            self._prove()
            outcomes.commit(self.u, self.new)
        except Exception as failure:
            raise self._reverted(failure) from failure
        self.say(f"{self.new.name} is live")
        return outcomes.finish(self.u)

    def _begin(self) -> None:
        """The first journal entry: how everything stood before."""
        self.u.intent.old_running = self.old.running if self.old else ()
        self.u.intent.new_started_at = {
            c.id: c.started for s in self.new.services.values() for c in s.containers
        }
        self.u.intent.sealed = self._sealed()
        self.u.note("prepare")
        crash_point("prepare")

    # prepare: nothing is changed yet ---------------------------------------------------------

    def _prepare(self) -> None:
        self._insist_on_new_world()
        self._insist_on_nobody_else()
        forks = self._planned(Action.FORK)
        if self.old is not None:
            old, record = self.old, self.u.old_record
            self.u.note(probes=self.data.probe(old, record, _PROBE_SECONDS))
            self._snapshot_shared()
            names = [p.name for p in self.plan.datasets.values() if p.action is not Action.LEAVE]
            self.data.shorten_stop(old, record, names)
            for planned in forks:
                self.say(f"bringing the fork of {planned.name} up to date")
                self.data.catch_up(self.new.name, planned)
            if forks:
                self.data.shorten_stop(old, record, [p.name for p in forks])
        crash_point("prepared")

    def _insist_on_new_world(self) -> None:
        """Images are what the record says, and every service has its container."""
        record = self.u.new_record
        if record is None:
            raise Refused(f"the record of {self.u.to_world.release} cannot be read")
        for image in record.images.values():
            found = self.docker.image(image.tag)
            if found is None or found.id != image.id:
                what = "is missing" if found is None else "is another image now"
                raise Refused(
                    f"image {image.tag} of {record.name} {what}",
                    next_step="lockstep doctor   names what is missing",
                )
        missing = sorted(set(record.model["services"]) - self.new.services.keys())
        if missing:
            raise Refused(
                f"{self.new.name} has no container of {', '.join(missing)}",
                next_step="lockstep up   makes what is missing",
            )

    def _insist_on_nobody_else(self) -> None:
        """No container outside both worlds uses data that will be copied, or handed over."""
        ours = self._ours()
        running = self.docker.listing(running=True)
        for planned in self.plan.datasets.values():
            if planned.shared:
                if planned.action is Action.IN_PLACE:
                    self.data.owners(planned, ours)
                continue
            places = {planned.generation, planned.source or planned.generation}
            users = [c.name for c in running if c.id not in ours and places & set(c.mounts)]
            if users:
                raise Refused(
                    f"dataset {planned.name} is in use by {', '.join(users)}, which is no part of "
                    f"{self.plan.from_world or 'this stack'}",
                    next_step=f"docker stop {' '.join(users)}   then run this again",
                )

    def _snapshot_shared(self) -> None:
        for planned in self._planned(Action.LEAVE):
            if planned.shared:
                snapshot = self.data.capture_shared(planned, self._tags())
                if snapshot is not None:
                    self.u.note(snapshots=self.u.intent.snapshots | {planned.name: snapshot})

    # early start: nothing is stopped yet ------------------------------------------------------

    def _start_early(self) -> None:
        self.services.expect(self.before_commit.services)
        self.early = self._can_start_early()
        if not self.early:
            return
        self.u.note("early")
        self.say(f"starting {', '.join(sorted(self.early))} of {self.new.name} before the stop")
        self.services.deadline = time.monotonic() + self.u.stack.settings.deadline
        acts = start_acts(
            self.services,
            self.before_commit.only(self.early).services,
            settle=self._settle,
            settled=self._with_engine(),
            after=lambda _: "",
        )
        perform(acts, self.services.abandoned)
        crash_point("early")

    def _can_start_early(self) -> frozenset[str]:
        """Services whose data is complete, and that hold nothing which the old world holds."""
        if self.old is None or self.u.new_record is None:
            return frozenset()
        kept_back = not_early(self.u.new_record.model)
        candidates = self.before_commit.only(self.before_commit.services.keys() - kept_back.keys())
        early = self._independent(candidates) - self._waiting(candidates)
        if early and not memory.suffices_for(self.docker, self.old):
            self.say("too little free memory to start anything before the stop")
            return frozenset()
        return early

    def _independent(self, world: HostWorld) -> frozenset[str]:
        unsettled = {
            place
            for p in self.plan.datasets.values()
            if p.action in (Action.FORK, Action.IN_PLACE, Action.LEAVE)
            for place in (p.generation, p.source or p.generation)
        }
        return independent(world, self.old, unsettled)

    def _waiting(self, world: HostWorld) -> frozenset[str]:
        """Those that need, however far down, a service which is not in `world`."""
        waiting: set[str] = set()
        while True:
            more = {
                s.name
                for s in world.services.values()
                if s.name not in waiting
                and any(n in waiting or self._comes_later(n, world) for n in s.needs)
            }
            if not more:
                return frozenset(waiting)
            waiting |= more

    def _comes_later(self, name: str, world: HostWorld) -> bool:
        return name in self.before_commit.services and name not in world.services

    # hand over: stop, seal, start -------------------------------------------------------------

    def _hand_over(self) -> None:
        coming = self.before_commit.only(self.before_commit.services.keys() - self.early)
        if self.old is not None:
            self.say(f"stopping {self.old.name} ({len(self.old.services)} services)")
        self.u.note("stop")
        HandOver(
            services=self.services,
            leaving=self.old,
            coming=coming,
            seals=tuple(self._seals()),
            independent=self._independent_of_stop(coming),
            settle=self._settle_and_watch,
            settled=self._with_engine(),
            proof_seconds=self.u.stack.settings.deadline,
            on_stop=self._stopping,
            at_rest=self._at_rest,
        ).carry_out()
        crash_point("started")

    def _independent_of_stop(self, coming: HostWorld) -> frozenset[str]:
        """Worth it only when something runs already that they can lean on."""
        return self._independent(coming) if self.early else frozenset()

    def _stopping(self, service: Service) -> None:
        outward = bool(service.ports) or not (self.old and self.old.ports)
        if outward and self.stopped_at is None:
            self.stopped_at = time.monotonic()
        crash_point("stop")

    def _seals(self) -> list[Seal]:
        forks = [
            Seal(p.name, str(p.source), partial(self._final_pass, p))
            for p in self._planned(Action.FORK)
        ]
        changes = [
            Seal(p.name, p.generation, partial(self._change_in_place, p))
            for p in self._planned(Action.IN_PLACE)
        ]
        return forks + changes

    def _final_pass(self, planned: DatasetPlan) -> None:
        self.data.final_pass(self.new.name, planned)
        crash_point("seal")

    def _change_in_place(self, planned: DatasetPlan) -> None:
        """Stop who else uses it, keep what is there, put there what is wanted."""
        owners = self.data.owners(planned, self._ours()) if planned.shared else ()
        change = InPlace(place=planned.generation, owners=owners)
        self._note_change(planned.name, change)
        self.services.stop_containers(owners)
        safety = self.data.safety(planned, self._tags())
        change = change.model_copy(
            update={"safety": safety, "restored": planned.snapshot is not None}
        )
        self._note_change(planned.name, change)
        crash_point("safety")
        if planned.snapshot is not None:
            self.data.restore_in_place(planned.name, planned.generation, planned.snapshot)
        for owner in owners:
            self.docker.start(owner)
        crash_point("in-place")

    def _note_change(self, name: str, change: InPlace) -> None:
        snapshots = {name: change.safety} if change.safety else {}
        self.u.note(
            in_place=self.u.intent.in_place | {name: change},
            snapshots=self.u.intent.snapshots | snapshots,
        )

    def _at_rest(self) -> None:
        self.u.note("start")
        crash_point("sealed")

    # in the new world -------------------------------------------------------------------------

    def _with_engine(self) -> frozenset[str]:
        """Services of the new world that serve a dataset with a driver of its own."""
        record = self.u.new_record
        if record is None:
            return frozenset()
        return frozenset(
            mount.service
            for dataset in record.datasets.values()
            for mount in dataset.mounts
            if dataset.driver != "directory"
        )

    def _settle(self, service: Service) -> None:
        """Credentials and data are right before anybody uses this engine."""
        for engine in self._engines_of(service):
            planned = self.plan.datasets[engine.dataset]
            if self._credentials_may_differ(planned):
                self.data.align(engine)
            if planned.action is not Action.FORK:
                self.data.check(engine)
        crash_point("ready")

    def _settle_and_watch(self, service: Service) -> None:
        self._settle(service)
        if service.ports or not self.new.ports:
            self.answered_at = time.monotonic()

    def _engines_of(self, service: Service) -> list[Engine]:
        engines = self.data.engines(self.new, self.u.new_record, self.plan.datasets)
        return [e for e in engines if e.container.id in service.ids]

    def _credentials_may_differ(self, planned: DatasetPlan) -> bool:
        """Content that this very world, or one with the same secrets, wrote fits them already."""
        to, left = self.u.to_world, self.u.from_world
        match planned.action:
            case Action.FORK if left is not None:
                return not to.fingerprint or left.fingerprint != to.fingerprint
            case Action.ATTACH:
                return not to.proved
            case Action.CREATE | Action.LEAVE:
                return False
            case _:
                return True

    # prove ------------------------------------------------------------------------------------

    def _prove(self) -> None:
        self.u.note("prove")
        in_parallel(self.services.insist_on_standing, self.before_commit)
        in_parallel(self.services.await_ready, self.before_commit.only(self.early))
        for engine in self.data.engines(self.new, self.u.new_record, self.plan.datasets):
            planned = self.plan.datasets[engine.dataset]
            if planned.action is Action.FORK:
                self.data.check(engine)
            before = held_before(self.state, planned, self.u.intent.probes)
            self.data.insist_on_content(engine, before)
        if self.stopped_at is not None and self.answered_at is not None:
            downtime = max(0.0, self.answered_at - self.stopped_at)
            self.u.intent.downtime_seconds = round(downtime, 3)
        crash_point("proved")

    # the other end ----------------------------------------------------------------------------

    def _reverted(self, failure: Exception) -> LockstepError:
        """Go back; the error that tells the caller what happened and what is live now."""
        text = self.services.masked(getattr(failure, "message", None) or str(failure))
        own = isinstance(failure, NotProved) and not outcomes.disk_is_full(self.u)
        release = self.u.to_world.release
        why = (
            f"{release} did not pass its proof: {text}"
            if own
            else (f"the switch to {release} failed: {text}")
        )
        self.say(why.splitlines()[0])
        says = outcomes.revert(self.u, text, quarantine=own)
        first, _, rest = why.partition("\n")
        return Reverted(f"{first}; {says}" + (f"\n{rest}" if rest else ""))

    # small things -----------------------------------------------------------------------------

    def _planned(self, action: Action) -> list[DatasetPlan]:
        return [p for p in self.plan.datasets.values() if p.action is action]

    def _ours(self) -> set[str]:
        old = {*self.old.ids, *self.old.strays} if self.old else set()
        return old | set(self.new.ids) | set(self.new.strays)

    def _tags(self) -> dict[str, str]:
        left = self.u.from_world
        return {"release": left.release, "world": left.name} if left else {}

    def _sealed(self) -> dict[str, str]:
        """Generations that only the old world has: nobody writes them after the commit."""
        used = {p.generation for p in self.plan.datasets.values()}
        used |= set(self.u.to_world.generations.values())
        left = self.u.from_world
        return {d: g for d, g in left.generations.items() if g not in used} if left else {}


# Other moves ------------------------------------------------------------------------------------


class Repair:
    """The live world stands still, or parts of it do: start and prove it."""

    def __init__(self, undertaking: Undertaking) -> None:
        self.u = undertaking
        self.world = undertaking.look_new()

    def carry_out(self) -> list[str]:
        """Raises NotProved when it cannot be brought to stand."""
        u, world = self.u, self.world
        _stop_other_worlds(u)
        down = {s.name for s in world.services.values() if not _stands(s)}
        u.say(f"starting {', '.join(sorted(down)) or 'nothing'} of {world.name}")
        u.services.expect(down)
        u.services.deadline = time.monotonic() + u.stack.settings.deadline
        later = {s.name for s in world.services.values() if s.after_commit}
        for names in (down - later, down & later):
            starting = world.only(names).services
            perform(self._acts(starting), u.services.abandoned)
        in_parallel(u.services.insist_on_standing, world)
        outcomes.set_policies(
            u.docker, world, {s.name: s.restart_policy for s in world.services.values()}
        )
        u.catalog.ledger.append(Recovered(**u.outcome(), reason=", ".join(sorted(down))))
        return []

    def _acts(self, starting: Any) -> list[Act]:
        return start_acts(
            self.u.services, starting, settle=lambda _: None, settled=(), after=lambda _: ""
        )


def _stands(service: Service) -> bool:
    if service.job:
        return all(c.state == "exited" and c.exit_code == 0 for c in service.containers)
    return all(c.state == "running" for c in service.containers)


def _stop_other_worlds(u: Undertaking) -> None:
    """Exactly one world runs: containers of others, come up in a reboot, go down first."""
    others = [
        w.name
        for w in u.catalog.state().worlds.values()
        if w.name != u.intent.to_world and not w.removed and not w.adopted
    ]
    running = [c for c in u.docker.listing(running=True) if c.project in others]
    for listed in running:
        u.say(f"stopping {listed.name}: its world is not live")
    u.services.stop_containers([c.id for c in running])


# The process ------------------------------------------------------------------------------------


def perform_move(
    stack: Stack, catalog: Catalog, docker: Docker, plan: Plan, say: Say, *, who: str, log: str
) -> list[str]:
    """Carry out the plan in this process, which must hold the host lock. Returns warnings."""
    said = finish_or_revert(stack, catalog, docker, say)
    state = catalog.state()
    if plan.to_world is None or plan.target is None:
        raise WorldChanged("the plan leads nowhere: nothing was done")
    if plan.move is not Move.REPAIR and state.live == plan.to_world:
        say(f"{plan.to_world} is live already")
        return said
    _insist_on_same_world(state, plan)
    intent = Intent(
        head=state.head,
        move=plan.move.value,
        from_world=plan.from_world,
        to_world=plan.to_world,
        started=now(),
        who=who,
        pid=os.getpid(),
        log=log,
        wish=plan.wish,
        datasets={p.name: p.action.value for p in plan.datasets.values()},
    )
    undertaking = Undertaking(stack, catalog, docker, intent, say)
    if plan.move is Move.REPAIR:
        return said + Repair(undertaking).carry_out()
    return said + Switch(undertaking, plan).carry_out()


def finish_or_revert(stack: Stack, catalog: Catalog, docker: Docker, say: Say) -> list[str]:
    """What `recover` does, in this process, which must hold the host lock."""
    intent = JournalFile(catalog.journal).read()
    if intent is None:
        return []
    undertaking = Undertaking(stack, catalog, docker, intent, say)
    outcome = _outcome_after(catalog.state(), intent)
    name = intent.to_world
    if isinstance(outcome, Committed):
        warnings = outcomes.finish(undertaking)
        return [f"the switch to {name} was committed; what remained of it is done", *warnings]
    if isinstance(outcome, RevertedEvent):
        undertaking.file.remove()
        return [f"the switch to {name} was reverted"]
    if intent.step == "prepare":
        undertaking.file.remove()
        return [f"the switch to {name} was interrupted before it changed anything"]
    say(f"the switch to {name} was interrupted at {intent.step}: reverting it")
    why = f"interrupted at {intent.step}"
    says = outcomes.revert(undertaking, why, quarantine=False, interrupted=True)
    return [f"the switch to {name} was {why}; {says}"]


def _outcome_after(state: State, intent: Intent) -> Committed | RevertedEvent | Recovered | None:
    for seq, outcome in reversed(state.outcomes):
        if seq > intent.head and outcome.to_world == intent.to_world:
            return outcome
    return None


def _insist_on_same_world(state: State, plan: Plan) -> None:
    """The ledger is as it was when the plan was made, but for the adoption that the plan asked
    for, which was recorded when its world was made."""
    adopted = (
        plan.adopt_project is not None
        and state.live == plan.from_world
        and not any(seq > plan.head for seq, _ in state.outcomes)
        and not state.stopped
    )
    target = state.worlds.get(plan.to_world or "")
    made = target is not None and not target.removed
    if not made or (state.head != plan.head and not adopted):
        raise WorldChanged("the world changed since this was planned: run it again")


def _work(document: dict[str, Any], say: Say) -> list[str]:
    stack = Stack.model_validate(document["stack"])
    catalog = Catalog(stack)
    docker = connect()
    if document["do"] == "recover":
        return finish_or_revert(stack, catalog, docker, say)
    plan = _PLAN.validate_python(document["plan"])
    return perform_move(stack, catalog, docker, plan, say, who=document["who"], log=document["log"])


def _document(what: str, stack: Stack) -> dict[str, Any]:
    body = stack.model_dump(mode="json")
    body["root"] = str(stack.root.resolve())
    return {"do": what, "stack": body, "who": _who()}


def _who() -> str:
    with suppress(OSError, KeyError):
        return os.environ.get("SUDO_USER") or getpass.getuser()
    return ""


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def main() -> int:
    """Read what to do from standard input and do it."""
    return detached.serve(_work)


if __name__ == "__main__":
    sys.exit(main())
