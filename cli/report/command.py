"""`lockstep report` and `lockstep serve`: what happened, as one page of HTML."""

from __future__ import annotations

import os
import platform
import signal
import sys
from contextlib import suppress
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


def serve(
    context: typer.Context,
    port: Annotated[
        int, typer.Option("--port", "-p", min=0, max=65535, help="0 takes a free one.")
    ] = PORT,
) -> None:
    """Show the same live in a browser, with the running switch's progress, until Ctrl-C.

    On this host's loopback alone, read only; the address that is printed has a secret part.
    Examples: lockstep serve; lockstep serve --port 0
    """
    from cli.report.material import gather
    from cli.report.page import render
    from cli.report.progress import status
    from cli.report.server import ADDRESS, Server, Site

    here = Context.of(context)
    stack, catalog = here.stack, here.catalog
    catalog.state()  # a damaged ledger is told at once, not to the browser
    site = Site(lambda: render(gather(stack, catalog), served=True), lambda: status(catalog))
    try:
        server = Server(site, port)
    except OSError as error:
        raise BadInput(
            f"port {port} of {ADDRESS} cannot be used: {error.strerror}",
            next_step="lockstep serve --port 0   takes a free one",
        ) from None
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    typer.echo(server.url)
    sys.stdout.flush()
    here.say(
        "Ctrl-C ends it; from elsewhere: ssh -L "
        f"{server.server_port}:{ADDRESS}:{server.server_port} {platform.node()}"
    )
    with server, suppress(KeyboardInterrupt):
        server.serve_forever()


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
