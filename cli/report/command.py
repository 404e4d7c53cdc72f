"""`lockstep report` and `lockstep serve`: what happened, as one page of HTML."""

from __future__ import annotations

import platform
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from cli import options
from cli.context import Context, replace_file
from cli.releases import print_json
from reconciler.errors import BadInput, LockstepError

PORT = 8642


def report(
    context: typer.Context,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="A file, or - for the output; releases/report-STACK.html if not said.",
        ),
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Write one HTML file: what was live when, downtime, lineage, sizes, proofs, and why.

    It needs nothing else, loads nothing from anywhere and holds no secret. Nothing is changed.
    """
    from cli.report.material import gather
    from cli.report.page import render

    here = Context.of(context)
    page = render(gather(here.stack, here.catalog))
    if output == Path("-"):
        if as_json:
            raise BadInput(
                "--output - prints the page, so there is no room for --json",
                next_step="lockstep report --output FILE --json",
            )
        typer.echo(page, nl=False)
        return
    # Not beside the sources: `new` refuses what is not committed.
    path = here.catalog.root / f"report-{here.stack_name}.html"
    if output is not None:
        path = here.common.cwd / output
    write(path, page)
    if as_json:
        print_json({"schema": 1, "path": str(path), "bytes": len(page.encode())})
        return
    typer.echo(f"{path} is written ({len(page.encode()) >> 10} KiB)")
    here.say("lockstep serve   shows the same live")


def serve(
    context: typer.Context,
    port: Annotated[
        int, typer.Option("--port", "-p", min=0, max=65535, help="0 takes a free one.")
    ] = PORT,
    as_json: options.Json = False,
) -> None:
    """Show the same live in a browser, with the running switch's progress, until Ctrl-C.

    On this host's loopback alone, read only; the address that is printed has a secret part.
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
    if as_json:
        print_json({"schema": 1, "url": server.url})
    else:
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
    try:
        replace_file(path, page.encode())
    except OSError as error:
        raise LockstepError(f"{path} cannot be written: {error.strerror}") from None
