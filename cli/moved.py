"""What `up`, `rollback` and `undo` print with `--json`: one document on standard output, however
they end; all that they else say there goes to standard error. With `--quiet` and nobody to ask it
goes nowhere, and what came of it is said in a line."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import typer

from cli import failures
from cli.context import Context
from reconciler.errors import Exit

if TYPE_CHECKING:
    from reconciler.plan import Plan
    from reconciler.records.ledger import Committed, Recovered, Reverted, State

_NOTHING_DONE = (Exit.BAD_INPUT, Exit.REFUSED, Exit.BUSY, Exit.DAMAGED, Exit.UNAVAILABLE)


@dataclass
class Told:
    """What the command knows beside the ledger, while it runs."""

    plan: Plan | None = None


@contextlib.contextmanager
def telling(here: Context, command: str, *, as_json: bool, yes: bool) -> Iterator[Told]:
    """With `as_json`: print the document when the `with` ends, by an error as well, which is
    raised again. Where the person wants quiet, and is asked nothing: print its result alone."""
    told = Told()
    silent = here.common.quiet and yes
    if not as_json and not silent:
        yield told
        return
    began = time.monotonic()
    with _apart(silent=silent):
        before = _state(here)
        ended: BaseException | None = None
        try:
            yield told
        except BaseException as error:
            ended = error
        end = _end(here, ended)
        document = of(command, told.plan, before, _state(here), end, time.monotonic() - began)
    if as_json:
        from cli.releases import print_json

        print_json(document)
    else:
        _say_result(document, told=isinstance(ended, typer.Exit))
    if ended is not None:
        raise ended


@contextlib.contextmanager
def _apart(*, silent: bool) -> Iterator[None]:
    """Standard output is standard error meanwhile, or nothing, for the processes that are started,
    too."""
    sys.stdout.flush()
    kept = os.dup(1)
    with open(os.devnull, "w") if silent else contextlib.nullcontext(sys.stderr) as other:
        os.dup2(other.fileno() if silent else 2, 1)
        try:
            with contextlib.redirect_stdout(other):
                yield
        finally:
            other.flush()
            os.dup2(kept, 1)
            os.close(kept)


def _say_result(document: Mapping[str, Any], *, told: bool) -> None:
    """What the host runs now; and what went wrong, where that was `told` by what was not shown."""
    took = document["downtime_seconds"]
    down = f", {took:.1f} s down" if took is not None else ""
    match document["result"]:
        case "committed" | "recovered":
            typer.echo(f"{document['live']} is live ({document['result']}{down})")
        case "nothing-to-do":
            typer.echo(f"{document['live']} is live; nothing to do")
    if not told or not document["exit_code"]:
        return
    refusals = [f"{r['message']}\n  {r['remedy']}".rstrip() for r in document["refusals"]]
    why = refusals or [document["error"] or f"{document['result']}; lockstep log   tells more"]
    for text in why:
        print(f"error: {text}", file=sys.stderr)


@dataclass(frozen=True)
class End:
    """How a command ended: its exit code, what is said of it, and what it left open."""

    code: int
    error: str | None = None
    declined: bool = False
    unfinished: bool = False


def _end(here: Context, ended: BaseException | None) -> End:
    from reconciler.masking import masked

    left = _unfinished(here)
    if ended is None:
        return End(Exit.OK, unfinished=left)
    if isinstance(ended, typer.Exit):
        error = here.backend.error() if ended.exit_code else None
        said = masked(str(error)) if error is not None else None
        return End(ended.exit_code, said, isinstance(error, failures.Declined), left)
    if isinstance(ended, KeyboardInterrupt | typer.Abort):
        return End(failures.INTERRUPTED, "interrupted", unfinished=left)
    code = failures.exit_code(ended)
    said = masked(str(ended)) if code is not None else f"unexpected {type(ended).__name__}"
    end_code = int(Exit.FAILED) if code is None else code
    return End(end_code, said, isinstance(ended, failures.Declined), left)


def _unfinished(here: Context) -> bool:
    from reconciler.records import journal

    with contextlib.suppress(Exception):  # a catalog that cannot be read is told of as the error
        return journal.unfinished(here.catalog.journal) is not None
    return False


def _state(here: Context) -> State:
    from reconciler.records.ledger import State

    try:
        return here.catalog.state()
    except Exception as error:
        if failures.exit_code(error) is None:
            raise
        return State()  # the command itself says what is wrong with it


def of(
    command: str, plan: Plan | None, before: State, after: State, end: End, seconds: float
) -> dict[str, Any]:
    """The document (cli.shapes.moves.Moved). Pure."""
    from cli import documents
    from reconciler.planning import impact
    from reconciler.switching import story

    since = [(seq, outcome) for seq, outcome in after.outcomes if seq > before.seq]
    seq, outcome = since[-1] if since else (0, None)
    planned: dict[str, Any] = {
        "move": plan.move.value if plan else None,
        "from": before.live_release,
        "to": plan.target if plan else None,
        **dict.fromkeys(("downtime_seconds", "incident")),
        **dict.fromkeys(("reason", "operator_reason"), ""),
        "gates": [],
        "hooks": [],
        "logs": [],
    }
    logged = documents.entry(after, seq, outcome) if outcome else planned
    return {
        "schema": 1,
        "command": command,
        "result": _result(outcome, end),
        "exit_code": end.code,
        "error": end.error or _refused(plan, end),
        **{key: logged[key] for key in planned},
        "live": after.standing_release,
        "world": after.standing,
        "expected_downtime_seconds": outcome.expected_seconds if outcome else None,
        "seconds": round(seconds, 3),
        "steps": dict(outcome.steps) if outcome else {},
        "datasets": _datasets(after, seq, outcome) if outcome else {},
        "warnings": list(plan.warnings) if plan else [],
        "refusals": [impact.refusal(r) for r in plan.refusals] if plan else [],
        "debts": [{"release": d.release, "dataset": name} for d, name in after.debts()],
        "story": documents.story_of(story.last(after)) if outcome else None,
    }


def _result(outcome: Committed | Reverted | Recovered | None, end: End) -> str:
    if end.unfinished:
        return "unfinished"
    if outcome is not None:
        return outcome.kind
    if end.declined:
        return "declined"
    if end.code == Exit.OK:
        return "nothing-to-do"
    return "refused" if end.code in _NOTHING_DONE else "failed"


def _refused(plan: Plan | None, end: End) -> str | None:
    if plan is None or not end.code:
        return None
    return "; ".join(refusal.message for refusal in plan.refusals) or None


def _datasets(
    state: State, seq: int, outcome: Committed | Reverted | Recovered
) -> Mapping[str, dict[str, Any]]:
    from reconciler.planning.impact import UNDO

    live = state.worlds[state.live].generations if state.live else {}
    departure = state.departure_at(seq)
    snapshots = {**outcome.snapshots, **(departure.snapshots if departure else {})}
    # Where the new world was not proved, nothing of the old one was set aside.
    aside = outcome.set_aside if outcome.kind == "committed" else {}
    return {
        name: {
            "action": action,
            "generation": live.get(name),
            "sealed": outcome.sealed.get(name),
            "snapshot": snapshots.get(name),
            "set_aside": dict(aside.get(name, {})),
            "brought_back_by": UNDO if aside.get(name) else None,
        }
        for name, action in outcome.datasets.items()
    }
