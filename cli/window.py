"""`lockstep pin`, `unpin` and `prune`: what the window keeps, and what leaves it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli import ask, completion, moves, options
from cli.context import Context, check_release, own_values, read_stack, replace_file
from reconciler.errors import BadInput, Refused

if TYPE_CHECKING:
    from reconciler.planning.pruning import Fate
    from reconciler.program import Program
    from reconciler.records.ledger import World
    from snapshots.store import SnapshotRecord

Release = Annotated[
    str, typer.Argument(help="A release, like prod-003.", autocompletion=completion.releases)
]
KINDS = ("release", "world", "generation", "snapshot", "image", "incident")


def pin(context: typer.Context, release: Release, as_json: options.Json = False) -> None:
    """Keep a release, with its images and data, until it is unpinned."""
    here = Context.of(context)
    good, damaged = here.catalog.records()
    pruned = here.catalog.state().pruned
    check_release(release, here.stack_name, {*good, *damaged}, pruned)
    pinned = here.stack.settings.window.pinned
    if release not in pinned:
        _insist_on_object(here)
        _set(here, f"window.pinned[{len(pinned)}]", release)
    if as_json:
        _print_pins(here)
        return
    was = " already" if release in pinned else ""
    typer.echo(
        f"{release} is pinned{was}: its record, images and data stay, however many releases follow"
    )
    here.say(f"lockstep unpin {release}   lets it go by the window again")


def unpin(context: typer.Context, release: Release, as_json: options.Json = False) -> None:
    """Let the window decide of a pinned release again."""
    from cli.releases import reasons_to_keep

    here = Context.of(context)
    pinned = here.stack.settings.window.pinned
    if release not in pinned:
        raise BadInput(
            f"{release} is not pinned; pinned are: {', '.join(pinned) or 'none'}",
            next_step="lockstep pin RELEASE   pins one",
        )
    here.backend.config_rm(f"window.pinned[{pinned.index(release)}]", path=True)
    del here.stack
    if as_json:
        _print_pins(here)
        return
    left = [reason for reason in reasons_to_keep(here, release) if reason != "pinned"]
    typer.echo(
        f"{release} is not pinned any more, and kept for now: {', '.join(left)}"
        if left
        else f"{release} is not pinned any more: the next up prunes it, for nothing else keeps it"
    )


def _insist_on_object(here: Context) -> None:
    """`window: 3` is short for `window: {last: 3}`, which can hold pins as well."""
    given = own_values(here.project.name, here.backend.config()).get("window")
    if given is not None and not isinstance(given, Mapping):
        _set(here, "window.last", str(here.stack.settings.window.last))


def _set(here: Context, key: str, value: str) -> None:
    """What cannot be used afterwards leaves the file as it was."""
    before = here.settings_file.read_bytes()
    here.backend.config_set(key, value, secret=False, path=True)
    try:
        here.stack = read_stack(here.project, here.stack_name, here.backend.config())
    except BadInput:
        replace_file(here.settings_file, before)
        raise


def _print_pins(here: Context) -> None:
    from cli.releases import print_json

    print_json({"schema": 1, "pinned": list(here.stack.settings.window.pinned)})


def prune(
    context: typer.Context,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only show it: nothing is asked, nothing goes.")
    ] = False,
    yes: options.Yes = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print it as a JSON document; nothing goes.")
    ] = False,
) -> None:
    """Remove what nothing keeps, as the next `up` would; everything is shown first, with why it
    goes or stays: releases, worlds, generations, snapshots, images, incidents."""
    from reconciler.plan import Move

    here = Context.of(context)
    moves.insist_on_nothing_unfinished(here)
    program = _program(here)
    plan = program.plan
    found = _fates(here, program)
    if as_json:
        from cli.releases import print_json

        print_json(document(found))
        return
    going = [fate for fate in found if fate.goes]
    _show(found)
    if dry_run or not going:
        typer.echo(f"{_counted(going)} would go" if going else "nothing goes: all has its reasons")
        return
    if plan.move is not Move.STAY:
        raise Refused(
            f"what is declared is not what runs, so this is what `up` removes once it has moved "
            f"({plan.says})",
            next_step=f"lockstep up; or lockstep config set release {program.state.live_release}, "
            "then lockstep prune",
        )
    if plan.refusals:
        raise Refused("; ".join(r.message for r in plan.refusals), next_step="lockstep preview")
    ask.confirm(f"Remove {_counted(going)}?", yes=yes)
    _prune_incidents(here)
    if all(fate.kind == "incident" for fate in going):
        typer.echo(f"{_counted(going)} removed")
        return
    message = f"prune: {_counted(going)}"
    raise typer.Exit(moves.carry_out(here, message, yes=True, skip_preview=True))


def _program(here: Context) -> Program:
    from reconciler.program import Program

    return Program(here.stack, probe=False, anchor=moves.last_head(here))


def _fates(here: Context, program: Program) -> list[Fate]:
    from reconciler.planning import pruning
    from reconciler.world import removal

    def guard(world: World) -> str | None:
        try:
            removal.guard_world(here.catalog, here.docker, program.state, world)
        except Refused as error:
            return error.message
        return None

    plan = program.plan
    facts = program.now.facts
    # A volume that is written is not measured here: nothing is said of its size.
    sizes = {name: size for name, size in facts.volumes.items() if size}
    things = pruning.fates(
        here.stack, program.state, plan, facts.records, sizes, _stored(here), guard
    )
    return [*things, *_incidents(here)]


def _incidents(here: Context) -> Iterator[Fate]:
    """By a retention of their own: `incidents` of the config."""
    from reconciler.evidence import incidents
    from reconciler.planning.pruning import Fate

    good, _ = incidents.every(here.catalog)
    settings, state = here.stack.settings.incidents, here.catalog.state()
    for kept in incidents.retain(settings, good, state, time.time()):
        why = "; ".join(kept.reasons) or kept.why_not
        yield Fate("incident", kept.incident.id, not kept.reasons, why, kept.incident.bytes)


def _prune_incidents(here: Context) -> None:
    from reconciler.evidence import incidents
    from reconciler.host.hostlock import HostLock

    with HostLock.acquire("prune", f"{here.project.name}/{here.stack_name}", wait=10):
        settings, state = here.stack.settings.incidents, here.catalog.state()
        incidents.prune(here.catalog, settings, state, time.time())


def _stored(here: Context) -> dict[str, SnapshotRecord]:
    """The snapshots of the store that can be read; none where there is no store yet."""
    from snapshots.errors import SnapshotError

    found: dict[str, SnapshotRecord] = {}
    if not here.stack.store.exists():
        return found
    store = here.stack.open_store(create=False)
    for snapshot in store.ids():
        with suppress(SnapshotError):
            found[snapshot] = store.read(snapshot)
    return found


def document(found: Sequence[Fate]) -> dict[str, Any]:
    """`prune`: everything there is, whether it goes, and why; sizes in bytes, of the content."""
    from dataclasses import asdict

    return {"schema": 1, "things": [asdict(fate) for fate in found]}


def _counted(going: Sequence[Fate]) -> str:
    """`1 release, 2 worlds`."""
    numbers = {kind: sum(fate.kind == kind for fate in going) for kind in KINDS}
    return ", ".join(f"{n} {kind}{'s' if n > 1 else ''}" for kind, n in numbers.items() if n)


def _show(found: Sequence[Fate]) -> None:
    from rich.text import Text

    from cli import tables

    made = tables.table("", "kind", "name", "size", "why", right=("size",), wide=("name", "why"))
    for fate in found:
        name = fate.name[:12] if fate.kind == "snapshot" else fate.name
        style = "red" if fate.goes else "dim"
        word = Text("goes" if fate.goes else "stays", style=style)
        made.add_row(word, fate.kind, Text(name), tables.size(fate.bytes), Text(fate.why))
    tables.console().print(made)
