"""The page of the report, without a browser: complete, escaped, bounded, well formed."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from cli.report import attention, charts, history, lineage, strands, words
from cli.report.command import write
from cli.report.drawing import byte_ticks, ticks
from cli.report.material import Material
from cli.report.page import policy, render
from reconciler import masking
from reconciler.errors import BadInput
from tests.cli.report.materials import HOSTILE, hostile, moment
from tests.reconciler.ledgers import History, a_dozen, many

VOID = {"meta", "input", "br", "img", "link", "hr"}


class Parsed(HTMLParser):
    """Tags must close in order; ids must be unique; every reference must lead somewhere."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.refers: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in VOID:
            self.open.append(tag)
        for name, value in attrs:
            self.attributes.append((name, value or ""))
            if name == "id":
                self.ids.append(value or "")
            elif name in ("aria-labelledby", "aria-controls"):
                self.refers += (value or "").split()
            elif name == "href" and (value or "").startswith("#"):
                self.refers.append((value or "")[1:])

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def texts(page: str) -> str:
    return re.sub(r"<style>.*?</style>|<script>.*?</script>|<[^>]*>", " ", page, flags=re.S)


def test_the_page_is_well_formed_and_every_reference_leads_somewhere() -> None:
    page = render(moment(a_dozen()))
    parsed = Parsed(page)
    assert len(parsed.ids) == len(set(parsed.ids))
    assert set(parsed.refers) <= set(parsed.ids)
    for tag in ("header", "nav", "main", "footer", "h1"):
        assert parsed.tags.count(tag) == 1
    assert parsed.tags.count("svg") == page.count("</desc>") >= 6


def test_nothing_is_loaded_and_nothing_foreign_may_run() -> None:
    page = render(moment(a_dozen()))
    assert "http:" not in page
    assert "https:" not in page
    loads = [(n, v) for n, v in Parsed(page).attributes if n in ("src", "style", "action")]
    assert loads == []
    assert all(v.startswith("#") for n, v in Parsed(page).attributes if n == "href")
    rules = policy()
    assert "default-src 'none'" in rules
    assert "unsafe" not in rules
    assert "connect-src" not in rules
    assert "connect-src 'self'" in policy(served=True)


def test_what_somebody_wrote_stays_text() -> None:
    page = render(hostile())
    parsed = Parsed(page)
    assert "img" not in parsed.tags
    assert parsed.tags.count("script") == 1
    assert not [n for n, _ in parsed.attributes if n.startswith("on")]
    assert "&lt;script&gt;document.title" in page
    assert "{{ 7*7 }}" in page
    assert "\u202e" not in page, "a mark that turns the direction of text"


