"""`lockstep metrics`: how the switches of this stack went, in figures."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli import options
from cli.context import Context
from reconciler.errors import BadInput

if TYPE_CHECKING:
    from reconciler.figures.metrics import Counts, Figures, Metrics, Spread
    from reconciler.records.ledger import State

_MAX_DAYS = 36500


def metrics(
    context: typer.Context,
    days: Annotated[
        int | None,
        typer.Option("--days", min=1, max=_MAX_DAYS, help="Only switches of the last so many."),
    ] = None,
    openmetrics: Annotated[
        bool,
        typer.Option("--openmetrics", help="OpenMetrics text, for Prometheus; of all switches."),
    ] = False,
    as_json: options.Json = False,
) -> None:
    """Show rollback time, downtime, success rate, data set aside and repeats, per move.

    All of it comes from the ledger; times are in seconds, median and worst.
    """
    from reconciler.figures import metrics as figures

    if openmetrics and (as_json or days is not None):
        raise BadInput(
            "--openmetrics goes with neither --json nor --days: counters must never go down",
            next_step="lockstep metrics --openmetrics",
        )
    here = Context.of(context)
    state = here.catalog.state()
    since = datetime.now(UTC) - timedelta(days=days) if days is not None else None
    measured = figures.measure(state, since)
    if openmetrics:
        from reconciler.figures.openmetrics import text

        typer.echo(
            text(measured, state, project=here.project.name, stack=here.stack_name), nl=False
        )
    elif as_json:
        from cli.releases import print_json

        print_json(document(measured, state, here.stack_name))
    elif not measured.all.switches:
        typer.echo("no switch yet" if days is None else f"no switch in the last {days} days")
    else:
        _show(measured, state)


def document(measured: Metrics, state: State, stack: str) -> dict[str, Any]:
    """`metrics`: schema 1, as docs/report.md has it. Times are in seconds."""
    return {
        "schema": 1,
        "stack": stack,
        "live": state.standing_release,
        "since": measured.since,
        "until": measured.until,
        "rollback_seconds": _spread(measured.rollback.seconds),
        "interrupted": measured.interrupted,
        "captures_owed": len(state.debts()),
        "all": _figures(measured.all),
        "moves": {move: _figures(figures) for move, figures in measured.moves.items()},
    }


def _figures(figures: Figures) -> dict[str, Any]:
    return {
        "switches": figures.switches,
        "committed": figures.committed,
        "reverted": figures.reverted,
        "recovered": figures.recovered,
        "success_rate": figures.success_rate,
        "repeats": figures.repeats,
        "seconds": _spread(figures.seconds),
        "downtime_seconds": _spread(figures.downtime),
        "missed_estimate_seconds": _spread(figures.missed_estimate),
        "set_aside_switches": figures.set_aside_switches,
        "set_aside": _counts(figures.set_aside),
        "written_by_failed": _counts(figures.written),
    }


def _spread(spread: Spread | None) -> dict[str, Any] | None:
    return asdict(spread) if spread is not None else None


def _counts(counts: Counts) -> dict[str, dict[str, int]]:
    return {dataset: dict(sorted(of.items())) for dataset, of in sorted(counts.items())}


def _show(measured: Metrics, state: State) -> None:
    from rich.text import Text

    from cli import tables

    made = tables.table(
        "move", "switches", "success", "repeats", "time", "worst", "downtime", "worst", "set aside",
        right=("switches", "success", "repeats", "time", "worst", "downtime"),
    )  # fmt: skip
    for move, figures in [*measured.moves.items(), ("all", measured.all)]:
        rate = figures.success_rate
        made.add_row(
            move,
            str(figures.switches),
            "" if rate is None else f"{rate:.0%}",
            str(figures.repeats or ""),
            *_seconds(figures.seconds),
            *_seconds(figures.downtime),
            f"{figures.set_aside_switches} times" if figures.set_aside_switches else "",
        )
    out = tables.console()
    out.print(made)
    for dataset, counts in sorted(measured.all.set_aside.items()):
        told = ", ".join(f"{count} {what}" for what, count in sorted(counts.items()))
        out.print(Text(f"set aside of {dataset}: {told}"))
    if measured.all.missed_estimate is not None:
        missed = measured.all.missed_estimate
        out.print(
            f"downtime missed its estimate by {missed.median:.2f} s, at worst {missed.worst:.2f} s"
        )
    if measured.interrupted:
        out.print(f"interrupted by a crash, and put right: {measured.interrupted}")
    if owed := len(state.debts()):
        out.print(f"sealed data that is not in the store yet: {owed}", style="yellow")


def _seconds(spread: Spread | None) -> tuple[str, str]:
    if spread is None:
        return "", ""
    return f"{spread.median:.2f} s", f"{spread.worst:.2f} s"
