"""The Pulumi program: read the config, decide, declare, export.

Declared is what shall exist after this up; what is no longer declared, Pulumi deletes. The work
is done by resource hooks in this process: make a world, switch, pay debts, guard deletes.
"""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pulumi
from pulumi.runtime import invoke

from reconciler import config, decide, observe
from reconciler.catalog import Catalog
from reconciler.docker import Compose, Docker, connect
from reconciler.errors import EXIT_CODE_FILE, BadInput, Exit, LockstepError, Refused, Reverted
from reconciler.hooks import hookpreview
from reconciler.host import hostlock
from reconciler.ingress import ingressfacts
from reconciler.masking import masked
from reconciler.notifications import look_at_disk
from reconciler.plan import AGREED, Move, Plan
from reconciler.planning import fitness, impact, releasediff
from reconciler.planning.situation import Situation
from reconciler.reaching import reach
from reconciler.records import trust
from reconciler.records.ledger import State
from reconciler.resources import Kept, Live, Release, World
from reconciler.upkeep import foresight
from reconciler.world import hostnotes, imagehold
from snapshots.errors import SnapshotError

_TEXTS = ("release", "store", "encryption", "data", "retry", "trust")
"""Config keys whose values are never JSON."""
IMPACT_SHOWN = "LOCKSTEP_IMPACT_SHOWN"
"""Set by a caller that has shown the impact itself."""

_last_error: LockstepError | SnapshotError | None = None
_shown: Program | None = None


def last_error() -> LockstepError | SnapshotError | None:
    """What ended the last run of the program in this process, if anything foreseen did."""
    return _last_error


def run() -> None:
    """What `__main__.py` does. Ends in pulumi.RunError with one clear text when refused."""
    global _last_error
    _last_error = None
    _end_quietly_on_interrupt()
    try:
        program = _program()
        program.put_right_what_is_unfinished()
        program.put_back_tags()
        program.declare()
    except (LockstepError, SnapshotError) as error:
        _ended_by(error)
        raise pulumi.RunError(masked(str(error))) from None


def _program() -> Program:
    """The program of this run. A preview right after this process has shown the same stack's plan
    shows that one's resources: nothing is looked up again."""
    found = Program(read_stack(), anchor=_last_head())
    same = _shown and (_shown.stack, _shown.anchor) == (found.stack, found.anchor)
    return _shown if _shown and same and pulumi.runtime.is_dry_run() else found


def _ended_by(error: LockstepError | SnapshotError) -> None:
    global _last_error
    _last_error = error
    told = os.environ.get(EXIT_CODE_FILE)
    if told:
        with suppress(OSError):
            Path(told).write_text(str(int(error.exit_code)))


def facts_and_plan(
    stack: config.Stack, *, probe: bool = True, anchor: Mapping[str, Any] | None = None
) -> Plan:
    """What preview shows: the decision on the facts of this moment. `anchor`: the stack's output
    `head`."""
    global _shown
    _shown = Program(stack, probe=probe, anchor=anchor)
    return _shown.plan_for_readers if probe else _shown.plan


def weighed(stack: config.Stack) -> Plan:
    """The decision for other wishes, on the facts of the plan that this process made last: to be
    compared with it, never to be carried out."""
    assert _shown is not None
    return decide.decide(stack, _shown.state, _shown.now.facts)


def _last_head() -> Mapping[str, Any] | None:
    """The output `head` that the last `up` left, by the engine's own word; None before the first.
    The engine's function for stack references gives it without a resource in the state."""
    project, stack = pulumi.get_project(), pulumi.get_stack()
    why = ""
    for name in (f"{pulumi.get_organization()}/{project}/{stack}", stack):
        try:
            found = invoke("pulumi:pulumi:readStackOutputs", {"name": name}).value or {}
            return dict(found.get("outputs") or {}).get(trust.OUTPUT)
        except Exception as error:
            why = str(error)
    pulumi.log.warn(f"the ledger is not compared with what the last up left of it: {why}")
    return None


def read_stack() -> config.Stack:
    """The stack of the running Pulumi program, from Pulumi's config."""
    values = pulumi.Config()
    found = {}
    for key in config.Settings.model_fields:
        text = values.get(key)
        if text is not None:
            found[key] = parse_value(key, text)
    if values.get("environment") is not None and pulumi.runtime.is_config_secret(
        f"{pulumi.get_project()}:environment"
    ):
        raise BadInput(
            "config environment holds a secret: secret values belong under `secrets`",
            next_step="lockstep config set --secret --path secrets.NAME",
        )
    root = Path(pulumi.get_root_directory() or os.getcwd())
    return config.read(pulumi.get_project(), pulumi.get_stack(), root, found)


