"""`lockstep drill`: would a release's data come back?"""

from __future__ import annotations

import signal
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli import completion, options
from cli.context import Context, check_release
from reconciler.errors import BadInput, LockstepError

if TYPE_CHECKING:
    from reconciler.trials.drill import Drill

STEPS = ("restore", "start", "ready", "probe")


def drill(
    context: typer.Context,
    release: Annotated[
        str | None,
        typer.Argument(
            help="A release; the one that `rollback` would go to if not named.",
            autocompletion=completion.releases,
        ),
    ] = None,
    at: Annotated[
        str, typer.Option("--at", help="departure, arrival, or a snapshot's id.")
    ] = "departure",
    as_json: options.Json = False,
) -> None:
    """Prove that a release's data comes back: restore it aside, start its engines on it, count.

    Scratch volumes, no network, no port; what runs is not touched, and everything is removed
    again. Exit code 1 when something does not come back.
    """
    from cli.progress import bar
    from reconciler.trials import drill as drills
    from reconciler.trials import drillbook

    here = Context.of(context)
    name = _release(here, release)
    record = here.catalog.record(name)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)  # it has to clean up
    with bar(here) as progress:
        done = drills.carry_out(
            here.stack, here.catalog, here.docker, here.compose, record, at, here.progress, progress
        )
    drillbook.note(here.catalog, done)
    if as_json:
        from cli.releases import print_json

        print_json(document(done))
    else:
        _show(done)
    failed = [drilled.dataset for drilled in done.datasets if drilled.problems]
    if failed:
        from reconciler.notifications import notifications

        problem = f"{', '.join(failed)} of {name} did not come back"
        notifications.tell_damage(here.stack, f"a drill failed: {problem}")
        raise LockstepError(
            problem,
            next_step="lockstep verify --read-data   tells whether the store is damaged",
        )


def _release(here: Context, named: str | None) -> str:
    """The release that is meant. Raises BadInput when there is none, or none of that name."""
    from reconciler import decide

    state = here.catalog.state()
    good, damaged = here.catalog.records(state)
    name = named or decide.rollback_target(state, good)
    if name is None:
        raise BadInput(
            "there is no release to go back to yet, so there is nothing to drill",
            next_step="lockstep drill RELEASE --at arrival   takes what a release started from",
        )
    check_release(name, here.stack_name, {*good, *damaged}, state.pruned)
    return name


def document(done: Drill) -> dict[str, Any]:
    """`drill`: of each dataset what came back, and how long each step took (seconds)."""
    return {
        "schema": 1,
        "release": done.release,
        "at": done.at,
        "passed": done.passed,
        "seconds": done.seconds,
        "datasets": {d.dataset: _dataset(asdict(d)) for d in done.datasets},
    }


def _dataset(drilled: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in drilled.items() if key != "dataset"}


def _show(done: Drill) -> None:
    from rich.text import Text

    from cli import tables
    from reconciler.trials.drillplan import differing

    made = tables.table(
        "dataset", "engine", "size", *STEPS, "what came back",
        right=("size", *STEPS), wide=("what came back",),
    )  # fmt: skip
    for drilled in done.datasets:
        seconds = [f"{drilled.seconds[s]:.1f} s" if s in drilled.seconds else "" for s in STEPS]
        if drilled.problems:
            said = Text("\n".join(drilled.problems), style="red")
        else:
            said = Text(came_back(drilled.counts, differing(drilled.recorded, drilled.counts)))
        made.add_row(
            drilled.dataset, drilled.engine or "", tables.size(drilled.bytes), *seconds, said
        )
    out = tables.console()
    out.print(made)
    what = "everything came back" if done.passed else "not everything came back"
    out.print(f"{done.release} at its {done.at}: {what}, in {done.seconds:.1f} s")


def came_back(counts: Mapping[str, int], differing: Mapping[str, tuple[int, int]]) -> str:
    """What was counted, with what was counted when the release left where that differs."""
    lines = []
    for what, count in sorted(counts.items()):
        then = f" ({differing[what][0]} when it was left)" if what in differing else ""
        lines.append(f"{count} {what}{then}")
    return "\n".join(lines)
