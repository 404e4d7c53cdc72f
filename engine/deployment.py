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
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from . import planner
from .errors import EngineError, NotInEngine
from .planner import Change, Op
from .providers import Provider, ProviderFailed, make_provider, package_of
from .snapshot import PROVIDER_PREFIX, STACK_TYPE, Pending, Resource, Snapshot, now
from .values import UNKNOWN_TEXT, Props, Secret, annotate, encode, plain, secret

COUNTED = {Op.SAME, Op.CREATE, Op.UPDATE, Op.DELETE, Op.REPLACE}
# What a step does to an object; the others only say what those of a replacement amount to.
KINDS = {
    Op.CREATE: "Create",
    Op.CREATE_REPLACEMENT: "Create",
    Op.UPDATE: "Update",
    Op.DELETE: "Delete",
    Op.DELETE_REPLACED: "Delete",
}
OPERATIONS = {"Create": "creating", "Update": "updating", "Delete": "deleting"}


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
    logical: bool = True  # False for one part of what is done to a resource, and for a refresh
    seconds: float = 0.0
    lines: list[str] = field(default_factory=list)  # properties to show, secrets hidden

    @property
    def name(self) -> str:
        return self.urn.rpartition("::")[2]

    @property
    def target(self) -> Resource:
        """The resource as it will be, or as it was where it goes."""
        found = self.new or self.old
        assert found is not None
        return found


class Listener(Protocol):
    """Who is told what happens."""

    def step(self, phase: str, step: Step, dry_run: bool) -> None: ...

    def diagnostic(self, urn: str, severity: str, text: str, ephemeral: bool = False) -> None: ...