def parse_value(key: str, value: Any) -> Any:
    """A config value as Pulumi hands it over: objects and numbers come as JSON text."""
    if not isinstance(value, str) or key in _TEXTS:
        return value
    try:
        parsed = json.loads(value)
    except ValueError:
        return value
    return parsed


@dataclass
class Program:
    """One run of the program."""

    stack: config.Stack
    probe: bool = True
    anchor: Mapping[str, Any] | None = None

    @cached_property
    def docker(self) -> Docker:
        return connect(self.stack.settings.reach)

    @cached_property
    def compose(self) -> Compose:
        return Compose(self.stack.root)

    @cached_property
    def catalog(self) -> Catalog:
        found = Catalog(self.stack)
        found.insist_private()
        return found

    @cached_property
    def state(self) -> State:
        return self.catalog.state()

    @cached_property
    def found(self) -> trust.Found:
        """What is not as the last `up` left it."""
        accepted = self.stack.settings.trust
        return trust.examine(self.anchor, self.catalog, self.state, accepted)

    @cached_property
    def plan(self) -> Plan:
        reach.insist_on_same_host(self.docker, self.stack.releases)
        mended = self.catalog.mend_manifest()
        if mended:
            pulumi.log.warn(mended)
        facts = observe.observe(
            self.stack,
            self.catalog,
            self.state,
            self.docker,
            probe=self.probe,
            distrusted=self.found.records,
        )
        self.now = Situation(self.stack, self.state, facts)
        plan = trust.judged(decide.decide(self.stack, self.state, facts), self.found)
        unfit = fitness.refusals(
            self.stack, self.docker, plan, facts.records, self.state.live_release
        )
        hooks = hookpreview.refusals(self.stack, plan, facts.records)
        plan = replace(plan, refusals=(*plan.refusals, *unfit, *hooks))
        record = facts.records.get(plan.target or "")
        plan = ingressfacts.insisting_on_image(self.stack, self.docker, plan, record)
        plan = foresight.added(self.catalog, self.state, self.docker, plan, record)
        if record is None or plan.move in (Move.STAY, Move.REPAIR):
            return plan
        live = facts.records.get(self.state.live_release or "")
        if plan.move is Move.ADOPT:
            running = facts.containers.get(self.stack.project, ())
            differs = releasediff.adopting([c for c in running if not c.one_off], record)
        else:
            differs = releasediff.between(live, record)
        warnings = (*plan.warnings, *releasediff.warnings(plan, differs))
        return replace(plan, outlook=differs, warnings=warnings)

    @property
    def plan_for_readers(self) -> Plan:
        """The plan with what the user's hooks say to it: they are asked each time."""
        plan = self.plan  # makes `now`
        return hookpreview.told(
            self.stack, self.catalog, self.docker, self.state, plan, self.now.facts.records
        )

    def put_right_what_is_unfinished(self) -> None:
        """Follow a switch that runs without its caller to its end; finish or revert one that a
        dead process left. Only an update may do so."""
        if pulumi.runtime.is_dry_run():
            return
        from reconciler import switch
        from reconciler.upkeep import debts

        self.catalog.clear_drafts()
        debts.clear_drafts(self.stack)
        if not self.catalog.journal.exists():
            return
        if switch.follow_running(self.catalog, _progress):
            return
        with self._lock("recover") as lock:
            for said in switch.recover(self.stack, self.catalog, lock, _progress):
                pulumi.log.warn(said)

    def put_back_tags(self) -> None:
        """Images whose tags somebody removed get them again; only an update may do so."""
        if pulumi.runtime.is_dry_run():
            return
        plan, gone = self.plan, imagehold.gone_tags(self.now)
        if gone and not plan.refusals:
            for said in imagehold.put_back_tags(self.docker, gone):
                pulumi.log.warn(said)
            del self.plan

    def declare(self) -> None:
        """Say the impact, refuse what must be refused, then declare the resources."""
        plan = self.plan
        shown = IMPACT_SHOWN in os.environ
        if pulumi.runtime.is_dry_run() and plan.move is not Move.STAY and not shown:
            pulumi.log.info("\n".join(impact.lines(self.plan_for_readers)))
        for warning in plan.warnings:
            pulumi.log.warn(warning)
        if plan.refusals:
            raise _refused(plan)
        if AGREED in os.environ:
            from reconciler.planning import savedplan

            savedplan.insist_on_agreed(plan)
        hooks = _Hooks(self)
        releases = {r: Release(r) for r in self._declared_releases()}
        images = {r: self._images(r, releases[r], hooks) for r in plan.images}
        made = {w: self._world(w, releases, images, hooks) for w in plan.worlds}
        live = self._live(made.get(plan.to_world or ""), hooks)
        kept = Kept(
            {"due": plan.move is not Move.STAY or bool(plan.debts or plan.prune)},
            pulumi.ResourceOptions(depends_on=[live], hooks=hooks.paying),
        )
        self._latest_tags(live, kept)
        pulumi.export("release", live.release)
        pulumi.export("world", live.world)
        pulumi.export("impact", live.impact)
        # After the work: `kept` has its id, and the ledger its last event.
        pulumi.export(trust.OUTPUT, kept.id.apply(lambda _: trust.head(self.catalog, self.found)))

    def _declared_releases(self) -> list[str]:
        of_worlds = [self._release_of(world) for world in self.plan.worlds]
        return sorted({*self.plan.images, *of_worlds})

    def _release_of(self, world: str) -> str:
        known = self.state.worlds.get(world)
        return known.release if known is not None else str(self.plan.target)

    def _images(self, release: str, parent: Release, hooks: _Hooks) -> list[pulumi.Resource]:
        import pulumi_docker

        return [
            pulumi_docker.RemoteImage(
                f"{release}-{service}",
                name=tag,
                keep_locally=False,
                opts=pulumi.ResourceOptions(parent=parent, hooks=hooks.guarding_images(release)),
            )
            for service, (tag, _) in self.now.images_of(release).items()
        ]

    def _world(
        self,
        world: str,
        releases: Mapping[str, Release],
        images: Mapping[str, list[pulumi.Resource]],
        hooks: _Hooks,
    ) -> World:
        release = self._release_of(world)
        return World(
            world,
            {
                "world": world,
                "release": release,
                "images": {s: i for s, (_, i) in self.now.images_of(release).items()},
                "datasets": self._generations_of(world),
            },
            pulumi.ResourceOptions(
                parent=releases[release],
                depends_on=images.get(release, []),
                hooks=hooks.making,
            ),
        )

    def _generations_of(self, world: str) -> dict[str, str]:
        known = self.state.worlds.get(world)
        if known is not None:
            return dict(known.generations)
        return {
            name: planned.generation
            for name, planned in self.plan.datasets.items()
            if planned.new or planned.action.value == "attach"
        }

    def _live(self, world: World | None, hooks: _Hooks) -> Live:
        plan = self.plan
        return Live(
            {
                "due": plan.move is not Move.STAY,
                "release": plan.target,
                "world": plan.to_world,
                "move": plan.move.value,
                "impact": impact.output(plan),
            },
            pulumi.ResourceOptions(
                depends_on=[world] if world is not None else [], hooks=hooks.switching
            ),
        )

    def _latest_tags(self, live: Live, kept: Kept) -> None:
        """`:latest` follows what is live. Deleting a Tag removes nothing from Docker, so it
        needs no guard."""
        import pulumi_docker

        for service, (tag, _) in self.now.images_of(str(self.plan.target)).items():
            pulumi_docker.Tag(
                f"latest-{service}",
                source_image=tag,
                target_image=f"{tag.rpartition(':')[0]}:latest",
                opts=pulumi.ResourceOptions(depends_on=[live, kept]),
            )

    def _lock(self, operation: str) -> hostlock.HostLock:
        return hostlock.HostLock.acquire(operation, f"{self.stack.project}/{self.stack.name}")

    # what the hooks do ----------------------------------------------------------------------

    def make_world(self, world: str) -> None:
        """before_create of a World: the slow part, while the old world runs."""
        from reconciler import worlds

        with self._lock("up"):
            if world == self.plan.to_world:
                look_at_disk(self.stack, self.catalog)
                worlds.make(
                    self.stack, self.catalog, self.docker, self.compose, self.plan, _progress
                )

    def remove_world(self, world: str) -> None:
        """before_delete of a World: the guard, then containers, networks, generations."""
        from reconciler import worlds

        with self._lock("remove"):
            worlds.remove(self.stack, self.catalog, self.docker, self.compose, world)

    def guard_images(self, release: str) -> None:
        """before_delete of a RemoteImage."""
        from reconciler import worlds

        if release not in self.plan.prune:
            worlds.guard_images(self.stack, self.catalog, self.docker, release)

    def switch(self) -> None:
        """before_create and before_update of `live`."""
        from reconciler import switch, worlds
        from reconciler.upkeep import debts

        with self._lock("switch") as lock:
            # Pulumi may know a world whose containers somebody removed since.
            worlds.make(self.stack, self.catalog, self.docker, self.compose, self.plan, _progress)
            warning = debts.capture_before_use(
                self.stack, self.catalog, self.docker, self.plan, _progress
            )
            if warning:
                pulumi.log.warn(warning)
            try:
                switch.carry_out(self.stack, self.catalog, self.plan, lock, _progress)
            except Reverted:
                self._keep_what_failed()
                raise

    def _keep_what_failed(self) -> None:
        from reconciler.upkeep import debts

        warning = debts.keep_failed(self.stack, self.catalog, self.docker, _progress)
        if warning:
            pulumi.log.warn(warning)

    def pay(self) -> None:
        """before_create and before_update of `kept`."""
        from reconciler.upkeep import debts

        with self._lock("pay debts"):
            live = self.catalog.state().live
            if live != self.plan.to_world:
                # By --target, or because somebody else switched since: the window is another.
                raise Refused(
                    f"{live} is live, not {self.plan.to_world}: nothing is pruned for it",
                    next_step="lockstep up   does all that is to be done, in order",
                )
            kept = [kept.release for kept in self.plan.keep]
            held = imagehold.to_hold(self.now, kept, self.plan.target)
            held |= ingressfacts.images_in_use(self.stack, self.docker)
            for warning in imagehold.hold(self.stack, self.docker, held):
                pulumi.log.warn(warning)
            hostnotes.mark_seen(self.catalog, self.now.facts.restored)
            debts.pay(self.stack, self.catalog, self.docker, self.compose, self.plan, _progress)
            # Copies and captures took room.
            look_at_disk(self.stack, self.catalog)


