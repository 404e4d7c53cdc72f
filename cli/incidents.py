"""`lockstep incident`: what was gathered of switches that were reverted or went back."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli import options
from cli.context import Context
from reconciler.errors import BadInput

if TYPE_CHECKING:
    from reconciler.evidence.incidents import Incident

app = typer.Typer(
    help="What was gathered of switches that were reverted or went back.", no_args_is_help=True
)

Named = Annotated[
    str | None,
    typer.Argument(metavar="[INCIDENT]", help="Its id, or a release; the newest if not named."),
]


@app.command("list")
def list_incidents(
    context: typer.Context, number: options.Newest = None, as_json: options.Json = False
) -> None:
    """List the incidents, newest first, each with why it is kept."""
    from reconciler.evidence import incidents

    here = Context.of(context)
    good, damaged = incidents.every(here.catalog)
    settings, state = here.stack.settings.incidents, here.catalog.state()
    kept = incidents.retain(settings, good, state, time.time())[:number]
    if as_json:
        from cli.releases import print_json

        entries = [{**_summary(r.incident), "kept_because": list(r.reasons)} for r in kept]
        print_json({"schema": 1, "incidents": entries, "damaged": damaged})
        return
    for why in damaged.values():
        typer.echo(f"warning: {why}", err=True)
    if not kept:
        typer.echo("no incident: no switch was reverted or went back")
        return
    from rich.text import Text

    from cli import tables

    made = tables.table(
        "incident", "age", "what", "who", "reason", "size",
        right=("age", "size"), wide=("reason", "who"),
    )  # fmt: skip
    now = datetime.now(UTC)
    for retained in kept:
        document = retained.incident.document
        why = document["operator_reason"] or next(iter(document["reason"].splitlines()), "")
        made.add_row(
            retained.incident.id, tables.age_of(document["at"], now), document["kind"],
            Text(document["who"]), Text(why), tables.size(retained.incident.bytes),
        )  # fmt: skip
    tables.console().print(made)


@app.command("show")
def show(context: typer.Context, incident: Named = None, as_json: options.Json = False) -> None:
    """Tell what happened: who, when, why, what was put back, and how to look at what was left."""
    from reconciler.evidence import incidents, incidenttext

    here = Context.of(context)
    found = incidents.find(here.catalog, incident)
    data = incidents.data_of(here.catalog.state(), found.document["seq"])
    document = {**found.document, "data": found.document["data"] if data is None else data}
    if as_json:
        from cli.releases import print_json

        print_json({**document, "folder": str(found.folder), "remarks": found.remarks})
        return
    typer.echo(incidenttext.readme(document, found.remarks))
    typer.echo(f"It is kept in {found.folder}")


@app.command("export")
def export(
    context: typer.Context,
    incident: Named = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="The file: .zip or .tar.gz; ID.tar.gz if not named."),
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Write an incident's whole folder as one file, to be read elsewhere; it holds no secret that
    Lockstep knows of, but whatever else the containers said."""
    from reconciler.evidence import incidents

    here = Context.of(context)
    found = incidents.find(here.catalog, incident)
    target = (here.common.cwd / (output or f"{found.id}.tar.gz")).absolute()
    if not target.name.endswith((".zip", ".tar.gz", ".tgz")):
        raise BadInput(
            f"{target.name}: an incident is exported as .zip or .tar.gz",
            next_step=f"lockstep incident export {found.id} -o {found.id}.zip",
        )
    size = incidents.export(found, target)
    if as_json:
        from cli.releases import print_json

        print_json({"schema": 1, "incident": found.id, "file": str(target), "bytes": size})
        return
    from cli import tables

    typer.echo(f"{target} ({tables.size(size)})")


@app.command("note")
def note(
    context: typer.Context,
    text: Annotated[str, typer.Argument(help="What others should know.")],
    of: Annotated[
        str | None,
        typer.Option("--of", help="The incident's id, or a release; the newest if not named."),
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Add a dated remark to an incident."""
    from cli.releases import print_json, who
    from reconciler.evidence import incidents

    here = Context.of(context)
    _ = here.stack  # its secrets are known, and masked, from here on
    if not text.strip():
        raise BadInput("the remark is empty", next_step='lockstep incident note "TEXT"')
    found = incidents.find(here.catalog, of)
    added = incidents.remark(found, who(), text)
    if as_json:
        print_json({"schema": 1, "incident": found.id, **added})
    else:
        typer.echo(f"noted on {found.id}")


def _summary(incident: Incident) -> dict[str, Any]:
    kept = ("at", "kind", "asked", "who", "operator_reason", "reason", "move", "downtime_seconds")
    document = incident.document
    return {
        "id": incident.id,
        **{key: document[key] for key in kept},
        "from": document["from"]["release"],
        "to": document["to"]["release"],
        "live": document["live"]["release"],
        "bytes": incident.bytes,
        "folder": str(incident.folder),
    }
