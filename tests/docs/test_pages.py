"""The commands of the pages print what the pages say."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from markdown_it import MarkdownIt

from reconciler import config
from reconciler.config import Settings
from reconciler.project import compose
from tests.docs import drivers, gates, typed
from tests.stacks.harness import ROOT, notes_project

PAGE = """Some text.

```console
$ lockstep list
prod-001   live   3 s
$ true
```

<!-- $ rm -f gone -->

```sh
not typed
```
"""


def test_what_a_page_types() -> None:
    shown, hidden = typed.blocks(PAGE)
    assert [t.command for t in shown.typed] == ["lockstep list", "true"]
    assert shown.typed[0].output == ("prod-001   live   3 s",)
    assert [t.command for t in hidden.typed] == ["rm -f gone"]


def test_a_page_is_written_anew_where_it_shows_output() -> None:
    shown, hidden = typed.blocks(PAGE)
    other = typed.Block(shown.lines, (typed.Typed("lockstep list", ("nothing",)),))
    assert typed.written(PAGE, [shown, hidden]) == PAGE
    assert "$ lockstep list\nnothing\n```" in typed.written(PAGE, [other, hidden])


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("web is ready after 0.4 s", "web is ready after 12.0 s"),
        ("db-data   46.4 MiB", "db-data  195.0 KiB"),
        ("at 2026-11-21 10:00:01", "at 2027-01-02 23:59:59"),
        ("snapshot 6d20f3aa00", "snapshot 0123456789abcdef"),
        ("────── ─", "──── ────"),
        ("gate of web passed (0.0 s)", "gate of web passed (13 tries, 2.1 s)"),
    ],
)
def test_figures_may_differ(one: str, other: str) -> None:
    assert typed.alike(one) == typed.alike(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("prod-001 is live", "prod-002 is live"),
        ("web is ready after 1 s", "web ended after 1 s"),
        ("attach", "restore"),
    ],
)
def test_words_and_releases_may_not(one: str, other: str) -> None:
    assert typed.alike(one) != typed.alike(other)


def test_the_order_of_what_becomes_ready_and_where_a_table_wraps_may_differ() -> None:
    ready = ["    web is ready after 0.1 s", "    gate of db passed (0.3 s)", "    live"]
    assert typed.comparable(ready) == typed.comparable([ready[1], ready[0], ready[2]])
    assert typed.comparable(ready) != typed.comparable([*ready[:1], ready[2], ready[1]])
    table = ["a   b", "─── ─", "one two", "    three"]
    assert typed.comparable(table) == typed.comparable(["a  b", "─── ─", "one two three"])
    assert typed.comparable(table) != typed.comparable(["a  b", "─── ─", "one two four"])


def test_what_is_answered_on_the_page_is_typed_on_a_terminal() -> None:
    asked = typed.Typed(
        "lockstep init", ("Name [jobs]:", "to be made:", "So? [y/N]: n", "error: x")
    )
    assert asked.line == 'python -m tests.docs.terminal \'["", "n"]\' lockstep init'
    assert typed.Typed("lockstep list", ("prod-001   live",)).line == "lockstep list"


def test_a_page_may_be_typed_in_parts(tmp_path: Path) -> None:
    """Each in its own project; all of its commands are in some part."""
    path = tmp_path / "page.md"
    path.write_text("# A\n\n```console\n$ one\n```\n\n## B\n\n```console\n$ two\n```\n")
    first = typed.Page(path, "a", notes_project, ends="## B")
    second = typed.Page(path, "b", notes_project, begins="## B")
    assert [first.said(), second.said()] == [[block] for block in typed.blocks(path.read_text())]
    of_start = [p.said() for p in typed.PAGES if p.path.name == "getting-started.md"]
    whole = typed.blocks((ROOT / "docs" / "getting-started.md").read_text())
    assert [block for part in of_start for block in part] == whole


@pytest.mark.parametrize("page", typed.PAGES, ids=lambda page: page.name)
def test_the_page_says_what_is_printed(page: typed.Page, tmp_path: Path) -> None:
    insist_on_what_is_printed(page, page.said(short=True), tmp_path)


@pytest.mark.chaos
@pytest.mark.parametrize("page", [p for p in typed.PAGES if p.short], ids=lambda p: p.name)
def test_all_of_the_page_says_what_is_printed(page: typed.Page, tmp_path: Path) -> None:
    insist_on_what_is_printed(page, page.said(), tmp_path)


def insist_on_what_is_printed(page: typed.Page, said: list[typed.Block], folder: Path) -> None:
    project = page.make(folder)
    try:
        printed = typed.type_all(said, page, project)
    finally:
        project.remove()
    for before, now in zip(said, printed, strict=True):
        for was, is_now in zip(before.typed, now.typed, strict=True):
            if was.shown:
                expected = typed.comparable(was.output)
                assert typed.comparable(is_now.output) == expected, was.command


def test_links_between_pages_lead_somewhere() -> None:
    missing = []
    for path in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        for token in MarkdownIt().parse(path.read_text()):
            for child in token.children or ():
                target = str(child.attrGet("href") or child.attrGet("src") or "")
                file = target.partition("#")[0]
                if file and "://" not in target and not (path.parent / file).exists():
                    missing.append(f"{path.name}: {target}")
    assert missing == []


def test_the_table_of_drivers_is_that_of_the_code() -> None:
    page = drivers.PAGE.read_text()
    assert drivers.written(page) == page
    assert "| postgres | yes |" in page


def test_the_tables_of_gates_are_those_of_the_code() -> None:
    page = gates.PAGE.read_text()
    assert gates.written(page) == page
    assert "| `certificate` | the certificate of a TLS port | 5 s |" in page


def test_what_the_page_of_gates_shows_can_be_said(tmp_path: Path) -> None:
    file, settings = (
        yaml.safe_load(token.content)
        for token in MarkdownIt().parse(gates.PAGE.read_text())
        if token.type == "fence" and token.info == "yaml"
    )
    found = {service: compose.gates(file, Settings(), service) for service in file["services"]}
    assert {service: len(said) for service, said in found.items()} == {"web": 4, "db": 1}
    values = {key.removeprefix("shop:"): said for key, said in settings["config"].items()}
    stack = config.read("shop", "prod", tmp_path, values)
    (smoke,) = compose.stack_gates(file, stack.settings)
    assert smoke.host == ("pytest", "-q", "smoke")
