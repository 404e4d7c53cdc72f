"""The impact screen: what a move does to the host and its data, before anything is done."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console
from rich.table import Table
from rich.text import Text

from cli import tables
from reconciler.plan import Action, DatasetPlan, Move, Plan
from reconciler.planning import impact
from reconciler.planning.impact import age, size


def show(plan: Plan, console: Console) -> None:
    """Print the screen."""
    console.print(Text(plan.says, style="bold"))
    moving = plan.move is not Move.STAY
    for part, wanted in (
        (_changes(plan), moving),
        (_datasets(plan.datasets.values()), moving),
        (_facts(plan), True),
    ):
        if wanted and part.row_count:
            console.print()
            console.print(part)


def compare(ways: Iterable[tuple[str, Plan]], console: Console) -> None:
    """Print what each way back would cost; `ways`: the command to type, and its plan."""
    made = tables.table(
        "what to type", "to", "down", "set aside", "data",
        right=("down",), wide=("what to type", "set aside", "data"),
    )  # fmt: skip
    for command, plan in ways:
        seconds = plan.downtime_estimate_seconds or 0.0
        made.add_row(
            Text(command, style="bold"),
            plan.target or "",
            f"{'~' if impact.is_guess(plan) else ''}{seconds:.1f} s",
            Text(impact.totals(plan.datasets), style="yellow"),
            Text(_way(plan), style="red" if plan.refusals else ""),
        )
    console.print()
    console.print(made)


def _way(plan: Plan) -> str:
    if plan.refusals:
        return f"refused: {plan.refusals[0].message}"
    return tables.actions({name: d.action.value for name, d in plan.datasets.items()})


def _changes(plan: Plan) -> Table:
    made = Table.grid(padding=(0, 2))
    made.add_column(no_wrap=True)
    made.add_column(overflow="fold")
    before = ""
    for name, text in impact.changes(plan.outlook):
        made.add_row(Text("" if name == before else name, style="bold"), _before_after(text))
        before = name
    if made.row_count and plan.outlook.unchanged:
        word = "same image" if plan.move is Move.ADOPT else "unchanged"
        made.add_row(Text(word, style="dim"), Text(impact.some(plan.outlook.unchanged, 12)))
    return made


def _before_after(text: str) -> Text:
    """`place: old -> new` with what is new in colour."""
    shown = Text(text)
    arrow = text.rfind(" -> ")
    if arrow >= 0:
        shown.stylize("green", arrow + 4)
    return shown


def _datasets(planned: Iterable[DatasetPlan]) -> Table:
    made = tables.table(
        "dataset", "action", "source of its content", "age", "size", "set aside",
        right=("age", "size"), wide=("source of its content", "set aside"),
    )  # fmt: skip
    for dataset in planned:
        aside = Text("\n".join(impact.set_aside(dataset)), style="yellow")
        for text in impact.comes_back(dataset):
            aside.append(f"{chr(10) if aside else ''}comes back: {text}", style="green")
        made.add_row(
            dataset.name,
            Text(dataset.action.value, style=_style(dataset.action)),
            dataset.source_text,
            age(dataset.age_seconds) if dataset.age_seconds else "",
            tables.size(dataset.bytes or None),
            aside,
        )
    return made


def _style(action: Action) -> str:
    return {Action.RESTORE: "yellow", Action.IN_PLACE: "yellow", Action.LEAVE: "dim"}.get(
        action, "green"
    )


def _facts(plan: Plan) -> Table:
    made = Table.grid(padding=(0, 2))
    made.add_column(no_wrap=True)
    made.add_column(overflow="fold")
    for name, text, style in _rows(plan):
        made.add_row(Text(name, style=style or "bold"), Text(text, style=style))
    return made


def _window(plan: Plan) -> Iterable[tuple[str, str, str]]:
    if plan.prune:
        yield "prune", f"{', '.join(plan.prune)} (out of the window)", "yellow"
    for number, (releases, why) in enumerate(impact.window(plan.keep)):
        yield "keep" if number == 0 else "", f"{releases}: {why}", ""


def _rows(plan: Plan) -> Iterable[tuple[str, str, str]]:
    """(name, text, style) of every line below the datasets."""
    if any(dataset.set_aside for dataset in plan.datasets.values()):
        yield "set aside", f"{impact.where_aside(plan)}; `{impact.UNDO}` brings it back", ""
    if plan.downtime_estimate_seconds is not None and plan.move is not Move.STAY:
        yield "downtime", impact.downtime(plan), ""
    if plan.disk.needed:
        text = f"{size(plan.disk.needed)} needed, {size(plan.disk.free)} free"
        yield "disk", f"{text}; {size(plan.disk.store_free)} free for the store", ""
    for line in plan.hooks:
        name, _, text = line.partition(": ")
        yield name, text, ""
    for number, debt in enumerate(plan.debts):
        yield "owed" if number == 0 else "", f"{debt}: `up` makes it good", ""
    if not plan.refusals:  # nothing leaves then, and who is told so at night has enough to read
        yield from _window(plan)
    for warning in plan.warnings:
        yield "warning", warning, "yellow"
    for refusal in plan.refusals:
        yield "refused", refusal.message, "red"
        if refusal.remedy:
            yield "", refusal.remedy, ""
