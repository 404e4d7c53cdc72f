"""`lockstep config`: the stack's config as Pulumi has it, checked before it stays."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from cli import options
from cli.context import Context, check_release, nearest, read_stack, replace_file
from reconciler.errors import BadInput, LockstepError

app = typer.Typer(
    help="Read and change the stack's config (Pulumi.<stack>.yaml).",
    no_args_is_help=False,
    invoke_without_command=True,
)

Key = Annotated[str, typer.Argument(help="A key, or a path into it like gates.web.http.port.")]
AsPath = Annotated[
    bool, typer.Option("--path", help="KEY is a path (understood for keys with a dot as well).")
]
HIDDEN = "[secret]"


@app.callback()
def show(
    context: typer.Context,
    as_json: options.Json = False,
    show_secrets: Annotated[
        bool, typer.Option("--show-secrets", help="Print secret values too.")
    ] = False,
) -> None:
    if context.invoked_subcommand is not None:
        return
    here = Context.of(context)
    values = shown(here.backend.config(), here.backend.secret_keys(), show_secrets=show_secrets)
    if as_json:
        from cli.releases import print_json

        print_json({"schema": 1, "config": values})
        return
    from rich.text import Text

    from cli import tables

    made = tables.table("key", "value", wide=("value",))
    for key, value in sorted(values.items()):
        made.add_row(key.removeprefix(f"{here.project.name}:"), Text(_text(value)))
    tables.console().print(made)


@app.command("get")
def get(
    context: typer.Context, key: Key, path: AsPath = False, as_json: options.Json = False
) -> None:
    """Print one value; a secret one is decrypted."""
    value = Context.of(context).backend.config_get(key, path=is_path(key, path))
    if as_json:
        from cli.releases import print_json

        print_json({"schema": 1, "value": value})
        return
    typer.echo(_text(value))


@app.command("set")
def set_value(
    context: typer.Context,
    key: Key,
    value: Annotated[
        str | None, typer.Argument(help="Asked for, or read from standard input, if left out.")
    ] = None,
    secret: Annotated[
        bool,
        typer.Option("--secret", help="Encrypt it (as everything under secrets. is)."),
    ] = False,
    path: AsPath = False,
    as_json: options.Json = False,
) -> None:
    """Set one value. What cannot be used is refused, and nothing is changed."""
    here = Context.of(context)
    own = own_key(here.project.name, key)
    sealed = secret or (own is not None and is_secret(own))
    if sealed and value is not None:
        here.say(
            "warning: a secret among the arguments stays in your shell's history; left out, it is "
            "asked for"
        )
    new = value if value is not None else _ask_for(key, hidden=sealed)
    if own is not None:
        check_key(own)
        if own == "release":
            _check_known(here, new)
    before = here.settings_file.read_bytes()
    old = _Value.of(here, key, path) if as_json else None
    here.backend.config_set(key, new, secret=sealed, path=is_path(key, path))
    try:
        stack = read_stack(here.project, here.stack_name, here.backend.config())
    except BadInput:
        replace_file(here.settings_file, before)
        raise
    warnings = [f"until more is said, `up` refuses {lacks}" for lacks in stack.settings.lacking]
    for warning in warnings:
        here.say(warning)
    if old is not None:
        _print_change(old, _Value.of(here, key, path), warnings)


@app.command("rm")
def remove(
    context: typer.Context, key: Key, path: AsPath = False, as_json: options.Json = False
) -> None:
    """Remove one value; the default holds again."""
    here = Context.of(context)
    old = _Value.of(here, key, path) if as_json else None
    here.backend.config_rm(key, path=is_path(key, path))
    if old is not None:
        _print_change(old, _Value.of(here, key, path), [])


@dataclass(frozen=True)
class _Value:
    """What a key has, for a reader; None: it is not set."""

    key: str
    secret: bool
    shown: Any

    @classmethod
    def of(cls, here: Context, key: str, path: bool) -> _Value:
        from engine.errors import EngineError

        full = key if ":" in key else f"{here.project.name}:{key}"
        top = re.split(r"[.\[]", full)[0] if is_path(key, path) else full
        own = own_key(here.project.name, key)
        secret = top in here.backend.secret_keys() or (own is not None and is_secret(own))
        if top not in here.backend.config():
            return cls(key, secret, None)
        try:
            value = here.backend.config_get(key, path=is_path(key, path))
        except (EngineError, LockstepError):
            return cls(key, secret, None)
        return cls(key, secret, _hide(value) if secret else value)


def _print_change(old: _Value, new: _Value, warnings: Sequence[str]) -> None:
    from cli.releases import print_json

    print_json({
        "schema": 1,
        "key": old.key,
        "secret": old.secret or new.secret,
        "old": old.shown,
        "new": new.shown,
        "warnings": warnings,
    })  # fmt: skip


def is_secret(key: str) -> bool:
    """Whether a key's value is a secret whatever the person says."""
    first = key.split(".")[0]
    return first in ("secrets", "encryption") or (
        first.startswith("notify[") and key.endswith(".url")
    )


def shown(
    values: dict[str, Any], secret_keys: frozenset[str], *, show_secrets: bool
) -> dict[str, Any]:
    """The config for a reader: secret values replaced, their names kept where they have names."""
    if show_secrets:
        return values
    return {k: _hide(v) if k in secret_keys else v for k, v in values.items()}


def _hide(value: Any) -> Any:
    return dict.fromkeys(value, HIDDEN) if isinstance(value, dict) else HIDDEN


def own_key(project: str, key: str) -> str | None:
    """`shop:release` and `release` -> `release`; None for a key of another namespace."""
    namespace, colon, name = key.partition(":")
    if not colon:
        return key
    return name if namespace == project else None


def check_key(key: str) -> None:
    """Raises BadInput for a key that no setting has, with the nearest ones."""
    from reconciler.config import Settings

    name = key.split(".")[0].split("[")[0]
    known = [*Settings.model_fields]
    if name not in known:
        raise BadInput(
            f"there is no setting {name}{nearest(name, known)}",
            next_step=f"known are: {', '.join(sorted(known))}",
        )


def is_path(key: str, asked: bool) -> bool:
    """Our own settings have no dots in their names, so a key with one can only be a path."""
    return asked or (":" not in key and ("." in key or "[" in key))


def _check_known(here: Context, release: str) -> None:
    good, damaged = here.catalog.records()
    pruned = here.catalog.state().pruned
    check_release(release, here.stack_name, {*good, *damaged}, pruned)
    if release in damaged:
        print(f"warning: {damaged[release]}", file=sys.stderr)


def _ask_for(key: str, *, hidden: bool) -> str:
    if sys.stdin.isatty():
        return str(typer.prompt(f"value of {key}", hide_input=hidden, err=True))
    return sys.stdin.read().removesuffix("\n")


def _text(value: Any) -> str:
    import json

    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
