"""`lockstep completion`: what a shell needs to complete commands, options and releases."""

from __future__ import annotations

import os
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from cli import options

VARIABLE = "_LOCKSTEP_COMPLETE"
"""Set by the shell's script when it asks for completions."""


class Shell(StrEnum):
    """Shells that can be served."""

    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"


FILES = {
    Shell.BASH: "/etc/bash_completion.d/lockstep",
    Shell.ZSH: "/usr/local/share/zsh/site-functions/_lockstep",
    Shell.FISH: "/etc/fish/completions/lockstep.fish",
}
"""Where each shell reads it from, for everybody on the host."""


def completion(
    shell: Annotated[Shell, typer.Argument(help="Whose script is printed.")],
    as_json: options.Json = False,
) -> None:
    """Print the script by which a shell completes commands, options and names of releases."""
    from typer._completion_shared import get_completion_script

    script = get_completion_script(prog_name="lockstep", complete_var=VARIABLE, shell=shell.value)
    if as_json:
        from cli.releases import print_json

        print_json({"schema": 1, "shell": shell, "file": FILES[shell], "script": script})
        return
    typer.echo(script)


def prepare() -> None:
    """Where a shell asks: teach click Typer's way to answer."""
    if VARIABLE in os.environ:
        from typer._completion_classes import completion_init

        completion_init()


def releases(context: typer.Context, incomplete: str) -> list[str]:
    """Names of releases that begin so, newest first; read off the folders, to answer at once."""
    start = Path(context.find_root().params.get("cwd") or ".").resolve()
    for folder in (start, *start.parents):
        if (folder / "Pulumi.yaml").is_file() or (folder / "Pulumi.yml").is_file():
            found = [path.parent.name for path in folder.glob("releases/*/release-info.json")]
            return sorted((n for n in found if n.startswith(incomplete)), reverse=True)
    return []
