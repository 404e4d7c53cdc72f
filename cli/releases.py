"""Commands about releases: new, list, info, log, diff."""

from __future__ import annotations

import getpass
import json
import sys
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli import completion, options
from cli.context import Context, check_release
from reconciler.errors import BadInput, LockstepError

if TYPE_CHECKING:
    from cli.listing import Listing

Release = Annotated[
    str | None, typer.Argument(help="A release, like prod-003.", autocompletion=completion.releases)
]


def new(
    context: typer.Context,
    description: Annotated[str, typer.Argument(help="What is new in it, for people.")],
    image: Annotated[
        list[str] | None,
        typer.Option("--image", help="Take an image that exists.", metavar="SERVICE=REFERENCE"),
    ] = None,
    allow_dirty: Annotated[
        bool, typer.Option("--allow-dirty", help="Also with uncommitted changes.")
    ] = False,
    as_json: options.Json = False,
) -> None:
    """Build the images, record a new release, and declare it in the stack's config."""
    from reconciler.making import newrelease

    here = Context.of(context)
    record, warnings = newrelease.make(
        here.stack,
        here.catalog,
        here.docker,
        here.compose,
        description=description,
        images=images_by_service(image or []),
        allow_dirty=allow_dirty,
        created_by=who(),
        progress=here.progress,
    )
    for warning in warnings:
        print(f"warning: {warning}", file=sys.stderr)
    here.backend.config_set("release", record.name, secret=False, path=False)
    if as_json:
        print_json({"schema": 1, **record.model_dump(mode="json"), "warnings": warnings})
        return
    from cli import documents, tables

    images = ", ".join(sorted(i.tag.rpartition(":")[0] for i in record.images.values()))
    typer.echo(f"{record.name} is recorded and declared: {record.description}")
    commit = record.git.commit[:9] or "no git commit"
    typer.echo(f"  commit   {commit}{' with uncommitted changes' if record.git.dirty else ''}")
    size = tables.size(documents.image_bytes(record))
    typer.echo(f"  images   {images}, all tagged {record.name} ({size})")
    typer.echo(f"  data     {', '.join(sorted(record.datasets)) or 'none'}")
    here.say("next: lockstep preview   shows what it will do, lockstep up   does it")


def images_by_service(given: Sequence[str]) -> dict[str, str]:
    """`["web=shop:7"]` -> {"web": "shop:7"}. Raises BadInput for anything else."""
    found: dict[str, str] = {}
    for text in given:
        service, equals, reference = text.partition("=")
        if not (service and equals and reference):
            raise BadInput(f"--image {text!r}: expected SERVICE=REFERENCE, like web=shop-web:7")
        if service in found:
            raise BadInput(f"--image names service {service} twice")
        found[service] = reference
    return found


def who() -> str:
    """The person: who called sudo, else the user."""
    import os

    try:
        return os.environ.get("SUDO_USER") or getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())


SHOWN = 50
"""Releases that `list` shows a person, unless told how many."""


def list_releases(
    context: typer.Context, number: options.Newest = None, as_json: options.Json = False
) -> None:
    """List the releases: their status, their age, and how their data would come back.

    A person gets the newest 50, a program all, unless -n says how many.
    """
    from cli import listing

    here = Context.of(context)
    newest = number or (None if as_json else SHOWN)
    found = listing.indexed(here.catalog, newest)
    if found is None:
        warn_of_mended(here)
        found = listing.made(here.catalog, newest)
    document = {"schema": 1, "live": found.live, "releases": _releases(here, found)}
    if as_json:
        print_json(document)
        return
    if not found.entries:
        typer.echo('no release yet: lockstep new "what it is"   makes the first one')
        return
    from cli import tables

    if found.dissolved:
        here.say(
            f"{found.dissolved} was live until `lockstep remove`; "
            "lockstep preview   shows what brings a release back"
        )
    elif found.stopped:
        here.say(f"{found.live} was stopped by hand; lockstep up   starts it again")
    ways = {entry.document["release"]: entry.data for entry in found.entries}
    tables.console().print(tables.releases(document, ways, datetime.now(UTC)))
    if found.count > len(found.entries):
        older = found.count - len(found.entries)
        here.say(f"and {older} older: lockstep list -n {found.count}   shows all")


def _releases(here: Context, found: Listing) -> list[dict[str, Any]]:
    """Those whose images are gone are unusable; where Docker does not answer, the list can be read
    all the same."""
    from reconciler.world import imagehold

    images = {entry.document["release"]: entry.images for entry in found.entries}
    gone: dict[str, str] = {}
    with suppress(LockstepError):
        gone = imagehold.missing(here.docker, images)
    documents = {entry.document["release"]: dict(entry.document) for entry in found.entries}
    for name, why in gone.items():
        documents[name].setdefault("unusable", why)
    return list(documents.values())


