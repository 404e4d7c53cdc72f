"""`lockstep snapshot`: the live world's data, or any volume or folder of this host.

Without a word of its own it backs up the live world's datasets; create, list, restore and rm need
neither a release nor a stack.
"""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from cli import ask, host, options
from cli.context import Context, find_root
from cli.encryption import PassphraseFile, passphrase_for
from reconciler.errors import BadInput, LockstepError, Unavailable

if TYPE_CHECKING:
    from reconciler.docker import Docker
    from reconciler.upkeep.alone import Back
    from snapshots.store import SnapshotRecord, Store

LIVE = "live"

StoreOption = Annotated[
    Path | None,
    typer.Option(
        "--store",
        help="The store's folder. If not given: the stack's; outside a stack's folder "
        "$LOCKSTEP_STORE, else /var/lib/lockstep/store (~/.local/share/lockstep/store without "
        "root).",
    ),
]


class _LiveUnlessNamed(TyperGroup):
    """`lockstep snapshot notes` is `lockstep snapshot live notes`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        helping = bool(args) and args[0] in ctx.help_option_names
        if not helping and not (args and args[0] in self.commands):
            args = [LIVE, *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=_LiveUnlessNamed,
    help="Back up the live data (`live`, the default), or snapshot any volume or folder.",
    no_args_is_help=False,
)
app.command(LIVE)(host.snapshot)


@app.command("create")
def create(
    context: typer.Context,
    source: Annotated[
        str, typer.Argument(metavar="VOLUME|FOLDER", help="A folder is named with a /: ./data")
    ],
    store: StoreOption = None,
    name: Annotated[
        str | None, typer.Option("--name", help="What it is called; as the source if not given.")
    ] = None,
    driver: Annotated[
        str | None,
        typer.Option("--driver", help="The engine's driver; found by its image if not given."),
    ] = None,
    container: Annotated[
        str | None, typer.Option("--container", help="The running container of the engine.")
    ] = None,
    live: Annotated[
        bool,
        typer.Option("--live", help="Also while somebody writes there whom no driver knows."),
    ] = False,
    paranoid: Annotated[
        bool,
        typer.Option("--paranoid", help="Read all content, also of files that seem unchanged."),
    ] = False,
    passphrase_file: PassphraseFile = None,
    as_json: options.Json = False,
) -> None:
    """Capture a volume or folder; a running engine's data as a usable point, without a stop."""
    from cli.progress import bar
    from reconciler.upkeep import alone

    here = Context.of(context)
    docker = docker_for(here, source)
    place = alone.find(docker, meant(here, source))
    asked = alone.Asked(name=name, driver=driver, container=container, live=live, paranoid=paranoid)
    with bar(here) as progress:
        into = opened(here, store, passphrase_file, create=True)
        record = alone.create(docker, into, place, asked, progress)
    if as_json:
        from cli.releases import print_json

        print_json({"schema": 1, **document(record)})
        return
    from cli import tables

    for note in record.skipped:
        print(f"warning: not captured: {note}", file=sys.stderr)
    typer.echo(record.id)
    here.say(f"{record.dataset}: {tables.size(record.bytes)} in {record.files} files")


@app.command("list")
def list_snapshots(
    context: typer.Context,
    store: StoreOption = None,
    passphrase_file: PassphraseFile = None,
    as_json: options.Json = False,
) -> None:
    """List every snapshot of the store, newest first."""
    from reconciler.upkeep import alone

    here = Context.of(context)
    found, damaged = alone.records(opened(here, store, passphrase_file))
    if as_json:
        from cli.releases import print_json

        documents = [document(record) for record in reversed(found)]
        print_json({"schema": 1, "snapshots": documents, "damaged": damaged})
    else:
        from cli import tables

        made = tables.table(
            "snapshot", "age", "size", "files", "name", "of",
            right=("age", "size", "files"), wide=("name", "of"),
        )  # fmt: skip
        now = datetime.now(UTC)
        for record in reversed(found):
            made.add_row(
                record.id[:12], tables.age_of(record.created, now), tables.size(record.bytes),
                str(record.files), record.dataset, source_of(record),
            )  # fmt: skip
        tables.console().print(made)
    if damaged:
        raise LockstepError(
            "; ".join(damaged), next_step="lockstep verify   tells what it means for which release"
        )


