"""The report in a real browser: what the eye, the keyboard and a screen reader find."""

from __future__ import annotations

from typing import Literal

import pytest

from cli.report import history, words
from tests.browser import DESK, PHONE, Shown
from tests.cli.report.materials import hostile, moment
from tests.reconciler.ledgers import a_dozen, many

SIZES = {"desk": DESK, "phone": PHONE}
ROWS = "#log tr.switch"


def test_the_rows_say_what_the_ledger_says(shown: Shown) -> None:
    material = moment(a_dozen())
    page = shown.open(material)
    rows = history.entries(material)
    found = page.locator(ROWS).all()
    assert len(found) == len(rows)
    for row, entry in zip(found, rows, strict=True):
        said = row.inner_text()
        assert entry.result in said
        assert (entry.after or "") in said
        assert words.seconds(entry.down) in said
    bars = page.locator("#downtime rect").count()
    assert bars == sum(row.down is not None for row in rows)
    assert page.locator("h1").inner_text() == "prod-011 is live"
    assert page.locator("#window tbody > tr").count() == len(history.releases(material)[0])


def test_it_loads_nothing_and_complains_of_nothing(shown: Shown) -> None:
    page = shown.open(moment(a_dozen()))
    assert shown.asked == [page.url]
    assert shown.said == []


def test_hostile_text_does_not_run(shown: Shown) -> None:
    page = shown.open(hostile())
    assert "ran" not in page.title().split()
    assert page.locator("img, iframe, object").count() == 0
    assert shown.said == []
    assert len(shown.asked) == 1
    for button in page.locator("button.more").all():
        button.click()
    assert page.locator("tr.detail:visible").count() == page.locator("tr.detail").count() > 0
    assert shown.said == []


@pytest.mark.parametrize(
    ("size", "scheme"),
    [
        ("desk", "light"),
        ("phone", "dark"),
        pytest.param("desk", "dark", marks=pytest.mark.chaos),
        pytest.param("phone", "light", marks=pytest.mark.chaos),
    ],
)
def test_everybody_can_use_it(shown: Shown, size: str, scheme: Literal["light", "dark"]) -> None:
    page = shown.open(moment(a_dozen()), SIZES[size], scheme)
    for button in page.locator("button.more").all()[:8]:
        button.click()
    page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert shown.complaints(page) == []
    widths = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    assert widths[0] == widths[1], "the page itself must not scroll sideways"
    back = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (int(back.removeprefix("rgb(").split(",")[0]) < 128) == (scheme == "dark")


def test_on_a_phone_the_table_of_switches_fits(shown: Shown) -> None:
    page = shown.open(moment(a_dozen()), PHONE)
    page.locator("button.more").first.click()
    box = "document.querySelector('[aria-label=\"All switches\"]')"
    assert page.evaluate(f"{box}.scrollWidth <= {box}.clientWidth")
    assert page.locator(ROWS).first.locator(".badge:visible").count() == 1


def test_by_keyboard_alone(shown: Shown) -> None:
    page = shown.open(moment(a_dozen()))
    page.keyboard.press("Tab")
    focus = "document.activeElement"
    assert page.evaluate(f"{focus}.textContent") == "Skip to the content"
    outline = page.evaluate(f"getComputedStyle({focus}).outlineStyle")
    assert outline == "solid"
    page.keyboard.press("Enter")
    assert page.evaluate(f"{focus}.id") == "main"
    for _ in range(12):
        page.keyboard.press("Tab")
        if page.evaluate(f"{focus}.matches('button.more')"):
            break
    controls = page.evaluate(f"{focus}.getAttribute('aria-controls')")
    assert page.locator(f"#{controls}").is_hidden()
    page.keyboard.press("Enter")
    assert page.locator(f"#{controls}").is_visible()
    assert page.evaluate(f"{focus}.getAttribute('aria-expanded')") == "true"
    page.keyboard.press("Space")
    assert page.locator(f"#{controls}").is_hidden()


def test_what_is_sought_is_found_among_a_thousand(shown: Shown) -> None:
    material = moment(many(1000), window=6)
    rows = history.entries(material)
    page = shown.open(material)
    assert page.locator(ROWS).count() == 40
    assert page.locator("*").count() < 6000
    page.click(".older[data-table=log]")
    assert page.locator(ROWS).count() == 140
    assert (
        page.locator(".older[data-table=log]").inner_text()
        == f"Show older ones ({len(rows) - 140} more)"
    )
    page.select_option("#result", "reverted")
    failed = [row for row in rows if row.result == "reverted"]
    assert page.locator(f"{ROWS}:visible").count() == len(failed)
    assert page.locator("#shown").inner_text() == f"{len(failed)} of {len(rows)} shown"
    page.fill("#find", failed[-1].after or "")
    assert page.locator(f"{ROWS}:visible").count() == 1
    page.select_option("#result", "")
    page.fill("#find", "")
    assert page.locator(f"{ROWS}:visible").count() == len(rows)
    assert shown.said == []


def test_without_scripts_everything_that_is_there_can_be_read(shown: Shown) -> None:
    page = shown.open(moment(a_dozen()), scripts=False)
    assert page.locator("tr.detail:visible").count() == page.locator("tr.detail").count() > 0
    assert page.locator("button:visible").count() == 0
    assert page.locator(".filter:visible").count() == 0
