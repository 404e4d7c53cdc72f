"""The switch: the only thing that stops and starts containers.

    prepare    look at everything, bring copies up to date, while the old world runs
    early      start what depends on nothing that has to stop first
    hand over  stop the old world, seal its data, start the new one, ask its gates
    prove      all stands, and no dataset has lost its content
    commit     one line in the ledger: before it the old world is live, after it the new one
    finish     restart policies, services that wait for the commit

On any failure before the commit: stop the new world, start the old one, prove it, say why.
`python -m reconciler.switch` is the process that does it, apart from everybody else's.
"""

from __future__ import annotations

import getpass
import os
import traceback
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from failpoints import failpoint
from reconciler import clock, worlds
from reconciler.catalog import Catalog
from reconciler.config import Stack
from reconciler.docker import Docker, connect
from reconciler.errors import LockstepError, Refused, Reverted, WorldChanged
from reconciler.evidence import incidents
from reconciler.gates.results import GateResult, Result, bounded
from reconciler.hooks.hooktable import At
from reconciler.host import hostlock, process
from reconciler.host.graph import Act, perform
from reconciler.host.hostlock import HostLock
from reconciler.plan import Action, DatasetPlan, Move, Plan
from reconciler.project import compose
from reconciler.records.journal import InPlace, Intent, JournalFile
from reconciler.records.ledger import State
from reconciler.records.release import Release
from reconciler.switching import asked, detached, memory, outcomes, rescue
from reconciler.switching.asked import Asked
from reconciler.switching.early import early, independent, unsettled
from reconciler.switching.handover import HandOver, Seal, start_acts
from reconciler.switching.proof import Proof, returned, told_to_host
from reconciler.switching.services import NotProved, in_parallel
from reconciler.switching.settling import Settling, held_before
from reconciler.switching.undertaking import Undertaking
from reconciler.world.hostworld import HostWorld, Service

Say = Callable[[str], None]

_PLAN: TypeAdapter[Plan] = TypeAdapter(Plan)
_PROBE_SECONDS = 20.0
_OPERATIONS = {Move.BACK: "rollback", Move.REPAIR: "repair"}
"""What a switch's log is called by, where it is no deploy."""


# What others call -------------------------------------------------------------------------------


def carry_out(stack: Stack, catalog: Catalog, plan: Plan, lock: HostLock, progress: Say) -> None:
    """Carry out the plan's move in a process of its own, and follow it to its end.

    The caller may die: the switch goes on, and holds the host lock until it has ended. Raises
    Reverted (the old world is live again, and why), WorldChanged or Refused (nothing was done).
    """
    document = _document("switch", stack) | {
        "plan": _PLAN.dump_python(plan, mode="json"),
        "asked": asdict(asked.found()),
    }
    operation = _OPERATIONS.get(plan.move, "deploy")
    log = detached.log_path(catalog.logs(), operation, str(plan.to_world))
    try:
        for warning in detached.carry_out(document, lock, log, progress):
            progress(warning)
    except detached.Killed as killed:
        progress(killed.message)
        said = recover(stack, catalog, lock, progress)
        if plan.move is Move.REPAIR:
            raise
        if catalog.state().live != plan.to_world:
            raise Reverted(
                "; ".join([f"the switch to {plan.to_world} was killed", *said]),
                next_step="lockstep up   tries again",
            ) from None


def recover(
    stack: Stack,
    catalog: Catalog,
    lock: HostLock,
    progress: Say,
) -> list[str]:
    """Finish or revert a switch that was interrupted; what was found and done, as sentences.

    Also in a process of its own, which no Ctrl-C reaches; it can be done again from any point.
    """
    catalog.clear_drafts()
    if not catalog.journal.exists():
        return []
    log = detached.log_path(catalog.logs(), "recover")
    return detached.carry_out(_document("recover", stack), lock, log, progress)


def running(catalog: Catalog) -> Intent | None:
    """The intent of a switch, or of a recovery, that runs now; None when none does."""
    if not catalog.journal.exists():
        return None
    intent = JournalFile(catalog.journal).read()
    # Since a crash its number may be another process's, but the lock died with it.
    holder = hostlock.holder()
    return intent if intent and holder and holder.pid == intent.pid else None


