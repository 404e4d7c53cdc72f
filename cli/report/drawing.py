"""A drawing as plain shapes in pixels; the template turns it into SVG and escapes every text."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True)
class Shape:
    """One element. `title` is what a pointer and a screen reader are told of it."""

    kind: Literal["path", "rect", "circle", "text"]
    style: str
    """Classes of the style sheet."""
    x: float = 0.0
    y: float = 0.0
    width: float = 0.0
    height: float = 0.0
    path: str = ""
    text: str = ""
    anchor: Literal["start", "middle", "end"] = "start"
    title: str = ""


@dataclass
class Drawing:
    """`name` is unique in the page; `told` says in words what can be seen."""

    name: str
    title: str
    told: str
    width: float
    height: float
    shapes: list[Shape] = field(default_factory=list)

    def path(self, path: str, style: str, title: str = "") -> None:
        """A path in SVG's notation."""
        self.shapes.append(Shape("path", style, path=path, title=title))

    def line(self, x1: float, y1: float, x2: float, y2: float, style: str, title: str = "") -> None:
        """A straight line."""
        self.path(f"M{at(x1)} {at(y1)}L{at(x2)} {at(y2)}", style, title)

    def rect(
        self, x: float, y: float, width: float, height: float, style: str, title: str = ""
    ) -> None:
        """A rectangle; its corners are the style sheet's."""
        self.shapes.append(Shape("rect", style, x, y, width, height, title=title))

    def circle(self, x: float, y: float, radius: float, style: str, title: str = "") -> None:
        """A circle around (x, y)."""
        self.shapes.append(Shape("circle", style, x, y, radius, title=title))

    def text(
        self,
        x: float,
        y: float,
        text: str,
        style: str = "",
        anchor: Literal["start", "middle", "end"] = "start",
    ) -> None:
        """A line of text on the base line y."""
        self.shapes.append(Shape("text", style, x, y, text=text, anchor=anchor))


def at(value: float) -> str:
    """A coordinate, short."""
    return f"{value:.1f}".removesuffix(".0")


def curve(x1: float, y1: float, x2: float, y2: float) -> str:
    """A path that leaves and arrives horizontally."""
    middle = (x1 + x2) / 2
    return f"M{at(x1)} {at(y1)}C{at(middle)} {at(y1)} {at(middle)} {at(y2)} {at(x2)} {at(y2)}"


def ticks(most: float, count: int = 4) -> list[float]:
    """Round values from 0 to at least `most`, at most `count` + 2 of them."""
    if most <= 0:
        return [0.0, 1.0]
    rough = most / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= rough * 0.999)
    return [n * step for n in range(math.ceil(most / step - 1e-9) + 1)]


def byte_ticks(most: float, count: int = 4) -> list[float]:
    """The same for bytes: round in the unit that people read them in."""
    unit = 1.0
    while most / unit >= 1024:
        unit *= 1024
    return [tick * unit for tick in ticks(most / unit, count)]


def thinned(points: Sequence[tuple[float, float]], most: int) -> Iterator[tuple[float, float]]:
    """At most `most` of the points, evenly, the last one always."""
    step = max(1, math.ceil(len(points) / most))
    last = len(points) - 1
    return (point for n, point in enumerate(points) if (last - n) % step == 0)
