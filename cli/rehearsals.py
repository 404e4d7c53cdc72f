"""`lockstep rehearse`: would a release pass its proof on today's data?"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli import completion, options
from cli.context import Context, check_release
from reconciler.errors import BadInput, LockstepError

if TYPE_CHECKING:
    from reconciler.trials.rehearsal import Copied, Rehearsal
    from reconciler.trials.rehearsalhooks import RehearsedHook

_NICE = 10
_SHOWN = 8


def rehearse(
    context: typer.Context,
    release: Annotated[
        str | None,
        typer.Argument(
            help="A release; the declared one if not named.", autocompletion=completion.releases
        ),
    ] = None,
    outgoing: Annotated[
        bool,
        typer.Option("--outgoing", help="Let its services reach other hosts; they cannot else."),
    ] = False,
    as_json: options.Json = False,
) -> None:
    """Start a release on copies of the live data beside the live world, prove it, remove it.

    What runs notices nothing: the copies are made at the pace that it bears, the rehearsal has
    networks of its own and no port. Services with `start: after-commit`, and those with rights on
    the host, are not started. Hooks that work in its containers are run, on the copies; others are
    not. Exit code 1 when the release does not pass its proof.
    """
    from reconciler.trials import rehearsal

    here = Context.of(context)
    name = _release(here, release)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)  # it has to clean up
    from cli import moves

    plan = moves.plan_of(here, moves.declaring(here.stack, name, None), probe=False)
    os.nice(_NICE)
    done = rehearsal.carry_out(
        here.stack, here.catalog, here.docker, here.compose, plan, here.progress, outgoing=outgoing
    )
    if as_json:
        from cli.releases import print_json

        print_json(document(done))
    else:
        _show(done)
    if not done.passed:
        raise LockstepError(
            f"{name} did not pass its proof in the rehearsal: {done.problem}",
            next_step="what runs was not touched; mend the release, then   lockstep new",
        )


def _release(here: Context, named: str | None) -> str:
    """The release that is meant. Raises BadInput when there is none, or none of that name."""
    good, damaged = here.catalog.records()
    name = named or here.stack.settings.release
    if name is None:
        raise BadInput(
            "no release is declared, so there is nothing to rehearse",
            next_step='lockstep new "what it is"   makes one and declares it',
        )
    check_release(name, here.stack_name, {*good, *damaged}, here.catalog.state().pruned)
    return name


def document(done: Rehearsal) -> dict[str, Any]:
    """`rehearse`: how each dataset was copied and what differs now, when each service was ready,
    what logs say of errors; times in seconds."""
    return {
        "schema": 1,
        "release": done.release,
        "live": done.live,
        "passed": done.passed,
        "problem": done.problem,
        "refusals": list(done.refusals),
        "hooks": [asdict(hook) for hook in done.hooks],
        "hooks_not_run": list(dict.fromkeys(hook.name for hook in done.hooks if not hook.ran)),
        "steps": done.steps,
        "datasets": {copied.dataset: _dataset(copied) for copied in done.datasets},
        "services": done.services,
        "gates": [result.model_dump(mode="json") for result in done.gates],
        "held_back": done.held_back,
        "log_errors": {name: asdict(wrong) for name, wrong in done.log_errors.items()},
    }


def _dataset(copied: Copied) -> dict[str, Any]:
    found = {key: value for key, value in asdict(copied).items() if key != "dataset"}
    return {**found, "differences": differing(copied)}


def differing(copied: Copied) -> dict[str, list[int | None]]:
    """What the live data and the copy do not have alike -> [live, copy]; nothing where one of
    them was not counted."""
    from reconciler.trials.rehearsalplan import differences

    if not copied.before or not copied.after:
        return {}
    return {name: list(pair) for name, pair in differences(copied.before, copied.after).items()}


def _show(done: Rehearsal) -> None:
    from rich.text import Text

    from cli import tables

    out = tables.console()
    made = tables.table(
        "dataset", "copy", "size", "took", "live -> rehearsed",
        right=("size", "took"), wide=("copy", "live -> rehearsed"),
    )  # fmt: skip
    for copied in done.datasets:
        made.add_row(
            copied.dataset, copied.how, tables.size(copied.bytes), f"{copied.seconds:.1f} s",
            Text("\n".join(_differences(copied))),
        )  # fmt: skip
    if done.datasets:
        out.print(made)
    ready = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in done.services.items())
    if ready:
        out.print(Text(f"ready      {ready}"))
    for result in done.gates:
        out.print(Text(f"gate       {str(result).removeprefix('gate ')}"))
    for name, why in done.held_back.items():
        out.print(Text(f"held back  {name}: {why}"))
    for hook in done.hooks:
        for line, style in _hook(hook):
            out.print(Text(line, style=style))
    for name, wrong in done.log_errors.items():
        out.print(Text(f"log        {name}: {_lines(wrong.count)} of errors", style="yellow"))
        for line in wrong.last:
            out.print(Text(tables.folded([f"           {line}"]), style="dim"))
    for refusal in done.refusals:
        out.print(Text(f"up would be refused: {refusal}", style="yellow"))
    steps = ", ".join(f"{step} {seconds:.1f} s" for step, seconds in done.steps.items())
    out.print(Text(f"took       {steps}"))
    word = "passed its proof" if done.passed else "did not pass its proof"
    data = f"copies of the data of {done.live}" if done.live else "copies of the data"
    out.print(Text(f"{done.release} {word} on {data}; everything is removed again"))


def _hook(hook: RehearsedHook) -> Iterator[tuple[str, str]]:
    """What became of it and the last that it said: lines with their styles."""
    from cli import tables

    what = f"{hook.name} ({hook.at}{f' of {hook.of}' if hook.of else ''})"
    if not hook.ran:
        yield f"not run    hook {what}: {hook.why}", ""
        return
    passed = hook.result == "passed"
    why = "" if passed else f": {hook.why}"
    result = f"hook       {what} {hook.result}{why} ({hook.seconds:.1f} s)"
    yield result, "" if passed else "yellow"
    for line in hook.output.splitlines():
        yield tables.folded([f"           {line}"]), "dim"


def _differences(copied: Copied) -> Iterator[str]:
    found = differing(copied)
    for name, (live, rehearsed) in list(found.items())[:_SHOWN]:
        yield f"{name}: {_number(live)} -> {_number(rehearsed)}"
    if len(found) > _SHOWN:
        yield f"and {len(found) - _SHOWN} more"
    if not found:
        yield "the same counts" if copied.before and copied.after else "not counted"


def _lines(count: int) -> str:
    return "1 line speaks" if count == 1 else f"{count} lines speak"


def _number(count: int | None) -> str:
    return "none" if count is None else str(count)
