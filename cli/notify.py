"""`lockstep notify`: who is told what happens, tried out and looked up."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli import options
from cli.context import Context, nearest
from reconciler.errors import BadInput, LockstepError

if TYPE_CHECKING:
    from reconciler.notifications.notifylog import Entry
    from reconciler.notifications.notifysettings import Notify

app = typer.Typer(help="Notifications: try them out, and see who was told what.")

_MISSING = "lockstep config set --secret --path 'notify[0].url'   asks for an Apprise URL"


@app.command("test")
def try_out(
    context: typer.Context,
    to: Annotated[
        str | None, typer.Option("--to", help="Only this receiver, as the log calls it.")
    ] = None,
    event: Annotated[
        str, typer.Option("--event", help="What it is said to be of: committed, failed ...")
    ] = "committed",
    as_json: options.Json = False,
) -> None:
    """Tell every receiver that this is a test, and wait for what becomes of it (30 s at most)."""
    from reconciler.notifications import notifications, stories
    from reconciler.notifications.notifysettings import Happening

    here = Context.of(context)
    if event not in tuple(Happening):
        raise BadInput(f"there is no event {event}", next_step=f"it is one of {_all(Happening)}")
    receivers = _chosen(list(enumerate(here.stack.settings.notify, start=1)), to)
    if f"{here.project.name}:notify" not in here.backend.secret_keys():
        here.say(
            "warning: the URLs of notify stand in the stack's file in plain text: set them anew "
            "with lockstep config set --secret --path 'notify[0].url'"
        )
    story = stories.trial(here.stack, Happening(event))
    given = notifications.documents(
        here.stack, here.catalog, receivers, story, trial=True, waits=()
    )
    found = notifications.tell_and_wait(given)
    _show(found, as_json=as_json)
    wrong = [entry.to for entry in found if entry.result != "sent"]
    if wrong:
        raise LockstepError(f"{', '.join(wrong)} could not be told: see above")


def _all(kind: Any) -> str:
    return ", ".join(kind)


def _chosen(receivers: list[tuple[int, Notify]], to: str | None) -> list[tuple[int, Notify]]:
    if not receivers:
        raise BadInput("nobody is told anything: config notify is empty", next_step=_MISSING)
    chosen = [(n, receiver) for n, receiver in receivers if to in (None, receiver.label(n))]
    if not chosen:
        known = [receiver.label(n) for n, receiver in receivers]
        raise BadInput(f"there is no receiver {to}{nearest(str(to), known)}",
                       next_step=f"there are {', '.join(known)}")  # fmt: skip
    return chosen


@app.command("log")
def log(
    context: typer.Context,
    number: options.Newest = None,
    as_json: options.Json = False,
) -> None:
    """Show who was told what, newest first, and what could not be delivered."""
    from reconciler.notifications import notifications

    here = Context.of(context)
    found = notifications.read_log(here.catalog)[::-1][:number]
    if not found and not as_json:
        typer.echo("nobody was told anything yet")
        return
    _show(found, as_json=as_json)


def _show(found: list[Entry], *, as_json: bool) -> None:
    from cli import tables

    if as_json:
        from cli.releases import print_json

        print_json({"schema": 1, "entries": [entry.model_dump() for entry in found]})
        return
    made = tables.table(
        "age", "event", "to", "result", "tries", "took", "why",
        right=("age", "tries", "took"), wide=("why",),
    )  # fmt: skip
    now = datetime.now(UTC)
    for entry in found:
        took = "" if entry.result == "begun" else f"{entry.seconds:.1f} s"
        made.add_row(
            tables.age_of(entry.at, now), entry.event, entry.to, entry.result,
            str(len(entry.tries) or ""), took, entry.why,
        )  # fmt: skip
    tables.console().print(made)
