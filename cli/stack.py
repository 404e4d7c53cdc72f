"""`lockstep stack` and `lockstep cancel`: what Pulumi knows of the stack."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from cli import ask, options
from cli.context import Context, known_stacks
from reconciler.errors import BadInput

app = typer.Typer(help="Pulumi's stack: its history, its outputs, its siblings.")


@app.command("history")
def history(
    context: typer.Context,
    number: options.Newest = None,
    as_json: options.Json = False,
) -> None:
    """Show the updates that Pulumi knows of, newest first (`lockstep log` is the host's record)."""
    here = Context.of(context)
    entries = here.backend.history()[:number]
    if as_json:
        from cli.releases import print_json

        print_json({"schema": 1, "entries": [_entry(here.project.name, e) for e in entries]})
        return
    from cli import tables

    made = tables.table("at", "kind", "result", "release", "message", wide=("message",))
    for entry in (_entry(here.project.name, e) for e in entries):
        made.add_row(
            entry["at"], entry["kind"], entry["result"], entry["release"] or "", entry["message"]
        )
    tables.console().print(made)


def _entry(project: str, entry: dict[str, Any]) -> dict[str, Any]:
    return {
        "at": entry.get("startTime", ""),
        "kind": entry.get("kind", ""),
        "result": entry.get("result", ""),
        "release": entry.get("config", {}).get(f"{project}:release", {}).get("value"),
        "message": entry.get("message", ""),
        "changes": entry.get("resourceChanges") or {},
    }


@app.command("output")
def output(
    context: typer.Context,
    name: Annotated[str | None, typer.Argument(help="One output; all if not named.")] = None,
    show_secrets: Annotated[
        bool, typer.Option("--show-secrets", help="Print secret values too.")
    ] = False,
    as_json: options.Json = False,
) -> None:
    """Show what the last `up` exported: release, world, impact, head (of ledger and records)."""
    import json

    from cli.releases import print_json

    found = Context.of(context).backend.outputs(show_secrets=show_secrets)
    if name is not None and name not in found:
        raise BadInput(
            f"the stack has no output {name}",
            next_step=f"it has: {', '.join(sorted(found)) or 'none'}",
        )
    if as_json:
        print_json({"schema": 1, "outputs": found if name is None else {name: found[name]}})
    elif name is not None:
        value = found[name]
        typer.echo(value if isinstance(value, str) else json.dumps(value, indent=2))
    else:
        for key, value in sorted(found.items()):
            typer.echo(f"{key}: {value if isinstance(value, str) else json.dumps(value)}")


@app.command("ls")
def list_stacks(context: typer.Context, as_json: options.Json = False) -> None:
    """List the project's stacks; * marks the one that is used when none is named."""
    here = Context.of(context)
    names = known_stacks(here.project)
    try:
        chosen: str | None = here.stack_name
    except BadInput:
        chosen = None
    if as_json:
        from cli.releases import print_json

        print_json({"schema": 1, "stacks": [{"stack": n, "chosen": n == chosen} for n in names]})
        return
    for name in names:
        typer.echo(f"{'*' if name == chosen else ' '} {name}")


def cancel(context: typer.Context, yes: options.Yes = False, as_json: options.Json = False) -> None:
    """Remove the stack's lock that a killed command left; an `up` that still runs goes on."""
    from reconciler.host import hostlock

    here = Context.of(context)
    ask.confirm(f"Remove the lock of stack {here.stack_name}?", yes=yes)
    here.backend.cancel()
    if as_json:
        from cli.releases import print_json

        holder = hostlock.holder()
        held = str(holder) if holder is not None else None
        print_json({"schema": 1, "stack": here.stack_name, "host_held_by": held})
        return
    typer.echo(f"stack {here.stack_name} is not locked any more")
    holder = hostlock.holder()
    if holder is not None:
        here.say(f"the host stays locked until it has ended: {holder}")
