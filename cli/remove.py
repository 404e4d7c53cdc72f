"""`lockstep remove`: a stack goes for good, as far as it is in Docker."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import typer

from cli import ask, options
from cli.context import Context

if TYPE_CHECKING:
    from reconciler.world.dissolving import Belongings


def remove(context: typer.Context, yes: options.Yes = False, as_json: options.Json = False) -> None:
    """Remove the stack's containers, networks, volumes and image tags for good.

    Everything is named before it asks, and only what is labelled as the stack's own goes. Refused
    while anything runs. Records, ledger and the store with its snapshots stay in their folders.
    """
    from reconciler.host.hostlock import HostLock
    from reconciler.world import dissolving

    here = Context.of(context)
    name = f"{here.project.name}/{here.stack_name}"
    found = dissolving.belongings(here.stack, here.catalog, here.docker)
    kept = [str(here.catalog.root), str(here.project.root / ".pulumi")]
    if not here.stack.store.is_relative_to(here.catalog.root):
        kept.append(str(here.stack.store))
    if not as_json:
        _show(found)
    if found.any:
        ask.confirm(f"Remove all of this, of {name}, for good?", yes=yes)
        with HostLock.acquire("remove", name, wait=10):
            dissolving.dissolve(
                here.stack, here.catalog, here.docker, here.compose, found, here.progress
            )
    if as_json:
        from cli.releases import print_json

        print_json({"schema": 1, "stack": name, **asdict(found), "kept": kept})
        return
    typer.echo(f"{name} is removed" if found.any else f"Docker has nothing of {name}")
    for thing in found.stays:
        typer.echo(f"stays: {thing}")
    typer.echo(f"stays: records, ledger and snapshots, in {', '.join(kept)}")


def _show(found: Belongings) -> None:
    for word, names in (
        ("container", found.containers),
        ("network", found.networks),
        ("volume", found.volumes),
        ("image tag", found.tags),
    ):
        for each in names:
            note = "   the live data: is a snapshot of today in the store?"
            typer.echo(f"{word} {each}{note if each in found.unsaved else ''}")
