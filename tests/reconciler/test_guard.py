"""How long the guard waits, and what it takes for a journal of its own."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.catalog import Catalog, write_durably
from reconciler.errors import CatalogDamaged
from reconciler.records.journal import Intent, JournalFile
from reconciler.switching import guard
from reconciler.switching.guard import FIRST_WAIT, LONGEST_WAIT, Pace, PaceFile, bare_stack


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    made = Catalog(bare_stack("shop", "prod", tmp_path))
    made.root.mkdir()
    return made


def test_each_time_it_waits_twice_as_long() -> None:
    pace, waits = Pace(boot="b"), []
    for number in range(9):
        pace = pace.acted(float(number))
        waits.append(pace.wait)
    assert waits == [10, 20, 40, 80, 160, 320, 600, 600, 600]
    assert pace.left(8.0) == LONGEST_WAIT


def test_what_has_stood_for_as_long_as_that_is_forgotten() -> None:
    pace = Pace(boot="b").acted(100.0)
    assert pace.stands(100.0 + FIRST_WAIT - 1) == pace
    assert pace.stands(100.0 + FIRST_WAIT).left(100.0 + FIRST_WAIT) == 0
    assert pace.stands(100.0 + FIRST_WAIT).attempts == 0


@given(st.lists(st.tuples(st.booleans(), st.floats(0, 2000)), max_size=20))
def test_two_attempts_are_never_nearer_than_the_wait(steps: list[tuple[bool, float]]) -> None:
    pace, now, last = Pace(boot="b"), 0.0, None
    for down, passed in steps:
        now += passed
        if not down:
            pace = pace.stands(now)
        elif pace.left(now) == 0:
            assert last is None or now - last >= FIRST_WAIT or pace.attempts == 0
            pace, last = pace.acted(now), now


def test_the_pace_is_kept_but_not_over_a_boot(catalog: Catalog) -> None:
    file = PaceFile(catalog)
    pace = file.read().acted(guard.uptime())
    file.write(pace)
    assert file.read() == pace
    assert oct(file.path.stat().st_mode & 0o777) == "0o600"
    file.write(pace.model_copy(update={"boot": "another"}))
    assert file.read().attempts == 0
    file.write(pace.model_copy(update={"last": guard.uptime() + 3600}))
    assert file.read().attempts == 0
    file.path.write_text("[]{")
    assert file.read().attempts == 0


def test_a_journal_is_known_by_its_content(catalog: Catalog) -> None:
    file = JournalFile(catalog.journal)
    intent = Intent(head=0, move="back", from_world="a", to_world="b", started="", log="x")
    file.write(intent)
    assert file.read() == intent
    whole = catalog.journal.read_bytes()
    catalog.journal.write_bytes(whole.replace(b'"back"', b'"first"'))
    with pytest.raises(CatalogDamaged, match="was altered"):
        file.read()
    catalog.journal.write_bytes(whole[:-10])
    with pytest.raises(CatalogDamaged, match="damaged"):
        file.read()


def test_drafts_of_dead_processes_are_removed(catalog: Catalog) -> None:
    write_durably(catalog.root / "kept.json", b"1")
    dead, ours, theirs = (catalog.root / f".x.json.{n}.new" for n in (4194304, os.getpid(), "word"))
    for draft in (dead, ours, theirs):
        draft.touch()
    catalog.clear_drafts()
    assert [p.exists() for p in (dead, ours, theirs)] == [False, True, True]
