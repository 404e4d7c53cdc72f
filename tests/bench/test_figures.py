"""What is made of measurements: medians, outages, percentiles, goals, the page and the picture."""

from __future__ import annotations

import json
import math
from pathlib import Path
from xml.etree import ElementTree

import pytest

from bench import helping, ingress, load, plot, prober, shares, sizes, stopping, storing
from bench.errors import BenchError
from bench.goals import Goal, goals, number
from bench.ingress import Hold, longest_wait
from bench.prober import Attempt
from bench.report import (
    BEHIND,
    THROUGH,
    behind_the_ingress,
    goals_table,
    page,
    put_chapter,
    table,
    through_the_helper,
    title,
    write,
)
from bench.results import Figure, Results, Series
from bench.stopping import FLOOR

MIB = 1 << 20
FACTS = {
    "scale": 1.0,
    "machine": {"file system": "ext4"},
    "versions": {"restic": "0.14.0"},
    "cold": True,
}
ONE = Series("storing", "postgres-2048", "restic", storing.FIRST)


@pytest.fixture
def results(tmp_path: Path) -> Results:
    return Results.begin(tmp_path / "results.jsonl", FACTS)


def begin(results: Results, rounds: int = 5, commit: str = "abc") -> None:
    covers = [("storing", "postgres-2048")]
    results.begin_part("storing-postgres", covers, date="2026-01-01", commit=commit, rounds=rounds)


def measured(results: Results, *values: tuple[Series, float]) -> None:
    with results.round("storing", "postgres-2048", 1):
        for series, value in values:
            results.add(series, value)


@pytest.mark.parametrize(
    ("values", "median"), [([3.0], 3.0), ([5.0, 1.0, 3.0], 3.0), ([4.0, 1.0, 2.0, 3.0], 2.5)]
)
def test_a_figure_is_the_median_of_its_rounds(
    results: Results, values: list[float], median: float
) -> None:
    for at, value in enumerate(values):
        with results.round("storing", "postgres-2048", at):
            results.add(ONE, value)
    assert results.figure(ONE) == Figure(median, len(values))


def test_a_run_goes_on_where_it_was_killed(results: Results) -> None:
    with results.round("storing", "postgres-2048", 1):
        results.add(ONE, 10.0)
    killed = results.round("storing", "postgres-2048", 2)
    killed.__enter__()
    results.add(ONE, 99.0)
    again = Results.load(results.path)
    assert again.facts == FACTS
    assert again.has("storing", "postgres-2048", 1)
    assert not again.has("storing", "postgres-2048", 2)
    with again.round("storing", "postgres-2048", 2):
        again.add(ONE, 20.0, at_least=True)
    assert Results.load(results.path).figure(ONE) == Figure(15.0, 2, at_least=True)


def test_what_a_dying_write_left_is_passed_over(results: Results) -> None:
    measured(results, (ONE, 1.0))
    with results.path.open("a") as file:
        file.write('{"series": {"chap')
    again = Results.load(results.path)
    with again.round("storing", "postgres-2048", 2):
        again.add(ONE, 3.0)
    assert Results.load(results.path).figure(ONE) == Figure(2.0, 2)


def test_there_is_nothing_to_go_on_with(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="no earlier run"):
        Results.load(tmp_path / "none.jsonl")


def test_a_new_run_keeps_the_one_before_aside(results: Results) -> None:
    measured(results, (ONE, 1.0))
    Results.begin(results.path, FACTS)
    before = Results.load(results.path.with_suffix(".before.jsonl"))
    assert before.figure(ONE) == Figure(1.0, 1)
    assert Results.load(results.path).figure(ONE) is None


def test_seconds_that_one_tool_took_are_added_up_but_not_its_bytes(results: Results) -> None:
    with results.round("storing", "postgres-2048", 1):
        results.add(ONE, 10.0)
        results.add(Series("storing", "postgres-2048", "restic", storing.NEXT), 5.0)
        results.add(Series("storing", "postgres-2048", "restic", "bytes after 1"), 1e9)
        results.add(Series("storing", "postgres-2048", "borg", storing.FIRST), 7.0)
        assert results.spent("storing", "postgres-2048", "restic") == 15.0


