"""Where the content of each dataset comes from: generation by generation, drawn and as rows of a
table. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from cli.documents import release_of
from cli.report import words
from cli.report.drawing import Drawing, at, curve
from reconciler.records import lineage
from reconciler.records.ledger import Adopted, AnyEvent, Committed, Reverted, State, World

SWITCHES = 14
DATASETS = 8
ROWS, FEW_ROWS = 60, 6
"""Generations in a dataset's table: the newest; fewer of one that is not drawn."""

_LEFT, _STEP, _STRAND = 34.0, 76.0, 34.0
_HEAD = 44.0


@dataclass(frozen=True)
class Strand:
    """One generation, as a row of the table."""

    name: str
    number: int
    origin: str
    releases: tuple[str, ...]
    now: str
    aside: str = ""


@dataclass
class Line:
    """One generation in the drawing. Columns are switches."""

    name: str
    number: int
    action: str
    lived: list[tuple[int, int | None, bool]] = field(default_factory=list)
    """(first column, column where it was left or None, whether its world failed)."""
    source: str | None = None
    """The generation it came from."""
    asides: list[tuple[int, str]] = field(default_factory=list)


@dataclass(frozen=True)
class DatasetLineage:
    """A dataset's generations."""

    dataset: str
    drawing: Drawing | None
    strands: tuple[Strand, ...]
    left_out: int


def datasets(state: State, events: Sequence[AnyEvent]) -> list[DatasetLineage]:
    """Of each dataset that has generations, by name; only the first few are drawn."""
    by_dataset: dict[str, list[str]] = {}
    for name, generation in state.generations.items():
        by_dataset.setdefault(generation.dataset, []).append(name)
    asides = _asides(state)
    worlds: dict[str, list[str]] = {}
    for world in state.worlds.values():
        for name in world.generations.values():
            worlds.setdefault(name, []).append(world.release)
    found = []
    for number, (dataset, names) in enumerate(sorted(by_dataset.items())):
        drawn = number < DATASETS
        drawing = _drawn(state, events, dataset) if drawn else None
        rows = tuple(
            Strand(
                name=name,
                number=state.generations[name].number,
                origin=_origin(state, name),
                releases=tuple(dict.fromkeys(worlds.get(name, ()))),
                now=standing(state, name),
                aside="; ".join(asides.get(name, ())),
            )
            for name in reversed(names[-ROWS if drawn else -FEW_ROWS :])
        )
        found.append(DatasetLineage(dataset, drawing, rows, len(names) - len(rows)))
    return found


def standing(state: State, name: str) -> str:
    """What has become of a generation, in a few words."""
    generation = state.generations[name]
    live = state.worlds.get(state.live or "")
    if live is not None and not live.removed and name in live.generations.values():
        return "live"
    if generation.removed:
        return "in the store" if generation.captured else "removed"
    if generation.sealed is None:
        return "not used yet"
    kept = "sealed, in the store too" if generation.captured else "sealed, not in the store yet"
    return f"{kept}, but spoiled by a failed world" if generation.spoiled else kept


def _origin(state: State, name: str) -> str:
    generation = state.generations[name]
    match generation.action:
        case "fork":
            return f"fork of {_short(state, generation.parent)}"
        case "restore":
            taken = lineage.taken_at(state, generation.snapshot or "")
            left = state.departure_at(taken[1]) if taken else None
            return f"restored: what {left.release} left" if left else "restored from a snapshot"
        case "adopt":
            return "adopted as it was"
        case action:
            return {"create": "created empty"}.get(action, action)


def _short(state: State, name: str | None) -> str:
    known = state.generations.get(name or "")
    return f"g{known.number}" if known else "other data"


def _asides(state: State) -> dict[str, list[str]]:
    """generation -> what of it was set aside."""
    found: dict[str, list[str]] = {}
    for _, outcome in state.outcomes:
        left = state.worlds.get(outcome.from_world or "")
        for dataset, counts in outcome.set_aside.items():
            if left is not None and dataset in left.generations:
                said = f"{words.counts(counts)}, going to {release_of(state, outcome.to_world)}"
                found.setdefault(left.generations[dataset], []).append(said)
    return found