def follow_running(catalog: Catalog, progress: Say) -> bool:
    """Follow a switch that another caller began and that still runs, to its end.

    False when none runs. Raises what it ended with.
    """
    intent = running(catalog)
    if intent is None:
        return False
    detached.follow(Path(intent.log), progress, lambda: process.is_alive(intent.pid))
    return True


stop_all = rescue.stop_all


# The story --------------------------------------------------------------------------------------


class Switch:
    """One switch to a world that is made and stopped, from a world that runs (or from nothing)."""

    def __init__(self, undertaking: Undertaking, plan: Plan, record: Release) -> None:
        self.u = undertaking
        self.plan = plan
        self.record = record
        self.say = undertaking.say
        self.docker = undertaking.docker
        self.services = undertaking.services
        self.data = undertaking.data
        self.old = undertaking.look_old()
        self.new = undertaking.look_new()
        later = {s.name for s in self.new.services.values() if s.after_commit}
        self.proving = self.new.only(self.new.services.keys() - later)
        self.early: frozenset[str] = frozenset()
        self.proof = Proof(
            undertaking.stack,
            self.services,
            self.proving,
            record,
            returned=returned(record, plan.datasets),
            facts=self._facts,
            tell=undertaking.gate_told,
        )
        self.settling = Settling(
            self.data,
            plan.datasets,
            undertaking.catalog.state(),
            undertaking.from_world,
            undertaking.to_world,
            self.new,
            record,
        )

    def carry_out(self) -> list[str]:
        """Returns warnings. Raises Reverted, or what stood against it before anything changed."""
        self._begin()
        try:
            self._prepare()
        except Exception:
            self.u.evidence.drop()
            self.u.file.remove()
            raise
        try:
            self._start_early()
            self._hand_over()
            self._prove()
            self.u.hooks.boundary(At.PRE_COMMIT)
            outcomes.commit(self.u, self.new)
        except Exception as failure:
            raise self._reverted(failure) from failure
        self.say(f"{self.new.name} is live")
        return outcomes.finish(self.u)

    def _begin(self) -> None:
        """The first journal entry: how everything stood before."""
        intent = self.u.intent
        intent.old_running = self.old.running if self.old else ()
        intent.new_started_at = {
            c.id: c.started for s in self.new.services.values() for c in s.containers
        }
        intent.sealed = self._sealed()
        self.u.note("prepare")
        self.u.evidence.begin(_PLAN.dump_python(self.plan, mode="json"))
        failpoint("switch.prepare")

    # prepare: nothing is changed yet ---------------------------------------------------------

    def _prepare(self) -> None:
        self.u.hooks.boundary(At.PRE_PREPARE)
        self._insist_on_new_world()
        self._insist_on_nobody_else()
        if self.old is not None:
            probes = self.data.probe(self.old, self.u.old_record, _PROBE_SECONDS)
            self.u.note(probes=probes)
            self._snapshot_shared()
            for planned in self._planned(Action.IN_PLACE):
                self.data.advance(planned, self._tags())
        for planned in self._planned(Action.IN_PLACE):
            self.data.insist_on_whole(planned)
        self.u.ingress.prepare(self.old, self.new)
        if self.old is not None:
            self._bring_forks_up_to_date(self.old)
        self.u.hooks.boundary(At.POST_PREPARE)
        self.u.evidence.wait_before_stop()
        failpoint("switch.prepared")

    def _insist_on_new_world(self) -> None:
        """Images are what the record says, and every service has its container."""
        worlds.insist_on_images(self.docker, self.record, self.record.images)
        model = self.record.model
        wanted = {service for service in model["services"] if compose.replicas(model, service)}
        missing = sorted(wanted - self.new.services.keys())
        if missing:
            raise Refused(
                f"{self.new.name} has no container of {', '.join(missing)}",
                next_step="lockstep up   makes what is missing",
            )

    def _insist_on_nobody_else(self) -> None:
        """No container outside both worlds uses data that is copied or handed over."""
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

    def _bring_forks_up_to_date(self, old: HostWorld) -> None:
        """What engines hold back comes before the copy, and once more before the stop."""
        record = self.u.old_record
        names = [p.name for p in self.plan.datasets.values() if p.action is not Action.LEAVE]
        self.data.shorten_stop(old, record, names)
        forks = self._planned(Action.FORK)
        for planned in forks:
            self.say(f"bringing the fork of {planned.name} up to date")
            self.data.catch_up(self.new.name, planned)
        self.data.shorten_stop(old, record, [p.name for p in forks])

    # early start: nothing is stopped yet ------------------------------------------------------

    def _start_early(self) -> None:
        self.services.expect(self.proving.services)
        if self.old is None or self.u.hooks.keep_the_order:
            return
        names = early(self.proving, self.old, self.plan.datasets.values(), self.record)
        if names and not memory.suffices_for(self.docker, self.old):
            self.say("too little free memory to start anything before the stop")
        elif names:
            self.early = names
            self.u.note("early")
            self.say(f"starting {', '.join(sorted(names))} of {self.new.name} before the stop")
            self.services.allow(self.u.stack.settings.deadline)
            perform(self._early_acts(), self.services.abandoned)
            failpoint("switch.early")

    # hand over: stop, seal, start -------------------------------------------------------------

    def _hand_over(self) -> None:
        coming = self.proving.only(self.proving.services.keys() - self.early)
        if self.old is not None:
            self.u.hooks.boundary(At.PRE_STOP)
            self.say(f"stopping {self.old.name} ({len(self.old.services)} services)")
        self.u.note("stop")
        self.u.note(ingress=self.u.ingress.hold(self.old, self.new))
        HandOver(
            services=self.services,
            leaving=self.old,
            coming=coming,
            seals=(
                *(
                    Seal(p.name, str(p.source), partial(self._final_pass, p), self._beside(p))
                    for p in self._planned(Action.FORK)
                ),
                *(
                    Seal(p.name, p.generation, partial(self._change_in_place, p), self._beside(p))
                    for p in self._planned(Action.IN_PLACE)
                ),
            ),
            independent=self._independent(coming),
            settle=self._settle,
            settled=self._settled,
            proof_seconds=self.u.stack.settings.deadline,
            gates=self.proof.acts(self._before(), self.early, self._on_answer),
            on_answer=self._on_answer,
            on_stop=self._on_stop,
            ports_free=partial(self.u.ingress.open, self.new),
            at_rest=self._at_rest,
            hooks=self.u.hooks,
        ).carry_out()
        failpoint("switch.started")

    def _beside(self, planned: DatasetPlan) -> frozenset[str]:
        """Places of the other datasets of its group."""
        group = self.u.stack.settings.together_with(planned.name)
        others = [self.plan.datasets[n] for n in group if n in self.plan.datasets]
        return frozenset(o.source or o.generation for o in others)

    def _independent(self, coming: HostWorld) -> frozenset[str]:
        """Worth it only when something runs already that they can lean on."""
        if not self.early:
            return frozenset()
        return independent(coming, self.old, unsettled(self.plan.datasets.values()))

    def _on_answer(self, service: Service) -> None:
        self.u.gap.answers(service, self.new)

    def _before(self) -> dict[str, Mapping[str, int]]:
        """dataset -> what was counted in the content that the new world has, as it was sealed."""
        planned = self.plan.datasets.values()
        state, probes = self.settling.state, self.u.intent.probes
        return {p.name: held_before(state, p, probes) for p in planned}

    def _facts(self) -> dict[str, Any]:
        """As the world stands now: its addresses come with its start."""
        left = self.u.from_world
        return told_to_host(
            self.u.look_new(),
            self.record.name,
            move=self.plan.move.value,
            from_release=left.release if left else None,
            from_world=self.plan.from_world,
            datasets=self.u.intent.datasets,
        )

    def _on_stop(self, service: Service) -> None:
        self.u.gap.stopping(service, self.old)
        failpoint("switch.stop")

    def _final_pass(self, planned: DatasetPlan) -> None:
        self.data.final_pass(self.new.name, planned)
        failpoint("switch.seal")

    def _change_in_place(self, planned: DatasetPlan) -> None:
        """Stop who else uses it, keep what is there, put there what is wanted."""
        owners = self.data.owners(planned, self._ours()) if planned.shared else ()
        change = InPlace(place=planned.generation, owners=owners)
        self._note_change(planned.name, change)
        self.services.stop_containers(owners)
        change.safety = self.data.safety(planned, self._tags())
        change.restored = planned.snapshot is not None
        self._note_change(planned.name, change)
        failpoint("switch.safety")
        if planned.snapshot is not None:
            self.data.restore_in_place(planned.name, planned.generation, planned.snapshot)
        for owner in owners:
            self.docker.start(owner)
        failpoint("switch.in-place")

    def _note_change(self, name: str, change: InPlace) -> None:
        snapshots = {name: change.safety} if change.safety else {}
        self.u.note(
            in_place=self.u.intent.in_place | {name: change},
            snapshots=self.u.intent.snapshots | snapshots,
        )

    def _at_rest(self) -> None:
        self.u.note("start")
        failpoint("switch.sealed")

    def _early_acts(self) -> list[Act]:
        return start_acts(
            self.services,
            self.proving.only(self.early).services,
            settle=self._settle,
            settled=self._settled,
            hooks=self.u.hooks,
        )

    @property
    def _settled(self) -> frozenset[str]:
        return self.settling.services | self.proof.resetting

    def _settle(self, service: Service) -> None:
        self.settling.settle(service)
        self.proof.reset(service)
        failpoint("switch.ready")

    # prove and go back ------------------------------------------------------------------------

    def _prove(self) -> None:
        self.u.note("prove")
        in_parallel(self.services.await_ready, self.proving.only(self.early))
        in_parallel(self.services.insist_on_standing, self.proving)
        if seconds := self.u.stack.settings.steady:
            self.say(f"watching {self.new.name} for {seconds:g} s before it is live")
            in_parallel(partial(self.services.insist_on_steadiness, seconds), self.proving)
        self.proof.last_look(self._before())
        self.settling.insist_on_content(self.u.intent.probes)
        self.u.hooks.boundary(At.POST_PROVE)
        self.u.ingress.aim(self.new)
        self.u.intent.downtime_seconds = self.u.away_seconds
        for port, waiting in self.u.ingress.waiting().items():
            self.u.intent.ingress.setdefault(port, {}).update(waiting)
        failpoint("switch.proved")

    def _reverted(self, failure: Exception) -> LockstepError:
        """Go back; the error that tells the caller what happened and what is live now."""
        text = self.services.masked(_told(failure))
        if isinstance(failure, NotProved):
            self._note_failure(failure)
        own = isinstance(failure, NotProved) and not outcomes.disk_is_full(self.u)
        what = "did not pass its proof" if own else "could not be made live"
        first, _, rest = f"{self.record.name} {what}: {text}".partition("\n")
        self.say(first)
        says = outcomes.revert(self.u, text, quarantine=own)
        return Reverted(f"{first}; {says}" + (f"\n{rest}" if rest else ""))

    def _note_failure(self, failure: NotProved) -> None:
        """Also what was no gate's failure stands among what was asked."""
        result = failure.result or GateResult(
            gate="its data",
            service="",
            kind="data",
            result=Result.FAILED,
            means="fail",
            said=bounded(self.services.masked(failure.first_line)),
        )
        if result not in self.u.intent.gates:
            self.u.intent.gates = (*self.u.intent.gates, result)

    # small things -----------------------------------------------------------------------------

    def _planned(self, action: Action) -> list[DatasetPlan]:
        return [p for p in self.plan.datasets.values() if p.action is action]

    def _ours(self) -> frozenset[str]:
        """Ids of all containers of both worlds."""
        return frozenset(i for w in (self.old, self.new) if w for i in (*w.ids, *w.strays))

    def _tags(self) -> dict[str, str]:
        left = self.u.from_world
        return {"release": left.release, "world": left.name} if left else {}

    def _sealed(self) -> dict[str, str]:
        """Generations that only the old world has: nobody writes them after the commit."""
        used = {p.generation for p in self.plan.datasets.values()}
        used |= set(self.u.to_world.generations.values())
        left = self.u.from_world
        return {d: g for d, g in left.generations.items() if g not in used} if left else {}


