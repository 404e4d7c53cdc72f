"""`lockstep encrypt` and `lockstep rekey`: the store at rest, and the passphrase that opens it."""

from __future__ import annotations

import secrets
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli import ask, options
from cli.context import Context
from reconciler.errors import BadInput

if TYPE_CHECKING:
    from reconciler.host.hostlock import HostLock

KEY = "encryption"
SHORTEST = 12

PassphraseFile = Annotated[
    Path | None,
    typer.Option(
        "--passphrase-file",
        help="Of an encrypted store that is not the stack's: a file with its passphrase, or "
        "/dev/fd/3.",
    ),
]


def encrypt(
    context: typer.Context, yes: options.Yes = False, as_json: options.Json = False
) -> None:
    """Encrypt the stack's store, with all that is in it; snapshots keep their ids.

    The passphrase is the config's `encryption`; one is made where there is none.
    """
    from cli.progress import bar
    from snapshots.encrypting import encrypt as carry_out
    from snapshots.store import Store

    here = Context.of(context)
    path = here.stack.store
    there = (path / "format").exists()
    ask.confirm(f"Encrypt the store {path}?", yes=yes)
    with _locked(here, "encrypt"):
        passphrase = here.stack.settings.encryption
        new = passphrase is None
        if passphrase is None:
            # First: a store whose passphrase is nowhere would be lost.
            passphrase = secrets.token_urlsafe(32)
            here.backend.config_set(KEY, passphrase, secret=True, path=False)
            here.say(f"config {KEY} of stack {here.stack_name} is a new passphrase")
        if there:
            with bar(here) as progress:
                carry_out(Store.open(path), passphrase, progress)
    if as_json:
        from cli.releases import print_json

        said = {"store": str(path), "was_there": there, "passphrase": "new" if new else "kept"}
        print_json({"schema": 1, **said})
        return
    typer.echo(
        f"the store {path} is encrypted{'' if there else ' from its beginning'}: without config "
        f"{KEY}, and Pulumi's passphrase, which opens it, nothing in it can be read"
    )


def rekey(
    context: typer.Context,
    own: Annotated[
        bool, typer.Option("--ask", help="Ask for the new passphrase, or read standard input.")
    ] = False,
    yes: options.Yes = False,
    as_json: options.Json = False,
) -> None:
    """Give the encrypted store another passphrase; the old one does not open it any more."""
    from snapshots import encrypting
    from snapshots.store import Store

    here = Context.of(context)
    old = here.stack.settings.encryption
    if old is None:
        raise BadInput(
            f"stack {here.stack_name} has no encrypted store", next_step="lockstep encrypt"
        )
    new = _asked() if own else secrets.token_urlsafe(32)
    ask.confirm(f"Change the passphrase of {here.stack.store}?", yes=yes)
    with _locked(here, "rekey"):
        store = Store.open(here.stack.store, create=False, passphrase=old)
        encrypting.begin_rekey(store, old, new)
        here.backend.config_set(KEY, new, secret=True, path=False)
        encrypting.end_rekey(store, new)
    if as_json:
        from cli.releases import print_json

        print_json({"schema": 1, "store": str(here.stack.store)})
        return
    typer.echo(f"config {KEY} is the new passphrase of {here.stack.store}")


def passphrase_for(here: Context, store: Path, file: Path | None) -> str | None:
    """What opens a store: the file's first line, or the stack's config; None where none is needed.

    Raises BadInput when the file cannot be read.
    """
    from cli.snapshots import in_stack
    from snapshots.store import Store

    if file is not None:
        return in_file(file)
    if not in_stack(here):
        return None
    own = here.stack.store == store
    is_other = not own and (store / "format").exists() and Store(store).encrypted
    return here.stack.settings.encryption if own or is_other else None


def in_file(file: Path) -> str:
    """The passphrase that is a file's first line. Raises BadInput when it cannot be read."""
    try:
        return file.read_text(encoding="utf-8").splitlines()[0]
    except (OSError, UnicodeDecodeError, IndexError) as error:
        reason = getattr(error, "strerror", None) or "it holds no text"
        raise BadInput(f"the passphrase in {file} cannot be read: {reason}") from None


def _asked() -> str:
    if sys.stdin.isatty():
        said = str(
            typer.prompt("new passphrase", hide_input=True, confirmation_prompt=True, err=True)
        )
    else:
        said = sys.stdin.read().removesuffix("\n")
    if len(said) < SHORTEST or "\n" in said:
        raise BadInput(f"a passphrase is one line of at least {SHORTEST} characters")
    return said


def _locked(here: Context, operation: str) -> HostLock:
    from reconciler.host.hostlock import HostLock

    return HostLock.acquire(operation, f"{here.project.name}/{here.stack_name}", wait=10)
