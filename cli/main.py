"""The command's entry: its subcommands, the options they share, and the one handler of errors."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from cli import (
    completion,
    doctor,
    drills,
    encryption,
    examples,
    exports,
    failures,
    guard,
    host,
    incidents,
    initialize,
    integrity,
    metrics,
    moves,
    notify,
    options,
    rehearsals,
    releases,
    remove,
    schemas,
    settings,
    snapshots,
    stack,
    window,
)
from cli.context import Common
from cli.report import command as report

app = typer.Typer(
    name="lockstep",
    help="The release this host runs, declared: images, configuration and data match it.",
    epilog="--cwd, --stack, --quiet and --no-color may stand before or after the command.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

START = "Start"
MOVE = "Move between releases"
READ = "Read"
DATA = "Data"
HOST = "The host"
PULUMI = "As Pulumi has them"

app.command("init", rich_help_panel=START)(initialize.init)
app.command("new", rich_help_panel=START)(releases.new)
app.command("up", rich_help_panel=MOVE)(moves.up)
app.command("preview", rich_help_panel=MOVE)(moves.preview)
app.command("rollback", rich_help_panel=MOVE)(moves.rollback)
app.command("undo", rich_help_panel=MOVE)(moves.undo)
app.command("rehearse", rich_help_panel=MOVE)(rehearsals.rehearse)
app.command("list", rich_help_panel=READ)(releases.list_releases)
app.command("info", rich_help_panel=READ)(releases.info)
app.command("log", rich_help_panel=READ)(releases.log)
app.command("diff", rich_help_panel=READ)(releases.diff)
app.add_typer(incidents.app, name="incident", rich_help_panel=READ)
app.command("metrics", rich_help_panel=READ)(metrics.metrics)
app.command("report", rich_help_panel=READ)(report.report)
app.command("serve", rich_help_panel=READ)(report.serve)
app.command("pin", rich_help_panel=DATA)(window.pin)
app.command("unpin", rich_help_panel=DATA)(window.unpin)
app.command("prune", rich_help_panel=DATA)(window.prune)
app.command("export", rich_help_panel=DATA)(exports.export)
app.command("import", rich_help_panel=DATA)(exports.import_release)
app.add_typer(snapshots.app, name="snapshot", rich_help_panel=DATA)
app.command("verify", rich_help_panel=DATA)(integrity.verify)
app.command("repair", rich_help_panel=DATA)(integrity.repair)
app.command("drill", rich_help_panel=DATA)(drills.drill)
app.command("encrypt", rich_help_panel=DATA)(encryption.encrypt)
app.command("rekey", rich_help_panel=DATA)(encryption.rekey)
app.command("stop", rich_help_panel=HOST)(host.stop)
app.command("recover", rich_help_panel=HOST)(host.recover)
app.command("remove", rich_help_panel=HOST)(remove.remove)
app.command("guard", rich_help_panel=HOST)(guard.guard)
app.add_typer(notify.app, name="notify", rich_help_panel=HOST)
app.command("doctor", rich_help_panel=HOST)(doctor.doctor)
app.command(
    "compose",
    rich_help_panel=HOST,
    add_help_option=False,
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
)(host.compose)
app.command("schema", rich_help_panel=READ)(schemas.schema)
app.command("completion", rich_help_panel=START)(completion.completion)
app.add_typer(settings.app, name="config", rich_help_panel=PULUMI)
app.add_typer(stack.app, name="stack", rich_help_panel=PULUMI)
app.command("cancel", rich_help_panel=PULUMI)(stack.cancel)


@app.callback()
def common(
    context: typer.Context,
    cwd: Annotated[
        Path, typer.Option("--cwd", "-C", help="Work as if started in this folder.")
    ] = Path(),
    stack: Annotated[
        str | None,
        typer.Option("--stack", "-s", help="The stack, where the project has several."),
    ] = None,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Say only results and errors.")
    ] = False,
    no_color: Annotated[
        bool, typer.Option("--no-color", help="No colour; the variable NO_COLOR does the same.")
    ] = False,
) -> None:
    context.obj = Common(cwd=cwd, stack=stack, quiet=quiet)
    if no_color:
        os.environ["NO_COLOR"] = "1"  # as rich, and Pulumi, understand it


@app.command("version", rich_help_panel=PULUMI)
def version(as_json: options.Json = False) -> None:
    """Say the versions of Lockstep, of the Pulumi that would run, and of Python."""
    from importlib import metadata

    from cli import engines

    try:
        number: str | None = metadata.version("lockstep")
    except metadata.PackageNotFoundError:
        number = None
    engine, python = engines.choose(os.environ, Path.cwd()).says, sys.version.split()[0]
    if as_json:
        from cli.releases import print_json

        print_json({"schema": 1, "lockstep": number, "engine": engine, "python": python})
        return
    typer.echo(f"lockstep {number}" if number else "lockstep, from its source tree")
    typer.echo(engine)
    typer.echo(f"Python {python}")


examples.attach(app)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code (docs/exit-codes.md)."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    completion.prepare()
    if "--no-color" in given:
        os.environ["NO_COLOR"] = "1"  # help is shown before any command is asked
    try:
        result = app(common_first(given), prog_name="lockstep", standalone_mode=False)
        code = result if isinstance(result, int) else 0
    except BaseException as error:
        code = failures.report(error)
    failures.flush_output()
    return code


def common_first(arguments: Sequence[str]) -> list[str]:
    """The arguments with the options that all commands share moved before the command.

    What follows `compose` or `--` belongs to somebody else and stays as it is.
    """
    shared: list[str] = []
    rest: list[str] = []
    waiting = list(arguments)
    while waiting:
        word = waiting.pop(0)
        name = word.partition("=")[0]
        if word in ("-C", "-s", "--cwd", "--stack") and waiting:
            shared += [word, waiting.pop(0)]
        elif word in ("-q", "--quiet", "--no-color") or (
            name != word and name in ("--cwd", "--stack")
        ):
            shared.append(word)
        elif word == "--" or (word == "compose" and not rest):
            rest += [word, *waiting]
            break
        else:
            rest.append(word)
    return [*shared, *rest]


if __name__ == "__main__":
    sys.exit(main())
