"""Options and arguments that several commands share."""

from __future__ import annotations

from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="Print a JSON document (schema 1).")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Answer every question with yes.")]
Message = Annotated[
    str | None, typer.Option("--message", "-m", help="What the stack's history says of it.")
]
Reason = Annotated[
    str | None,
    typer.Option("--reason", help="Why, for log and incident; asked for on a terminal."),
]
Newest = Annotated[
    int | None, typer.Option("-n", "--number", min=1, help="Only the newest so many.")
]