def answers(*spans: tuple[float, float, bool]) -> list[Attempt]:
    """An attempt every 20 ms in each span, good or not, each answered after 1 ms."""
    return [
        Attempt(start + at * 0.02, start + at * 0.02 + 0.001, good)
        for start, end, good in spans
        for at in range(round((end - start) / 0.02))
    ]


@pytest.mark.parametrize(
    ("attempts", "seconds"),
    [
        ([], 0.0),
        (answers((0, 5, True)), 0.0),
        (answers((0, 1, True), (1, 1.5, False), (1.5, 3, True)), 0.52),
        (answers((0, 1, True), (1, 2, False), (2, 3, True), (3, 4, False), (4, 5, True)), 2.04),
        (answers((0, 1, True), (3, 4, True)), 2.02),  # nobody failed, nobody was answered
        (answers((0, 1, True), (1.8, 3, True)), 0.0),  # slow, but nobody was refused
        (answers((0, 1, False), (1, 2, True), (2, 3, False)), 0.0),  # no answer before, or after
    ],
)
def test_stopped_is_from_the_last_good_answer_to_the_first_one_after(
    attempts: list[Attempt], seconds: float
) -> None:
    assert prober.stopped(attempts, 0, 10) == pytest.approx(seconds, abs=0.001)
    assert prober.stopped(attempts[::-1], 0, 10) == pytest.approx(seconds, abs=0.001)


def test_an_outage_outside_the_time_asked_for_does_not_count() -> None:
    attempts = answers((0, 1, True), (1, 2, False), (2, 6, True))
    assert prober.stopped(attempts, 3, 6) == 0


def test_percentiles_of_the_load() -> None:
    lines = [f"0 {n} {n * 1000} 0 1700000000 {n * 100} 5" for n in range(1, 201)]
    lines += ["", "0 1 skipped 0 1700000000 7 5", "0 9 90"]
    found = list(load.parse(lines))
    assert len(found) == 200
    assert load.p99(found, 1700000000, 1700000001) == pytest.approx(0.198)
    assert load.p99(found, 1700000000, 1700000000.005) is None  # too few to say
    assert load.percentile([5.0], 0.99) == 5.0
    with pytest.raises(ValueError, match="no values"):
        load.percentile([], 0.5)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (0.0123, "0.012"),
        (0.5, "0.50"),
        (9.876, "9.88"),
        (45.67, "45.7"),
        (1234.6, "1235"),
    ],
)
def test_numbers_have_three_digits_that_count(value: float, text: str) -> None:
    assert number(value) == text


def test_every_goal_is_listed_though_nothing_was_measured(results: Results) -> None:
    found = goals(results)
    assert len(found) == 32
    assert {goal.reached for goal in found} == {None}
    lines = list(goals_table(found))
    assert len(lines) == 2 + len(found)
    assert all(line.endswith("| not measured |") for line in lines[2:])


@pytest.mark.parametrize(
    ("goal", "reached"),
    [
        (Goal("", 1.5, True, "x", 1.5), True),
        (Goal("", 1.5, True, "x", 1.51), False),
        (Goal("", 3.0, False, "x", 3.0), True),
        (Goal("", 3.0, False, "x", 2.99), False),
        (Goal("", 3.0, False, "x"), None),
    ],
)
def test_a_goal_is_reached_or_not(goal: Goal, reached: bool | None) -> None:
    assert goal.reached is reached