# The process ------------------------------------------------------------------------------------


def perform_move(
    stack: Stack,
    catalog: Catalog,
    docker: Docker,
    plan: Plan,
    say: Say,
    *,
    who: str,
    log: str,
    asked: Asked,
) -> list[str]:
    """Carry out the plan in this process, which must hold the host lock. Returns warnings."""
    said = rescue.finish_or_revert(stack, catalog, docker, say, who=who)
    state = catalog.state()
    if plan.to_world is None:
        raise WorldChanged("the plan leads nowhere: nothing was done")
    if plan.move is not Move.REPAIR and state.live == plan.to_world:
        say(f"{plan.to_world} is live already")
        return said
    _insist_on_same_world(state, plan, plan.to_world)
    intent = Intent(
        head=state.head,
        seq=state.seq,
        chain=state.chain,
        move=plan.move.value,
        from_world=plan.from_world,
        to_world=plan.to_world,
        started=clock.now("milliseconds"),
        who=who,
        pid=os.getpid(),
        log=log,
        wish=plan.wish,
        datasets={p.name: p.action.value for p in plan.datasets.values()},
        planned=plan.made,
        expected_seconds=plan.downtime_estimate_seconds,
        set_aside={p.name: dict(p.set_aside) for p in plan.datasets.values() if p.set_aside},
        operator_reason=asked.reason,
        asked=asked.command,
        incident=incidents.new_id(catalog, plan.target or plan.to_world),
    )
    undertaking = Undertaking(stack, catalog, docker, intent, say)
    if plan.move is Move.REPAIR:
        rescue.repair(undertaking)
        return said
    record = catalog.record(undertaking.to_world.release)
    if stack.settings.notify:
        from reconciler.notifications import notifications

        notifications.tell_begun(stack, catalog, plan, who)
    return said + Switch(undertaking, plan, record).carry_out()


