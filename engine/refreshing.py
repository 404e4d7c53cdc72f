"""Reading every resource anew."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

from .deployment import Deployment
from .errors import EngineError
from .planner import Change, Op
from .providers import Known, ProviderFailed
from .snapshot import Resource, now
from .steps import Step
from .values import annotate


def refresh(of: Deployment, report_changes: bool) -> None:
    """Read every resource anew. `report_changes`: tell what was found as same, update or delete
    and count it; else (before an update) only as refresh."""
    if of.check_targets(of.targets):
        of.failed = True
        return
    there = [r for r in of.snapshot.resources if not of.targets or r.urn in of.targets]
    of.each(lambda resource: _refresh(of, resource, report_changes), there)
    with of.lock:
        of.snapshot.forget_dangling()
        of.store()


def _refresh(of: Deployment, old: Resource, report_changes: bool) -> None:
    if of.cancelled:
        return
    new = replace(old)
    step = Step(Op.REFRESH, replace(old), new)
    of.tell.step("pre", step, of.dry_run)
    begun = time.monotonic()
    found = Op.SAME
    try:
        if old.custom and not (old.is_provider or old.pending_replacement):
            found = _read(of, step, old, new)
    except (ProviderFailed, EngineError) as error:
        of.step_not_done(step, error)
        return
    step.seconds = time.monotonic() - begun
    with of.lock:
        if found is Op.DELETE:
            step.new = None
            of.snapshot.drop(old)
        else:
            changed = (old.inputs, old.outputs) != (new.inputs, new.outputs)
            old.id, old.inputs, old.outputs = new.id, new.inputs, new.outputs
            old.modified = now() if changed else old.modified
        of.steps.append(step)
        if report_changes:
            step.op = found
            if not old.is_default_provider:
                of.changes[found.value] += 1
        of.store()
    of.tell.step("outputs", step, of.dry_run)


def _inverted(how: dict[str, Any]) -> dict[str, Any]:
    """What came from outside, where a provider says what an update would put back."""
    kind, dash, rest = str(how["diffKind"]).partition("-")
    turned = {"add": "delete", "delete": "add"}.get(kind, kind)
    return {**how, "diffKind": f"{turned}{dash}{rest}"}


def _read(of: Deployment, step: Step, old: Resource, new: Resource) -> Op:
    found = of.provider(old.provider).read(Known.of(old))
    if found is None:
        return Op.DELETE
    outputs, inputs = found
    new.outputs = annotate(annotate(outputs, new.inputs), old.outputs)
    of.mark_secret_outputs(new)
    if inputs is not None:
        new.inputs = annotate(inputs, old.inputs)
    change = of.compare(replace(old, outputs=new.outputs), old.inputs)
    details = change.detailed and {k: _inverted(v) for k, v in change.detailed.items()}
    step.change = Change(detailed=details)
    return Op.UPDATE if change.changed or change.replaces else Op.SAME
