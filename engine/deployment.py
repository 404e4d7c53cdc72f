"""Carrying out an operation: each declared resource is planned under one lock and worked on in the
thread that the SDK declared it from; what is no longer declared goes at the end."""

from __future__ import annotations

import contextvars
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from . import planner
from .errors import EngineError, NotInEngine
from .planner import Change, Goal, Op
from .providers import PACKAGES, Provider, ProviderFailed, package_of
from .snapshot import PROVIDER_PREFIX, STACK_TYPE, Pending, Resource, Snapshot, now
from .values import UNKNOWN_TEXT, Props, Secret, annotate, encode, plain, secret

REPLACING = {Op.CREATE_REPLACEMENT, Op.REPLACE, Op.DELETE_REPLACED}
COUNTED = {Op.SAME, Op.CREATE, Op.UPDATE, Op.DELETE, Op.REPLACE}


class Terminated(Exception):
    """The operation goes on no further: a step failed or the person pressed ^C."""


class Refused(Exception):
    """This one step failed; the message is for the user."""


@dataclass
class Step:
    """One thing that is done, or in a preview would be done, to one resource."""

    op: Op
    urn: str
    type: str
    old: Resource | None = None
    new: Resource | None = None
    keys: tuple[str, ...] = ()
    diffs: tuple[str, ...] = ()
    detailed: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    lines: list[str] = field(default_factory=list)  # properties to show, secrets hidden

    @property
    def name(self) -> str:
        return self.urn.rpartition("::")[2]


class Listener(Protocol):
    """Who is told what happens."""

    def step(self, phase: str, step: Step, dry_run: bool) -> None: ...

    def diagnostic(self, urn: str, severity: str, text: str, ephemeral: bool = False) -> None: ...


class Hooks(Protocol):
    """Calls the program's resource hooks; without a program there are none."""

    def hook_options(self, name: str, /) -> tuple[bool, bool] | None:
        """(on_dry_run, ignore_errors) of a registered hook, None if there is none of the name."""

    def call_hook(self, name: str, arguments: dict[str, Any], /) -> str:
        """Runs the hook; the text of its failure, empty if there was none."""


def _known_package(package: str) -> None:
    if package not in PACKAGES:
        raise NotInEngine(f"the provider {package}")


def _nothing(_: Step) -> None:
    """The step only says what the others of a replacement amount to."""


class NoHooks:
    """The hooks of an operation that runs no program."""

    def hook_options(self, _name: str, /) -> tuple[bool, bool] | None:
        return None

    def call_hook(self, name: str, _arguments: dict[str, Any], /) -> str:
        return f"hook {name} needs the program, which is not running"


