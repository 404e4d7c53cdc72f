"""Commands about the host as it runs: snapshot, stop, recover, compose."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated

import typer

from cli import ask, options
from cli.context import Context
from reconciler.errors import BadInput, CatalogDamaged, LockstepError
from reconciler.notifications import look_at_disk

if TYPE_CHECKING:
    from reconciler.host.hostlock import HostLock
    from reconciler.records.ledger import World
    from reconciler.upkeep.backup import Backup


def stop(
    context: typer.Context,
    reason: Annotated[
        str, typer.Option("--message", "-m", help="Why, for whoever reads the ledger.")
    ] = "",
    yes: options.Yes = False,
    as_json: options.Json = False,
) -> None:
    """Emergency: stop every container of the stack at once, and say how to come back."""
    from reconciler import switch

    here = Context.of(context)
    ask.confirm(f"Stop every container of {_name(here)} now?", yes=yes)
    with _locked(here, "stop"):
        number = switch.stop_all(here.stack, here.catalog, here.docker, here.progress, reason)
    if as_json:
        from cli.releases import print_json

        live = here.catalog.state().live_release
        print_json({"schema": 1, "containers": number, "live": live, "reason": reason})
        return
    what = "1 container" if number == 1 else f"{number} containers"
    typer.echo(f"{what} stopped; what was live stays down until `lockstep up`, data is kept")


def recover(context: typer.Context, as_json: options.Json = False) -> None:
    """Finish or revert what a crash left unfinished; says what was found and done.

    A switch that still runs without its caller is followed to its end.
    """
    from cli import moves
    from reconciler import switch
    from reconciler.records import journal
    from reconciler.upkeep import debts

    here = Context.of(context)
    unfinished = None
    with suppress(CatalogDamaged):  # what is to be done about that is said below
        unfinished = journal.unfinished(here.catalog.journal)
    followed = moves.follow_running(here)
    if followed:
        done = ["the switch that was under way has ended"]
    else:
        with _locked(here, "recover") as lock:
            done = switch.recover(here.stack, here.catalog, lock, here.progress)
            warning = debts.keep_failed(here.stack, here.catalog, here.docker, here.progress)
            done += [warning] if warning else []
    if as_json:
        from cli.releases import print_json

        state = here.catalog.state()
        print_json({
            "schema": 1,
            "unfinished": unfinished,
            "followed": followed,
            "done": done,
            "live": state.standing_release,
            "world": state.standing,
        })  # fmt: skip
        return
    for line in done or ["nothing was unfinished"]:
        typer.echo(line)


def compose(
    context: typer.Context,
    arguments: Annotated[
        list[str] | None,
        typer.Argument(help="A command of docker compose, like ps, logs, exec.", metavar="COMMAND"),
    ] = None,
) -> None:
    """Pass a command on to the live world: lockstep compose ps, logs, exec ..."""
    here = Context.of(context)
    world = live_world(here)
    raise typer.Exit(here.compose.passthrough(world.name, check_harmless(arguments or [])))


def check_harmless(arguments: list[str]) -> list[str]:
    """The arguments. Raises BadInput for what changes which containers or data there are: a world
    never changes after it was made."""
    changing = {"up", "down", "create", "rm", "run", "build", "pull", "push", "scale", "watch"}
    command = next((word for word in arguments if not word.startswith("-")), "")
    if command in changing:
        raise BadInput(
            f"docker compose {command} would change the live world behind Lockstep's back",
            next_step="lockstep up   makes the host run what is declared",
        )
    return arguments


def _name(here: Context) -> str:
    return f"{here.project.name}/{here.stack_name}"


def _locked(here: Context, operation: str) -> HostLock:
    from reconciler.host.hostlock import HostLock

    return HostLock.acquire(operation, _name(here), wait=10)


def live_world(here: Context) -> World:
    """The live world. Raises BadInput when nothing is live yet."""
    state = here.catalog.state()
    if state.live is None:
        raise BadInput("nothing is live yet", next_step="lockstep up   makes the first world live")
    if state.dissolved:
        raise BadInput(
            f"`lockstep remove` took {state.live} away, which was live",
            next_step="lockstep preview   shows what brings a release back",
        )
    return state.worlds[state.live]


def snapshot(
    context: typer.Context,
    datasets: Annotated[
        list[str] | None, typer.Argument(help="Datasets; all if none is named.")
    ] = None,
    group: Annotated[
        str | None,
        typer.Option("--group", help="A group of the config: all of its datasets at one point."),
    ] = None,
    freeze_limit: Annotated[
        float,
        typer.Option(
            "--freeze-limit",
            min=0.1,
            help="With --group: seconds that its writers stand still at most.",
        ),
    ] = 5.0,
    as_json: options.Json = False,
) -> None:
    """Back up the live world's data as it stands; nothing is stopped or changed."""
    from reconciler.upkeep import backup

    here = Context.of(context)
    world = live_world(here)
    if group is not None and datasets:
        raise BadInput(
            "a group is taken as a whole: name either a group or datasets",
            next_step=f"lockstep snapshot --group {group}",
        )
    with _locked(here, "snapshot"):
        taken = (
            backup.take(here.stack, here.catalog, here.docker, world, datasets or (), here.progress)
            if group is None
            else backup.take_group(
                here.stack, here.catalog, here.docker, world, group, here.progress, freeze_limit
            )
        )
    look_at_disk(here.stack, here.catalog)
    if as_json:
        from cli.releases import print_json

        print_json(document(world, taken))
    else:
        _show(taken)
    left_out = [backup.dataset for backup in taken if backup.snapshot is None]
    if left_out:
        raise LockstepError(
            f"there is no snapshot of {', '.join(left_out)}",
            next_step="lockstep stop, lockstep snapshot, lockstep up   takes it while all is down; "
            "every switch takes one too",
        )


def document(world: World, taken: Sequence[Backup]) -> dict[str, object]:
    """`snapshot`: what was taken of each dataset, and what could not be taken without a stop."""
    return {
        "schema": 1,
        "release": world.release,
        "world": world.name,
        "datasets": {
            b.dataset: {"snapshot": b.snapshot, "bytes": b.bytes, "why_not": b.why_not}
            for b in taken
        },
    }


def _show(taken: Sequence[Backup]) -> None:
    from cli import tables

    made = tables.table("dataset", "snapshot", "size", "", right=("size",), wide=("",))
    for backup in taken:
        made.add_row(
            backup.dataset, backup.snapshot or "", tables.size(backup.bytes), backup.why_not
        )
    tables.console().print(made)
