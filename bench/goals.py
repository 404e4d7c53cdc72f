"""The figures to reach, each beside what was measured. A missed one is shown like any other."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial

from bench import catalog, ingress, sizes, stopping, storing
from bench.grounds import LOOPED
from bench.peers import COPY, OURS, RESTIC, TAR
from bench.results import Figure, Results, Series
from bench.stopping import FLOOR

MIB = 1 << 20
MEMORY_MIB = 400
BEYOND_SECONDS = 0.25
"""What a new connection may take beside the hold: the oldest one is tried every tenth of a second,
and on a busy machine all wait for processors."""
GROWTH = 1.25
"""What two measurements of the same thing differ by all the same."""


@dataclass(frozen=True)
class Goal:
    """One figure to reach: `measured` against `bound`. `how`: the figures that it comes from."""

    text: str
    bound: float
    at_most: bool
    unit: str
    measured: float | None = None
    how: str = ""
    n: int = 0

    @property
    def reached(self) -> bool | None:
        """None when it was not measured."""
        if self.measured is None:
            return None
        holds: Callable[[float, float], bool] = operator.le if self.at_most else operator.ge
        return holds(self.measured, self.bound)


def goals(results: Results) -> list[Goal]:
    """All of them, in the order in which they matter."""
    return [
        *_stopped(results),
        *_latency(results),
        *behind(results),
        *_against_restic(results),
        _store(results),
        *_memory(results),
        *_reflink(results),
        *_grown(results),
    ]


def _grown(results: Results) -> Iterator[Goal]:
    """The largest catalogs, in whole commands."""
    longest = max(catalog.SIZES, key=lambda size: size.releases)
    widest = max(catalog.SIZES, key=lambda size: size.services)
    for size, much in (
        (longest, f"{longest.releases:,} releases".replace(",", " ")),
        (widest, f"{widest.services} services and {widest.datasets} datasets"),
    ):
        for command, bound in (("list", 0.5), ("preview", 3.0)):
            text = f"`{command}` with {much}"
            figure = results.figure(Series(catalog.CHAPTER, size.name, OURS.name, command))
            if figure is None:
                yield Goal(text, bound, True, "s")
            else:
                yield Goal(text, bound, True, "s", figure.value, "", figure.n)


def _stopped(results: Results) -> Iterator[Goal]:
    for what, text, bound in (
        (stopping.FORWARD, "service stopped, forward (fork)", 1.5),
        (stopping.BACK, "service stopped, back (attach)", 0.6),
        (stopping.BACK_RESTORE, "service stopped, back (restored from a snapshot)", 0.6),
    ):
        for kind in ("disk", *LOOPED):
            ours = results.figure(Series(stopping.CHAPTER, kind, OURS.name, what))
            floor = results.figure(Series(stopping.CHAPTER, kind, FLOOR, stopping.FORWARD))
            place = ground_name(results, kind)
            goal = Goal(f"{text}, {place}: of stop + start alone", bound, True, "x")
            yield _ratio(goal, ours, floor, "s")


def behind(results: Results) -> Iterator[Goal]:
    """Behind the ingress: nobody is refused, nobody waits longer than he must, no order is lost."""
    for move in ingress.MOVES:
        of = partial(_of_ingress, results, move)
        text = f"behind the ingress, {move}, at {ingress.RATE:.0f} requests/s"
        asked, failed = of(ingress.ASKED), of(ingress.FAILED)
        goal = Goal(f"{text}: failed requests", 0.0, True, "")
        if asked is not None and failed is not None:
            how = f"of {asked.value:.0f}"
            goal = replace(goal, measured=failed.value, how=how, n=failed.n)
        yield goal
        longest, held, beyond = of(ingress.LONGEST), of(ingress.HELD), of(ingress.BEYOND)
        goal = Goal(f"{text}: longest wait beyond the hold", BEYOND_SECONDS, True, "s")
        if longest is not None and held is not None and beyond is not None:
            how = f"{number(longest.value)} s : {number(held.value)} s"
            goal = replace(goal, measured=beyond.value, how=how, n=beyond.n)
        yield goal
    lost = _of_ingress(results, ingress.FAILING, ingress.LOST)
    taken = _of_ingress(results, ingress.FAILING, ingress.ACKNOWLEDGED)
    goal = Goal("behind the ingress, a failing release: acknowledged orders lost", 0.0, True, "")
    if lost is not None and taken is not None:
        refused = _of_ingress(results, ingress.FAILING, ingress.FAILED)
        how = f"of {taken.value:.0f}, beside {refused.value if refused else 0:.0f} that failed"
        goal = replace(goal, measured=lost.value, how=how, n=lost.n)
    yield goal


def _of_ingress(results: Results, move: str, what: str) -> Figure | None:
    subject = largest(results, ingress.CHAPTER, "postgres-")
    if subject is None:
        return None
    series = Series(ingress.CHAPTER, subject, OURS.name, f"{move}: {what}")
    for measured, values in results.values():
        if measured == series:
            return Figure(max(values), len(values))  # one lost order is not made good by a median
    return None


def _latency(results: Results) -> Iterator[Goal]:
    for kind in ("disk", *LOOPED):
        rest, preparing = (
            results.figure(Series(stopping.CHAPTER, kind, OURS.name, what))
            for what in (stopping.REST, stopping.PREPARING)
        )
        place = ground_name(results, kind)
        goal = Goal(f"p99 of the live service while preparing, {place}: of rest", 3.0, True, "x")
        yield _ratio(goal, preparing, rest, "ms", 1000)


def _against_restic(results: Results) -> Iterator[Goal]:
    for what, text, bound in (
        (storing.FIRST, "first capture", 3.0),
        (storing.NEXT, "next capture", 5.0),
        (storing.EMPTY, "restore to an empty folder", 3.0),
        (storing.IN_PLACE, "restore in place", 3.0),
    ):
        ours, theirs = (_stored(results, who, what) for who in (OURS.name, RESTIC.name))
        goal = _ratio(Goal(f"{text}: faster than restic", bound, False, "x"), theirs, ours, "s")
        plain = _stored(results, COPY.name, what)  # what the disk gives to one that checks nothing
        if goal.how and plain and what in (storing.EMPTY, storing.IN_PLACE):
            goal = replace(goal, how=f"{goal.how}; cp -a, then sync: {number(plain.value)} s")
        alone = storing.WRITTEN if what == storing.EMPTY else storing.READ
        if goal.how and (disk := _stored(results, storing.DISK, alone)):
            done = alone.removeprefix("seconds ")
            goal = replace(goal, how=f"{goal.how}; {storing.DISK}, {done}: {number(disk.value)} s")
        yield goal


def _store(results: Results) -> Goal:
    what = storing.STORE.format(3)
    ours, tar = (_stored(results, who, what) for who in (OURS.name, TAR.name))
    goal = Goal("bytes kept for 3 releases: of tar's", 40.0, True, "%")
    found = _ratio(goal, ours, tar, "MiB", 1 / MIB)
    if found.measured is None:
        return found
    return Goal(goal.text, 40.0, True, "%", found.measured * 100, found.how, found.n)


def _memory(results: Results) -> Iterator[Goal]:
    peaks = {
        series: figure
        for series, _ in results.values()
        if series.what.startswith(storing.MEMORY)
        and (series.who.startswith(OURS.name) or series.chapter == sizes.CHAPTER)
        and (figure := results.figure(series)) is not None
    }
    highest = max(peaks.values(), key=lambda figure: figure.value, default=None)
    goal = Goal("peak memory of any step of ours", MEMORY_MIB, True, "MiB")
    if highest is None:
        yield goal
    else:
        at = next(s for s, figure in peaks.items() if figure is highest)
        step = at.what.removeprefix(f"{storing.MEMORY} seconds ")
        how = f"{step}, {at.subject if at.chapter == storing.CHAPTER else at.who}"
        value = highest.value / MIB
        yield Goal(goal.text, goal.bound, True, "MiB", value, how, highest.n)
    for what, text in (
        (sizes.FORK, "fork"),
        (sizes.CAPTURE, "capture"),
        (sizes.RESTORE, "restore"),
    ):
        small, large = _sizes(results, "disk", f"{storing.MEMORY} {what}")
        goal = Goal(f"memory of a {text} does not grow with 4 x the data", GROWTH, True, "x")
        yield _ratio(goal, large, small, "MiB", 1 / MIB)


def _reflink(results: Results) -> Iterator[Goal]:
    for kind in LOOPED:
        small, large = _sizes(results, kind, sizes.FORK)
        place = ground_name(results, kind)
        goal = Goal(f"fork by reflink, {place}: no longer for 4 x the data", GROWTH, True, "x")
        yield _ratio(goal, large, small, "s")


def _ratio(
    goal: Goal, over: Figure | None, under: Figure | None, unit: str, factor: float = 1
) -> Goal:
    """The goal with `over` / `under` as its measured figure, if both are there."""
    if over is None or under is None or under.value == 0:
        return goal
    how = f"{number(over.value * factor)} {unit} : {number(under.value * factor)} {unit}"
    return Goal(
        goal.text,
        goal.bound,
        goal.at_most,
        goal.unit,
        over.value / under.value,
        how,
        min(over.n, under.n),
    )


def _stored(results: Results, who: str, what: str) -> Figure | None:
    subject = largest(results, storing.CHAPTER, "postgres-")
    return results.figure(Series(storing.CHAPTER, subject, who, what)) if subject else None


def _sizes(results: Results, kind: str, what: str) -> tuple[Figure | None, Figure | None]:
    """The figures of the small and of the large PostgreSQL."""
    names = {s.who for s, _ in results.values() if s.chapter == sizes.CHAPTER}
    ordered = sorted(names, key=lambda name: int(name.rpartition("-")[2]))
    if len(ordered) != 2:
        return None, None
    small, large = (results.figure(Series(sizes.CHAPTER, kind, name, what)) for name in ordered)
    return small, large


def largest(results: Results, chapter: str, prefix: str) -> str | None:
    """The subject of a chapter whose name begins so."""
    found = {s.subject for s, _ in results.values() if s.chapter == chapter}
    return max((name for name in found if name.startswith(prefix)), default=None)


def ground_name(results: Results, kind: str) -> str:
    """What to call a ground: the disk's by its file system."""
    names = {"disk": str(results.facts.get("machine", {}).get("file system", "disk"))}
    shown = {"xfs": "XFS"}
    name = names.get(kind, kind)
    return shown.get(name, name)


def number(value: float) -> str:
    """Three digits that count: 0.123, 1.23, 12.3, 123."""
    if value == 0:
        return "0"
    digits = 2 if abs(value) < 10 else 1 if abs(value) < 100 else 0
    return f"{value:.{3 if abs(value) < 0.1 else digits}f}"
