"""The containers of a world are those that Docker Compose makes of the same file."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conformance.case import Case, cases, compare
from tests.conformance.meant import MEANT, Meant

CASES = cases()
used: set[Meant] = set()
compared: set[str] = set()


@pytest.fixture
def one_case(case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Case:
    monkeypatch.setenv("LOCKSTEP_LOCK_DIR", str(tmp_path / "lock"))
    return case


@pytest.mark.parametrize(
    "case",
    [pytest.param(c, id=c.name, marks=() if c.spread else pytest.mark.chaos) for c in CASES],
)
def test_a_world_is_what_compose_makes(one_case: Case, tmp_path: Path) -> None:
    found = compare(one_case, tmp_path / "project")
    used.update(found.rows)
    compared.add(one_case.name)
    shown = [f"{p.place}: {p.path}: {p.plain!r} -> {p.world!r}" for p in found.unforgiven]
    assert shown == []


def test_the_spread_needs_every_row_of_the_table() -> None:
    """A row that no project needs would forgive what nobody means."""
    if not {case.name for case in CASES if case.spread} <= compared:
        pytest.skip("not every project of the spread was compared in this run")
    assert [row.what for row in MEANT if row not in used] == []