class _Hooks:
    """Pulumi's resource hooks, bound to the program's methods."""

    def __init__(self, program: Program) -> None:
        self.program = program
        make = self._hook("make", lambda args: program.make_world(args.name))
        remove = self._hook("guard", lambda args: program.remove_world(args.name))
        switching = self._hook("switch", lambda _: program.switch())
        paying = self._hook("pay", lambda _: program.pay())
        self.making = pulumi.ResourceHookBinding(before_create=[make], before_delete=[remove])
        self.switching = pulumi.ResourceHookBinding(
            before_create=[switching], before_update=[switching]
        )
        self.paying = pulumi.ResourceHookBinding(before_create=[paying], before_update=[paying])
        self._images = self._hook("guard-images", self._guard_images)

    def guarding_images(self, _release: str) -> pulumi.ResourceHookBinding:
        return pulumi.ResourceHookBinding(before_delete=[self._images])

    def _guard_images(self, args: pulumi.ResourceHookArgs) -> None:
        """Images are named prod-003-web: one hook serves those of undeclared releases too."""
        stack, number, _ = args.name.split("-", 2)
        self.program.guard_images(f"{stack}-{number}")

    def _hook(
        self, name: str, work: Callable[[pulumi.ResourceHookArgs], None]
    ) -> pulumi.ResourceHook:
        def carried_out(args: pulumi.ResourceHookArgs) -> None:
            try:
                work(args)
            except (LockstepError, SnapshotError) as error:
                _ended_by(error)
                self._tell(error)
                # Pulumi shows the text of the exception and nothing else of it.
                raise Exception(masked(str(error))) from None

        return pulumi.ResourceHook(name, carried_out)

    def _tell(self, error: Exception) -> None:
        if self.program.stack.settings.notify:
            from reconciler.notifications import notifications

            release = self.program.plan.target or ""
            notifications.tell_failure(self.program.stack, release, error)


def _refused(plan: Plan) -> LockstepError:
    texts = [f"{r.message}\n  {r.remedy}" if r.remedy else r.message for r in plan.refusals]
    codes = {r.code for r in plan.refusals}
    kind = BadInput if codes == {int(Exit.BAD_INPUT)} else Refused
    return kind("\n".join(texts))


def _progress(text: str) -> None:
    pulumi.log.info(masked(text), ephemeral=True)


def _end_quietly_on_interrupt() -> None:
    """The official CLI ends a failed program with SIGINT; without this a KeyboardInterrupt
    traceback is printed. The embedded engine, in whose process the signal is its own, lets no
    program set this handler."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, lambda *_: os._exit(130))
