"""A stack as a whole: made, exported and imported, its past, its end."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cli import stackconfig
from engine import backend as backends
from engine.backend import ORGANIZATION, Backend
from engine.errors import EngineError, NotInEngine
from engine.snapshot import STACK_TYPE, Snapshot
from engine.stack import Stack


def make(stack: Stack) -> None:
    """An empty state, and a salt for its secrets. Raises EngineError if the stack is there already
    or no passphrase is given."""
    if stack.exists():
        name = f"{ORGANIZATION}/{stack.project.name}/{stack.name}"
        raise EngineError(f"stack '{name}' already exists")
    stack.secrets.check()
    stackconfig.write(stack, stack.own())
    stack.save(Snapshot())


def export(stack: Stack, *, show_secrets: bool = False) -> dict[str, Any]:
    """The state as `pulumi stack export` gives it, secrets encrypted unless asked for."""
    snapshot = stack.snapshot()
    if show_secrets:
        return {"version": 3, "deployment": snapshot.write(None, stack.secrets.salt)}
    return {"version": 3, "deployment": stack.backend.load() or {}}


def replace(stack: Stack, exported: dict[str, Any]) -> None:
    """Replace the state by an exported one. Raises EngineError if it cannot be read with this
    stack's passphrase, StackLocked while somebody works on it."""
    body = exported.get("deployment")
    if exported.get("version") not in (3, 4) or not isinstance(body, dict):
        raise EngineError("this is not an export of a stack (version 3 with a `deployment`)")
    snapshot = Snapshot.read(body, lambda text: stack.secrets.decrypt(text))
    with stack.backend.lock():
        stack.save(snapshot, durable=True)
        stack.backend.backup()


def remove(stack: Stack, *, force: bool = False, keep_config: bool = False) -> None:
    """Remove the stack and, unless kept, its settings file. Raises EngineError while it has
    resources, unless forced: they then exist without a state."""
    left = [r for r in stack.snapshot().resources if r.type != STACK_TYPE and not r.is_provider]
    if left and not force:
        raise EngineError(
            f"'{stack.name}' still has resources; removal rejected. Possible actions:\n"
            f"- Make sure that '{stack.name}' is the stack that you want to destroy\n"
            "- Run `pulumi destroy` to delete the resources, then run `pulumi stack rm`\n"
            "- Run `pulumi stack rm --force` to override this error"
        )
    backend = stack.backend
    with backend.lock():
        # The history stays, as the official engine leaves it.
        for path in (backend.state_file, Path(f"{backend.state_file}.bak")):
            backends.remove(path)
        backend.unlock_all()
        if not keep_config:
            stack.path.unlink(missing_ok=True)


def set_aside_damaged(backend: Backend) -> Path | None:
    """Rename a state that cannot be read, so that the stack can be made anew; its new path. Raises
    NotInEngine for one that only the official engine reads."""
    try:
        backend.load()
    except NotInEngine:
        raise
    except EngineError:
        state = backend.state_file
        aside = state.with_name(f"{state.name}.damaged.{time.time_ns()}")
        state.rename(aside)
        return aside
    return None


def history(stack: Stack, *, show_secrets: bool = False) -> list[dict[str, Any]]:
    """Past operations, newest first, with the fields of `pulumi stack history --json`. Secret
    config values are left out of their entries unless asked for."""

    def config(values: dict[str, Any]) -> dict[str, Any]:
        return {
            k: stackconfig.entry(stack, v, show_secrets=show_secrets) for k, v in values.items()
        }

    return [
        {
            "version": 0,
            **past,
            "startTime": _when(past.get("startTime")),
            "endTime": _when(past.get("endTime")),
            "config": config(past.get("config") or {}),
        }
        for past in stack.backend.history()
    ]


def _when(seconds: Any) -> Any:
    if not isinstance(seconds, int | float):
        return seconds
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")
