"""Which release descends from which, as a drawing. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from cli.documents import release_of
from cli.report.drawing import Drawing, at, curve
from reconciler.catalog import status
from reconciler.names import release_number
from reconciler.records.ledger import State
from reconciler.records.release import Release

RELEASES = 40

_COLUMN, _LANE, _LEFT, _TOP = 58.0, 50.0, 34.0, 26.0


def parents(state: State, records: dict[str, Release]) -> dict[str, str | None]:
    """release -> the one it descends from, in order; of pruned ones what the ledger tells."""
    found: dict[str, str | None] = {
        world.release: None for world in state.worlds.values() if world.adopted
    }
    for _, outcome in state.outcomes:
        release = release_of(state, outcome.to_world)
        if release is not None and release not in found:
            found[release] = release_of(state, outcome.from_world)
    found |= {name: record.parent for name, record in records.items()}
    return dict(sorted(found.items(), key=lambda item: release_number(item[0])))


def releases(state: State, records: dict[str, Release]) -> Drawing | None:
    """The tree of releases, newest to the right; None without any."""
    descent = parents(state, records)
    if not descent:
        return None
    shown = list(descent)[-RELEASES:]
    columns = {name: number for number, name in enumerate(shown)}
    lanes = _lanes(shown, descent)
    left_out = len(descent) - len(shown)
    made = Drawing(
        "releases",
        "Which release descends from which",
        (f"{left_out} older ones are left out. " if left_out else "")
        + ", ".join(_descends(name, descent[name], status(name, state)) for name in shown)
        + ".",
        width=_LEFT * 2 + _COLUMN * (len(shown) - 1),
        height=_TOP * 2 + _LANE * max(lanes.values()) + 24,
    )
    for name in shown:
        x, y = _LEFT + _COLUMN * columns[name], _TOP + _LANE * lanes[name]
        parent = descent[name]
        if parent in columns:
            begin = _LEFT + _COLUMN * columns[parent], _TOP + _LANE * lanes[parent]
            made.path(curve(*begin, x, y), "edge")
    for name in shown:
        x, y = _LEFT + _COLUMN * columns[name], _TOP + _LANE * lanes[name]
        what = status(name, state)
        title = f"{_descends(name, descent[name], what)}"
        made.circle(x, y, 9, f"node {what}", title)
        if what == "failed":
            made.path(f"M{at(x - 4)} {at(y - 4)}l8 8m0 -8l-8 8", "cross", title)
        made.text(x, y + 25, name, "small", "middle")
    return made


def _descends(name: str, parent: str | None, what: str) -> str:
    return f"{name} ({what}) from {parent}" if parent else f"{name} ({what})"


def _lanes(shown: Sequence[str], descent: dict[str, str | None]) -> dict[str, int]:
    """release -> lane: the newest line straight on, what branched off below it."""
    main = set()
    name: str | None = shown[-1]
    while name is not None and name not in main:
        main.add(name)
        name = descent.get(name)
    lanes: dict[str, int] = {}
    free: list[int] = []
    """The first column in which each lane below is free."""
    for column, name in enumerate(shown):
        parent = descent[name]
        if name in main:
            lanes[name] = 0
            continue
        if parent in lanes and lanes[parent] and free[lanes[parent] - 1] <= column:
            lane = lanes[parent] - 1
        else:
            lane = next((n for n, until in enumerate(free) if until <= column), len(free))
        if lane == len(free):
            free.append(0)
        free[lane] = column + 2
        lanes[name] = lane + 1
    return lanes
