"""`lockstep export` and `lockstep import`: a release as one file, from stack to stack."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli import completion, options
from cli.context import Context, check_release
from cli.encryption import PassphraseFile, in_file
from reconciler.errors import LockstepError

if TYPE_CHECKING:
    from reconciler.making.exporting import Exported
    from reconciler.making.importing import Result

Release = Annotated[
    str, typer.Argument(help="A release, like prod-003.", autocompletion=completion.releases)
]


def export(
    context: typer.Context,
    release: Release,
    file: Annotated[Path, typer.Argument(help="A file that does not exist yet.")],
    images: Annotated[
        bool, typer.Option("--images", help="With the images, for a host that cannot pull them.")
    ] = False,
    without_data: Annotated[
        bool, typer.Option("--without-data", help="Without its snapshots.")
    ] = False,
    as_json: options.Json = False,
) -> None:
    """Write a release to one file: its record, config files and data (its arrival and departure;
    of the live one a backup as of now)."""
    from cli.progress import bar
    from reconciler.making import exporting

    here = Context.of(context)
    good, damaged = here.catalog.records()
    check_release(release, here.stack_name, {*good, *damaged}, here.catalog.state().pruned)
    path = (here.common.cwd / file).absolute()
    with bar(here) as progress:
        done = exporting.export(
            here.stack, here.catalog, here.docker, release, path, here.progress, progress,
            images=images, data=not without_data,
        )  # fmt: skip
    if as_json:
        from cli.releases import print_json

        print_json(exported(done))
    else:
        from cli import tables

        names = ", ".join(sorted({*done.head.departure, *done.head.arrival})) or "none"
        typer.echo(f"{release} is in {file} ({tables.size(done.bytes)}); data: {names}")
        if done.head.encrypted:
            here.say(
                "its snapshots open by the passphrase of this stack's store: config encryption"
            )
    if done.left_out:
        said = "; ".join(f"{name}: {why}" for name, why in done.left_out.items())
        raise LockstepError(f"not all of its data is in the file: {said}")


def exported(done: Exported) -> dict[str, Any]:
    """`export`: what is in the file."""
    return {
        "schema": 1,
        "file": str(done.path),
        "bytes": done.bytes,
        "release": done.head.release,
        "departure": done.head.departure,
        "arrival": done.head.arrival,
        "images": sorted(done.head.images.values()),
        "encrypted": done.head.encrypted,
        "left_out": dict(done.left_out),
    }


def import_release(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(help="What `lockstep export` wrote.")],
    passphrase_file: PassphraseFile = None,
    as_json: options.Json = False,
) -> None:
    """Take in a release that another stack or host exported, as the next free number of this one.

    All of the file is checked before anything of it is kept. Nothing that runs is touched, and
    the release is not declared.
    """
    from cli.progress import bar
    from reconciler.making import importing

    here = Context.of(context)
    path = (here.common.cwd / file).absolute()
    passphrase = in_file(passphrase_file) if passphrase_file else None
    with bar(here) as progress:
        done = importing.take_in(
            here.stack, here.catalog, here.docker, path, here.progress, progress,
            passphrase=passphrase,
        )  # fmt: skip
    if as_json:
        from cli.releases import print_json

        print_json(imported(done))
        return
    for warning in done.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    name = done.release.name
    typer.echo(f"{done.origin} is {name} here: {done.release.description}")
    datasets = sorted({*done.departure, *done.arrival})
    typer.echo(f"  data     {', '.join(datasets) or 'none came with it'}")
    here.say(f"next: lockstep config set release {name}   declares it; the live data goes along")
    if done.departure:
        here.say(
            f"      lockstep config set --path restore.release {name}   restores its own instead"
        )
    last = here.stack.settings.window.last
    here.say(
        f"kept until {last} releases made after it were live here, or for good by\n"
        f"      lockstep pin {name}"
    )


def imported(done: Result) -> dict[str, Any]:
    """`import`: the release as it is called here, and what came with it."""
    return {
        "schema": 1,
        "release": done.release.name,
        "origin": done.origin,
        "departure": dict(done.departure),
        "arrival": dict(done.arrival),
        "warnings": list(done.warnings),
    }
