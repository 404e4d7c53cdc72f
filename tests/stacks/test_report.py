"""The figures and the report of a real stack: what really happened, in a real browser."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import expect
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from reconciler.records.ledger import Captured, Committed, Ledger, Reverted
from tests.browser import PHONE, Shown, browser, shown
from tests.stacks.harness import Project, notes_project

__all__ = ["browser", "shown"]

pytestmark = pytest.mark.chaos


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """Two releases with data, a third that failed, and a rollback; the second is declared again."""
    project = notes_project(tmp_path_factory.mktemp("stack") / "notes")
    try:
        project.init()
        project.release("the first")
        project.note("one")
        project.release("the <second>")
        project.note("two, which a rollback sets aside")
        project.compose_file(b='VERSION: "1"=>VERSION: "2"\n      BROKEN: "always"')
        project.run("config", "set", "deadline", "4")
        project.new("does not answer")
        project.up(code=4)
        project.run("rollback", "prod-001", "--yes")
        yield project
    finally:
        project.remove()


def ledger(project: Project) -> Ledger:
    return Ledger(project.folder / "releases" / "ledger-prod.jsonl")


def test_each_switch_knows_its_estimate_and_what_it_set_aside(stack: Project) -> None:
    events, _ = ledger(stack).events()
    committed = [e for e in events if isinstance(e, Committed)]
    assert [e.move for e in committed] == ["first", "forward", "back"]
    assert all(e.expected_seconds is not None for e in committed)
    assert all(e.planned and e.planned <= e.started <= e.at for e in committed)
    assert committed[-1].set_aside == {"notes": {"bytes": 33}}
    (reverted,) = [e for e in events if isinstance(e, Reverted)]
    assert reverted.expected_seconds
    sizes = [e.store_bytes for e in events if isinstance(e, Captured)]
    assert sizes == sorted(s for s in sizes if s)


def test_the_figures_are_those_of_the_log(stack: Project) -> None:
    document = stack.run("metrics", "--json").json()
    down = [e["downtime_seconds"] for e in stack.entries() if e["move"] == "back"]
    assert document["moves"]["back"]["downtime_seconds"]["worst"] == max(down)
    assert document["moves"]["forward"]["success_rate"] == 0.5
    assert document["all"]["set_aside"] == {"notes": {"bytes": 33}}
    assert document["captures_owed"] == 0
    assert "set aside of notes: 33 bytes" in stack.run("metrics").out
    said = stack.run("metrics", "--openmetrics").out
    families = list(text_string_to_metric_families(said))  # type: ignore[no-untyped-call]
    assert {s.labels["stack"] for f in families for s in f.samples} == {"prod"}
    assert "goes with neither" in stack.run("metrics", "--openmetrics", "--json", code=2).err


def test_the_page_shows_what_happened(stack: Project, shown: Shown) -> None:
    stack.run("verify", "--read-data")
    stack.run("drill", "prod-002")
    ran = stack.run("report")
    path = stack.folder / "releases" / "report-prod.html"
    assert str(path) in ran.out
    assert path.stat().st_mode & 0o777 == 0o600
    page = shown.open(path.as_uri(), PHONE, "dark")
    assert page.locator("h1").inner_text() == "prod-001 is live"
    rows = page.locator("#log tr.switch").all()
    entries = stack.entries()
    assert len(rows) == len(entries) == 4
    for row, entry in zip(rows, entries, strict=True):
        assert entry["result"] in row.inner_text()
        if entry["downtime_seconds"]:
            assert f"{entry['downtime_seconds']:.2f}" in row.inner_text()
    kept = page.locator("#window tbody > tr", has_text="the <second>")
    assert "the <second>" in kept.inner_text()
    assert "every byte" in (kept.locator("td").nth(2).text_content() or "")
    assert "came back" in (kept.locator("td").nth(3).text_content() or "")
    assert page.locator(".notice.error").count() == 0
    drawn = page.locator("#lineage svg").nth(1).text_content() or ""
    assert "set aside: 33 B" in drawn.replace("\xa0", " ")
    assert shown.asked == [path.as_uri()]
    assert shown.said == []
    assert "is a folder" in stack.run("report", "--output", str(stack.folder), code=2).err


def test_a_switch_can_be_watched_in_the_browser(stack: Project, shown: Shown) -> None:
    stack.run("config", "set", "release", "prod-002")
    stack.run("config", "set", "steady", "3")
    serving = stack.start("serve", "--port", "0")
    try:
        assert serving.stdout is not None
        url = serving.stdout.readline().strip()
        page = shown.open(url)
        assert page.locator("h1").inner_text() == "prod-001 is live"
        switching = stack.start("up", "--yes")
        expect(page.locator("#running")).to_be_visible(timeout=60_000)
        expect(page.locator("#running-log")).to_contain_text("prod-002", timeout=30_000)
        assert "back: prod-001 to prod-002" in page.locator("#running-says").inner_text()
        expect(page.locator("h1")).to_have_text("prod-002 is live", timeout=60_000)
        expect(page.locator("#running")).to_be_hidden(timeout=30_000)
        out, _ = switching.communicate(timeout=60)
        assert switching.returncode == 0, out
        assert page.locator("#log tr.switch").count() == 5
        assert shown.said == []
        serving.send_signal(signal.SIGINT)
        assert serving.wait(timeout=20) == 0
        assert Path(url.rstrip("/")).name not in (serving.stdout.read() or "")
    finally:
        serving.kill()
        serving.wait()
