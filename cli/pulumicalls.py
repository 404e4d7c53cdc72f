"""The calls of `pulumi` that only read and write files: stack, config, cancel, version."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cli import stackconfig, stackstate

if TYPE_CHECKING:
    from cli.pulumi import Session
    from engine.operations import Result
    from engine.stack import Stack
    from engine.steps import Step


def pretty(value: Any, *, by_key: bool = False) -> str:
    """JSON as the official CLI prints it."""
    return json.dumps(value, indent=2, ensure_ascii=False, sort_keys=by_key)


def digest(result: Result, config: dict[str, str]) -> dict[str, Any]:
    """What an operation did or would do, as `pulumi preview --json` has it. `config`: the stack's
    values as they may be shown."""
    from engine.snapshot import STACK_TYPE
    from engine.values import UNKNOWN_TEXT, masked

    def state(resource: Any) -> Any:
        return resource and resource.write(lambda value: masked(value, UNKNOWN_TEXT))

    def shown(step: Step) -> bool:
        if step.op == "same" and not step.refreshes:
            was, now = (step.old and step.old.protect), step.target.protect
            return step.type == STACK_TYPE or was != now
        return (step.logical or step.refreshes) and not step.target.is_default_provider

    def told(step: Step) -> Any:
        """The new state as the step began: what came of it was not known yet."""
        if step.refreshes:
            return None if step.op == "delete" else state(step.old)
        known = {"id", "created", "modified"} | (set() if step.urn in made else {"outputs"})
        new = {k: v for k, v in (state(step.new) or {}).items() if k not in known}
        before = state(step.old) or {}
        return new and {**new, **{k: before[k] for k in ("created", "modified") if k in before}}

    def entry(step: Step) -> dict[str, Any]:
        found = {
            "op": "refresh" if step.refreshes and step.op != "delete" else str(step.op),
            "urn": step.urn,
            "provider": step.target.provider,
            "oldState": state(step.old),
            "newState": told(step),
            "diffReasons": list(step.change.keys),
            "replaceReasons": list(step.change.replaces),
        }
        details = None if step.refreshes else step.change.detailed
        kinds = details and {
            path: {"kind": how["diffKind"], "inputDiff": how["inputDiff"]}
            for path, how in details.items()
        }
        return {**{k: v for k, v in found.items() if v}, "detailedDiff": kinds}

    made: set[str] = set()  # whose new object is there when their replacement is told
    steps = []
    for step in result.steps:
        if step.op == "create-replacement":
            made.add(step.urn)
        if shown(step):
            steps.append(entry(step))
    return {
        **({"config": config} if config else {}),
        "steps": steps,
        **({"diagnostics": result.diagnostics} if result.diagnostics else {}),
        "duration": round(result.seconds * 1e9),
        "changeSummary": result.changes,
    }


def table(header: tuple[str, ...], rows: Iterable[tuple[str, ...]], indent: str = "") -> None:
    """Columns two spaces apart, as the official CLI prints its tables."""
    whole = [header, *rows]
    widths = [max(len(row[at]) for row in whole) for at in range(len(header))]
    for *first, last in whole:
        cells = "".join(f"{cell:<{width}}  " for cell, width in zip(first, widths, strict=False))
        # The last one may have several lines.
        print(f"{indent}{cells}{last}".replace("\n", "\n" + " " * len(indent + cells)))


# ---- stack -------------------------------------------------------------------------------------


def stack_ls(here: Session) -> None:
    from cli.context import selected
    from engine.backend import Backend
    from engine.stack import Stack

    project = here.project
    chosen = here.given.stack or selected(project.name, project.root)
    found = []
    for name in sorted(Backend.stacks_of(project)):
        backend = Stack(project, name).backend
        latest = backend.load()
        entry: dict[str, Any] = {"name": name, "current": name == chosen}
        if latest:
            entry["lastUpdate"] = latest["manifest"]["time"]
            entry["resourceCount"] = len(latest.get("resources") or [])
        found.append(entry)
    if here.given.json:
        print(pretty(found))
        return
    rows = [
        (
            f"{e['name']}{'*' if e['current'] else ''}",
            ago(e.get("lastUpdate")),
            str(e.get("resourceCount", "n/a")),
        )
        for e in found
    ]
    table(("NAME", "LAST UPDATE", "RESOURCE COUNT"), rows)


def ago(when: str | None) -> str:
    """`3 hours ago`; n/a where nothing was done yet."""
    if not when:
        return "n/a"
    seconds = (datetime.now(UTC) - datetime.fromisoformat(when[:19] + "+00:00")).total_seconds()
    for unit, size in (("day", 86400), ("hour", 3600), ("minute", 60), ("second", 1)):
        if seconds >= size:
            number = int(seconds // size)
            return f"{number} {unit}{'s' if number > 1 else ''} ago"
    return "now"


def stack_init(here: Session) -> None:
    stack = here.stack(here.given.name)
    stackstate.make(stack)
    if not here.given.no_select:
        _select(stack)
    print(f"Created stack '{stack.name}'")


def stack_select(here: Session) -> None:
    stack = here.stack(here.given.name)
    if here.given.create and not stack.exists():
        stackstate.make(stack)
        print(f"Created stack '{stack.name}'")
    _select(here.existing(stack.name))


def _select(stack: Stack) -> None:
    from cli.context import select

    select(stack.project.name, stack.project.root, stack.name)


def stack_output(here: Session) -> None:
    from engine.errors import EngineError

    stack, given = here.existing(), here.given
    found = stack.outputs(show_secrets=given.show_secrets)
    if given.name is not None:
        if given.name not in found:
            raise EngineError(f"current stack does not have output property '{given.name}'")
        value = found[given.name]
        print(pretty(value, by_key=True) if given.json else _text(value))
    elif given.json:
        print(pretty(found, by_key=True))
    else:
        print(f"Current stack outputs ({len(found)}):")
        if found:
            rows = [(key, _text(value)) for key, value in sorted(found.items())]
            table(("OUTPUT", "VALUE"), rows, indent="    ")
        else:
            print("    No output values currently in this stack")


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False, sort_keys=True)


def stack_export(here: Session) -> None:
    text = json.dumps(
        stackstate.export(here.existing(), show_secrets=here.given.show_secrets),
        indent=4,
        ensure_ascii=False,
    )
    if here.given.file is None:
        print(text)
        return
    descriptor = os.open(here.given.file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text + "\n")


def stack_import(here: Session) -> None:
    from engine.errors import EngineError

    path: Path | None = here.given.file
    try:
        found = json.loads(sys.stdin.read() if path is None else path.read_text())
    except OSError as error:
        why = (error.strerror or str(error)).lower()
        raise EngineError(f"could not open file: open {path}: {why}") from None
    except ValueError as error:
        raise EngineError(f"the state to import cannot be read: {error}") from None
    stackstate.replace(here.existing(), found)
    print("Import complete.")


def stack_history(here: Session) -> None:
    given = here.given
    whole = stackstate.history(here.existing(), show_secrets=given.show_secrets)
    page = max(given.page, 1)
    entries = whole[(page - 1) * given.page_size :][: given.page_size]
    if given.json:
        print(pretty(entries))
        return
    if not entries:
        print(
            f"No stack updates found on page '{page}'" if whole else "Stack has never been updated"
        )
    for entry in entries:
        print(f"Version: {entry['version']}\nUpdateKind: {entry['kind']}")
        print(f"Status: {entry['result']}\nMessage: {entry['message']}")
        changes = entry.get("resourceChanges") or {}
        signs = (("+", "create"), ("-", "delete"), ("~", "update"), (" ", "same"))
        counts = "".join(f"{sign}{changes.get(kind, 0)}" for sign, kind in signs)
        when = entry["startTime"] if given.full_dates else ago(entry["startTime"])
        print(f"{counts} Updated {when} took {_took(entry)}")
        for key, value in sorted((entry.get("environment") or {}).items()):
            print(f"    {key}: {value}")
        print()


def _took(entry: dict[str, Any]) -> str:
    start, end = (datetime.fromisoformat(entry[key][:19]) for key in ("startTime", "endTime"))
    return f"{int((end - start).total_seconds())}s"


def stack_rm(here: Session) -> None:
    given = here.given
    stack = here.existing(given.name)
    _sure(here, f"This will permanently remove the '{stack.name}' stack!")
    stackstate.remove(stack, force=given.force, keep_config=given.preserve_config)
    print(f"Stack '{stack.name}' has been removed!")


def cancel(here: Session) -> None:
    stack = here.existing(here.given.name)
    _sure(here, f"This will irreversibly cancel the currently running update for '{stack.name}'!")
    stack.backend.unlock_all()
    print(f"The currently running update for '{stack.name}' has been canceled!")


def _sure(here: Session, warning: str) -> None:
    from engine.errors import EngineError

    if here.given.yes:
        return
    if not here.live:
        raise EngineError("non-interactive mode requires --yes flag")
    print(warning)
    if input("Please confirm with yes: ").strip() != "yes":
        raise EngineError("confirmation declined")


# ---- config ------------------------------------------------------------------------------------


def config(here: Session) -> None:
    stack, given = here.stack(), here.given
    found = stackconfig.listed(stack, show_secrets=given.show_secrets)
    if given.json:
        print(pretty(found))
        return
    prefix = f"{stack.project.name}:"
    masked = stackconfig.masked(stack) if not given.show_secrets else {}
    own = sorted(found, key=lambda key: (not key.startswith(prefix), key))
    rows = [(k.removeprefix(prefix), masked.get(k) or found[k]["value"]) for k in own]
    table(("KEY", "VALUE"), rows)


def config_get(here: Session) -> None:
    stack, given = here.stack(), here.given
    value = stackconfig.get(stack, given.key, path=given.path)
    if not given.json:
        print(_text(value))
        return
    print(pretty(stackconfig.found(stack, given.key, path=given.path)))


def config_set(here: Session) -> None:
    given = here.given
    value = given.value
    if value is None:
        from getpass import getpass

        value = getpass("value: ") if here.live else sys.stdin.read().removesuffix("\n")
    stackconfig.put(here.stack(), given.key, value, secret=given.secret, path=given.path)


def config_rm(here: Session) -> None:
    stackconfig.remove(here.stack(), here.given.key, path=here.given.path)


def version(_: Session) -> None:
    from engine.snapshot import VERSION

    print(f"v{VERSION}+lockstep.embedded")


CALLS: dict[str, Callable[[Session], None]] = {
    "stack ls": stack_ls,
    "stack init": stack_init,
    "stack select": stack_select,
    "stack output": stack_output,
    "stack export": stack_export,
    "stack import": stack_import,
    "stack history": stack_history,
    "stack rm": stack_rm,
    "config": config,
    "config get": config_get,
    "config set": config_set,
    "config rm": config_rm,
    "cancel": cancel,
    "version": version,
}
