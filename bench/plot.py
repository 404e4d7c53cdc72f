"""docs/benchmarks.svg: one bar for each tool in each figure, on a log scale, light and dark."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

from bench import stopping, storing
from bench.goals import ground_name, largest, number
from bench.grounds import LOOPED
from bench.results import Results, Series
from bench.stopping import FLOOR

MIB = 1 << 20
WIDTH, COLUMNS = 920, 2
NAMES, VALUES, GAP = 132, 66, 28
ROW, BAR, HEAD, FOOT = 22, 14, 34, 34
STYLE = """
  text { font: 12px system-ui, -apple-system, "Segoe UI", sans-serif; fill: #24292f; }
  .title { font-weight: 600; font-size: 13px; }
  .quiet { fill: #57606a; font-size: 11px; }
  .grid { stroke: #d0d7de; stroke-width: 1; }
  .paper { fill: #ffffff; }
  .value { stroke: #ffffff; stroke-width: 3px; paint-order: stroke; }
  .peer { fill: #8c959f; }
  .floor { fill: #bf8700; }
  .ours { fill: #0969da; }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3; }
    .quiet { fill: #9198a1; }
    .grid { stroke: #3d444d; }
    .paper { fill: #0d1117; }
    .value { stroke: #0d1117; }
    .peer { fill: #6e7681; }
    .floor { fill: #d29922; }
    .ours { fill: #4493f8; }
  }
"""


@dataclass(frozen=True)
class Bar:
    """One tool's figure. `kind`: peer, floor or ours."""

    name: str
    value: float
    kind: str
    at_least: bool = False


@dataclass(frozen=True)
class Panel:
    """One figure for all tools."""

    title: str
    unit: str
    bars: Sequence[Bar]


def svg(results: Results) -> str:
    """The whole picture."""
    return draw([panel for panel in panels(results) if panel.bars])


def panels(results: Results) -> Iterator[Panel]:
    """What is shown of a run; a panel of something that was not measured has no bars."""
    yield Panel("service stopped, forward", "s", _stopped(results, stopping.FORWARD))
    yield Panel("service stopped, back", "s", _stopped(results, stopping.BACK))
    for title, prefix in (("PostgreSQL", "postgres-"), ("small files", "files-")):
        for text, what in (
            ("first capture", storing.FIRST),
            ("next capture", storing.NEXT),
            ("restore", storing.EMPTY),
        ):
            yield Panel(f"{title}: {text}", "s", _stored(results, prefix, what, 1))
        kept = _stored(results, prefix, storing.STORE.format(3), 1 / MIB)
        yield Panel(f"{title}: kept for 3 releases", "MiB", kept)


def _stopped(results: Results, what: str) -> list[Bar]:
    wanted = [("disk", FLOOR, "floor", stopping.FORWARD)]
    wanted += [("disk", who, "peer", what) for who in ("tar czf", "cp -a", "restic", "borg")]
    wanted += [(kind, "lockstep", "ours", what) for kind in ("disk", *LOOPED)]
    bars = []
    for kind, who, how, which in wanted:
        figure = results.figure(Series(stopping.CHAPTER, kind, who, which))
        if figure is not None:
            name = f"lockstep, {ground_name(results, kind)}" if how == "ours" else who
            bars.append(Bar(name, figure.value, how))
    return bars


def _stored(results: Results, prefix: str, what: str, factor: float) -> list[Bar]:
    subject = largest(results, storing.CHAPTER, prefix)
    bars = []
    for who in ("tar czf", "cp -a", "restic", "borg", "lockstep", *_on_images()):
        figure = subject and results.figure(Series(storing.CHAPTER, subject, who, what))
        if figure:
            name, _, place = who.partition(" on ")
            ours = name == "lockstep"
            label = f"{name}, {ground_name(results, place or 'disk')}" if ours else who
            kind = "ours" if ours else "peer"
            bars.append(Bar(label, figure.value * factor, kind, figure.at_least))
    return bars


def _on_images() -> list[str]:
    return [f"lockstep on {kind}" for kind in LOOPED]


def draw(shown: Sequence[Panel]) -> str:
    """The panels in two columns."""
    rows = [shown[at : at + COLUMNS] for at in range(0, len(shown), COLUMNS)]
    heights = [HEAD + FOOT + ROW * max(len(p.bars) for p in row) for row in rows]
    height = sum(heights) + 30
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
        f'width="{WIDTH}" height="{height}" role="img" aria-label="Benchmarks as bars">',
        f"<style>{STYLE}</style>",
        f'<rect class="paper" width="{WIDTH}" height="{height}"/>',
    ]
    top = 8.0
    for row, tall in zip(rows, heights, strict=True):
        for column, panel in enumerate(row):
            lines += _panel(panel, column * WIDTH / COLUMNS + GAP / 2, top)
        top += tall
    lines.append(
        f'<text class="quiet" x="{GAP / 2}" y="{height - 10}">less is better; log scale</text>'
    )
    return "\n".join([*lines, "</svg>", ""])


def _panel(panel: Panel, left: float, top: float) -> Iterator[str]:
    start = left + NAMES
    room = WIDTH / COLUMNS - GAP - NAMES - VALUES
    low, high = decades([bar.value for bar in panel.bars])

    def across(value: float) -> float:
        return room * (math.log10(value) - low) / (high - low)

    base = top + HEAD
    end = base + ROW * len(panel.bars)
    title = f'{escape(panel.title)} <tspan class="quiet">({panel.unit})</tspan>'
    yield f'<text class="title" x="{left:.1f}" y="{top + 16:.1f}">{title}</text>'
    for power in range(low, high + 1):
        x = start + across(10.0**power)
        yield f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{base - 6:.1f}" y2="{end:.1f}"/>'
        yield (
            f'<text class="quiet" text-anchor="middle" x="{x:.1f}" y="{end + 13:.1f}">'
            f"{10.0**power:g}</text>"
        )
    for at, bar in enumerate(panel.bars):
        y = base + ROW * at
        long = max(1.0, across(bar.value))
        said = f"{'> ' if bar.at_least else ''}{number(bar.value)}"
        middle = y + BAR - 3
        name = escape(bar.name)
        yield f'<text text-anchor="end" x="{start - 8:.1f}" y="{middle:.1f}">{name}</text>'
        yield (
            f'<rect class="{bar.kind}" x="{start:.1f}" y="{y:.1f}" width="{long:.1f}" '
            f'height="{BAR}" rx="2"/>'
        )
        yield f'<text class="value" x="{start + long + 6:.1f}" y="{middle:.1f}">{said}</text>'


def decades(values: Sequence[float]) -> tuple[int, int]:
    """The powers of ten that all values lie between, at least one apart; the smallest value has
    a bar that can be seen. Values must be above 0."""
    low = math.floor(math.log10(min(values) * 0.8))
    high = math.ceil(math.log10(max(values)))
    return low, max(high, low + 1)
