"""The published JSON schemas: of the config, of a plan, of a record, and of what each command's
`--json` prints. Within schema 1 members may be added, and none goes or changes its meaning."""

from __future__ import annotations

from importlib import import_module
from typing import Annotated, Any

import typer

from cli import options
from reconciler.errors import BadInput

Schema = dict[str, Any]
DIALECT = "https://json-schema.org/draft/2020-12/schema"
CONFIG = "settings"

MODELS = {
    "plan": "reconciler.planning.savedplan:Saved",
    "record": "reconciler.records.release:Release",
    "export-head": "reconciler.making.parcel:Head",
}
"""File of ours -> its model."""

DOCUMENTS = {
    "init": "host:Initialized",
    "new": "releases:New",
    "up": "moves:Moved",
    "preview": "moves:Preview",
    "rollback": "moves:Moved",
    "undo": "moves:Moved",
    "rehearse": "moves:Rehearsal",
    "list": "releases:Releases",
    "info": "releases:Info",
    "log": "moves:Log",
    "diff": "releases:Diff",
    "incident list": "host:Incidents",
    "incident show": "host:Incident",
    "incident export": "host:IncidentExport",
    "incident note": "host:IncidentNote",
    "metrics": "moves:Metrics",
    "report": "host:Report",
    "serve": "host:Serve",
    "pin": "releases:Pins",
    "unpin": "releases:Pins",
    "prune": "releases:Prune",
    "export": "releases:Exported",
    "import": "releases:Imported",
    "snapshot live": "data:Live",
    "snapshot create": "data:Created",
    "snapshot list": "data:Snapshots",
    "snapshot restore": "data:Restored",
    "snapshot rm": "data:Removed",
    "verify": "data:Verified",
    "repair": "data:Repaired",
    "drill": "data:Drill",
    "encrypt": "data:Encrypted",
    "rekey": "data:Rekeyed",
    "stop": "moves:Stopped",
    "remove": "moves:RemovedStack",
    "recover": "moves:Recovered",
    "guard": "host:GuardLine",
    "notify test": "host:Notifications",
    "notify log": "host:Notifications",
    "doctor": "host:Doctor",
    "config": "host:Config",
    "config get": "host:ConfigValue",
    "config set": "host:ConfigChange",
    "config rm": "host:ConfigChange",
    "stack history": "host:StackHistory",
    "stack output": "host:StackOutput",
    "stack ls": "host:Stacks",
    "cancel": "host:Cancelled",
    "version": "host:Version",
    "schema": "host:SchemaNames",
    "completion": "host:Completion",
}
"""Command -> the model of what it prints, below cli.shapes."""


def of(name: str, project: str = "PROJECT") -> Schema:
    """A schema by its name. Raises BadInput for none of that name.

    `project`: whose config it is for, as keys of Pulumi.<stack>.yaml carry the project's name.
    """
    if name == CONFIG:
        from cli import stackschema

        return stackschema.document(project)
    if name not in names():
        from cli.context import nearest

        raise BadInput(
            f"there is no schema {name}{nearest(name, names())}",
            next_step="lockstep schema   lists them",
        )
    from pydantic import TypeAdapter

    module, _, model = (MODELS.get(name) or f"cli.shapes.{DOCUMENTS[name]}").partition(":")
    found = TypeAdapter(getattr(import_module(module), model)).json_schema()
    return {"$schema": DIALECT, **found, "title": f"lockstep {name}"}


def names() -> list[str]:
    return [CONFIG, *MODELS, *DOCUMENTS]


def schema(
    context: typer.Context,
    name: Annotated[
        list[str] | None,
        typer.Argument(help="A command, or settings, plan, record, export-head; a list if none."),
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Print the JSON schema of what a command's --json prints, of the config, a plan, a record.

    `settings` is that of the project's Pulumi.<stack>.yaml, as `init` writes it for editors. A
    schema is JSON in any case; `--json` is for the list.
    """
    from cli.releases import print_json

    if name:
        print_json(of(" ".join(name), _project(context)))
    elif as_json:
        print_json({"schema": 1, "names": names()})
    else:
        typer.echo("\n".join(names()))


def _project(context: typer.Context) -> str:
    from cli.context import Context

    try:
        return Context.of(context).project.name
    except BadInput:
        return "PROJECT"
