"""What cannot be honoured is refused by its name and line, with what to do instead."""

from __future__ import annotations

from pathlib import Path

import pytest

from reconciler.errors import LockstepError
from tests.conformance.__main__ import PAGE, page
from tests.conformance.refused import REFUSED, Refused
from tests.reconciler.trial import Trial


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LOCKSTEP_LOCK_DIR", str(tmp_path / "lock"))
    (tmp_path / "shop").mkdir()
    return tmp_path / "shop"


def refusal(folder: Path) -> str:
    trial = Trial(folder)
    trial.settings = {}
    with pytest.raises(LockstepError) as refused:
        trial.new()
    assert trial.catalog.records()[0] == {}
    return str(refused.value)


@pytest.mark.parametrize("row", REFUSED, ids=[row.what for row in REFUSED])
def test_it_is_refused_by_line_with_what_to_do(row: Refused, folder: Path) -> None:
    (folder / "compose.yaml").write_text(row.text)
    said = refusal(folder)
    assert row.says in said
    assert row.do in said
    if row.line is not None:
        assert f"(compose.yaml, line {row.line})" in said


def test_the_line_is_found_in_an_included_and_in_an_extended_file(folder: Path) -> None:
    (folder / "more").mkdir()
    (folder / "compose.yaml").write_text(
        "include: [more/compose.yaml]\nservices:\n  web:\n    image: lockstep-base/debian:12\n"
    )
    text = "services:\n  app:\n    image: lockstep-base/debian:12\n    volumes:\n      - /data\n"
    (folder / "more" / "compose.yaml").write_text(text)
    assert "(more/compose.yaml, line 5)" in refusal(folder)
    (folder / "compose.yaml").write_text(
        "services:\n  app:\n    extends: {file: more/compose.yaml, service: app}\n"
    )
    assert "(more/compose.yaml, line 5)" in refusal(folder)


def test_the_page_is_made_from_the_tables() -> None:
    assert PAGE.read_text() == page()
