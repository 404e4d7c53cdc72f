"""Incidents as folders: which are kept, what a reader sees, what a damaged one does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.catalog import Catalog
from reconciler.config import Incidents, Settings, Stack
from reconciler.errors import BadInput
from reconciler.evidence import incidents, incidenttext
from reconciler.evidence.incidents import Incident
from reconciler.records.ledger import State, World

DAY = 86400.0
NOW = 1_800_000_000.0


def document(number: int, *, days: float = 0, world: str = "w", kind: str = "reverted") -> Any:
    from datetime import UTC, datetime

    at = datetime.fromtimestamp(NOW - days * DAY, UTC).isoformat()
    named = {"world": world, "release": f"prod-{number:03d}"}
    return {
        "schema": 1, "id": f"i{number}", "project": "shop", "stack": "prod", "seq": number,
        "kind": kind, "asked": "up", "at": at, "started": at, "who": "ada",
        "operator_reason": "", "reason": "web was not healthy\n  last words", "move": "forward",
        "from": named, "to": named, "live": named, "subject": named, "interrupted": False,
        "downtime_seconds": 1.5, "quarantined": True, "data": [], "logs": [],
        "outcome": {"steps": {"stop": 1.0}, "gates": []}, "missing": [], "files": ["ps.txt"],
    }  # fmt: skip


def state(*, removed: bool) -> State:
    return State(worlds={"w": World("w", "prod-001", {}, "", removed=removed)})


def ages(*days: float) -> list[Incident]:
    """Newest first."""
    count = len(days)
    return [Incident(Path(f"i{n}"), document(count - n, days=d)) for n, d in enumerate(days)]


@pytest.mark.parametrize(
    ("last", "days", "removed", "kept"),
    [
        (1, 0, True, 1),
        (2, 0, True, 2),
        (1, 10, True, 3),
        (1, 0, False, 4),
        (9, 0, True, 4),
    ],
)
def test_the_last_and_the_young_are_kept(last: int, days: int, removed: bool, kept: int) -> None:
    settings = Incidents(last=last, days=days)
    found = incidents.retain(settings, ages(0, 5, 9, 40), state(removed=removed), NOW)
    assert [bool(r.reasons) for r in found] == [True] * kept + [False] * (4 - kept)
    assert all(bool(r.why_not) != bool(r.reasons) for r in found)


@given(
    days=st.lists(st.floats(0, 400), max_size=30).map(sorted),
    last=st.integers(1, 10),
    young=st.integers(0, 100),
)
def test_what_is_kept_is_a_union(days: list[float], last: int, young: int) -> None:
    settings, all_ = Incidents(last=last, days=young), ages(*days)
    found = incidents.retain(settings, all_, state(removed=True), NOW)
    assert [r.incident for r in found] == all_
    ages_ = [day - days[0] for day in days]
    for number, (retained, age) in enumerate(zip(found, ages_, strict=True)):
        young_enough = bool(young) and age < young - 1e-6
        if number < last or young_enough:
            assert retained.reasons
        elif not young or age > young + 1e-6:
            assert not retained.reasons
    fewer = incidents.retain(Incidents(last=1, days=0), all_, state(removed=False), NOW)
    assert all(r.reasons for r in fewer), "its world is there: never removed"


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    return Catalog(Stack(project="shop", name="prod", root=tmp_path, settings=Settings()))


def fill(catalog: Catalog, number: int, **more: Any) -> Incident:
    place = incidents.folder(catalog) / f"2026-{number}-prod-{number:03d}"
    incidents.put(place / "ps.txt", b"NAME\n")
    incidents.write(place, {**document(number), **more})
    return Incident(place, document(number))


def test_one_is_found_by_its_id_its_beginning_or_its_release(catalog: Catalog) -> None:
    for number in (1, 2, 3):
        fill(catalog, number)
    fill(catalog, 4, stack="test")
    assert incidents.find(catalog, None).document["seq"] == 3
    assert incidents.find(catalog, "prod-002").document["seq"] == 2
    assert incidents.find(catalog, "2026-1").document["seq"] == 1
    for unclear, says in (("2026", "3 incidents"), ("prod-004", "there is no incident")):
        with pytest.raises(BadInput, match=says):
            incidents.find(catalog, unclear)


def test_prune_removes_only_what_nothing_keeps(catalog: Catalog) -> None:
    for number in (1, 2, 3):
        fill(catalog, number)
    settings = Incidents(last=2, days=0)
    assert incidents.prune(catalog, settings, state(removed=False), NOW) == []
    (gone,) = incidents.prune(catalog, settings, state(removed=True), NOW)
    assert gone.incident.document["seq"] == 1
    assert "2 are newer" in gone.why_not
    assert [i.document["seq"] for i in incidents.every(catalog)[0]] == [3, 2]
    assert len([*incidents.folder(catalog).iterdir()]) == 2


def test_a_remark_follows_a_torn_one(catalog: Catalog) -> None:
    incident = fill(catalog, 1)
    incidents.remark(incident, "ada", "it was the cache")
    with (incident.folder / incidents.REMARKS).open("a") as file:
        file.write('{"at": "2026')
    incidents.remark(incident, "bob", "no:\nthe disk")
    found = incidents.find(catalog, None)
    assert [r["who"] for r in found.remarks] == ["ada", "bob"]
    text = (found.folder / incidents.README).read_text()
    assert "ada: it was the cache" in text
    assert "bob: no:\n    the disk" in text


def test_an_export_does_not_replace_what_is_there(catalog: Catalog, tmp_path: Path) -> None:
    target = tmp_path / "there.zip"
    target.write_text("mine")
    with pytest.raises(BadInput, match="is there already"):
        incidents.export(fill(catalog, 1), target)
    assert target.read_text() == "mine"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({}, "was reverted; prod-001 was live afterwards"),
        ({"interrupted": True}, "was interrupted"),
        ({"kind": "rollback"}, "Rollback from prod-001 to prod-001"),
        ({"operator_reason": "customers wait"}, "customers wait"),
        ({"live": {"world": None, "release": None}}, "nothing was live afterwards"),
        ({"downtime_seconds": None}, "not measured"),
        (
            {
                "outcome": {
                    "steps": {},
                    "gates": [
                        {
                            "gate": "checkout",
                            "service": "web",
                            "kind": "http",
                            "result": "failed",
                            "means": "fail",
                            "said": "answered 503",
                            "log": ["no database"],
                        },
                    ],
                }
            },
            "gate checkout of web failed: answered 503 (0.0 s)\n    no database",
        ),
        ({"missing": ["log of web: gone"]}, "log of web: gone"),
        (
            {"logs": [{"file": "logs/a.gz", "lines": 7, "whole": False}]},
            "logs/a.gz: the newest 7 lines; older ones were left out",
        ),
    ],
)
def test_the_text_says_what_the_document_says(change: dict[str, Any], says: str) -> None:
    text = incidenttext.readme({**document(1), **change}, [])
    assert says in text
    assert "last words" in text
    assert "by ada" in text


def test_a_document_that_cannot_be_read_is_named(catalog: Catalog) -> None:
    fill(catalog, 1)
    broken = fill(catalog, 2).folder / incidents.DOCUMENT
    for content in (b"", b"{}", b'{"schema": 2}', json.dumps([1]).encode(), b"\xff"):
        broken.write_bytes(content)
        good, damaged = incidents.every(catalog)
        assert [i.document["seq"] for i in good] == [1]
        assert str(broken) in damaged["2026-2-prod-002"]
