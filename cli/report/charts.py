"""What was live when, how long nobody answered, how much data there is: as drawings. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from cli.report import words
from cli.report.drawing import Drawing, at, byte_ticks, thinned, ticks
from cli.report.history import Entry
from cli.report.material import Material

VISITS = 16
BARS = 60
POINTS = 120
SERIES = 8
"""Lines in one drawing: more cannot be told apart."""

_NARROWEST = 240.0
"""Of the bars: a few of them are seen on a phone without being looked for."""
_PILL, _GAP, _HIGH, _ROW = 116.0, 26.0, 40.0, 15.0
FAILURES = 3
"""Named above a release; of more their number."""


@dataclass
class Visit:
    """One time that a release was live."""

    release: str
    begun: datetime
    arrived: str
    actions: frozenset[str]
    ended: datetime | None = None
    failures: list[str] = field(default_factory=list)
    """Releases that failed while this one was live."""


def visits(entries: Sequence[Entry]) -> list[Visit]:
    """What was live one after another; `entries` newest first."""
    found: list[Visit] = []
    for entry in reversed(entries):
        if entry.result in ("committed", "adopted") and entry.after:
            if found:
                found[-1].ended = entry.at
            actions = frozenset(line.action for line in entry.data)
            found.append(Visit(entry.after, entry.at, entry.move, actions))
        elif entry.result == "reverted" and found and entry.after:
            found[-1].failures.append(entry.after)
    return found


def timeline(found: Sequence[Visit], now: datetime) -> Drawing | None:
    """The releases that were live, one after another, as a ribbon; None when nothing was."""
    if not found:
        return None
    shown, first = found[-VISITS:], max(0, len(found) - VISITS)
    above = max(min(len(visit.failures), FAILURES) for visit in shown) * _ROW
    middle = above + _HIGH / 2 + 6
    made = Drawing(
        "timeline",
        "What was live, one after another",
        _told(shown, first),
        width=len(shown) * (_PILL + _GAP) + 8 - _GAP,
        height=middle + _HIGH / 2 + 6,
    )
    places: dict[str, float] = {}
    for number, visit in enumerate(shown):
        x = 4 + number * (_PILL + _GAP)
        if number:
            made.line(x - _GAP, middle, x, middle, "ribbon")
        if visit.release in places and visit.arrived == "back":
            low = middle + _HIGH / 2
            deepest = _returned(made, visit, places[visit.release], x, low)
            made.height = max(made.height, deepest + 8)
        _failures(made, visit, x, middle - _HIGH / 2)
        _pill(made, visit, x, middle, now, live=visit is found[-1])
        places[visit.release] = x
    return made


def _pill(
    made: Drawing, visit: Visit, x: float, middle: float, now: datetime, *, live: bool
) -> None:
    lasted = words.age(max(0.0, ((visit.ended or now) - visit.begun).total_seconds()))
    title = f"{visit.release}: live from {words.when(visit.begun)} UTC for {lasted}"
    style = "pill live" if live else "pill"
    made.rect(x, middle - _HIGH / 2, _PILL, _HIGH, style, title)
    made.text(x + _PILL / 2, middle - 2, visit.release, "pill-name", "middle")
    made.text(x + _PILL / 2, middle + 13, lasted + (" so far" if live else ""), "small", "middle")


def _failures(made: Drawing, visit: Visit, x: float, top: float) -> None:
    for number, release in enumerate(visit.failures[:FAILURES]):
        y = top - 6 - number * _ROW
        left = x + _PILL / 2 - 48
        more = len(visit.failures) - FAILURES if number == FAILURES - 1 else 0
        text = f"{release} failed" + (f", {more} more" if more > 0 else "")
        made.path(f"M{at(left)} {at(y - 8)}l7 7m0 -7l-7 7", "cross", text)
        made.text(left + 12, y, text, "small bad")


def _returned(made: Drawing, visit: Visit, before: float, x: float, low: float) -> float:
    """An arc below, from where the release was left to where it came back; its lowest y."""
    begin, end = before + _PILL / 2, x + _PILL / 2
    depth = min(64.0, 22 + (end - begin) / 14)
    style = "arc restored" if "restore" in visit.actions else "arc"
    how = _how(visit.actions)
    way = f"C{at(begin)} {at(low + depth)} {at(end)} {at(low + depth)} {at(end)} {at(low)}"
    made.path(f"M{at(begin)} {at(low)}{way}", style, f"{visit.release} came back, its data {how}")
    made.path(f"M{at(end - 4)} {at(low + 8)}L{at(end)} {at(low + 1)}l4 7", "arc")
    lowest = low + depth * 0.75 + 13
    made.text((begin + end) / 2, lowest, how, "small", "middle")
    return lowest


def _how(actions: frozenset[str]) -> str:
    if "restore" in actions:
        return "restored from the store"
    return "attached again" if "attach" in actions else "a fork of what was live"


def _told(shown: Sequence[Visit], before: int) -> str:
    told = f"{before} earlier ones are left out. " if before else ""
    parts = []
    for visit in shown:
        failed = f" ({', '.join(visit.failures)} failed)" if visit.failures else ""
        parts.append(f"{visit.release} by {visit.arrived}{failed}")
    return f"{told}Live one after another: {', then '.join(parts)}."


def downtime(entries: Sequence[Entry]) -> Drawing | None:
    """A bar for each switch that stopped something, a mark where it was expected to end."""
    measured = [e for e in reversed(entries) if e.down is not None][-BARS:]
    if not measured:
        return None
    step, left, top, high = 30.0, 8.0, 18.0, 170.0
    wide = max(_NARROWEST, left + step * len(measured))
    most = max(max(e.down or 0.0, e.expected or 0.0) for e in measured)
    marks = ticks(most)
    scale = high / marks[-1]
    made = Drawing(
        "downtime",
        "Seconds without an answer, switch by switch",
        f"{len(measured)} switches, oldest first; the longest took "
        f"{words.seconds(max(e.down or 0.0 for e in measured))}. The table of switches above "
        "has every figure.",
        width=wide + 52,
        height=top + high + 40,
    )
    base = top + high
    for mark in marks:
        y = base - mark * scale
        made.line(left, y, wide, y, "grid")
        made.text(wide + 8, y + 4, f"{mark:g} s", "small")
    for number, entry in enumerate(measured):
        x = left + step * number + 5
        tall = (entry.down or 0.0) * scale
        expected = f", expected {words.seconds(entry.expected)}" if entry.expected else ""
        title = (
            f"{entry.after}, {entry.move}, {entry.result}: {words.seconds(entry.down)}{expected}"
        )
        made.rect(x, base - tall, 20, max(tall, 1), f"bar {entry.result}", title)
        if entry.expected:
            y = base - entry.expected * scale
            made.line(x - 3, y, x + 23, y, "expected", title)
        label = (entry.after or "").rpartition("-")[2]
        made.text(x + 10, base + 14, label, "small", "middle")
        if entry.move == "back":
            made.text(x + 10, base + 28, "back", "tiny", "middle")
    return made


def data_sizes(material: Material) -> Drawing | None:
    """Bytes of each dataset whenever it was captured."""
    series: dict[str, list[tuple[float, float]]] = {}
    datasets = {name: g.dataset for name, g in material.state.generations.items()}
    for capture in material.captures:
        time = words.moment(capture.at)
        if time is not None and capture.generation in datasets:
            line = series.setdefault(datasets[capture.generation], [])
            line.append((time.timestamp(), float(capture.bytes)))
    for held in material.store.snapshots:
        time = words.moment(held.created)
        if held.kind == "backup" and time is not None:
            series.setdefault(held.dataset, []).append((time.timestamp(), float(held.bytes)))
    largest = sorted(series, key=lambda name: -series[name][-1][1])[:SERIES]
    left_out = len(series) - len(largest)
    return _lines(
        "data",
        "Size of the data, whenever it was captured",
        {name: sorted(series[name]) for name in largest},
        f" The {left_out} smallest datasets are left out." if left_out else "",
    )


def store_size(material: Material) -> Drawing | None:
    """Bytes that the store took after each capture, and takes now."""
    points = []
    for capture in material.captures:
        time = words.moment(capture.at)
        if time is not None and capture.store_bytes is not None:
            points.append((time.timestamp(), float(capture.store_bytes)))
    if points and material.store.bytes is not None:
        points.append((material.made.timestamp(), float(material.store.bytes)))
    return _lines("store", "What the store takes on disk", {"store": points} if points else {})


def _lines(
    name: str, title: str, series: Mapping[str, list[tuple[float, float]]], more: str = ""
) -> Drawing | None:
    if not series:
        return None
    left, wide, top, high = 10.0, 400.0, 14.0, 170.0
    times = [time for points in series.values() for time, _ in points]
    begin, span = min(times), max(max(times) - min(times), 1.0)
    marks = byte_ticks(max(size for points in series.values() for _, size in points))
    scale, base = high / marks[-1], top + high
    last = {label: points[-1][1] for label, points in series.items()}
    now = ", ".join(f"{label} {words.size(round(size))}" for label, size in last.items())
    told = f"In the end: {now}.{more}"
    made = Drawing(name, title, told, width=left + wide + 78, height=base + 26)
    for mark in marks:
        y = base - mark * scale
        made.line(left, y, left + wide, y, "grid")
        made.text(left + wide + 8, y + 4, words.size(round(mark)), "small")
    for number, (label, points) in enumerate(series.items()):
        shown = [
            (left + (time - begin) / span * wide, base - size * scale)
            for time, size in thinned(points, POINTS)
        ]
        path = "L".join(f"{at(x)} {at(y)}" for x, y in shown)
        made.path(f"M{path}", f"series s{number}", f"{label}: {words.size(round(last[label]))}")
        made.circle(*shown[-1], 3.5, f"dot s{number}")
    first, end = _ends(begin, begin + span)
    made.text(left, base + 18, first, "small", "start")
    made.text(left + wide, base + 18, end, "small", "end")
    return made


def _ends(begin: float, end: float) -> tuple[str, str]:
    """Their days, or their times where both are of one day; in UTC."""
    first, last = (words.when(datetime.fromtimestamp(time, UTC)) for time in (begin, end))
    days = first.partition(",")[0], last.partition(",")[0]
    return days if days[0] != days[1] else (first, last)


def legend(drawing: Drawing | None) -> list[tuple[int, str]]:
    """(number of the line's colour, its label) of a drawing of lines."""
    titles = [s.title for s in drawing.shapes if s.style.startswith("series")] if drawing else []
    return list(enumerate(titles))
