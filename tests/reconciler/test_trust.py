"""Records and ledger against the heads that the last `up` left: what goes on from there is sound,
what does not is named, and nothing becomes a good one by being overlooked."""

from __future__ import annotations

from pathlib import Path

import pytest

from reconciler.catalog import RECORD, Catalog
from reconciler.config import Settings, Stack
from reconciler.plan import Move, Plan
from reconciler.records import trust
from reconciler.records.ledger import Pruned, Stopped
from reconciler.records.trust import Found

AT = "2026-01-01T00:00:00+00:00"
STAYS = Plan(Move.STAY, 3, "prod-001", "w", "w", False)


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    """Two records, and a ledger of three events."""
    made = Catalog(Stack(project="shop", name="prod", root=tmp_path, settings=Settings()))
    for name in ("prod-001", "prod-002"):
        record = made.root / name / RECORD
        record.parent.mkdir(parents=True)
        record.write_text(f"the record of {name}")
    for number in range(3):
        made.ledger.append(Stopped(at=AT, reason=str(number)))
    return made


def record_of(catalog: Catalog, name: str) -> Path:
    return catalog.root / name / RECORD


def examined(catalog: Catalog, anchor: dict[str, object], accepted: str | None = None) -> Found:
    return trust.examine(anchor, catalog, catalog.state(), accepted)


def test_what_goes_on_from_there_is_sound(catalog: Catalog) -> None:
    head = trust.head(catalog, Found())
    assert examined(catalog, {}) == examined(catalog, head) == Found()
    catalog.ledger.append(Stopped(at=AT, reason="later"), Pruned(at=AT, release="prod-001"))
    record_of(catalog, "prod-001").unlink()
    (catalog.root / "prod-003").mkdir()
    record_of(catalog, "prod-003").write_text("a new one")
    assert examined(catalog, head) == Found()


@pytest.mark.parametrize("how", ["cut", "anew"])
def test_another_ledger_is_refused_until_its_mark_is_named(catalog: Catalog, how: str) -> None:
    head = trust.head(catalog, Found())
    whole = catalog.ledger.path.read_bytes().splitlines(keepends=True)
    catalog.ledger.path.write_bytes(b"".join(whole[:2]))
    if how == "anew":
        catalog.ledger.append(Stopped(at=AT, reason="another"), Stopped(at=AT, reason="and more"))
    found = examined(catalog, head)
    assert ("older copy" if how == "cut" else "written anew") in found.ledger
    (refusal,) = trust.judged(STAYS, found).refusals
    assert f"config set trust {found.mark}" in refusal.remedy
    assert examined(catalog, head, found.mark) == Found()
    catalog.ledger.append(Stopped(at=AT, reason="since"))
    assert examined(catalog, head, found.mark).mark not in ("", found.mark), "only what was there"


def test_a_record_that_was_exchanged_does_not_become_a_good_one(catalog: Catalog) -> None:
    head = trust.head(catalog, Found())
    record_of(catalog, "prod-001").write_text("forged")
    record_of(catalog, "prod-002").unlink()
    found = examined(catalog, head)
    assert "prod-001 was altered or exchanged" in found.records["prod-001"]
    assert "prod-002 was removed" in found.records["prod-002"]
    judged = trust.judged(STAYS, found)
    assert judged.refusals == ()
    assert f"config set trust {found.mark}" in judged.warnings[0]
    again = examined(catalog, trust.head(catalog, found))
    assert again.records == found.records, "what the next `up` leaves still knows the right ones"
    assert examined(catalog, head, found.mark) == Found()


def test_a_record_that_cannot_be_read_is_that_releases_alone(catalog: Catalog) -> None:
    head = trust.head(catalog, Found())
    record_of(catalog, "prod-001").unlink()
    record_of(catalog, "prod-001").mkdir()
    found = examined(catalog, head)
    assert list(found.records) == ["prod-001"]
    assert trust.head(catalog, found)["records"] == head["records"]
