"""A bar with the time left for work that counts bytes, on a terminal; nothing elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cli.context import Context
    from snapshots.progress import Progress


@contextmanager
def bar(here: Context) -> Iterator[Progress | None]:
    """Progress for work of `snapshots`, shown on standard error while the `with` lasts.

    None where nobody looks: no terminal, or the person asked for quiet.
    """
    if here.common.quiet or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as shown:
        task = shown.add_task("")
        doing = ""

        def report(what: str, done: int, total: int) -> None:
            nonlocal doing
            if what != doing:  # other work has a speed of its own
                doing = what
                shown.reset(task, description=what, total=total)
            shown.update(task, completed=done, total=total)

        yield report