def a_run(results: Results) -> None:
    """Figures of a run in which some goals are reached and some are missed."""
    begin(results)

    def stored(who: str, what: str, value: float) -> tuple[Series, float]:
        return Series("storing", "postgres-2048", who, what), value

    def stopped(who: str, what: str, value: float) -> tuple[Series, float]:
        return Series("stopping", "disk", who, what), value

    measured(
        results,
        stored("restic", storing.FIRST, 18.0),
        stored("lockstep", storing.FIRST, 5.0),
        stored("restic", storing.NEXT, 12.0),
        stored("lockstep", storing.NEXT, 4.0),
        stored("tar czf", storing.FIRST, 80.0),
        stored("tar czf", storing.STORE.format(3), 2000 * MIB),
        stored("lockstep", storing.STORE.format(3), 700 * MIB),
        stored("lockstep", f"{storing.MEMORY} {storing.FIRST}", 90 * MIB),
        stored("restic", f"{storing.MEMORY} {storing.FIRST}", 900 * MIB),
        stopped(FLOOR, stopping.FORWARD, 0.8),
        stopped("lockstep", stopping.FORWARD, 1.0),
        stopped("lockstep", stopping.BACK, 0.7),
        stopped("lockstep", stopping.REST, 0.006),
        stopped("lockstep", stopping.PREPARING, 0.012),
        (Series("sizes", "xfs", "postgres-512", sizes.FORK), 0.1),
        (Series("sizes", "xfs", "postgres-2048", sizes.FORK), 0.11),
    )


def test_goals_are_compared_with_what_was_measured(results: Results) -> None:
    a_run(results)
    found = {g.text: g for g in goals(results) if g.reached is not None}
    shown = {text: (round(g.measured or 0, 2), g.reached) for text, g in found.items()}
    assert shown == {
        "service stopped, forward (fork), ext4: of stop + start alone": (1.25, True),
        "service stopped, back (attach), ext4: of stop + start alone": (0.87, False),
        "p99 of the live service while preparing, ext4: of rest": (2.0, True),
        "first capture: faster than restic": (3.6, True),
        "next capture: faster than restic": (3.0, False),
        "bytes kept for 3 releases: of tar's": (35.0, True),
        "peak memory of any step of ours": (90.0, True),
        "fork by reflink, XFS: no longer for 4 x the data": (1.1, True),
    }


def test_a_restore_is_shown_beside_a_plain_copy(results: Results) -> None:
    names = [("restic", 6.0), ("lockstep", 2.0), ("cp -a", 1.5)]
    measured(
        results,
        *((Series("storing", "postgres-2048", who, storing.EMPTY), took) for who, took in names),
    )
    (goal,) = [g for g in goals(results) if g.text.startswith("restore to an empty folder")]
    assert goal.how == "6.00 s : 2.00 s; cp -a, then sync: 1.50 s"


def test_the_disk_alone_is_the_floor(results: Results) -> None:
    begin(results)
    steps = [(storing.FIRST, 3.0), (storing.NEXT, 2.0), (storing.EMPTY, 4.0), (storing.IN_PLACE, 3)]
    alone = [(storing.WRITTEN, 1.25), (storing.READ, 1.0)]
    measured(
        results,
        *((Series("storing", "postgres-2048", "restic", what), 2 * took) for what, took in steps),
        *((Series("storing", "postgres-2048", "lockstep", what), took) for what, took in steps),
        *((Series("storing", "postgres-2048", storing.DISK, what), took) for what, took in alone),
    )
    told = {g.text.partition(":")[0]: g.how for g in goals(results) if "restic" in g.text}
    assert told["restore to an empty folder"].endswith("; the disk alone, written: 1.25 s")
    assert told["restore in place"].endswith("; the disk alone, read: 1.00 s")
    assert told["next capture"].endswith("; the disk alone, read: 1.00 s")
    (line,) = [line for line in page(results) if line.startswith("The floor:")]
    assert "1.25 s to write" in line
    assert "1.00 s to read" in line


def test_the_page_shows_missed_goals_and_the_ratio_to_each_peer(results: Results) -> None:
    a_run(results)
    lines = list(page(results))
    missed = [line for line in lines if line.endswith("| **no** |")]
    assert len(missed) == 2
    assert "quick look" not in "\n".join(lines)
    assert "## PostgreSQL of 2 GiB" in lines
    (restic,) = [line for line in lines if line.startswith("| restic | 3.60")]
    assert restic == "| restic | 3.60 | 3.00 | - | - | - |"
    (ours,) = [line for line in lines if line.startswith("| lockstep | ext4")]
    assert ours == "| lockstep | ext4 | 1.00 s (1.25 x, n=1) | 0.70 s (0.87 x, n=1) | - |"


