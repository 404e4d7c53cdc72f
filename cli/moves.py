"""Commands that move the host between releases, and the preview of it: up, rollback, undo."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli import ask, completion, failures, moved, options
from cli.context import Context, check_release, replace_file
from reconciler.errors import BadInput, Busy, Exit, LockstepError, Refused
from reconciler.switching.asked import Asked

if TYPE_CHECKING:
    from cli.backend import Backend
    from reconciler.config import Stack, Wish
    from reconciler.plan import Plan
    from reconciler.planning.savedplan import Saved


def up(
    context: typer.Context,
    message: options.Message = None,
    yes: options.Yes = False,
    plan_file: Annotated[
        Path | None,
        typer.Option("--plan", help="Carry out this saved plan, or nothing where it differs now."),
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Make the host run the declared release: images, configuration and data."""
    here = _begin(context)
    with moved.telling(here, "up", as_json=as_json, yes=yes) as told:
        message = message or _message(here)
        if plan_file is not None:
            saved = _insist_on_saved(here, plan_file)
            told.plan = saved.plan
            ask.confirm(f"Carry out the plan of {saved.made}: {saved.plan.says}?", yes=yes)
            raise typer.Exit(carry_out(here, message, yes=True, skip_preview=True))
        if not yes:
            ask.need_terminal("Do you want to perform this update?")
        if as_json:
            follow_running(here)
            told.plan = plan_of(here, here.stack, probe=False)
        raise typer.Exit(carry_out(here, message, yes=yes))


def _insist_on_saved(here: Context, file: Path) -> Saved:
    """The plan in a file, which this `up` carries out exactly. Raises WorldChanged, Refused."""
    from reconciler.planning import savedplan

    path = here.common.cwd / file
    saved = savedplan.read(path, here.stack)
    insist_on_nothing_unfinished(here)
    plan = plan_of(here, here.stack, probe=False)
    savedplan.insist_on_same(saved, here.stack, here.catalog, here.catalog.state(), plan)
    if plan.refusals:
        raise Refused("; ".join(r.message for r in plan.refusals), next_step="lockstep preview")
    savedplan.agree(saved.plan)
    return saved


