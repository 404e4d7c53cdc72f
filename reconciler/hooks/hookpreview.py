"""What is known of a move's hooks beforehand: whether they can be run, and what they say to it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from reconciler import clock
from reconciler.catalog import Catalog
from reconciler.config import Stack
from reconciler.docker import Docker
from reconciler.errors import BadInput, Exit
from reconciler.hooks import hookscene
from reconciler.hooks.hookscene import Declared, Scene
from reconciler.hooks.hooktable import At
from reconciler.plan import Move, Plan, Refusal
from reconciler.records.ledger import State, World
from reconciler.records.release import Release

SECONDS = 5.0
"""A hook that is asked by a preview has no longer than this."""
_LINES, _WIDTH = 5, 200
_OUTSIDE = ("revert", "prune")


def refusals(stack: Stack, plan: Plan, records: Mapping[str, Release]) -> tuple[Refusal, ...]:
    """Hooks of the target's release that cannot be run, whatever happens."""
    record = records.get(plan.target or "")
    if record is None or plan.move in (Move.STAY, Move.REPAIR):
        return ()
    remedy = "lockstep config   shows the config's hooks; docs/hooks.md says what they may be"
    try:
        found = hookscene.declared(stack.settings, record)
    except BadInput as error:
        return (Refusal(error.message, error.next_step, int(Exit.BAD_INPUT)),)
    said = hookscene.problems(found, record, stack.secret_values)
    return tuple(Refusal(text, remedy, int(Exit.BAD_INPUT)) for text in said)


def told(
    stack: Stack,
    catalog: Catalog,
    docker: Docker,
    state: State,
    plan: Plan,
    records: Mapping[str, Release],
) -> Plan:
    """The plan with what its hooks are, and what those that declare `preview` say to it."""
    if plan.move in (Move.STAY, Move.REPAIR) or plan.refusals or plan.target is None:
        return plan
    old = state.worlds.get(plan.from_world or "")
    generations = {name: d.generation for name, d in plan.datasets.items()}
    scene = Scene(
        stack=stack,
        catalog=catalog,
        docker=docker,
        move=plan.move.value,
        started=clock.now(),
        old=old,
        new=World(plan.to_world or "", plan.target, generations, ""),
        old_record=records.get(old.release) if old else None,
        new_record=records.get(plan.target),
        actions={name: d.action.value for name, d in plan.datasets.items()},
    )
    lines = []
    due = hookscene.due_in(scene)
    for at, declared in due:
        if at.phase not in _OUTSIDE:
            of = f" of {declared.of}" if declared.of else ""
            lines.append(f"hook {declared.name}: {at}{of}{_answer(scene, declared, at)}")
    return replace(plan, hooks=tuple(lines))


def _answer(scene: Scene, declared: Declared, at: At) -> str:
    """What it says when it is asked with `dry: true`."""
    if not declared.hook.preview:
        return ""
    from reconciler.hooks import hookrun

    facts = hookscene.facts(scene, declared, at, dry=True)
    ran = hookrun.run(scene, declared, at, facts, min(SECONDS, declared.hook.limit(at)))
    if ran.result != "passed":
        return f"; asked beforehand: {ran.last_words[:_WIDTH]}"
    said = [line.strip()[:_WIDTH] for line in ran.output.splitlines() if line.strip()]
    return "".join(f"\n    {line}" for line in said[:_LINES])
