"""The impact screen: what a move does to the host and its data, before anything is done."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console
from rich.table import Table
from rich.text import Text

from cli import tables
from reconciler.impact import age, size
from reconciler.plan import Action, DatasetPlan, Move, Plan


def show(plan: Plan, console: Console) -> None:
    """Print the screen."""
    console.print(Text(plan.says, style="bold"))
    if plan.datasets and plan.move is not Move.STAY:
        console.print()
        console.print(_datasets(plan.datasets.values()))
    facts = _facts(plan)
    if facts.row_count:
        console.print()
        console.print(facts)


def _datasets(planned: Iterable[DatasetPlan]) -> Table:
    made = tables.table(
        "dataset", "action", "source of its content", "age", "size", "set aside",
        right=("age", "size"), wide=("source of its content", "set aside"),
    )  # fmt: skip
    for dataset in planned:
        made.add_row(
            dataset.name,
            Text(dataset.action.value, style=_style(dataset.action)),
            dataset.source_text,
            age(dataset.age_seconds) if dataset.age_seconds else "",
            tables.size(dataset.bytes or None),
            Text(_set_aside(dataset), style="yellow"),
        )
    return made


def _style(action: Action) -> str:
    return {Action.RESTORE: "yellow", Action.IN_PLACE: "yellow", Action.LEAVE: "dim"}.get(
        action, "green"
    )


def _set_aside(dataset: DatasetPlan) -> str:
    return "\n".join(f"{count} {what}" for what, count in sorted(dataset.set_aside.items()))


def _facts(plan: Plan) -> Table:
    made = Table.grid(padding=(0, 2))
    made.add_column(no_wrap=True)
    made.add_column(overflow="fold")
    for name, text, style in _rows(plan):
        made.add_row(Text(name, style=style or "bold"), Text(text, style=style))
    return made


def _rows(plan: Plan) -> Iterable[tuple[str, str, str]]:
    """(name, text, style) of every line below the datasets."""
    if any(dataset.set_aside for dataset in plan.datasets.values()):
        yield "set aside", "what it has more now stays sealed; `lockstep undo` brings it back", ""
    if plan.downtime_estimate_seconds is not None and plan.move is not Move.STAY:
        yield "downtime", _downtime(plan), ""
    if plan.disk.needed:
        text = f"{size(plan.disk.needed)} needed, {size(plan.disk.free)} free"
        yield "disk", f"{text}; {size(plan.disk.store_free)} free for the store", ""
    for line in plan.hooks:
        name, _, text = line.partition(": ")
        yield name, text, ""
    if plan.prune:
        yield "prune", f"{', '.join(plan.prune)} (out of the window)", "yellow"
    for number, kept in enumerate(plan.keep):
        yield "keep" if number == 0 else "", f"{kept.release}: {', '.join(kept.reasons)}", ""
    for warning in plan.warnings:
        yield "warning", warning, "yellow"
    for refusal in plan.refusals:
        yield "refused", refusal.message, "red"
        if refusal.remedy:
            yield "", refusal.remedy, ""


def _downtime(plan: Plan) -> str:
    if not plan.downtime_estimate_seconds:
        return plan.downtime_basis or "none"
    return f"about {plan.downtime_estimate_seconds:.1f} s ({plan.downtime_basis})"