class Hooks(Protocol):
    """Calls the program's resource hooks."""

    def hook_options(self, name: str, /) -> tuple[bool, bool] | None:
        """(on_dry_run, ignore_errors) of a registered hook, None if there is none of the name."""

    def call_hook(self, name: str, arguments: dict[str, Any], /) -> str:
        """Runs the hook; the text of its failure, empty if there was none."""


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
        parallel: int = 16,
        targets: Iterable[str] = (),
        replacing: Iterable[str] = (),
        continue_on_error: bool = False,
    ) -> None:
        """`config` holds the stack's config as texts and secrets; `removing`: declared resources
        stay as they are, everything goes at the end (destroy with its program). `targets`: URNs of
        the only resources that change, where not all may; `replacing`: URNs of resources to replace
        whatever their providers say; `continue_on_error`: what does not depend on a failed resource
        goes on."""
        self.project, self.stack, self.config = project, stack, config
        self.snapshot, self.dry_run, self.removing = snapshot, dry_run, removing
        root = snapshot.root
        self.outputs_before = dict(root.outputs) if root is not None else {}
        self.hooks: Hooks | None = None
        self.failed = self.cancelled = self.program_failed = False
        self.ended = False  # the program is over by an exception: its loop only winds down
        self.surveying = False  # nothing is asked or done: only what is not here is looked for
        self.refusal: NotInEngine | None = None
        self.blocked = False  # a preview met something that the update would refuse
        self.last_word = ""  # what is said of the operation as a whole after a failed step
        self.steps: list[Step] = []
        self.changes: Counter[str] = Counter()
        self.parallel, self.continue_on_error = max(1, parallel), continue_on_error
        self.targets, self._replacing = frozenset(targets), frozenset(replacing)
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

    def register(self, wanted: Resource) -> tuple[Resource, bool]:
        """Make the resource as declared. Gives it, and whether outputs may be missing from it.

        Raises Terminated if this or another step failed, NotInEngine for what is not here.
        """
        if self.surveying:
            return self._survey(wanted)
        with self._working():
            with self._lock:
                self._go_on()
                try:
                    self._accept(wanted)
                    steps, new = self._plan(wanted)
                except (Refused, ProviderFailed) as error:
                    self.fail(wanted.urn, str(error))
                    raise Terminated from None
            for step in steps:
                self._run(step)
            return new, self._stays(new) and new.custom and not new.id

    def _survey(self, wanted: Resource) -> tuple[Resource, bool]:
        if wanted.is_provider:
            make_provider(wanted.type, self.project, {})
        elif wanted.custom:
            package_of(wanted.type, wanted.version)
        old = self.snapshot.find(wanted.urn)
        return replace(wanted, id=old.id, outputs=old.outputs) if old else wanted, old is None

    def register_outputs(self, urn: str, outputs: Props) -> None:
        """What a component, or the stack, gives out."""
        with self._lock:
            resource = next((r for r in self.snapshot.settled if r.urn == urn), None)
            # A program that broke off still gives out what it has; after a failed step it is over.
            if self.failed or self.cancelled or (self.ended and urn.split("::")[2] != STACK_TYPE):
                raise Terminated
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
        root = self.snapshot.root
        if root is not None and (self.failed or self.cancelled or self.program_failed):
            root.outputs = {**old_outputs, **root.outputs}
        if self._stack_step is not None:
            self._tell.step("outputs", self._stack_step, self.dry_run)

    def finish(self) -> None:
        """The program has declared everything: delete what goes. Nothing goes after a failure."""
        with self._working():
            if self.failed or self.cancelled or self.program_failed or self.surveying:
                return
            declared = set() if self.removing else self._declared
            earlier = self.snapshot.resources if self.removing else self.snapshot.earlier
            doomed = planner.condemned(earlier, declared)
            if self.targets:
                doomed = [(op, r) for op, r in doomed if r.urn in self.targets]
            self._delete_all(doomed)

    # ---- planning ------------------------------------------------------------------------------

    def _stays(self, wanted: Resource) -> bool:
        """Whether a declared resource is to be left as it is."""
        if not self.targets or wanted.is_provider or wanted.type == STACK_TYPE:
            return self.removing
        return self.removing or wanted.urn not in self.targets

    def _accept(self, wanted: Resource) -> None:
        if wanted.urn in self._declared:
            raise Refused(f"Duplicate resource URN '{wanted.urn}'; try giving it a unique name")
        if wanted.is_provider:
            make_provider(wanted.type, self.project, {})
        elif wanted.custom and not wanted.provider:
            wanted.provider = self._default_provider(wanted)
        if wanted.provider and not self.removing:
            self._provider(wanted.provider)
        self._declared.add(wanted.urn)

    def _plan(self, wanted: Resource) -> tuple[list[Step], Resource]:
        """The steps, and the resource that they lead to: `wanted` with its checked inputs."""
        old = self.snapshot.find(wanted.urn)
        if self._stays(wanted):
            if old is None:
                return [], wanted
            new = replace(old, id="", outputs={})
            return [self._step(Op.SAME, old, new)], new
        early = self._replaced_early.pop(wanted.urn, None)
        given = wanted.inputs
        if old is not None:
            given = planner.keep_ignored(given, old.inputs, wanted.ignore_changes)
            wanted.created = old.created
        forced = old is not None and wanted.urn in self._replacing
        if old is None or early or forced:
            wanted.inputs = self._check(wanted, given, {})
            change = Change(True, ("id",)) if forced else early
        else:
            wanted.inputs = self._check(wanted, given, old.inputs)
            change = planner.replacing(self._diff(wanted, old), wanted.replace_on_changes)
        ops = planner.decide(wanted, old, change)
        steps: list[Step] = []
        if old is not None and Op.CREATE_REPLACEMENT in ops:
            if old.protect:
                self._refuse_protected_replace(wanted.urn)
            if not (early or forced):
                wanted.inputs = self._check(wanted, given, {})
            if Op.DELETE_REPLACED in ops:
                steps = self._dependents_of(old)
        for op in ops:
            # A dependent that had to go early was compared then; only its new object says how.
            tells = op in (Op.UPDATE, Op.CREATE_REPLACEMENT) or (op is Op.REPLACE and not early)
            steps.append(self._step(op, old, wanted, change if tells else None))
        return steps, wanted

    def _step(
        self, op: Op, old: Resource | None, new: Resource | None, change: Change | None = None
    ) -> Step:
        found = new or old
        assert found is not None
        step = Step(op, found.urn, found.type, old, None if "delete" in op else new)
        step.logical = op not in (Op.CREATE_REPLACEMENT, Op.DELETE_REPLACED)
        if change:
            step.keys, step.diffs = change.replaces, change.keys
            step.detailed = dict(change.detailed)
        return step

    def _dependents_of(self, old: Resource) -> list[Step]:
        def asks_replace(resource: Resource, guess: Props) -> bool:
            change = self._compare(resource, guess)
            if change.replaces:
                if resource.protect:
                    self._refuse_protected_replace(resource.urn)
                self._replaced_early[resource.urn] = change
            return bool(change.replaces)

        found = planner.replaced_with(old, self.snapshot.earlier, asks_replace)
        return [self._step(Op.DELETE_REPLACED, r, None) for r in found]

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

    def _check(self, wanted: Resource, given: Props, olds: Props) -> Props:
        if not wanted.provider:
            return given
        provider = self._provider(wanted.provider)
        inputs, failures = provider.check(wanted.urn, plain(olds), plain(given))
        for property_, reason in failures:
            value = given.get(property_)
            raise Refused(
                f"{wanted.type} resource '{wanted.name}': property {property_} value "
                f"{{{'[secret]' if isinstance(value, Secret) else plain(value)}}} has a problem: "
                f"{reason}"
            )
        return annotate(inputs, given)

    def _diff(self, wanted: Resource, old: Resource) -> Change:
        if not wanted.provider:
            return Change(not planner.same_inputs(old.inputs, wanted.inputs))
        return self._compare(old, wanted.inputs, wanted.provider)

    def _compare(self, old: Resource, news: Props, provider: str = "") -> Change:
        outputs, inputs = plain(old.outputs), plain(old.inputs)
        by = self._provider(provider or old.provider)
        return by.diff(old.urn, old.id, outputs, inputs, plain(news))

    # ---- providers -----------------------------------------------------------------------------

    def _default_provider(self, wanted: Resource) -> str:
        package = package_of(wanted.type, wanted.version)
        dynamic = package == "pulumi-python"
        version = "" if dynamic else wanted.version.removeprefix("v")
        name = f"default_{version.replace('.', '_').replace('-', '_')}" if version else "default"
        type_ = f"{PROVIDER_PREFIX}{package}"
        urn = self.urn(type_, name, "")
        made = next((r for r in self.snapshot.settled if r.urn == urn), None)
        if made is None:
            inputs: Props = dict(self.config)
            if not dynamic:
                own = {k: v for k, v in inputs.items() if k.startswith(f"{package}:")}
                inputs = {k.partition(":")[2]: v for k, v in own.items()}
                inputs |= {"version": version, "__internal": {}}
            self._declared.add(urn)
            steps, made = self._plan(Resource(urn, type_, custom=True, inputs=inputs))
            for step in steps:
                self._run(step)
        return f"{made.urn}::{made.id}"

    def _provider(self, reference: str) -> Provider:
        """The provider of a reference `urn::id`, from the snapshot's entry for it."""
        with self._lock:
            if reference not in self._providers:
                urn = reference.rpartition("::")[0]
                entry = next((r for r in self.snapshot.resources if r.urn == urn), None)
                if entry is None:
                    raise EngineError(f"the state has no provider {urn}; use the Pulumi CLI")
                made = make_provider(entry.type, self.project, plain(entry.inputs))
                self._providers[reference] = made
            return self._providers[reference]

    # ---- doing ---------------------------------------------------------------------------------

    def _run(self, step: Step) -> None:
        """One step, unless nothing new may begin; Terminated then, and if it failed."""
        self._go_on()
        self._carry_out(step)

    def _carry_out(self, step: Step) -> None:
        """One step from its first event to its last, state saved; Terminated if it failed."""
        self._tell.step("pre", step, self.dry_run)
        begun = time.monotonic()
        try:
            complaint = self._apply(step)
        except (Refused, ProviderFailed, EngineError) as error:
            with self._lock:
                self.snapshot.running.pop(id(step), None)
                self._store()
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
        kind, old, new = KINDS.get(step.op), step.old, step.new
        if old and new and step.op in (Op.SAME, Op.UPDATE):
            new.id = old.id
        if kind is None:
            if old and new and step.op is Op.SAME:
                new.outputs, new.modified = dict(old.outputs), old.modified
                self._mark_secret_outputs(new)
            return ""
        self._begin(step, OPERATIONS[kind])
        self._call_hooks(f"Before{kind}", step)
        if new is None:
            self._delete(step)
        else:
            self._make(step, new)
        try:
            self._call_hooks(f"After{kind}", step)
        except Refused as error:
            return str(error)
        return ""

    def _begin(self, step: Step, operation: str) -> None:
        target = step.target
        if not self.dry_run and target.custom and not target.is_provider:
            with self._lock:
                self.snapshot.running[id(step)] = Pending(target, operation)
                self._store()

    def _make(self, step: Step, new: Resource) -> None:
        """Create or update."""
        old = step.old if step.op is Op.UPDATE else None
        if new.is_provider:
            new.id = old.id if old else UNKNOWN_TEXT if self.dry_run else str(uuid.uuid4())
            new.outputs = {k: v for k, v in new.inputs.items() if k != "__internal"}
        elif new.provider:
            provider, inputs = self._provider(new.provider), plain(new.inputs)
            if old:
                known = plain(old.outputs), plain(old.inputs)
                outputs = provider.update(new.urn, old.id, *known, inputs, self.dry_run)
            else:
                new.id, outputs = provider.create(new.urn, inputs, self.dry_run)
                if not new.id and not self.dry_run:
                    raise ProviderFailed("the provider gave no id for the new resource")
            new.outputs = annotate(outputs, new.inputs)
            self._mark_secret_outputs(new)
        elif old:
            new.outputs = dict(old.outputs)
        new.modified = now()
        new.created = new.created if old else new.modified

    def _delete(self, step: Step) -> None:
        old = step.target
        if old.protect and step.op is Op.DELETE:
            raise Refused(
                f'{self._prefix}resource "{old.urn}" cannot be deleted\nbecause it is protected. '
                "To unprotect the resource, either remove the `protect` flag from the resource in "
                "your Pulumi program and run `pulumi up`, or use the command:\n"
                f"`pulumi state unprotect '{old.urn}'`"
            )
        if old.provider and not (self.dry_run or old.retain_on_delete):
            self._provider(old.provider).delete(old.urn, old.id, plain(old.outputs))

    @property
    def _prefix(self) -> str:
        return "Preview failed: " if self.dry_run else ""

    def _mark_secret_outputs(self, new: Resource) -> None:
        for key in new.secret_outputs:
            if key in new.outputs and not isinstance(new.outputs[key], Secret):
                new.outputs[key] = secret(new.outputs[key])

    def _call_hooks(self, when: str, step: Step) -> None:
        """Raises Refused at the first hook that fails."""
        target, new = step.target, step.new
        old = step.old if step.op is not Op.CREATE_REPLACEMENT else None
        for name in target.hooks.get(when, ()):
            options = self.hooks.hook_options(name) if self.hooks else None
            if self.hooks is None or options is None:
                raise Refused(
                    f"hook {name} is not registered by the program; "
                    "declare it as pulumi.ResourceHook"
                )
            on_dry_run, ignore_errors = options
            if self.dry_run and not on_dry_run:
                continue
            arguments: dict[str, Any] = {
                "urn": target.urn,
                "id": target.id,
                "name": target.name,
                "type": target.type,
            }
            if new is not None:
                arguments["new_inputs"] = encode(new.inputs)
            if old is not None:
                arguments["old_inputs"] = encode(old.inputs)
                arguments["old_outputs"] = encode(old.outputs)
            if when.startswith("After") and new is not None:
                arguments["new_outputs"] = encode(new.outputs)
            complaint = self.hooks.call_hook(name, arguments)
            if complaint and ignore_errors:
                text = f'{when} hook "{name}" failed: {complaint}'
                self._tell.diagnostic(target.urn, "warning", text)
            elif complaint:
                moment = "before" if when.startswith("Before") else "after"
                raise Refused(f'{self._prefix}{moment} hook "{name}" failed: {complaint}')

    def _done(self, step: Step) -> None:
        target = step.target
        with self._lock:
            self.snapshot.running.pop(id(step), None)
            self._settle(step)
            self.steps.append(step)
            if step.op in COUNTED and not target.is_provider:
                self.changes[step.op.value] += 1
            self._store()
            # A component's outputs come with register_outputs; those here are an earlier run's.
            if target.custom or self.dry_run or step.new is None:
                self._tell.step("outputs", step, self.dry_run)

    def _settle(self, step: Step) -> None:
        old, new = step.old, step.new
        if step.op is Op.REPLACE:
            return
        if new is not None and step.op is not Op.FORGET_REPLACED:
            keeps = step.op is Op.CREATE_REPLACEMENT and old and not old.pending_replacement
            self.snapshot.settle(new, None if keeps else old)
            if keeps and old:
                old.delete = True
        elif old is not None and step.op is Op.DELETE_REPLACED and not old.delete:
            # Its successor is still to come: if that fails, the next run must know.
            old.pending_replacement = True
        elif old is not None:
            self.snapshot.drop(old)

    # ---- deleting ------------------------------------------------------------------------------

    def _delete_all(self, doomed: Sequence[tuple[Op, Resource]]) -> None:
        """Delete in an order that no dependent outlives what it needs. A group that has a failure
        is finished; what is left after it stays."""
        for wave in planner.waves(doomed):
            self._each(self._try, [self._step(op, r, None) for op, r in wave])
            if self.failed or self.cancelled:
                return

    def _try(self, step: Step) -> None:
        """One of a group: it has its turn also when another of them failed before it began."""
        if not self.cancelled:
            with suppress(Terminated):
                self._carry_out(step)

    def _each(self, work: Callable[[Any], None], items: Sequence[Any]) -> None:
        """Run `work` on every item, some beside each other, each in a copy of our context: hooks
        find the program's settings there."""
        if self.dry_run or len(items) == 1 or self.parallel == 1:
            for item in items:
                work(item)
            return
        with ThreadPoolExecutor(min(self.parallel, max(1, len(items)))) as pool:
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
        return found

    # ---- refreshing ----------------------------------------------------------------------------

    def refresh(self, report_changes: bool) -> None:
        """Read every resource anew. `report_changes`: tell what was found as same, update or delete
        and count it; else (before an update) only as refresh."""
        steps = [
            Step(Op.REFRESH, r.urn, r.type, r, replace(r), logical=False)
            for r in self.snapshot.resources
            if not (r.delete or r.pending_replacement)
            and (not self.targets or r.urn in self.targets)
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
        found = self._provider(old.provider).read(
            old.urn, old.id, plain(old.outputs), plain(old.inputs)
        )
        if found is None:
            return Op.DELETE
        outputs, inputs = found
        new.outputs = annotate(annotate(outputs, new.inputs), old.outputs)
        self._mark_secret_outputs(new)
        if inputs is not None:
            new.inputs = annotate(inputs, old.inputs)
        change = self._compare(replace(old, outputs=new.outputs), old.inputs)
        return Op.UPDATE if change.changed or change.replaces else Op.SAME

    # ---- keeping order -------------------------------------------------------------------------

    def _go_on(self) -> None:
        """Raises Terminated once a step failed, the run was cancelled or the program broke off."""
        failed = self.failed and not self.continue_on_error
        if failed or self.cancelled or self.ended:
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
