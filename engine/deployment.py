"""Planning an operation: each declared resource is planned under one lock and worked on in the
thread that the SDK declared it from; what is no longer declared goes at the end."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from . import paths, planner
from .errors import NotInEngine
from .execution import Execution
from .options import Options
from .planner import UNCHANGED, Change, Op
from .providers import Known, ProviderFailed, make_provider, package_of
from .snapshot import PROVIDER_PREFIX, STACK_TYPE, Resource
from .steps import Refused, Step, Terminated
from .targets import Targets
from .values import Props, Secret, annotate, plain

UNPROTECT = (
    "as it is currently marked for protection. To unprotect the resource, remove the `protect` "
    "flag from the resource in your Pulumi program and run `pulumi up`"
)


class Deployment(Execution):
    """One preview or one operation on a stack."""

    def __init__(
        self,
        *,
        stack: str,
        config: Props,
        options: Options,
        removing: bool = False,
        **shared: Any,
    ) -> None:
        """`config` holds the stack's config as texts and secrets; `removing`: declared resources
        stay as they are, everything goes at the end (destroy with its program); `shared`: what
        Execution takes besides."""
        super().__init__(options=options, **shared)
        self.stack, self.config, self.removing = stack, config, removing
        self.targets, self.replacing = Targets(options.targets), Targets(options.replacing)
        self.program_failed = False
        self.refusal: NotInEngine | None = None
        root = self.snapshot.root
        self.outputs_before: Props = dict(root.outputs) if root else {}  # of the operation before
        self._declared: dict[str, Resource] = {}
        self._planned: set[str] = set()  # URNs that have their steps, or go for somebody else's
        self._gone: dict[str, tuple[str, ...]] = {}  # deleted for what they stand on: keys that ask
        self._skipped: set[str] = set()
        self._stack_step: Step | None = None
        self._stack_outputs: Props = {}

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
        with self.working():
            with self.lock:
                self.go_on()
                try:
                    self._accept(wanted)
                    steps, new = self._plan(wanted)
                except (Refused, ProviderFailed) as error:
                    self.fail(wanted.urn, str(error))
                    raise Terminated from None
            for step in steps:
                self.run(step)
            return new, wanted.urn in self._skipped

    def register_outputs(self, urn: str, outputs: Props) -> None:
        """What a component, or the stack, gives out."""
        with self.lock:
            resource = next((r for r in self.snapshot.settled if r.urn == urn), None)
            # A program that broke off still gives out what it has; after a failed step it is over.
            failed = self.failed and not self.continue_on_error
            if failed or self.cancelled or (self.ended and urn.split("::")[2] != STACK_TYPE):
                raise Terminated
            if resource is None:
                return
            step = next(s for s in self.steps if s.new is resource)
            if resource.type == STACK_TYPE:  # they are settled when it is known how all ended
                self._stack_step, self._stack_outputs = step, outputs
                return
            resource.outputs = outputs
        # The after hooks of a component run when it gives out what it has.
        complaint = self.after_hooks(step) if step.op in (Op.CREATE, Op.UPDATE) else ""
        with self.lock:
            self.tell.step("outputs", step, self.dry_run)
            self.store()
        if complaint:
            self.step_failed(step, complaint)

    def close(self) -> None:
        """The last thing: the stack's own end. After a failure it keeps the outputs it had before
        and did not give out this time."""
        if self._stack_step is not None:
            failed = self.failed or self.cancelled or self.program_failed or self.blocked
            kept = self.outputs_before if failed else {}
            self._stack_step.target.outputs = {**kept, **self._stack_outputs}
            self.tell.step("outputs", self._stack_step, self.dry_run)

    def finish(self) -> None:
        """The program has declared everything: delete what goes. Nothing goes after a failure."""
        with self.working():
            failed = self.failed and not self.continue_on_error
            if failed or self.cancelled or self.program_failed:
                return
            missing = self.check_targets(self.targets)
            declared = set() if self.removing else self._planned
            earlier = self.snapshot.resources if self.removing else self.snapshot.earlier
            doomed = planner.condemned(earlier, declared)
            doomed += [(Op.DELETE_REPLACED, r) for r in self._ghosts]
            if self.targets:
                doomed = self._only_targeted(doomed)
            self.delete_all(doomed)
            self.failed |= missing

    # ---- planning ------------------------------------------------------------------------------

    def _accept(self, wanted: Resource) -> None:
        if wanted.urn in self._declared:
            raise Refused(f"Duplicate resource URN '{wanted.urn}'; try giving it a unique name")
        if wanted.is_provider:
            make_provider(wanted.type, self.project, {})
            version = wanted.version.removeprefix("v")
            wanted.inputs |= {"__internal": {}} | ({"version": version} if version else {})
        elif wanted.custom and not wanted.provider:
            wanted.provider = self._default_provider(wanted)
        if wanted.provider and wanted.custom and not self.removing:
            self.provider(wanted.provider)
        self._declared[wanted.urn] = wanted

    def _plan(self, wanted: Resource) -> tuple[list[Step], Resource]:
        """The steps, and the resource that they lead to: `wanted` with its checked inputs."""
        old = self.snapshot.find(wanted.urn)
        if self._is_left_out(wanted, old):
            return self._leave_out(wanted, old)
        if self.removing and wanted.custom and not wanted.is_provider:
            assert old is not None
            self._planned.add(wanted.urn)
            wanted.inputs, wanted.created = old.inputs, old.created
            return [Step(Op.SAME, old, wanted)], wanted
        if old is not None and not self._is_targeted(wanted):
            steps = self._leave(old)
            return steps, steps[-1].target if steps else old
        steps = self._steps(wanted, old)
        self._refuse_skipped_needs(wanted)
        self._planned.add(wanted.urn)
        return steps, wanted

    def _steps(self, wanted: Resource, old: Resource | None) -> list[Step]:
        given = ignoring = wanted.inputs
        if old is not None:
            wanted.created = old.created
            ignoring = self._keep_ignored(wanted, old)
        forced = old is not None and bool(self.replacing) and wanted.urn in self.replacing
        if old is None or wanted.urn in self._gone or forced:
            wanted.inputs = self._check(wanted, given, {})
        else:
            wanted.inputs = self._check(wanted, ignoring, old.inputs)
        if old is None:
            return [Step(Op.CREATE, None, wanted)]
        if wanted.urn in self._gone:
            because = Change(True, self._gone.pop(wanted.urn))
            return [
                Step(Op.REPLACE, old, wanted),
                Step(Op.CREATE_REPLACEMENT, old, wanted, because),
            ]
        change = Change(True, ("id",)) if forced else self._diff(wanted, old)
        change = planner.replacing(change, wanted.replace_on_changes)
        op = planner.decide(old, change)
        if op is not Op.REPLACE:
            return [Step(op, old, wanted, change if op is Op.UPDATE else UNCHANGED)]
        if wanted.protect and old.protect:
            self._refuse_replace(wanted.urn)
        if not forced:
            wanted.inputs = self._check(wanted, given, {})
        made = Step(Op.CREATE_REPLACEMENT, old, wanted, change)
        both = Step(Op.REPLACE, old, wanted, change)
        if planner.deletes_first(wanted, change):
            return [*self._delete_first(old), both, made]
        made.keeps_old = True
        return [made, both]

    def _delete_first(self, old: Resource) -> list[Step]:
        """Deletes a resource that is replaced, after what cannot stay without it."""
        steps = []
        earlier, planned = self.snapshot.earlier, self._planned | self._gone.keys()
        for resource, keys in planner.replaced_with(old, earlier, planned, self._guess):
            if resource.protect and not resource.delete:
                text = f'unable to replace resource "{resource.urn}" as part of replacing '
                text += f'"{old.urn}" {UNPROTECT}, or use the command:\n'
                raise Refused(f"{text}`pulumi state unprotect '{resource.urn}'`")
            if resource.delete:  # left over by an earlier run: its successor is not touched
                steps.append(Step(Op.DELETE, resource))
                continue
            steps.append(Step(Op.DELETE_REPLACED, resource))
            self._gone[resource.urn] = keys
        if not old.pending_replacement:
            steps.append(Step(Op.DELETE_REPLACED, old))
        return steps

    def _refuse_replace(self, urn: str) -> None:
        text = f'unable to replace resource "{urn}"\n{UNPROTECT}'
        if not self.dry_run:
            raise Refused(text)
        self.block(urn, text)

    def _keep_ignored(self, wanted: Resource, old: Resource) -> Props:
        kept, wrong = paths.keep_ignored(wanted.inputs, old.inputs, wanted.ignore_changes)
        if wrong:
            text = "cannot ignore changes in added or removed elements of the path: "
            self.tell.diagnostic(wanted.urn, "info", f'{text}"{", ".join(wrong)}"')
        return kept

    def _check(self, wanted: Resource, given: Props, olds: Props) -> Props:
        if not wanted.custom or wanted.is_provider:
            return given
        provider = self.provider(wanted.provider)
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
        if wanted.type == f"{PROVIDER_PREFIX}docker":
            return Change(old.inputs != wanted.inputs, keys=_changed(old.inputs, wanted.inputs))
        if not wanted.custom or wanted.is_provider:
            return Change(old.inputs != wanted.inputs)
        return self.compare(old, wanted.inputs, wanted.provider)

    def _guess(self, resource: Resource, news: Props) -> Change:
        if resource.is_provider:
            return Change(True)
        return self.compare(resource, news)

    def compare(self, old: Resource, news: Props, provider: str = "") -> Change:
        """How the provider says `news` differs from the resource as it is known."""
        return self.provider(provider or old.provider).diff(Known.of(old), plain(news))

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
            made = Resource(urn, type_, custom=True, inputs=inputs)
            self._declared[urn] = made
            for step in self._plan(made)[0]:
                self.run(step)
        return f"{made.urn}::{made.id}"

    # ---- where not everything is wanted --------------------------------------------------------

    def check_targets(self, targets: Targets) -> bool:
        """Whether a target is unknown; says which."""
        known = {*self._declared, *(r.urn for r in self.snapshot.resources)}
        unknown = [urn for urn in targets.literal if urn not in known]
        for urn in unknown:
            hint = "" if "$" in urn else " Did you forget to escape $ in your shell?"
            text = f"Target '{urn}' could not be found in the stack.{hint}"
            self.tell.diagnostic("", "error", text)
        return bool(unknown)

    def _is_targeted(self, wanted: Resource) -> bool:
        free = wanted.is_provider or wanted.type == STACK_TYPE
        return free or not self.targets or wanted.urn in self.targets

    def _is_left_out(self, wanted: Resource, old: Resource | None) -> bool:
        """Whether a resource is not to be made, as little as what stands on it."""
        if self.removing:
            made = old is None and wanted.custom and not wanted.is_provider
            return made or bool(wanted.needs() & self._skipped)
        return old is None and not self._is_targeted(wanted)

    def _leave_out(self, wanted: Resource, old: Resource | None) -> tuple[list[Step], Resource]:
        wanted.outputs = dict(old.outputs) if old else {}
        self._skipped.add(wanted.urn)
        step = Step(Op.SAME, replace(wanted), wanted)
        step.skipped = True
        return [step], wanted

    def _leave(self, old: Resource) -> list[Step]:
        """Same steps for a resource that may not change, after those for what it stands on and
        nobody declared."""
        if old.delete or old.urn in self._planned:
            return []
        self._planned.add(old.urn)
        needed = [self.snapshot.find(urn) for urn in sorted(old.needs())]
        before = [step for found in needed if found for step in self._leave(found)]
        return [*before, Step(Op.SAME, old, replace(old, id=""))]

    def _refuse_skipped_needs(self, wanted: Resource) -> None:
        for urn in sorted(wanted.needs() & self._skipped) if not self.removing else []:
            text = f"Resource '{wanted.urn}' depends on '{urn}' which was was not specified in "
            text += "--target list."
            if not self.dry_run:
                raise Refused(text)
            self.block(wanted.urn, text)
            self._skipped.discard(urn)

    def _only_targeted(self, doomed: list[tuple[Op, Resource]]) -> list[tuple[Op, Resource]]:
        """What of it may go: the targets. Everything that stands on one goes with it, and must be
        named. The rest is told as it is."""
        every = self.snapshot.resources
        roots = [r.urn for r in every if r.urn in self.targets]
        allowed = {*roots, *(r.urn for r in planner.dependents(roots, every, (), children=True))}
        going = [(op, r) for op, r in doomed if r.urn in allowed]
        for root in [r for r in every if r.urn in allowed]:
            planner.replaced_with(root, every, self._planned, self._guess)  # they may object
        for _, resource in going:
            if resource.urn not in self.targets:
                self.block(
                    resource.urn,
                    f"Resource '{resource.urn}' will be destroyed but was not specified in "
                    "--target list.\nEither include resource in --target list or pass "
                    "--target-dependents to proceed.",
                )
        if self.blocked and not self.dry_run:
            return []
        for resource in [r for _, r in reversed(doomed) if r.urn not in allowed]:
            if resource.urn not in self._planned and not resource.delete:
                self._planned.add(resource.urn)
                self.run(Step(Op.SAME, resource, replace(resource, id="")))
        return going

    def declared(self, urn: str) -> Resource | None:
        """What the program declared under this URN."""
        return self._declared.get(urn)


def _changed(old: Props, new: Props) -> tuple[str, ...]:
    return tuple(k for k in sorted({*old, *new}) if old.get(k) != new.get(k))