class Deployment:
    """One preview or one operation on a stack."""

    def __init__(
        self,
        *,
        project: str,
        stack: str,
        config: Props,
        snapshot: Snapshot,
        save: Callable[[Snapshot], None],
        listener: Listener,
        dry_run: bool,
        removing: bool = False,
        parallel: int = 8,
    ) -> None:
        """`config` holds the stack's config as texts and secrets; `removing`: declared resources
        stay as they are, everything goes at the end (destroy with its program)."""
        self.project, self.stack, self.config = project, stack, config
        self.snapshot, self.dry_run, self.removing = snapshot, dry_run, removing
        self.hooks: Hooks = NoHooks()
        self.failed = self.cancelled = self.program_failed = False
        self.ended = False  # the program is over by an exception: its loop only winds down
        self.blocked = False  # a preview met something that the update would refuse
        self.last_word = ""  # what is said of the operation as a whole after a failed step
        self.steps: list[Step] = []
        self.changes: Counter[str] = Counter()
        self.parallel = parallel
        self._save, self._tell = save, listener
        self._lock = threading.RLock()
        self._declared: set[str] = set()
        self._replaced_early: dict[str, Change] = {}
        self._providers: dict[str, Provider] = {}
        self._busy = 0
        self._stack_step: Step | None = None

    # ---- what the program asks for -------------------------------------------------------------

    def urn(self, type_: str, name: str, parent: str) -> str:
        """The resource's URN; the types of its parents below the stack are part of it."""
        above = parent.split("::")[2] if parent else ""
        chain = f"{above}$" if above and above != STACK_TYPE else ""
        return f"urn:pulumi:{self.stack}::{self.project}::{chain}{type_}::{name}"

    def register(self, goal: Goal) -> tuple[Resource, bool]:
        """Make the resource as declared. Gives it, and whether outputs may be missing from it.

        Raises Terminated if this or another step failed, NotInEngine for what is not here.
        """
        with self._working():
            with self._lock:
                self._go_on()
                try:
                    goal = self._accept(goal)
                    steps, new = self._plan(goal)
                except (Refused, ProviderFailed) as error:
                    self.fail(goal.urn, str(error))
                    raise Terminated from None
            for step in steps:
                self._run(step)
            return new, self.removing and new.custom and not new.id

    def register_outputs(self, urn: str, outputs: Props) -> None:
        """What a component, or the stack, gives out."""
        with self._lock:
            resource = next((r for r in self.snapshot.settled if r.urn == urn), None)
            if resource is None or resource.type != STACK_TYPE:
                self._go_on()
            if resource is None:
                return
            resource.outputs = outputs
            step = next(s for s in self.steps if s.new is resource)
            if resource.type == STACK_TYPE:
                self._stack_step = step
            else:
                self._tell.step("outputs", step, self.dry_run)
            self._store()

    def close(self, old_outputs: Props) -> None:
        """The last thing: the stack's own end. After a failure it keeps the outputs it had before
        and did not give out this time."""
        step = self._stack_step
        root = next((r for r in self.snapshot.settled if r.type == STACK_TYPE), None)
        if root is not None and (self.failed or self.cancelled or self.program_failed):
            root.outputs = {**old_outputs, **root.outputs}
        if step is not None:
            self._tell.step("outputs", step, self.dry_run)

    def finish(self) -> None:
        """The program has declared everything: delete what goes. Nothing goes after a failure."""
        with self._working():
            if self.failed or self.cancelled or self.program_failed:
                return
            declared = set() if self.removing else self._declared
            earlier = self.snapshot.resources if self.removing else self.snapshot.earlier
            self.delete(planner.condemned(earlier, declared))

    # ---- planning ------------------------------------------------------------------------------

    def _accept(self, goal: Goal) -> Goal:
        if goal.urn in self._declared:
            raise Refused(f"Duplicate resource URN '{goal.urn}'; try giving it a unique name")
        if goal.type.startswith(PROVIDER_PREFIX):
            _known_package(goal.type.removeprefix(PROVIDER_PREFIX))
        elif goal.custom and not goal.provider:
            goal = replace(goal, provider=self._default_provider(goal))
        if goal.provider and not self.removing:
            self._provider(goal.provider)
        self._declared.add(goal.urn)
        return goal

    def _plan(self, goal: Goal) -> tuple[list[Step], Resource]:
        old = self.snapshot.find(goal.urn)
        if self.removing:
            return self._keep(goal, old)
        early = self._replaced_early.pop(goal.urn, None)
        change = early
        goal = self._with_old_ignored(goal, old)
        if old is not None and early is None:
            checked = self._check(goal, old.inputs)
            change = self._diff(goal, old, checked)
        else:
            checked = self._check(goal, {})
        ops = planner.decide(goal, old, change)
        if set(ops) & REPLACING:
            assert old is not None
            if old.protect:
                self._refuse_protected_replace(goal.urn)
            if early is None:
                checked = self._check(goal, {})
        new = goal.resource(inputs=checked, created=old.created if old else "")
        steps = self._dependents_of(old) if Op.DELETE_REPLACED in ops and old else []
        steps += [self._step(op, old, new, change, early is not None) for op in ops]
        return steps, new

    def _keep(self, goal: Goal, old: Resource | None) -> tuple[list[Step], Resource]:
        if old is None:
            return [], goal.resource()
        new = replace(old, id="", outputs={})
        return [self._step(Op.SAME, old, new, None)], new

    def _step(
        self,
        op: Op,
        old: Resource | None,
        new: Resource | None,
        change: Change | None,
        early: bool = False,
    ) -> Step:
        found = new or old
        assert found is not None
        step = Step(op, found.urn, found.type, old, None if "delete" in op else new)
        # A dependent that had to go early was compared then; only its new object still says how.
        tells = {Op.UPDATE, Op.CREATE_REPLACEMENT} | (set() if early else {Op.REPLACE})
        if change and op in tells:
            step.keys, step.diffs = change.replaces, change.keys
            step.detailed = dict(change.detailed)
        return step

    def _dependents_of(self, old: Resource) -> list[Step]:
        def asks_replace(resource: Resource, guess: Props) -> bool:
            provider = self._provider(resource.provider)
            change = provider.diff(
                resource.type,
                resource.id,
                plain(resource.outputs),
                plain(resource.inputs),
                plain(guess),
            )
            if change.replaces:
                if resource.protect:
                    self._refuse_protected_replace(resource.urn)
                self._replaced_early[resource.urn] = change
            return bool(change.replaces)

        found = planner.replaced_with(old, self.snapshot.earlier, asks_replace)
        return [self._step(Op.DELETE_REPLACED, r, None, None) for r in found]

    def _refuse_protected_replace(self, urn: str) -> None:
        text = (
            f'unable to replace resource "{urn}"\nas it is currently marked for protection. '
            "To unprotect the resource, remove the `protect` flag from the resource in your "
            "Pulumi program and run `pulumi up`"
        )
        if not self.dry_run:
            raise Refused(text)
        # A preview goes on, so that the reader sees everything that stands in the way.
        self.blocked = True
        self.last_word = "preview failed"
        self._tell.diagnostic(urn, "error", text)

    def _with_old_ignored(self, goal: Goal, old: Resource | None) -> Goal:
        if old is None or not goal.ignore_changes:
            return goal
        return replace(
            goal, inputs=planner.keep_ignored(goal.inputs, old.inputs, goal.ignore_changes)
        )

    def _check(self, goal: Goal, olds: Props) -> Props:
        if not goal.provider:
            return goal.inputs
        inputs, failures = self._provider(goal.provider).check(
            goal.type, plain(olds), plain(goal.inputs)
        )
        for property_, reason in failures:
            value = plain(goal.inputs.get(property_))
            shown = "[secret]" if isinstance(goal.inputs.get(property_), Secret) else value
            raise Refused(
                f"{goal.type} resource '{goal.name}': property {property_} value {{{shown}}} "
                f"has a problem: {reason}"
            )
        return annotate(inputs, goal.inputs)

    def _diff(self, goal: Goal, old: Resource, checked: Props) -> Change:
        if not goal.provider:
            if old.is_provider or not planner.same_inputs(old.inputs, checked):
                return Change(not planner.same_inputs(old.inputs, checked))
            return Change()
        return self._provider(goal.provider).diff(
            goal.type, old.id, plain(old.outputs), plain(old.inputs), plain(checked)
        )

    # ---- providers -----------------------------------------------------------------------------

    def _default_provider(self, goal: Goal) -> str:
        package = package_of(goal.type)
        version = "" if package == "pulumi-python" else goal.version.removeprefix("v")
        name = f"default_{version.replace('.', '_').replace('-', '_')}" if version else "default"
        urn = self.urn(f"{PROVIDER_PREFIX}{package}", name, "")
        made = next((r for r in self.snapshot.settled if r.urn == urn), None)
        if made is None:
            inputs: Props = dict(self.config)
            if package != "pulumi-python":
                prefix = f"{package}:"
                inputs = {k.removeprefix(prefix): v for k, v in inputs.items() if prefix in k}
                inputs |= {"version": version, "__internal": {}}
            made = self._settle_provider(Goal(urn, urn.split("::")[2], name, True, inputs))
        return f"{made.urn}::{made.id}"

    def _settle_provider(self, goal: Goal) -> Resource:
        self._declared.add(goal.urn)
        steps, new = self._plan(goal)
        for step in steps:
            self._run(step)
        return new

    def _provider(self, reference: str) -> Provider:
        """The provider of a reference `urn::id`, from the snapshot's entry for it."""
        with self._lock:
            if reference not in self._providers:
                urn = reference.rpartition("::")[0]
                entry = next((r for r in self.snapshot.resources if r.urn == urn), None)
                if entry is None:
                    raise EngineError(f"the state has no provider {urn}; use the Pulumi CLI")
                package = entry.type.removeprefix(PROVIDER_PREFIX)
                _known_package(package)
                make = PACKAGES[package]
                self._providers[reference] = make(self.project, plain(entry.inputs))
            return self._providers[reference]

    # ---- doing ---------------------------------------------------------------------------------

    def _run(self, step: Step) -> None:
        """One step from its first event to its last, state saved; Terminated if it failed."""
        self._go_on()
        self._tell.step("pre", step, self.dry_run)
        begun = time.monotonic()
        try:
            complaint = self._apply(step)
        except (Refused, ProviderFailed, EngineError) as error:
            with self._lock:
                self.snapshot.running.pop(id(step), None)
                self._store()
            step.seconds = time.monotonic() - begun
            if not self.dry_run:
                self._tell.step("failed", step, self.dry_run)
            self._step_failed(step, str(error))
            raise Terminated from None
        step.seconds = time.monotonic() - begun
        self._done(step)
        if complaint:
            self._step_failed(step, complaint)
            raise Terminated

    def _apply(self, step: Step) -> str:
        """Do it. Gives what an after hook complained of; the step itself is done then."""
        work: dict[Op, Callable[[Step], None]] = {
            Op.SAME: self._same,
            Op.CREATE: self._create,
            Op.CREATE_REPLACEMENT: self._create,
            Op.REPLACE: _nothing,
            Op.UPDATE: self._update,
            Op.DELETE: self._delete,
            Op.DELETE_REPLACED: self._delete,
            Op.FORGET_REPLACED: _nothing,
        }
        kind = {Op.CREATE_REPLACEMENT: "Create", Op.DELETE_REPLACED: "Delete"}.get(
            step.op, step.op.capitalize()
        )
        if kind not in ("Create", "Update", "Delete"):
            work[step.op](step)
            return ""
        if step.op is Op.UPDATE and step.old and step.new:
            step.new.id = step.old.id
        self._begin(step, kind)
        self._call_hooks(f"Before{kind}", step, {})
        work[step.op](step)
        try:
            self._call_hooks(f"After{kind}", step, step.new.outputs if step.new else {})
        except Refused as error:
            return str(error)
        return ""

    def _begin(self, step: Step, kind: str) -> None:
        target = step.new or step.old
        if self.dry_run or target is None or not target.custom or target.is_provider:
            return
        operation = {"Create": "creating", "Update": "updating", "Delete": "deleting"}[kind]
        with self._lock:
            self.snapshot.running[id(step)] = Pending(target, operation)
            self._store()

    def _same(self, step: Step) -> None:
        old, new = step.old, step.new
        assert old is not None
        assert new is not None
        new.id, new.outputs, new.modified = old.id, dict(old.outputs), old.modified
        self._mark_secret_outputs(new)

    def _create(self, step: Step) -> None:
        new = step.new
        assert new is not None
        if new.is_provider:
            new.id = UNKNOWN_TEXT if self.dry_run else str(uuid.uuid4())
            new.outputs = {k: v for k, v in new.inputs.items() if k != "__internal"}
        elif new.provider:
            provider = self._provider(new.provider)
            new.id, outputs = provider.create(new.type, plain(new.inputs), self.dry_run)
            self._take_outputs(new, outputs)
            if not new.id and not self.dry_run:
                raise ProviderFailed("the provider gave no id for the new resource")
        new.created = new.modified = now()

    def _update(self, step: Step) -> None:
        old, new = step.old, step.new
        assert old is not None
        assert new is not None
        if new.is_provider:
            new.outputs = {k: v for k, v in new.inputs.items() if k != "__internal"}
        elif new.provider:
            outputs = self._provider(new.provider).update(
                new.type,
                old.id,
                plain(old.outputs),
                plain(old.inputs),
                plain(new.inputs),
                self.dry_run,
            )
            self._take_outputs(new, outputs)
        else:
            new.outputs = dict(old.outputs)
        new.modified = now()

    def _delete(self, step: Step) -> None:
        old = step.old
        assert old is not None
        if old.protect and step.op is Op.DELETE:
            raise Refused(
                f'{self._prefix}resource "{old.urn}" cannot be deleted\nbecause it is protected. '
                "To unprotect the resource, either remove the `protect` flag from the resource in "
                "your Pulumi program and run `pulumi up`, or use the command:\n"
                f"`pulumi state unprotect '{old.urn}'`"
            )
        leave = self.dry_run or old.retain_on_delete or not old.provider
        if not leave:
            self._provider(old.provider).delete(old.type, old.id, plain(old.outputs))

    @property
    def _prefix(self) -> str:
        return "Preview failed: " if self.dry_run else ""

    def _take_outputs(self, new: Resource, outputs: Props) -> None:
        new.outputs = annotate(outputs, new.inputs)
        self._mark_secret_outputs(new)

    def _mark_secret_outputs(self, new: Resource) -> None:
        for key in new.secret_outputs:
            if key in new.outputs and not isinstance(new.outputs[key], Secret):
                new.outputs[key] = secret(new.outputs[key])

    def _call_hooks(self, when: str, step: Step, outputs: Props) -> None:
        """Raises Refused at the first hook that fails."""
        target = step.new or step.old
        assert target is not None
        old = step.old if step.op is not Op.CREATE_REPLACEMENT else None
        for name in target.hooks.get(when, ()):
            options = self.hooks.hook_options(name)
            if options is None:
                raise Refused(
                    f"hook {name} is not registered by the program; "
                    "declare it as pulumi.ResourceHook"
                )
            on_dry_run, ignore_errors = options
            if self.dry_run and not on_dry_run:
                continue
            arguments: dict[str, Any] = {
                "urn": target.urn,
                "id": target.id or (old.id if old else ""),
                "name": target.name,
                "type": target.type,
            }
            if step.new is not None:
                arguments["new_inputs"] = encode(step.new.inputs)
            if old is not None:
                arguments["old_inputs"] = encode(old.inputs)
                arguments["old_outputs"] = encode(old.outputs)
            if when.startswith("After") and step.new is not None:
                arguments["new_outputs"] = encode(outputs)
            complaint = self.hooks.call_hook(name, arguments)
            if complaint and ignore_errors:
                self._tell.diagnostic(
                    target.urn, "warning", f'{when} hook "{name}" failed: {complaint}'
                )
            elif complaint:
                moment = "before" if when.startswith("Before") else "after"
                raise Refused(f'{self._prefix}{moment} hook "{name}" failed: {complaint}')

    def _done(self, step: Step) -> None:
        with self._lock:
            self.snapshot.running.pop(id(step), None)
            self._settle(step)
            self.steps.append(step)
            target = step.new or step.old
            if step.op in COUNTED and target and not target.is_provider:
                self.changes[step.op.value] += 1
            self._store()
            # A component's outputs come with register_outputs; those here are an earlier run's.
            if target and (target.custom or self.dry_run or "delete" in step.op):
                self._tell.step("outputs", step, self.dry_run)

    def _settle(self, step: Step) -> None:
        old, new = step.old, step.new
        if step.op in (Op.SAME, Op.CREATE, Op.UPDATE):
            assert new is not None
            self.snapshot.settle(new, old)
        elif step.op is Op.CREATE_REPLACEMENT:
            assert new is not None
            assert old is not None
            gone = old if old.pending_replacement else None
            self.snapshot.settle(new, gone)
            if gone is None:
                old.delete = True
        elif step.op is Op.DELETE_REPLACED and old is not None and not old.delete:
            # Its successor is still to come: if that fails, the next run must know.
            old.pending_replacement = True
        elif old is not None and step.op is not Op.REPLACE:
            self.snapshot.drop(old)

    # ---- deleting ------------------------------------------------------------------------------

    def delete(self, doomed: Sequence[tuple[Op, Resource]]) -> None:
        """Delete in an order that no dependent outlives what it needs. A group that has a failure
        is finished; what is left after it stays."""
        for wave in planner.waves(doomed):
            steps = [self._step(op, r, None, None) for op, r in wave]
            self._each(self._try, steps)
            if self.failed or self.cancelled:
                return

    def _try(self, step: Step) -> None:
        try:
            self._run(step)
        except Terminated:
            return

    def _each(self, work: Callable[[Any], None], items: Sequence[Any]) -> None:
        """Run `work` on every item, some beside each other, each in a copy of our context: hooks
        find the program's settings there."""
        if self.dry_run or len(items) == 1 or self.parallel == 1:
            for item in items:
                work(item)
            return
        with ThreadPoolExecutor(min(self.parallel, len(items))) as pool:
            futures = [pool.submit(contextvars.copy_context().run, work, i) for i in items]
        for future in futures:
            future.result()

    def refuse_hooks_without_program(self, resources: Iterable[Resource]) -> bool:
        """Reports resources whose delete hooks nobody could run; True if there are any."""
        found = False
        for resource in resources:
            names = [n for w in ("BeforeDelete", "AfterDelete") for n in resource.hooks.get(w, ())]
            if names:
                found = True
                self.fail(
                    resource.urn,
                    "Resource has delete hooks registered, but the program is not running. "
                    f"Hooks: {', '.join(names)}",
                )
                self.last_word = (
                    "You must run with the `--run-program` flag to use delete hooks during destroy."
                )
        return found

    # ---- refreshing ----------------------------------------------------------------------------

    def refresh(self, report_changes: bool) -> None:
        """Read every resource anew. `report_changes`: tell what was found as same, update or delete
        and count it; else (before an update) only as refresh."""
        steps = [
            Step(Op.REFRESH, r.urn, r.type, r, replace(r))
            for r in self.snapshot.resources
            if not r.delete and not r.pending_replacement
        ]
        self._each(lambda step: self._refresh(step, report_changes), steps)
        with self._lock:
            self.snapshot.forget_dangling()
            self._store()

    def _refresh(self, step: Step, report_changes: bool) -> None:
        if self.cancelled:
            return
        old, new = step.old, step.new
        assert old is not None
        assert new is not None
        self._tell.step("pre", step, self.dry_run)
        begun = time.monotonic()
        found = Op.SAME
        try:
            if old.provider and not old.is_provider:
                found = self._read(old, new)
        except (ProviderFailed, EngineError) as error:
            self._tell.step("failed", step, self.dry_run)
            self._step_failed(step, str(error))
            return
        step.seconds = time.monotonic() - begun
        with self._lock:
            if found is Op.DELETE:
                step.new = None
                self.snapshot.drop(old)
            else:
                old.id, old.inputs, old.outputs = new.id, new.inputs, new.outputs
                old.modified = now() if found is Op.UPDATE else old.modified
            if report_changes:
                step.op = found
                self.steps.append(step)
                if not old.is_provider:
                    self.changes[found.value] += 1
            self._store()
        self._tell.step("outputs", step, self.dry_run)

    def _read(self, old: Resource, new: Resource) -> Op:
        provider = self._provider(old.provider)
        found = provider.read(old.type, old.id, plain(old.outputs))
        if found is None:
            return Op.DELETE
        outputs, inputs = found
        self._take_outputs(new, outputs)
        new.outputs = annotate(new.outputs, old.outputs)
        if inputs is not None:
            new.inputs = annotate(inputs, old.inputs)
        known = plain(old.inputs)
        change = provider.diff(old.type, old.id, plain(new.outputs), known, known)
        return Op.UPDATE if change.changed or change.replaces else Op.SAME

    # ---- keeping order -------------------------------------------------------------------------

    def _go_on(self) -> None:
        """Raises Terminated once a step failed, the run was cancelled or the program broke off."""
        if self.failed or self.cancelled or self.ended:
            raise Terminated

    def fail(self, urn: str, text: str) -> None:
        """Say why, and let nothing new begin."""
        self.failed = True
        self._tell.diagnostic(urn, "error", text)

    def _step_failed(self, step: Step, text: str) -> None:
        self.fail(step.urn, text)
        self.last_word = "preview failed" if self.dry_run else "update failed"

    def _store(self) -> None:
        if not self.dry_run:
            self._save(self.snapshot)

    @contextmanager
    def _working(self) -> Iterator[None]:
        with self._lock:
            self._busy += 1
        try:
            yield
        finally:
            with self._lock:
                self._busy -= 1

    @property
    def busy(self) -> bool:
        """Whether a step is under way in some thread."""
        return self._busy > 0
