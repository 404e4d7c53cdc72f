"""Questions: asked on a terminal, answered by --yes, refused where nobody could answer."""

from __future__ import annotations

import sys

import typer

from cli.failures import Declined
from reconciler.errors import BadInput


def confirm(question: str, *, yes: bool) -> None:
    """Returns when the answer is yes. Raises Declined for a no, BadInput without a terminal."""
    if yes:
        return
    need_terminal(question)
    if not typer.confirm(question, err=True):
        raise Declined("declined: nothing was changed")


def need_terminal(what: str) -> None:
    """Raises BadInput where nobody is there to answer."""
    if not sys.stdin.isatty():
        raise BadInput(
            f"{what.rstrip('?')}: this is asked first, and there is no terminal to ask on",
            next_step="add --yes to answer it beforehand",
        )


def if_possible(question: str, *, yes: bool) -> str:
    """A text that may be left out: "" with --yes, and where nobody is there to answer."""
    if yes or not sys.stdin.isatty():
        return ""
    return str(typer.prompt(question, default="", show_default=False, err=True)).strip()


def text(question: str, default: str, *, yes: bool) -> str:
    """A text from the person, or the default with --yes."""
    if yes:
        return default
    need_terminal(question)
    return str(typer.prompt(question, default=default, err=True))
