"""`lockstep report` and `lockstep serve`: what happened, as one page of HTML."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from cli.context import Context
from reconciler.errors import BadInput, LockstepError

PORT = 8642


def report(
    context: typer.Context,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Where the page goes: a file, or - for the output."),
    ] = None,
) -> None:
    """Write one HTML file: what was live when, downtime, lineage, sizes, proofs, and why.

    It needs nothing else, loads nothing from anywhere and holds no secret. Nothing is changed.
    Examples: lockstep report; lockstep report --output /srv/www/shop.html
    """
    from cli.report.material import gather
    from cli.report.page import render

    here = Context.of(context)
    page = render(gather(here.stack, here.catalog))
    if output == Path("-"):
        typer.echo(page, nl=False)
        return
    path = output or Path(f"report-{here.stack_name}.html")
    if output is None or not output.is_absolute():
        path = here.common.cwd / path
    write(path, page)
    typer.echo(f"{path} is written ({len(page.encode()) >> 10} KiB)")
    here.say("lockstep serve   shows the same live")


def write(path: Path, page: str) -> None:
    """Whole or not at all; a new file is readable to its owner alone, an old one as it was.

    Raises BadInput when the folder is none, LockstepError when it cannot be written.
    """
    if path.is_dir() or not path.parent.is_dir():
        raise BadInput(
            f"{path} cannot be written: "
            + ("it is a folder" if path.is_dir() else f"{path.parent} is no folder"),
            next_step="lockstep report --output FILE   takes a file in a folder that exists",
        )
    draft = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        draft.touch(mode=0o600)
        draft.write_text(page, encoding="utf-8")
        if path.exists():
            draft.chmod(path.stat().st_mode & 0o777)
        draft.replace(path)
    except OSError as error:
        raise LockstepError(f"{path} cannot be written: {error.strerror}") from None
    finally:
        draft.unlink(missing_ok=True)