def info(context: typer.Context, release: Release = None, as_json: options.Json = False) -> None:
    """Show all that is known of a release (of the live one, when none is named)."""
    from cli import documents
    from reconciler.trials import drillbook

    here = Context.of(context)
    state = here.catalog.state()
    good, damaged = here.catalog.records(state)
    name = release or state.live_release
    if name is None:
        raise BadInput("nothing is live yet", next_step="lockstep list   shows the releases")
    known = {*good, *damaged, *(w.release for w in state.worlds.values())}
    check_release(name, here.stack_name, known, ())
    document = documents.info(
        name, state, good.get(name), reasons_to_keep(here, name), drillbook.last(here.catalog, name)
    )
    if as_json:
        print_json(document)
        return
    from cli import tables

    if name in damaged:
        print(f"warning: {damaged[name]}", file=sys.stderr)
    out = tables.console()
    for number, part in enumerate(tables.info(document, datetime.now(UTC))):
        if number:
            out.print()
        out.print(part)


def reasons_to_keep(here: Context, release: str) -> tuple[str, ...]:
    """Why the window keeps it as things stand now."""
    import time

    from reconciler.planning import retention

    kept = retention.as_it_stands(
        here.stack.settings.window,
        here.catalog.records()[0],
        here.catalog.state(),
        time.time(),
    )
    return kept.get(release, ())


def log(
    context: typer.Context,
    number: options.Newest = None,
    as_json: options.Json = False,
) -> None:
    """Show how every switch ended, newest first: the host's own record."""
    from cli import documents

    here = Context.of(context)
    document = documents.log(here.catalog.state(), _restored_by_others(here))
    document["entries"] = document["entries"][:number]
    if as_json:
        print_json(document)
        return
    if not document["entries"]:
        typer.echo("no switch yet")
        return
    from cli import tables

    out = tables.console()
    for number, part in enumerate(tables.log(document["entries"], datetime.now(UTC))):
        if number:
            out.print()
        out.print(part)
    if document["entries"][0]["result"] == "reverted":
        from reconciler.switching import story

        told = story.last(here.catalog.state())
        if told is not None:
            out.print(tables.folded(told.lines()), markup=False)
    for note in document["restored_by_others"]:
        out.print(f"shared data: {note}", style="yellow", markup=False)
    files = document["entries"][0]["logs"]
    if files:
        here.say(f"each step of the newest, with its time: {', '.join(files)}")


def _restored_by_others(here: Context) -> list[str]:
    """What other stacks of this host did to data that releases of this one share; nothing where
    Docker does not answer: the log can be read all the same."""
    from reconciler.world import hostnotes

    good, _ = here.catalog.records()
    shared = {d.source for r in good.values() for d in r.datasets.values() if d.source and d.shared}
    if not shared:
        return []
    with suppress(LockstepError):
        notes = hostnotes.restored(here.docker.volumes(), shared, here.stack)
        return [str(note) for note in notes]
    return []


def diff(
    context: typer.Context,
    before: Annotated[
        str | None,
        typer.Argument(
            metavar="[A]",
            help="A release; the live one if not named.",
            autocompletion=completion.releases,
        ),
    ] = None,
    after: Annotated[
        str | None,
        typer.Argument(
            metavar="[B]",
            help="A release; the declared one if not named.",
            autocompletion=completion.releases,
        ),
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Show how the definition of release B differs from that of A; secrets are masked."""
    from cli import documents
    from reconciler.project import compose

    here = Context.of(context)
    state = here.catalog.state()
    first = before or state.live_release
    second = after or here.stack.settings.release
    if first is None or second is None:
        missing = "nothing is live yet" if first is None else "no release is declared"
        raise BadInput(missing, next_step="lockstep diff A B   compares two releases by name")
    good, damaged = here.catalog.records()
    for name in (first, second):
        check_release(name, here.stack_name, {*good, *damaged}, state.pruned)
        if name in damaged:
            raise LockstepError(damaged[name])
    document = documents.diff(first, second, compose.differences(good[first], good[second]))
    if as_json:
        print_json(document)
        return
    typer.echo(f"{first} -> {second}")
    for line in document["differences"]:
        typer.echo(f"  {line}")
    if not document["differences"]:
        typer.echo("  the same definition")


def warn_of_mended(here: Context) -> None:
    """Make a damaged manifest anew, and say so."""
    mended = here.catalog.mend_manifest()
    if mended:
        print(f"warning: {mended}", file=sys.stderr)


def print_json(document: Any) -> None:
    """One JSON document on standard output, and nothing else."""
    typer.echo(json.dumps(document, indent=2, ensure_ascii=False))