@pytest.mark.parametrize(("scale", "rounds", "says_so"), [(1.0, 3, 0), (0.05, 5, 1), (1.0, 2, 1)])
def test_a_page_of_a_quick_look_says_so(
    results: Results, scale: float, rounds: int, says_so: bool
) -> None:
    begin(results, rounds)
    results.facts = {**FACTS, "scale": scale}
    assert any("quick look" in line for line in page(results)) is bool(says_so)


def test_a_part_that_is_measured_anew_takes_the_place_of_its_figures(results: Results) -> None:
    other = Series("sizes", "disk", "postgres-2048", sizes.FORK)
    begin(results)
    measured(results, (ONE, 1.0), (other, 7.0))
    results.end_part("storing-postgres")
    begin(results, commit="def")
    assert results.figure(ONE) is None
    measured(results, (ONE, 5.0))
    for found in (results, Results.load(results.path)):
        assert found.figure(ONE) == Figure(5.0, 1)
        assert found.figure(other) == Figure(7.0, 1)
        assert found.ended == set()
        assert "at commit def;" in "\n".join(page(found))
    results.begin_part("sizes", [("sizes", "disk")], date="2026-01-02", commit="abc", rounds=5)
    assert any("storing-postgres 2026-01-01 (def), sizes" in line for line in page(results))


def test_the_helper_s_chapter_tells_what_the_way_through_it_costs(results: Results) -> None:
    assert list(through_the_helper(results)) == []
    results.begin_part(helping.CHAPTER, [], date="2026-11-22", rounds=1, commit="abc")
    for who, seconds in zip(helping.WHO.values(), (0.5, 1.5), strict=True):
        for what in helping.STEPS:
            measured(results, (Series(helping.CHAPTER, "postgres-512", who, what), seconds))
    heading, *_, costs = (line for line in through_the_helper(results) if line)
    assert heading == THROUGH
    assert costs == "| times as long | 3.00 | 3.00 | 3.00 |"


def test_the_ingress_s_chapter_is_put_into_a_page_by_itself(
    results: Results, tmp_path: Path
) -> None:
    """With its goals; its figures are the worst of all rounds."""

    def of(what: str) -> Series:
        return Series(ingress.CHAPTER, "postgres-1024", "lockstep", f"forward: {what}")

    results.begin_part(ingress.CHAPTER, [], date="2026-11-22", rounds=2, commit="abc")
    for asked, held, longest in ((9000, 2.0, 2.1), (8000, 1.0, 1.75)):
        measured(
            results,
            (of(ingress.ASKED), asked),
            (of(ingress.FAILED), 0),
            (of(ingress.HELD), held),
            (of(ingress.LONGEST), longest),
            (of(ingress.BEYOND), longest - held),
            (of(ingress.HEAD_ROOM), asked / 5),
        )
    page, chapter = tmp_path / "page.md", list(behind_the_ingress(results))
    page.write_text("# A page\n\n## One\n\nfirst\n\n## Two\n\nlast\n")

    put_chapter(page, BEHIND, chapter)
    put_chapter(page, "## One", ["## One", "", "another"])
    put_chapter(page, BEHIND, chapter)

    text = page.read_text()
    headings = [line for line in text.splitlines() if line.startswith("#")]
    assert headings == ["# A page", "## One", "## Two", BEHIND]
    assert "another" in text
    assert "first" not in text
    assert "failed requests | ≤ 0  | 0  | of 9000 | 2 | yes |" in text
    assert "beyond the hold | ≤ 0.25 s | 0.75 s | 2.10 s : 2.00 s | 2 | **no** |" in text
    assert "| forward | - | 2.00 s | 2.10 s | 1600 |" in text


