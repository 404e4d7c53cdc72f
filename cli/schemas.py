"""The published JSON schemas: of the config, of a plan, of a record, and of what each command's
`--json` prints. Within schema 1 members may be added, and none goes or changes its meaning."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import typer

from reconciler.errors import BadInput

Schema = dict[str, Any]
DIALECT = "https://json-schema.org/draft/2020-12/schema"

TEXT: Schema = {"type": "string"}
COUNT: Schema = {"type": "integer", "minimum": 0}
NUMBER: Schema = {"type": "number"}
FLAG: Schema = {"type": "boolean"}
ANYTHING: Schema = {}


def maybe(schema: Schema) -> Schema:
    return {"anyOf": [schema, {"type": "null"}]}


def listing(schema: Schema) -> Schema:
    return {"type": "array", "items": schema}


def mapping(schema: Schema) -> Schema:
    return {"type": "object", "additionalProperties": schema}


def thing(**members: Schema) -> Schema:
    """An object that has at least these members; `from_` is `from`."""
    named = {name.removesuffix("_"): schema for name, schema in members.items()}
    return {"type": "object", "properties": named, "required": sorted(named)}


def document(**members: Schema) -> Schema:
    return thing(schema={"const": 1}, **members)


COUNTS = mapping({"type": "integer"})
GIT = thing(commit=TEXT, branch=TEXT, dirty=FLAG)
SNAPSHOT = {
    "snapshot": TEXT, "name": TEXT, "created": TEXT, "bytes": COUNT, "files": COUNT,
    "tags": mapping(TEXT), "skipped": listing(TEXT),
}  # fmt: skip
PINS = document(pinned=listing(TEXT))
SPREAD = maybe(thing(count=COUNT, median=NUMBER, worst=NUMBER, total=NUMBER))
FIGURES = thing(
    switches=COUNT, committed=COUNT, reverted=COUNT, recovered=COUNT, success_rate=maybe(NUMBER),
    repeats=COUNT, seconds=SPREAD, downtime_seconds=SPREAD,
)  # fmt: skip

DOCUMENTS: dict[str, Schema] = {
    "new": document(
        name=TEXT, parent=maybe(TEXT), created=TEXT, description=TEXT, git=GIT, images=mapping(
            thing(service=TEXT, tag=TEXT, id=TEXT, source=TEXT, bytes=COUNT)
        ), datasets=mapping(thing(name=TEXT, kind=TEXT, driver=TEXT)), warnings=listing(TEXT),
    ),
    "preview": document(
        move={"enum": ["stay", "first", "adopt", "forward", "back", "refresh", "repair"]},
        from_=maybe(TEXT),
        to=maybe(TEXT),
        datasets=mapping(
            thing(
                action={"enum": ["fork", "attach", "restore", "create", "in-place", "leave"]},
                source=TEXT, age_seconds=maybe(NUMBER), bytes=maybe(COUNT), set_aside=COUNTS,
            )
        ),
        downtime_estimate_seconds=maybe(NUMBER),
        disk=thing(needed_bytes=COUNT, free_bytes=COUNT, store_free_bytes=COUNT),
        prune=listing(TEXT),
        keep=listing(thing(release=TEXT, reasons=listing(TEXT))),
        warnings=listing(TEXT),
        refusals=listing(thing(message=TEXT, remedy=TEXT, exit_code=COUNT)),
    ),
    "list": document(
        live=maybe(TEXT),
        releases=listing(
            thing(
                release=TEXT,
                status={"enum": ["live", "previous", "kept", "failed", "pruned"]},
                created=maybe(TEXT), description=TEXT, git_commit=TEXT, images=mapping(TEXT),
                bytes=COUNT,
            )
        ),
    ),
    "info": document(
        release=thing(name=TEXT),
        status=TEXT,
        kept_because=listing(TEXT),
        worlds=listing(
            thing(world=TEXT, state=TEXT, failed=maybe(TEXT), generations=mapping(TEXT))
        ),
        departures=listing(
            thing(
                at=TEXT, world=TEXT, failed=FLAG, generations=mapping(TEXT),
                snapshots=mapping(TEXT), counts=mapping(COUNTS),
            )
        ),
        drill=maybe(thing(when=TEXT, at=TEXT, passed=FLAG, seconds=NUMBER)),
    ),
    "log": document(
        entries=listing(
            thing(
                at=TEXT, who=TEXT, move=TEXT, from_=maybe(TEXT), to=maybe(TEXT), result=TEXT,
                reason=TEXT, downtime_seconds=maybe(NUMBER), datasets=mapping(thing(action=TEXT)),
            )
        ),
        restored_by_others=listing(TEXT),
    ),
    "diff": document(from_=TEXT, to=TEXT, differences=listing(TEXT)),
    "rehearse": document(
        release=TEXT,
        live=maybe(TEXT),
        passed=FLAG,
        problem=TEXT,
        refusals=listing(TEXT),
        hooks_not_run=listing(TEXT),
        steps=mapping(NUMBER),
        datasets=mapping(
            thing(
                action=TEXT, how=TEXT, bytes=maybe(COUNT), seconds=NUMBER, before=COUNTS,
                after=COUNTS, differences=mapping(listing(maybe({"type": "integer"}))),
            )
        ),
        services=mapping(NUMBER),
        gates=listing(thing(gate=TEXT, service=TEXT, kind=TEXT, result=TEXT)),
        held_back=mapping(TEXT),
        log_errors=mapping(thing(count=COUNT, last=listing(TEXT))),
    ),
    "metrics": document(
        stack=TEXT, live=maybe(TEXT), since=maybe(TEXT), until=maybe(TEXT), interrupted=COUNT,
        captures_owed=COUNT, all=FIGURES, moves=mapping(FIGURES),
    ),
    "pin": PINS,
    "unpin": PINS,
    "prune": document(
        things=listing(
            thing(
                kind={"enum": ["release", "world", "generation", "snapshot", "image", "incident"]},
                name=TEXT, goes=FLAG, why=TEXT, bytes=maybe(COUNT),
            )
        )
    ),
    "export": document(
        file=TEXT, bytes=COUNT, release=TEXT, departure=mapping(TEXT), arrival=mapping(TEXT),
        images=listing(TEXT), encrypted=FLAG, left_out=mapping(TEXT),
    ),
    "import": document(
        release=TEXT, origin=TEXT, departure=mapping(TEXT), arrival=mapping(TEXT),
        warnings=listing(TEXT),
    ),
    "snapshot live": document(
        release=TEXT, world=TEXT,
        datasets=mapping(thing(snapshot=maybe(TEXT), bytes=maybe(COUNT), why_not=TEXT)),
    ),
    "snapshot create": document(**SNAPSHOT),
    "snapshot list": document(snapshots=listing(thing(**SNAPSHOT)), damaged=listing(TEXT)),
    "snapshot restore": document(
        snapshot=TEXT, target=TEXT, files=COUNT, bytes_written=COUNT, seconds=NUMBER
    ),
    "snapshot rm": document(removed=listing(TEXT), bytes_freed=COUNT),
    "verify": document(
        sound=FLAG, read_data=FLAG, snapshots=listing(TEXT), missing=listing(TEXT),
        bytes_read=COUNT, seconds=NUMBER, damages=listing(thing()),
    ),
    "repair": document(
        mended=listing(ANYTHING), blocks=COUNT, unmended=listing(ANYTHING),
        aside=listing(ANYTHING), seconds=NUMBER,
    ),
    "drill": document(
        release=TEXT, at=TEXT, passed=FLAG, seconds=NUMBER,
        datasets=mapping(
            thing(
                driver=TEXT, snapshot=maybe(TEXT), engine=maybe(TEXT), bytes=COUNT,
                seconds=mapping(NUMBER), recorded=COUNTS, counts=COUNTS, sums=mapping(ANYTHING),
                problems=listing(TEXT),
            )
        ),
    ),
    "report": document(path=TEXT, bytes=COUNT),
    "serve": document(url=TEXT),
    "recover": document(done=listing(TEXT)),
    "doctor": document(
        sound=FLAG,
        checks=listing(
            thing(check=TEXT, level={"enum": ["ok", "warning", "failed"]}, text=TEXT, remedy=TEXT)
        ),
    ),
    "incident list": document(
        incidents=listing(thing(id=TEXT, at=TEXT, kind=TEXT, reason=TEXT)), damaged=mapping(TEXT)
    ),
    "incident show": document(id=TEXT, kind=TEXT, at=TEXT, reason=TEXT, folder=TEXT),
    "incident export": document(incident=TEXT, file=TEXT, bytes=COUNT),
    "incident note": document(incident=TEXT, at=TEXT, who=TEXT, text=TEXT),
    "notify test": document(),
    "notify log": document(entries=listing(ANYTHING)),
    "config": document(config=mapping(ANYTHING)),
    "config get": document(value=ANYTHING),
    "stack history": document(
        entries=listing(
            thing(at=TEXT, kind=TEXT, result=TEXT, release=maybe(TEXT), message=TEXT,
                  changes=mapping(COUNT))
        )
    ),
    "stack output": document(outputs=mapping(ANYTHING)),
    "stack ls": document(stacks=listing(thing(stack=TEXT, chosen=FLAG))),
    "version": document(lockstep=maybe(TEXT), engine=TEXT, python=TEXT),
}  # fmt: skip


def _settings() -> Schema:
    from reconciler.config import Settings

    return Settings.model_json_schema()


def _plan() -> Schema:
    from pydantic import TypeAdapter

    from reconciler.savedplan import Saved

    return TypeAdapter(Saved).json_schema()


def _record() -> Schema:
    from reconciler.release import Release

    return Release.model_json_schema()


def _export() -> Schema:
    from reconciler.parcel import Head

    return Head.model_json_schema()


MODELS: dict[str, Callable[[], Schema]] = {
    "settings": _settings,
    "plan": _plan,
    "record": _record,
    "export-head": _export,
}


def of(name: str) -> Schema:
    """A schema by its name. Raises BadInput for none of that name."""
    if name in MODELS:
        found = MODELS[name]()
    elif name in DOCUMENTS:
        found = DOCUMENTS[name]
    else:
        from cli.context import nearest

        raise BadInput(
            f"there is no schema {name}{nearest(name, names())}",
            next_step="lockstep schema   lists them",
        )
    return {"$schema": DIALECT, "title": f"lockstep {name}", **found}


def names() -> list[str]:
    return [*MODELS, *DOCUMENTS]


def schema(
    name: Annotated[
        list[str] | None,
        typer.Argument(help="A command, or settings, plan, record, export-head; a list if none."),
    ] = None,
) -> None:
    """Print the JSON schema of what a command's --json prints, of the config, a plan, a record."""
    from cli.releases import print_json

    if not name:
        typer.echo("\n".join(names()))
        return
    print_json(of(" ".join(name)))