@app.command("restore")
def restore(
    context: typer.Context,
    snapshot: Annotated[str, typer.Argument(help="Its id, or how that begins.")],
    target: Annotated[
        str, typer.Argument(metavar="VOLUME|FOLDER", help="Made where it is missing.")
    ],
    store: StoreOption = None,
    in_place: Annotated[
        bool,
        typer.Option("--in-place", help="Over what is there: what differs is changed, extras go."),
    ] = False,
    path: Annotated[
        list[str] | None,
        typer.Option("--path", help="Only this file or folder of it; may be repeated."),
    ] = None,
    passphrase_file: PassphraseFile = None,
    yes: options.Yes = False,
    as_json: options.Json = False,
) -> None:
    """Restore a snapshot, or some paths of it, where no running container sees it."""
    from cli.progress import bar
    from reconciler.upkeep import alone

    here = Context.of(context)
    source = opened(here, store, passphrase_file)
    chosen = alone.resolve(source, snapshot)
    if in_place:
        ask.confirm(f"Change {target} to what snapshot {chosen[:12]} has?", yes=yes)
    docker = docker_for(here, target)
    with bar(here) as progress:
        back = alone.put_back(
            docker, source, chosen, meant(here, target),
            in_place=in_place, only=path or (), progress=progress,
        )  # fmt: skip
    if as_json:
        from cli.releases import print_json

        print_json(restored(back))
        return
    typer.echo(f"{back.files} files of snapshot {chosen[:12]} are in {back.place.name}")


@app.command("rm")
def remove(
    context: typer.Context,
    snapshots: Annotated[list[str], typer.Argument(help="Their ids, or how those begin.")],
    store: StoreOption = None,
    passphrase_file: PassphraseFile = None,
    yes: options.Yes = False,
    as_json: options.Json = False,
) -> None:
    """Remove snapshots that belong to no release, and free what only they needed."""
    from reconciler.upkeep import alone

    here = Context.of(context)
    source = opened(here, store, passphrase_file)
    chosen = [alone.resolve(source, snapshot) for snapshot in snapshots]
    names = ", ".join(snapshot[:12] for snapshot in chosen)
    ask.confirm(f"Remove {names} from {source.path}?", yes=yes)
    swept = alone.remove(source, chosen)
    for reason in swept.held_back:
        print(f"warning: nothing was freed: {reason}", file=sys.stderr)
    if as_json:
        from cli.releases import print_json

        print_json({"schema": 1, "removed": chosen, "bytes_freed": swept.bytes_freed})
        return
    from cli import tables

    typer.echo(f"removed {names}; {tables.size(swept.bytes_freed)} freed")


def document(record: SnapshotRecord) -> dict[str, Any]:
    """One snapshot, as `snapshot create` and `list` tell of it."""
    return {
        "snapshot": record.id,
        "name": record.dataset,
        "created": record.created,
        "bytes": record.bytes,
        "files": record.files,
        "tags": record.tags,
        "skipped": record.skipped,
    }


def restored(back: Back) -> dict[str, Any]:
    """`snapshot restore`: what came where."""
    return {
        "schema": 1,
        "snapshot": back.snapshot,
        "target": back.place.name,
        "files": back.files,
        "bytes_written": back.bytes_written,
        "seconds": round(back.seconds, 3),
    }


def source_of(record: SnapshotRecord) -> str:
    """Of what it was taken, in short: a release, or a volume or folder."""
    tags = record.tags
    if "of" in tags:
        return tags["of"]
    kind = f" ({tags['kind']})" if "kind" in tags else ""
    return f"{tags.get('world') or tags.get('release', '')}{kind}"


def store_path(here: Context, given: Path | None) -> Path:
    """The store that is meant."""
    from reconciler.upkeep import alone

    if given is not None:
        return (here.common.cwd / given.expanduser()).resolve()
    return here.stack.store if in_stack(here) else alone.default_store()


def meant(here: Context, given: str) -> str:
    """A volume's name as it is; a folder as seen from where the command works."""
    from reconciler.upkeep import alone

    return str((here.common.cwd / given).resolve()) if alone.is_folder(given) else given


def in_stack(here: Context) -> bool:
    """Whether the command was started in a stack's folder, or names a stack."""
    try:
        find_root(here.common.cwd)
    except BadInput:
        if here.common.stack is not None:
            raise
        return False
    return True


def opened(
    here: Context, given: Path | None, passphrase_file: Path | None, *, create: bool = False
) -> Store:
    """The store, which must be there, or is made with `create`. Raises StoreUnusable."""
    from snapshots.store import Store

    path = store_path(here, given)
    passphrase = passphrase_for(here, path, passphrase_file)
    return Store.open(path, create=create, passphrase=passphrase)


def docker_for(here: Context, given: str) -> Docker | None:
    """Docker; None where there is none: then no container can have a folder mounted."""
    from reconciler.upkeep import alone

    try:
        return here.docker
    except Unavailable:
        if not alone.is_folder(given):
            raise
        return None