def _drawn(state: State, events: Sequence[AnyEvent], dataset: str) -> Drawing | None:
    moves = [e for e in events if isinstance(e, Adopted | Committed) or _touched(e)]
    first = max(0, len(moves) - SWITCHES)
    lines = _followed(state, moves, dataset)
    shown = [line for line in lines.values() if _last(line, len(moves)) >= first]
    if not shown:
        return None
    ends = len(moves) - first
    made = Drawing(
        f"data-{dataset}",
        f"Where the content of {dataset} comes from",
        _told(first),
        width=_LEFT + _STEP * ends + 190,
        height=_HEAD + _STRAND * len(shown),
    )
    lanes = {line.name: _HEAD + _STRAND * n for n, line in enumerate(shown)}

    def x(column: int) -> float:
        return _LEFT + _STEP * max(0, column - first)

    for column, move in enumerate(moves[first:], start=first):
        made.line(x(column), 26, x(column), made.height - 14, "grid")
        if (world := _world(state, move)) is not None:
            made.text(x(column), 16, world.release, "small", "middle")
    for line in shown:
        _strand(made, state, line, lanes, x, first, ends + first)
    return made


def _world(state: State, move: AnyEvent) -> World | None:
    """The world that a move made live, or was to."""
    match move:
        case Adopted():
            return state.worlds.get(move.world)
        case Committed() | Reverted():
            return state.worlds.get(move.to_world)
    return None


def _touched(event: AnyEvent) -> bool:
    return isinstance(event, Reverted) and event.touched


def _followed(state: State, moves: Sequence[AnyEvent], dataset: str) -> dict[str, Line]:
    """Each generation that ever ran, in the order of its first run."""
    found: dict[str, Line] = {}
    live: str | None = None
    for column, move in enumerate(moves):
        world = _world(state, move)
        name = world.generations.get(dataset) if world else None
        if name is None or name not in state.generations:
            continue
        generation = state.generations[name]
        if name not in found:
            found[name] = Line(name, generation.number, generation.action)
            found[name].source = _source(state, name, live)
        line = found[name]
        if isinstance(move, Reverted):
            line.lived.append((column, column, True))
            continue
        if live is not None and live != name:
            _leave(found[live], column)
            if isinstance(move, Committed) and move.set_aside.get(dataset):
                found[live].asides.append((column, words.counts(move.set_aside[dataset])))
        if live != name:
            line.lived.append((column, None, False))
        live = name
    return found


def _leave(line: Line, column: int) -> None:
    """A failed world may have run on the same generation meanwhile: what is left is what lives."""
    line.lived = [
        (begun, column if until is None else until, failed) for begun, until, failed in line.lived
    ]


def _source(state: State, name: str, live: str | None) -> str | None:
    generation = state.generations[name]
    if generation.action == "fork":
        return generation.parent or live
    if generation.action == "restore":
        for departure in state.departures:
            if departure.snapshots.get(generation.dataset) == generation.snapshot:
                return departure.generations.get(generation.dataset)
    return None


def _last(line: Line, ends: int) -> int:
    return max((ends if until is None else until for _, until, _ in line.lived), default=0)


def _strand(
    made: Drawing,
    state: State,
    line: Line,
    lanes: dict[str, float],
    x: Callable[[int], float],
    first: int,
    ends: int,
) -> None:
    y = lanes[line.name]
    begin = line.lived[0][0]
    if line.source in lanes and begin >= first:
        kind = "restored" if line.action == "restore" else "forked"
        title = f"g{line.number} is a {line.action} of {_short(state, line.source)}"
        left = x(begin) - _STEP * 0.45
        made.path(curve(left, lanes[line.source], x(begin), y), f"edge {kind}", title)
    end = x(ends)
    now = standing(state, line.name)
    if now != "removed":
        made.line(x(begin), y, end, y, "sealed", f"g{line.number}: {now}")
    for begun, until, failed in line.lived:
        if until is not None and until < first:
            continue
        right = x(ends if until is None else until) + (22 if failed else 0)
        style = "lived failed" if failed else "lived live" if until is None else "lived"
        made.line(x(begun), y, right, y, style, f"g{line.number} {'failed' if failed else ''}")
        made.circle(x(begun), y, 4, "begin")
    for column, told in line.asides:
        if column >= first:
            aside = x(column)
            path = f"M{at(aside)} {at(y - 6)}l6 6l-6 6l-6 -6z"
            made.path(path, "aside", f"set aside: {told}")
            # Above the time in which it was live: to the right is the name of what it is now.
            side = -10 if column > first + 1 else 10
            anchor: Literal["start", "end"] = "end" if side < 0 else "start"
            made.text(aside + side, y - 7, f"set aside: {told}", "small warn", anchor)
    made.text(end + 10, y + 4, f"g{line.number}  {now}", "small")


def _told(before: int) -> str:
    told = "Older generations are left out. " if before else ""
    return (
        told + "The table below has the same: each generation, what it came from, and what of "
        "it was set aside."
    )