def _insist_on_same_world(state: State, plan: Plan, to_world: str) -> None:
    """The ledger is as it was when the plan was made, but for the adoption that the plan asked
    for, which was recorded when its world was made."""
    adopted = (
        plan.adopt_project is not None
        and state.live == plan.from_world
        and not any(seq > plan.head for seq, _ in state.outcomes)
        and not state.stopped
    )
    target = state.worlds.get(to_world)
    made = target is not None and not target.removed
    if not made or (state.head != plan.head and not adopted):
        raise WorldChanged("the world changed since this was planned: run it again")


def _work(document: dict[str, Any], say: Say) -> list[str]:
    stack = Stack.model_validate(document["stack"])
    catalog = Catalog(stack)
    docker = connect(stack.settings.reach)
    recovers = document["do"] == "recover"
    plan = None if recovers else _PLAN.validate_python(document["plan"])
    who, log = document["who"], document["log"]
    with _telling(stack, catalog):
        if plan is None:
            return rescue.finish_or_revert(stack, catalog, docker, say, who=who, log=log)
        told = Asked(**document["asked"])
        return perform_move(stack, catalog, docker, plan, say, who=who, log=log, asked=told)


def _telling(stack: Stack, catalog: Catalog) -> AbstractContextManager[None]:
    """Whoever wants to know is told how it ended; who tells nobody pays nothing for it."""
    if not stack.settings.notify:
        return nullcontext()
    from reconciler.notifications import notifications

    return notifications.telling(stack, catalog)


def _document(what: str, stack: Stack) -> dict[str, Any]:
    body = stack.model_dump(mode="json")
    body["root"] = str(stack.root.resolve())
    return {"do": what, "stack": body, "who": _who()}


def _told(failure: Exception) -> str:
    """What a failure says; one that nobody foresaw leaves its traceback in the log."""
    if hasattr(failure, "exit_code"):
        return str(getattr(failure, "message", failure))
    traceback.print_exception(failure)
    return f"{type(failure).__name__}: {failure}"


def _who() -> str:
    with suppress(OSError, KeyError):
        return os.environ.get("SUDO_USER") or getpass.getuser()
    return ""


if __name__ == "__main__":
    detached.serve(_work)
