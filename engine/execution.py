"""Carrying out steps: the state is saved after each; the first that fails ends the operation."""

from __future__ import annotations

import contextvars
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from . import planner
from .errors import EngineError
from .options import Options
from .planner import Op
from .providers import Known, Provider, ProviderFailed, make_provider
from .snapshot import Pending, Resource, Snapshot, now
from .steps import COUNTED, Listener, Protected, Refused, Step, Terminated
from .values import UNKNOWN_TEXT, annotate, encode, plain, secret

if TYPE_CHECKING:
    from .monitor import Monitor

# What a step does to an object; the others only say what those of a replacement amount to.
KINDS = {
    Op.CREATE: "Create",
    Op.CREATE_REPLACEMENT: "Create",
    Op.UPDATE: "Update",
    Op.DELETE: "Delete",
    Op.DELETE_REPLACED: "Delete",
}
OPERATIONS = {"Create": "creating", "Update": "updating", "Delete": "deleting"}


class Execution:
    """What the steps of one operation share: the state, who is told, and whether to go on."""

    def __init__(
        self,
        *,
        project: str,
        snapshot: Snapshot,
        save: Callable[[Snapshot], None],
        listener: Listener,
        dry_run: bool,
        options: Options,
    ) -> None:
        self.project, self.snapshot, self.dry_run = project, snapshot, dry_run
        self.parallel, self.continue_on_error = max(1, options.parallel), options.continue_on_error
        self.hooks: Monitor | None = None  # who has the program's hooks
        self.failed = self.cancelled = False
        self.blocked = False  # something stands in the way of what is wanted
        self.ended = False  # the program is over by an exception: its loop only winds down
        self.last_word = ""  # what is said of the operation as a whole after a failed step
        self.steps: list[Step] = []
        self.changes: Counter[str] = Counter()
        self.tell = listener
        self.lock = threading.RLock()
        self._save = save
        self._providers: dict[str, Provider] = {}
        self._halted = False  # a failure after which nothing more is deleted
        self._passed_over: list[Step] = []
        self._ghosts: list[Resource] = []
        self._busy = 0

    # ---- keeping order -------------------------------------------------------------------------

    def go_on(self) -> None:
        """Raises Terminated once a step failed, the run was cancelled or the program broke off."""
        failed = self.failed and not self.continue_on_error
        if failed or self.cancelled or self.ended:
            raise Terminated

    def fail(self, urn: str, text: str) -> None:
        """Say why, and let nothing new begin."""
        self.failed = True
        self.tell.diagnostic(urn, "error", text)

    def block(self, urn: str, text: str) -> None:
        """Say what stands in the way. A preview goes on, so that the reader sees all of it."""
        self.blocked = True
        self._complain(urn, text)

    def step_failed(self, step: Step, text: str) -> None:
        """A step was not done, or what should follow it went wrong."""
        self.failed = True
        self._complain(step.urn, text)

    def step_not_done(self, step: Step, error: Exception) -> None:
        """A step was not done, which ends it."""
        self.step_failed(step, f"Preview failed: {error}" if self.dry_run else str(error))
        if not self.dry_run:
            self.tell.step("failed", step, self.dry_run)

    def _complain(self, urn: str, text: str) -> None:
        self.last_word = "preview failed" if self.dry_run else "update failed"
        self.tell.diagnostic(urn, "error", text)

    def store(self) -> None:
        """Write the state."""
        if not self.dry_run:
            self._save(self.snapshot)

    @property
    def counted(self) -> dict[str, int]:
        """Number of resources by kind of step, in order of the kinds' names."""
        return dict(sorted(self.changes.items()))

    @contextmanager
    def working(self) -> Iterator[None]:
        """A thread has something under way."""
        with self.lock:
            self._busy += 1
        try:
            yield
        finally:
            with self.lock:
                self._busy -= 1

    @property
    def busy(self) -> bool:
        """Whether a step is under way in some thread."""
        return self._busy > 0

    def each(self, work: Callable[[Any], None], items: Sequence[Any]) -> None:
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

    def provider(self, reference: str) -> Provider:
        """The provider of a reference `urn::id`, from the snapshot's entry for it."""
        with self.lock:
            if reference not in self._providers:
                urn = reference.rpartition("::")[0]
                entry = next((r for r in self.snapshot.resources if r.urn == urn), None)
                if entry is None:
                    raise EngineError(f"the state has no provider {urn}; use the Pulumi CLI")
                made = make_provider(entry.type, self.project, plain(entry.inputs))
                self._providers[reference] = made
            return self._providers[reference]

    # ---- one step ------------------------------------------------------------------------------

    def run(self, step: Step) -> None:
        """One step, unless nothing new may begin; Terminated then, and if it failed."""
        self.go_on()
        self.carry_out(step)

    def carry_out(self, step: Step) -> None:
        """One step from its first event to its last, state saved; Terminated if it failed."""
        self.tell.step("pre", step, self.dry_run)
        begun = time.monotonic()
        try:
            complaint = self._apply(step)
        except (Refused, ProviderFailed, EngineError) as error:
            with self.lock:
                self.snapshot.running.pop(id(step), None)
                self.store()
                if self.continue_on_error or isinstance(error, Protected):
                    self._passed_over.append(step)
                else:
                    self._halted = True
            self.step_not_done(step, error)
            raise Terminated from None
        step.seconds = time.monotonic() - begun
        self._done(step)
        if complaint:
            self._halted = not self.continue_on_error
            self.step_failed(step, complaint)
            self.go_on()  # it is done, so what depends on it may go on where others may

    def _apply(self, step: Step) -> str:
        """Do it. Gives what an after hook complained of; the step itself is done then."""
        kind, old, new = KINDS.get(step.op), step.old, step.new
        if kind is None:
            if old and new and step.op is Op.SAME:
                new.id, new.outputs, new.modified = old.id, dict(old.outputs), old.modified
                self.mark_secret_outputs(new)
            return ""
        if old and new and step.op is Op.UPDATE:
            new.id = old.id
        self._begin(step, OPERATIONS[kind])
        self.call_hooks(f"Before{kind}", step)
        if new is None:
            self._delete(step)
        else:
            self._make(step, new)
            if not new.custom:
                return ""  # a component's come when it gives out what it has
        return self.after_hooks(step)

    def after_hooks(self, step: Step) -> str:
        """Runs those of a step that is done; what the first that fails complains of."""
        try:
            self.call_hooks(f"After{KINDS[step.op]}", step)
        except Refused as error:
            return str(error)
        return ""

    def _begin(self, step: Step, operation: str) -> None:
        target = step.target
        if not self.dry_run and target.custom and not target.is_provider:
            with self.lock:
                self.snapshot.running[id(step)] = Pending(target, operation)
                self.store()

    def _make(self, step: Step, new: Resource) -> None:
        """Create or update."""
        old = step.old if step.op is Op.UPDATE else None
        if new.is_provider:
            new.id = old.id if old else UNKNOWN_TEXT if self.dry_run else str(uuid.uuid4())
            new.outputs = {k: v for k, v in new.inputs.items() if k != "__internal"}
        elif new.custom:
            provider, inputs = self.provider(new.provider), plain(new.inputs)
            if old:
                outputs = provider.update(Known.of(old), inputs, self.dry_run)
            else:
                new.id, outputs = provider.create(new.urn, inputs, self.dry_run)
                if not new.id and not self.dry_run:
                    raise ProviderFailed("the provider gave no id for the new resource")
            new.outputs = annotate(outputs, new.inputs)
            self.mark_secret_outputs(new)
        elif old:
            new.outputs = dict(old.outputs)
        new.modified = now()
        new.created = new.created if old else new.modified

    def _delete(self, step: Step) -> None:
        old = step.target
        if old.protect and step.op is Op.DELETE and not old.delete:
            raise Protected(
                f'resource "{old.urn}" cannot be deleted\nbecause it is protected. '
                "To unprotect the resource, either remove the `protect` flag from the resource in "
                "your Pulumi program and run `pulumi up`, or use the command:\n"
                f"`pulumi state unprotect '{old.urn}'`"
            )
        if old.custom and not (old.is_provider or self.dry_run or old.retain_on_delete):
            self.provider(old.provider).delete(Known.of(old))

    def mark_secret_outputs(self, new: Resource) -> None:
        """Make the outputs secret that additionalSecretOutputs names."""
        for key in new.secret_outputs:
            if key in new.outputs:
                new.outputs[key] = secret(new.outputs[key])

    def call_hooks(self, when: str, step: Step) -> None:
        """Raises Refused at the first hook that fails."""
        target, new = step.target, step.new
        old = step.old if step.op is not Op.CREATE_REPLACEMENT else None
        for name in target.hooks.get(when, ()):
            options = self.hooks.hook_options(name) if self.hooks else None
            if self.hooks is None or options is None:
                raise Refused(f"resource hook not registered for {name}")
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
                self.tell.diagnostic(target.urn, "warning", text)
            elif complaint:
                moment = "before" if when.startswith("Before") else "after"
                raise Refused(f'{moment} hook "{name}" failed: {complaint}')

    def _done(self, step: Step) -> None:
        target = step.target
        with self.lock:
            self.snapshot.running.pop(id(step), None)
            self._settle(step)
            self.steps.append(step)
            if step.op in COUNTED and not target.is_default_provider:
                self.changes[step.op.value] += 1
            self.store()
            # A component's outputs come with register_outputs; those here are an earlier run's.
            if target.custom or self.dry_run or step.op is Op.DELETE:
                self.tell.step("outputs", step, self.dry_run)

    def _settle(self, step: Step) -> None:
        old, new = step.old, step.new
        if step.op is Op.REPLACE or step.skipped:
            return
        if new is not None:
            keeps = step.keeps_old and old is not None and not old.pending_replacement
            self.snapshot.settle(new, None if keeps else old)
            if step.keeps_old and old is not None:
                old.delete = True
                if not keeps:
                    self._ghosts.append(old)
        elif old is not None and step.op is Op.DELETE_REPLACED and not old.delete:
            # Its successor is still to come: if that fails, the next run must know.
            old.pending_replacement = True
        elif old is not None:
            self.snapshot.drop(old)

    # ---- deleting ------------------------------------------------------------------------------

    def delete_all(self, doomed: Sequence[tuple[Op, Resource]]) -> None:
        """Delete in an order that no dependent outlives what it needs. What a failed step stands on
        stays; unless the rest may go on, nothing begins after the group with the failure."""
        spared: set[str] = set()
        for wave in planner.waves(doomed):
            steps = [Step(op, r) for op, r in wave if r.urn not in spared]
            self.each(self._try, steps)
            if self.cancelled or self._halted:
                return
            for failed in self._passed_over:
                spared |= planner.needed_by(failed.target, self.snapshot.resources)

    def _try(self, step: Step) -> None:
        """One of a group: it has its turn also when another of them failed before it began."""
        if not self.cancelled:
            with suppress(Terminated):
                self.carry_out(step)