def preview(
    context: typer.Context,
    impact_only: Annotated[
        bool, typer.Option("--impact-only", help="Leave out the tree of Pulumi's resources.")
    ] = False,
    diff: Annotated[
        bool, typer.Option("--diff", help="Show each resource's changes in full.")
    ] = False,
    save_plan: Annotated[
        Path | None,
        typer.Option("--save-plan", help="Also write the plan to this file, for `up --plan`."),
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Show what `up` would do: to the data, to the service, to the window."""
    here = Context.of(context)
    impact_only = impact_only or as_json or here.common.quiet
    here = _begin(context, goes_on=not impact_only)
    plan = plan_of(here, here.stack)
    if save_plan is not None:
        from reconciler import clock
        from reconciler.planning import savedplan

        state = here.catalog.state()
        path = here.common.cwd / save_plan
        savedplan.save(path, here.stack, here.catalog, state, plan, clock.now())
    if as_json:
        from cli import documents
        from cli.releases import print_json

        print_json(documents.preview(plan, here.catalog.state()))
    else:
        show(plan)
    if plan.refusals:
        raise typer.Exit(refusal_code(plan))
    if not impact_only:
        here.say(here.backend.says)
        from reconciler.program import IMPACT_SHOWN

        os.environ[IMPACT_SHOWN] = "1"
        raise typer.Exit(preview_code(here, diff=diff))


def rollback(
    context: typer.Context,
    release: Annotated[
        str | None,
        typer.Argument(
            help="Where to; the release before the live one if not named.",
            autocompletion=completion.releases,
        ),
    ] = None,
    message: options.Message = None,
    reason: options.Reason = None,
    yes: options.Yes = False,
    as_json: options.Json = False,
) -> None:
    """Go back to a release, with the data it left: config, preview, confirmation and up in one."""
    here = _begin(context)
    with moved.telling(here, "rollback", as_json=as_json, yes=yes) as told:
        target = _rollback_target(here, release)
        text = f"rollback from {here.catalog.state().live_release} to {target}"
        asking = Asking("rollback", reason, message, text)
        others = _other_ways(here, target) if release is None else {}
        _go(here, told, target, None, asking, yes=yes, others=others)


def _rollback_target(here: Context, named: str | None) -> str:
    """Raises BadInput where there is none, or none of that name."""
    from reconciler import decide

    state = here.catalog.state()
    good, damaged = here.catalog.records(state)
    target = named or decide.rollback_target(state, good)
    if target is None:
        raise BadInput(
            "there is no release to go back to: none was live before the live one",
            next_step="lockstep list   shows the releases there are",
        )
    check_release(target, here.stack_name, {*good, *damaged}, state.pruned)
    return target


def undo(
    context: typer.Context,
    message: options.Message = None,
    reason: options.Reason = None,
    yes: options.Yes = False,
    as_json: options.Json = False,
) -> None:
    """Go to the world before the last switch, whatever it was, with its data as it was left."""
    here = _begin(context)
    from reconciler import decide

    with moved.telling(here, "undo", as_json=as_json, yes=yes) as told:
        state = here.catalog.state()
        target = decide.undo_target(state, here.stack.settings.data)
        if target is None:
            raise BadInput(
                "there is nothing to undo: no switch has left a world behind",
                next_step="lockstep log   shows the switches there were",
            )
        release, wish = target
        text = f"undo of the switch to {state.live_release}"
        _go(here, told, release, wish, Asking("undo", reason, message, text), yes=yes)


def _begin(context: typer.Context, *, goes_on: bool = True) -> Context:
    """The context of a command that decides. Where it goes on to Pulumi, the key of the state is
    derived while the imports go on."""
    here = Context.of(context)
    if goes_on:
        here.backend.begin()
    from reconciler import program  # noqa: F401

    return here


@dataclass(frozen=True)
class Asking:
    """What a person says who goes back."""

    command: str
    reason: str | None
    """None: not given, so it is asked for on a terminal."""
    message: str | None
    otherwise: str
    """The message for the stack's history where none was given; the reason follows it."""

    def left(self, *, yes: bool) -> str:
        """Leave command and reason for the switch; returns the history's message."""
        reason = self.reason
        if reason is None:
            reason = ask.if_possible("Why? (for the record; Enter: no reason)", yes=yes)
        asked = Asked(self.command, reason).leave()
        told = f"{self.otherwise}: {asked.reason}" if asked.reason else self.otherwise
        return self.message or told


def _other_ways(here: Context, target: str) -> dict[str, Stack]:
    """What one could type instead of a rollback, and the stack as it would be then."""
    from reconciler import decide

    other = "keep" if here.stack.settings.data == "restore" else "restore"
    settings = here.stack.settings.model_copy(update={"data": other, "release": target})
    ways = {
        f"lockstep config set data {other} && lockstep rollback": here.stack.model_copy(
            update={"settings": settings}
        )
    }
    undone = decide.undo_target(here.catalog.state(), here.stack.settings.data)
    if undone is not None and undone != (target, None):
        ways["lockstep undo"] = declaring(here.stack, *undone)
    return ways


def _compare(plan: Plan, others: Mapping[str, Stack]) -> None:
    """The proposed rollback beside the other ways, as the same facts have them."""
    from cli import impact, tables
    from reconciler import program

    ways = [("lockstep rollback (this)", plan)]
    ways += [(command, program.weighed(stack)) for command, stack in others.items()]
    impact.compare(ways, tables.console())


def _go(
    here: Context,
    told: moved.Told,
    release: str,
    wish: Wish | None,
    asking: Asking,
    *,
    yes: bool,
    others: Mapping[str, Stack] = {},
) -> None:
    """Show what going there does, beside the `others`; ask, declare it, carry it out.

    The config is written only after the yes; where nothing was switched, it is put back.
    """
    from reconciler.plan import Move

    insist_on_nothing_unfinished(here)
    plan = told.plan = plan_of(here, declaring(here.stack, release, wish))
    show(plan)
    if others:
        _compare(plan, others)
    if plan.refusals:
        here.say(f"error: refused as said above; {release} was not declared")
        raise typer.Exit(refusal_code(plan))
    if plan.move is not Move.STAY:
        ask.confirm(f"Go to {release}?", yes=yes)
    message = asking.left(yes=yes or plan.move is Move.STAY)
    before = here.catalog.state().head
    settings = here.settings_file.read_bytes()
    code = int(Exit.FAILED)
    try:
        declare(here.backend, release, wish)
        code = carry_out(here, message, yes=True, skip_preview=True)
    finally:
        # A journal is there while a switch goes on by itself: what it ends in is not known yet.
        same = here.catalog.state().head == before and not here.catalog.journal.exists()
        if code != Exit.OK and same:
            replace_file(here.settings_file, settings)
            here.say("nothing was switched: the config is as it was before")
    if code == Exit.OK and plan.move is not Move.STAY:
        here.say(f"{release} is live; lockstep undo   goes back to where you were")
    raise typer.Exit(code)


def last_head(here: Context) -> Mapping[str, Any] | None:
    """The stack's output `head`, with which ledger and records are compared; None without one."""
    from reconciler.records import trust

    try:
        outputs = here.backend.outputs(show_secrets=False) if here.backend.exists() else {}
    except Exception as error:
        if failures.exit_code(error) is None:
            raise
        return None  # a state that cannot be read is said by whoever needs it
    return outputs.get(trust.OUTPUT)


def insist_on_nothing_unfinished(here: Context) -> None:
    """What is shown and agreed to must be what is done, so a switch under way ends first.

    Raises Busy while it runs, Refused after it was interrupted.
    """
    from reconciler.host import hostlock
    from reconciler.records import journal

    world = journal.unfinished(here.catalog.journal)
    if world is None:
        return
    holder = hostlock.holder()
    if holder is not None:
        raise Busy(
            f"a switch to {world} is under way: {holder}",
            next_step="lockstep log   tells how it ended, when it has",
        )
    raise Refused(
        f"a switch to {world} was interrupted",
        next_step="lockstep recover   finishes or reverts it",
    )


def follow_running(here: Context) -> bool:
    """Attach to a switch whose caller is gone, and follow it to its end; False when none runs.

    Raises what it ended with.
    """
    from reconciler import switch

    intent = switch.running(here.catalog)
    if intent is None:
        return False
    here.progress(f"a switch to {intent.to_world} is under way (process {intent.pid}): following")
    return switch.follow_running(here.catalog, here.progress)


def look_after_state(here: Context) -> None:
    """Set aside a state of Pulumi that cannot be read: the ledger says what is.

    Raises Busy when a killed command left Pulumi's lock, which either engine would wait for.
    """
    from cli import stackstate
    from engine.backend import KILLED, Backend
    from engine.errors import NotInEngine

    try:
        backend = Backend(here.project, here.stack_name)
        left = backend.left_locks()
        aside = None if left else stackstate.set_aside_damaged(backend)
    except NotInEngine:
        return  # kept elsewhere: the official CLI looks after it
    if left:
        raise Busy(
            f"stack {here.stack_name} is locked: {'; '.join(left)}; {KILLED.partition(';')[0]}",
            next_step="lockstep cancel   removes it; what runs on this host is not touched",
        )
    if aside is not None:
        here.say(f"the Pulumi state of {here.stack_name} cannot be read: it is {aside} now")


def declaring(stack: Stack, release: str, wish: Wish | None) -> Stack:
    """The stack as it would be with another release declared."""
    changes: dict[str, object] = {"release": release}
    if wish is not None:
        changes["restore"] = wish
    return stack.model_copy(update={"settings": stack.settings.model_copy(update=changes)})


def declare(backend: Backend, release: str, wish: Wish | None) -> None:
    """Write the release, and the wish that belongs to it, into the stack's config."""
    backend.config_set("release", release, secret=False, path=False)
    if wish is None:
        return
    backend.config_rm("restore", path=False)
    for name in ("release", "at", "asked"):
        value = str(getattr(wish, name))
        if value:
            backend.config_set(f"restore.{name}", value, secret=False, path=True)


def carry_out(here: Context, message: str, *, yes: bool, skip_preview: bool = False) -> int:
    """Run `up` on the engine; returns the command's exit code."""
    here.say(here.backend.says)
    follow_running(here)
    look_after_state(here)
    if not here.backend.exists():
        here.say(f"stack {here.stack_name} has no Pulumi state: made anew; the ledger says what is")
        here.backend.init()
    before = here.catalog.state().seq
    code = _up(here, message, before, yes=yes, skip_preview=skip_preview)
    if code == Exit.REVERTED:
        _tell_what_happened(here)
    return code


def _up(here: Context, message: str, before: int, *, yes: bool, skip_preview: bool) -> int:
    """The engine's `up`, with the exit code that the ledger's events after `before` give it."""
    from cli import backend
    from reconciler.records.ledger import Reverted

    code = here.backend.up(message, yes=yes, skip_preview=skip_preview)
    error = here.backend.error()
    if code == Exit.OK or error is not None:
        return backend.exit_code(code, failures.exit_code(error) if error else None)
    state = here.catalog.state()
    since = [outcome for seq, outcome in state.outcomes if seq > before]
    if since and isinstance(since[-1], Reverted):
        return Exit.REVERTED
    if since and state.debts():
        return Exit.DEBTS
    return backend.exit_code(code, None if since else _why_refused(here))


def _tell_what_happened(here: Context) -> None:
    """After a switch that was reverted: what failed, what was put back, what to do next."""
    from reconciler.switching import story

    told = story.last(here.catalog.state())
    if told is not None:
        from cli import tables
        from reconciler.masking import masked

        here.say(tables.folded(map(masked, told.lines())))


def _why_refused(here: Context) -> int | None:
    """The exit code of what refuses the declared release as things stand; None if nothing does."""
    try:
        plan = plan_of(here, here.stack, probe=False)
    except LockstepError as error:
        return int(error.exit_code)
    return refusal_code(plan) if plan.refusals else None


def preview_code(here: Context, *, diff: bool) -> int:
    """Show the engine's preview; returns the command's exit code."""
    from cli import backend

    code = here.backend.preview(diff=diff)
    error = here.backend.error()
    return backend.exit_code(code, failures.exit_code(error) if error else None)


def plan_of(here: Context, stack: Stack, *, probe: bool = True) -> Plan:
    """The decision for a stack on the facts of this moment: what `up` would carry out."""
    from reconciler import program

    return program.facts_and_plan(stack, probe=probe, anchor=last_head(here))


def show(plan: Plan) -> None:
    """The impact screen on standard output."""
    from cli import impact, tables

    impact.show(plan, tables.console())


def refusal_code(plan: Plan) -> int:
    """The exit code of a refused plan: bad input only when nothing else refuses it."""
    codes = {int(refusal.code) for refusal in plan.refusals}
    return codes.pop() if len(codes) == 1 else int(Exit.REFUSED)


def _message(here: Context) -> str:
    """What the stack's history says of an `up` that nobody gave a message."""
    release = here.stack.settings.release
    good, _ = here.catalog.records()
    if release is None or release not in good:
        return ""
    return f"{release}: {good[release].description}"