def test_no_secret_leaves_even_where_it_was_written_down(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(masking, "_hidden", masking.forms(["s3cr&t-value"]))
    made = History()
    made.forward(description="the password is s3cr&t-value")
    page = render(moment(made))
    assert "s3cr" not in page
    assert "the password is ***" in page


def test_every_switch_and_every_reason_to_keep_is_there() -> None:
    made = a_dozen()
    material = moment(made)
    rows = history.entries(material)
    outcomes = dict(made.state.outcomes)
    assert [r.seq for r in rows] == sorted([*outcomes, *(s for s, _ in made.state.found)])[::-1]
    for row in rows:
        if row.seq in outcomes:
            outcome = outcomes[row.seq]
            assert (row.down, row.expected) == (outcome.downtime_seconds, outcome.expected_seconds)
            assert row.result == outcome.kind
    page = texts(render(material))
    for row in rows:
        assert words.when(row.at) in page
        if row.down:
            assert words.seconds(row.down) in page
    for release in history.releases(material)[0]:
        assert release.name in page
        assert all(reason in page for reason in release.reasons)
    assert words.ranges(history.pruned(made.state)) in page


def test_a_failure_tells_its_gates_and_its_incident_what_people_remarked() -> None:
    page = texts(render(moment(a_dozen())))
    assert "gate checkout of web failed: worker is not healthy" in page
    assert "12 Apr 2026, 11:00 ben: a typo" in page
    assert "ticket 4711" in page


def test_a_stack_without_a_release_has_a_page_as_well() -> None:
    page = texts(render(moment(History())))
    assert "Nothing is live yet" in page
    assert "No switch yet" in page


def test_a_thousand_releases_stay_small_and_few_rows_are_built_at_once() -> None:
    material = moment(many(1000), window=6)
    page = render(material)
    assert len(page.encode()) < 2_000_000
    body = re.sub(r"<template.*?</template>", "", page, flags=re.S)
    assert body.count('class="switch"') == 40
    assert page.count('class="switch"') == len(history.entries(material)) > 1000
    assert re.search(r"Pruned, \d+ in all: prod-001 to prod-\d+", texts(page))


def test_a_thousand_kept_releases_stay_readable() -> None:
    history_of = many(560, keep=560)
    material = moment(history_of, window=1000)
    page = render(material)
    assert len(page.encode()) < 3_000_000
    body = re.sub(r"<template.*?</template>", "", page, flags=re.S)
    assert body.count('class="release"') == 40
    rows, left_out = history.releases(material)
    assert len(rows) >= history.NEWEST_RELEASES
    assert {row.name for row in rows}.isdisjoint(left_out)
    assert len(rows) + len(left_out) == len(material.records)
    assert words.ranges(left_out) in texts(page)


@pytest.mark.parametrize(
    ("change", "level", "words_of_it", "command"),
    [
        ({}, "error", "not all data", "lockstep drill"),
        ({"interrupted": "shop-prod-013"}, "error", "shop-prod-013", "lockstep recover"),
        ({"declared": "prod-012"}, "warning", "prod-012 is declared, but prod-011", "preview"),
        ({"damaged": {"prod-012": "cut off"}}, "error", "cut off", "doctor"),
        ({"checks": ()}, "warning", "every byte", "verify --read-data"),
        ({"drills": {}}, "warning", "never tried", "lockstep drill"),
    ],
)
def test_what_asks_for_attention_comes_with_a_command(
    change: dict[str, Any], level: str, words_of_it: str, command: str
) -> None:
    material = moment(a_dozen())
    drills = {name: {**d, "passed": bool(change)} for name, d in material.drills.items()}
    changed: dict[str, Any] = {"drills": drills, **change}
    found = attention.notices(replace(material, **changed))
    assert [n for n in found if n.level == level and words_of_it in n.text and command in n.command]


def test_what_is_well_asks_for_nothing() -> None:
    material = moment(a_dozen())
    drills = {name: {**drill, "passed": True} for name, drill in material.drills.items()}
    assert attention.notices(replace(material, drills=drills)) == []


def test_the_ribbon_shows_what_was_live_and_what_came_back() -> None:
    made = History()
    for fails in ("", "", "it does not start"):
        made.forward(fails=fails)
    made.back("prod-001", restore=True)
    found = charts.visits(history.entries(moment(made)))
    assert [(v.release, v.arrived, v.failures) for v in found] == [
        ("prod-001", "first", []),
        ("prod-002", "forward", ["prod-003"]),
        ("prod-001", "back", []),
    ]
    assert found[0].ended == found[1].begun
    drawing = charts.timeline(found, made.now)
    assert drawing is not None
    assert "prod-002 by forward (prod-003 failed)" in drawing.told
    assert [s.title for s in drawing.shapes if "arc restored" in s.style] == [
        "prod-001 came back, its data restored from the store"
    ]


def test_going_back_with_the_live_data_is_not_called_attached() -> None:
    made = History()
    made.forward()
    made.forward()
    made.back("prod-001")
    found = charts.visits(history.entries(moment(made)))
    for action, said in (("fork", "a fork of what was live"), ("attach", "attached again")):
        found[-1].actions = frozenset({action})
        drawing = charts.timeline(found, made.now)
        assert drawing is not None
        assert said in [s.text for s in drawing.shapes]


def test_bars_are_as_tall_as_the_downtime() -> None:
    rows = history.entries(moment(a_dozen()))
    drawing = charts.downtime(rows)
    assert drawing is not None
    measured = [r for r in reversed(rows) if r.down]
    bars = [s for s in drawing.shapes if s.kind == "rect"]
    assert len(bars) == len(measured)
    per_second = {
        round(b.height / float(r.down or 1), 3) for b, r in zip(bars, measured, strict=True)
    }
    assert len(per_second) == 1
    assert all(s.y >= 0 and s.y <= drawing.height for s in drawing.shapes if s.kind != "path")


def test_a_few_bars_fit_on_a_phone_and_one_day_is_told_by_its_hours() -> None:
    made = History()
    for _ in range(4):
        made.forward()
    material = moment(made)
    bars = charts.downtime(history.entries(material))
    assert bars is not None
    assert bars.width < 390
    sizes = charts.data_sizes(material)
    assert sizes is not None
    begin, end = (s.text for s in sizes.shapes if s.kind == "text" and ":" in s.text)
    assert begin != end


def test_descent_is_told_of_pruned_releases_as_well() -> None:
    made = History()
    for fails in ("", "", "it does not start"):
        made.forward(fails=fails)
    made.back("prod-001")
    made.forward()
    records = {name: r for name, r in made.records.items() if name != "prod-002"}
    assert lineage.parents(made.state, records) == {
        "prod-001": None,
        "prod-002": "prod-001",
        "prod-003": "prod-002",
        "prod-004": "prod-001",
    }


def test_each_generation_says_what_it_came_from_and_what_was_set_aside() -> None:
    made = History()
    for fails in ("", "", "it does not start"):
        made.forward(fails=fails)
    made.back("prod-001", restore=True)
    data = {d.dataset: d for d in strands.datasets(made.state, made.events)}
    assert list(data) == ["db-data", "uploads"]
    rows = {s.number: s for s in data["db-data"].strands}
    assert {number: row.origin for number, row in rows.items()} == {
        1: "created empty",
        2: "fork of g1",
        3: "fork of g2",
        4: "restored: what prod-001 left",
    }
    (aside,) = made.state.outcomes[-1][1].set_aside["db-data"].values()
    assert rows[2].aside == f"{aside} rows, going to prod-001"
    assert rows[4].now == "live"
    drawing = data["db-data"].drawing
    assert drawing is not None
    styles = [s.style for s in drawing.shapes]
    assert styles.count("edge forked") == 2
    assert styles.count("edge restored") == 1
    assert styles.count("lived failed") == 1
    assert styles.count("aside") == 1


@pytest.mark.parametrize("made", [a_dozen(), many(120)], ids=["dozen", "many"])
def test_no_drawing_is_drawn_outside_of_itself(made: History) -> None:
    material = moment(made)
    rows = history.entries(material)
    drawings = [
        charts.timeline(charts.visits(rows), material.made),
        charts.downtime(rows),
        charts.data_sizes(material),
        charts.store_size(material),
        lineage.releases(material.state, dict(material.records)),
        *(d.drawing for d in strands.datasets(material.state, material.events)),
    ]
    for drawing in drawings:
        assert drawing is not None
        for shape in drawing.shapes:
            numbers = [float(n) for n in re.findall(r"-?\d+(?:\.\d+)?", shape.path.split("l")[0])]
            xs = [*numbers[::2], *([shape.x] if shape.kind != "path" else [])]
            ys = [*numbers[1::2], *([shape.y] if shape.kind != "path" else [])]
            assert all(-1 <= x <= drawing.width for x in xs), (drawing.name, shape)
            assert all(0 <= y <= drawing.height for y in ys), (drawing.name, shape)


@pytest.mark.parametrize(
    ("value", "said"),
    [(0.816, "0.82 s"), (14.06, "14.1 s"), (200.0, "3 min 20 s"), (None, ""), (9000, "2 h")],
)
def test_seconds_are_said_as_people_say_them(value: float | None, said: str) -> None:
    assert words.seconds(value).replace(words.JOINED, " ") == said


def test_runs_of_releases_are_said_short() -> None:
    names = ["prod-001", "prod-002", "prod-003", "prod-005", "prod-1000"]
    assert words.ranges(names) == "prod-001 to prod-003, prod-005, prod-1000"


@pytest.mark.parametrize("most", [0.004, 0.7, 1, 1.4, 9, 47, 1e6])
def test_ticks_reach_the_greatest_and_are_few(most: float) -> None:
    for found in (ticks(most), byte_ticks(most)):
        assert found[0] == 0
        assert found[-1] >= most * 0.999
        assert 2 <= len(found) <= 7


def test_a_new_file_is_its_owners_and_an_old_one_stays_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    write(path, "one")
    assert path.stat().st_mode & 0o777 == 0o600
    path.chmod(0o644)
    write(path, "two")
    assert (path.read_text(), path.stat().st_mode & 0o777) == ("two", 0o644)
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]
    with pytest.raises(BadInput, match="is a folder"):
        write(tmp_path, "three")
    with pytest.raises(BadInput, match="is no folder"):
        write(tmp_path / "no" / "report.html", "three")


def test_material_without_store_or_proofs_is_no_trouble() -> None:
    bare = moment(a_dozen())
    material = Material(
        project="shop", stack="prod", made=bare.made, state=bare.state, events=bare.events,
        metrics=bare.metrics,
    )  # fmt: skip
    assert "prod-011 is live" in texts(render(material))
    assert HOSTILE not in render(material)