def test_what_is_said_of_a_hold_is_heard() -> None:
    hold = Hold()
    hold.hear("   stopping shop-prod-001 (2 services)")
    assert longest_wait([Attempt(1.0, 9.0, good=True)], hold.begun, math.inf) == 0
    hold.hear("   connections were held for 1.25 s")
    assert hold.seconds == 1.25
    asked = [Attempt(hold.begun - 0.1, hold.ended + 9, good=True)]
    asked.append(Attempt(hold.begun + 0.1, hold.begun + 1.6, good=True))
    assert longest_wait(asked, hold.begun, math.inf) == pytest.approx(1.5)


def test_tables_have_as_many_cells_in_each_line() -> None:
    lines = list(table(["", "a", "b"], [["x", "1", "2"], ["y", "3", "4"]]))
    assert lines == ["|  | a | b |", "| --- | ---: | ---: |", "| x | 1 | 2 |", "| y | 3 | 4 |"]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("postgres-2048", "PostgreSQL of 2 GiB"),
        ("postgres-102", "PostgreSQL of 102 MiB"),
        ("files-100000", "100 000 small files"),
        ("sparse-100", "A sparse file of 100 GiB"),
    ],
)
def test_headings_follow_the_sizes(name: str, text: str) -> None:
    assert title(name) == text


def test_the_picture_has_a_bar_for_each_figure(results: Results, tmp_path: Path) -> None:
    a_run(results)
    write(results, tmp_path / "out")
    root = ElementTree.fromstring((tmp_path / "out" / "benchmarks.svg").read_text())
    shapes = [e for e in root.iter() if e.tag.endswith("rect")]
    bars = [e for e in shapes if e.get("class") in ("peer", "floor", "ours")]
    assert len(bars) == 11
    widths = {
        e.get("class"): float(e.get("width", "0")) for e in bars[:2]
    }  # forward: the floor's 0.8 s, ours 1.0 s
    assert 0 < widths["floor"] < widths["ours"]
    assert (tmp_path / "out" / "benchmarks.md").read_text().startswith("# Benchmarks\n")


@pytest.mark.parametrize(
    ("values", "low", "high"),
    [([1.0], -1, 0), ([2.0, 50.0], 0, 2), ([0.05, 0.07], -2, -1), ([100.0, 1000.0], 1, 3)],
)
def test_all_bars_lie_between_two_powers_of_ten(values: list[float], low: int, high: int) -> None:
    assert plot.decades(values) == (low, high)


def test_results_are_lines_that_other_programs_can_read(results: Results) -> None:
    measured(results, (ONE, 1.5))
    lines = [json.loads(line) for line in results.path.read_text().splitlines()]
    assert [next(iter(line)) for line in lines] == ["facts", "begun", "series", "whole"]
    assert lines[2]["value"] == 1.5


def test_a_part_of_the_bench_has_its_share_of_the_time() -> None:
    assert sum(shares.PARTS.values()) == pytest.approx(1.0)
    now = 100.0
    part = shares.Share(60.0, clock=lambda: now)
    assert part.used() == 0
    part.start()
    now = 130.0
    assert part.lasts()
    now = 150.0  # half of a round that takes 20 s would be in time
    assert not part.lasts()
    assert part.used() == 50


def test_what_a_part_leaves_of_its_share_is_for_the_others() -> None:
    budget = shares.Budget(1.0, ["stopping-xfs", "stopping-btrfs"])
    first = budget.share("stopping-xfs")
    assert first.seconds == pytest.approx(30)
    budget.ended("stopping-xfs", first)  # it had nothing to do
    assert budget.share("stopping-btrfs").seconds == pytest.approx(60)


@pytest.mark.parametrize(
    ("number", "spent", "takes_part"),
    [(1, 0.0, True), (2, 9.0, True), (2, 11.0, False), (1, 99.0, True), (2, 0.0, False)],
)
def test_a_tool_that_used_up_its_part_sits_out(number: int, spent: float, takes_part: bool) -> None:
    assert shares.takes_part(number, spent, 10.0) is takes_part
