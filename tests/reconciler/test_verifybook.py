"""The book of checks: the last of each kind, and what they say of a release."""

from __future__ import annotations

from pathlib import Path

from reconciler.catalog import Catalog
from reconciler.config import Settings, Stack
from reconciler.upkeep import verifybook


def catalog(folder: Path) -> Catalog:
    found = Catalog(Stack(project="shop", name="prod", root=folder, settings=Settings()))
    for release in ("prod-001", "prod-002"):
        (found.root / release).mkdir(parents=True)
    return found


def note(to: Catalog, release: str | None, *, read_data: bool = False, damaged: str = "") -> None:
    verifybook.note(
        to,
        release=release,
        read_data=read_data,
        snapshots=4,
        bytes_read=1 << 20 if read_data else 0,
        seconds=0.25,
        damages=1 if damaged else 0,
        damaged=[damaged] if damaged else [],
    )


def test_of_each_kind_the_last_is_kept(tmp_path: Path) -> None:
    book = catalog(tmp_path)
    assert verifybook.read(book) == []
    note(book, None, damaged="prod-001")
    note(book, None, read_data=True)
    note(book, "prod-001")
    note(book, None)
    checks = verifybook.read(book)
    assert [(c.release, c.read_data, c.sound) for c in checks] == [
        ("", True, True),
        ("prod-001", False, True),
        ("", False, True),
    ]


def test_damage_is_told_of_the_releases_that_it_touches(tmp_path: Path) -> None:
    book = catalog(tmp_path)
    note(book, None, damaged="prod-001")
    found = verifybook.of_release(verifybook.read(book), "prod-002")
    assert found is not None
    assert not verifybook.is_sound(found, "prod-001")
    assert verifybook.is_sound(found, "prod-002")


def test_what_was_pruned_is_forgotten_and_a_damaged_book_begun_anew(tmp_path: Path) -> None:
    book = catalog(tmp_path)
    note(book, "prod-001")
    (book.root / "prod-001").rmdir()
    note(book, "prod-002")
    assert [c.release for c in verifybook.read(book)] == ["prod-002"]
    (book.root / "verified-prod.json").write_text('[{"when": 3}]')
    assert verifybook.read(book) == []
    note(book, "prod-002")
    assert len(verifybook.read(book)) == 1
