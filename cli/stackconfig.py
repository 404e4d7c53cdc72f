"""A stack's config as the calls read and change it: whole values, or places inside them."""

from __future__ import annotations

import json
from typing import Any

from cli import configpaths
from engine import config as conf
from engine.errors import EngineError
from engine.stack import Stack


def get(stack: Stack, key: str, *, path: bool) -> Any:
    """One value, decrypted. Raises EngineError if it is not set."""
    name, inside = _place(stack, key, path)
    try:
        return configpaths.get_path(stack.config()[name], inside)
    except KeyError:
        raise EngineError(
            f"configuration key '{key}' not found for stack '{stack.name}'; "
            f"set it with `config set {key} <value>`"
        ) from None


def put(stack: Stack, key: str, value: str, *, secret: bool = False, path: bool = False) -> None:
    """Set one value in Pulumi.<stack>.yaml; `secret` encrypts it."""
    name, inside = _place(stack, key, path)
    new: Any = configpaths.scalar(value) if inside and not secret else value
    if secret:
        new = {conf.SECURE: stack.secrets.encrypt(value)}
    own = stack.own()
    own[name] = configpaths.put_path(own.get(name), inside, new, name.rpartition(":")[2])
    write(stack, own)


def remove(stack: Stack, key: str, *, path: bool) -> None:
    """Remove one value; nothing happens if it is not set."""
    name, inside = _place(stack, key, path)
    own = stack.own()
    if name not in own:
        return
    if inside:
        own[name] = configpaths.drop_path(own[name], inside)
    else:
        del own[name]
    write(stack, own)


def write(stack: Stack, own: dict[str, Any]) -> None:
    """Make these the values of the stack's file, and its salt that of its passphrase."""
    from cli import yamledit

    changes = {"encryptionsalt": stack.secrets.salt} if stack.has_passphrase else {}
    yamledit.edit(stack.path, changes, own)


def listed(stack: Stack, *, show_secrets: bool) -> dict[str, dict[str, Any]]:
    """Every value as `pulumi config --json` has it."""
    return {k: entry(stack, v, show_secrets=show_secrets) for k, v in stack.merged().items()}


def found(stack: Stack, key: str, *, path: bool) -> dict[str, Any]:
    """One value as `pulumi config get --json` has it."""
    name, inside = _place(stack, key, path)
    value = configpaths.get_path(stack.merged().get(name), inside)
    return entry(stack, value, show_secrets=True)


def entry(stack: Stack, value: Any, *, show_secrets: bool) -> dict[str, Any]:
    """A value of the settings file as value, objectValue, secret."""
    sealed = conf.holds_secret(value)
    if sealed and not show_secrets:
        return {"secret": True}
    opened = conf.opened(value, stack.secrets.decrypt) if sealed else value
    shown: dict[str, Any] = {"value": conf.as_text(opened)}
    if isinstance(opened, dict | list):
        shown["objectValue"] = json.loads(shown["value"])
    return {**shown, "secret": sealed}


def masked(stack: Stack) -> dict[str, str]:
    """Every value as one text for a reader, with the secrets in it as [secret]."""
    values = stack.merged().items()
    return {k: conf.as_text(conf.opened(v, lambda _: "[secret]")) for k, v in values}


def _place(stack: Stack, key: str, path: bool) -> tuple[str, list[str | int]]:
    """The namespaced key, and the path inside its value."""
    parts: list[str | int] = configpaths.parse_path(key) if path else [key]
    return stack.project.key(str(parts[0])), parts[1:]
