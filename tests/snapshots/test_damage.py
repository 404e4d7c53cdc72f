"""Whatever is damaged in a store is found, and a restore never returns anything wrong."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from snapshots.capture import capture
from snapshots.compare import tree_equal
from snapshots.errors import Damaged, SnapshotError, StoreUnusable
from snapshots.restore import restore
from snapshots.store import Store
from snapshots.verify import verify


def meaningful_files(store: Store) -> Iterator[Path]:
    """All files of a store but those without which nothing is lost."""
    for folder in (store.packs, store.trees, store.snapshots):
        yield from (path for path in folder.iterdir())
    yield store.path / "format"


def positions(size: int, count: int) -> list[int]:
    """Bytes to damage: both ends, where the formats' own fields are, and some between."""
    some = random.Random(size).sample(range(size), min(size, count))
    return sorted({*range(min(16, size)), *range(max(0, size - 120), size, 3), *some})


def is_found(store_path: Path, snapshot_id: str) -> bool:
    try:
        store = Store.open(store_path, create=False)
    except StoreUnusable:
        return True
    return bool(verify(store, snapshot_id, read_data=True))


def test_a_flipped_bit_anywhere_is_found(small: Path, store: Store, tmp_path: Path) -> None:
    record = capture(small, store, dataset="data")
    assert not is_found(store.path, record.id)
    for path in meaningful_files(store):
        good = path.read_bytes()
        for at in positions(len(good), 40):
            bad = bytearray(good)
            bad[at] ^= 1 << (at % 8)
            path.write_bytes(bad)
            assert is_found(store.path, record.id), f"{path.name}, byte {at}"
            with pytest.raises(SnapshotError):
                restore(Store.open(store.path), record.id, tmp_path / "again")
            shutil.rmtree(tmp_path / "again", ignore_errors=True)
        path.write_bytes(good)
    assert not is_found(store.path, record.id)
    restore(store, record.id, tmp_path / "again")
    assert tree_equal(small, tmp_path / "again") == []


def test_every_single_bit_counts(store: Store, tmp_path: Path) -> None:
    """Also those by which zstd would decode to the same content."""
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "pages").write_bytes(b"a page of a database " * 3000)
    record = capture(folder, store, dataset="data")
    for path in meaningful_files(store):
        good = path.read_bytes()
        for bit in range(8 * len(good)):
            bad = bytearray(good)
            bad[bit // 8] ^= 1 << (bit % 8)
            path.write_bytes(bad)
            assert is_found(store.path, record.id), f"{path.name}, bit {bit}"
        path.write_bytes(good)
    assert not is_found(store.path, record.id)


def test_a_file_cut_off_anywhere_is_found_without_reading_data(
    small: Path, store: Store, tmp_path: Path
) -> None:
    record = capture(small, store, dataset="data")
    for path in meaningful_files(store):
        good = path.read_bytes()
        for length in (0, 1, len(good) // 3, len(good) // 2, len(good) - 1):
            path.write_bytes(good[:length])
            if path.name == "format":
                with pytest.raises(StoreUnusable):
                    Store.open(store.path)
            else:
                assert verify(store, record.id, read_data=False), f"{path.name} at {length}"
                with pytest.raises(Damaged):
                    restore(store, record.id, tmp_path / "again")
                assert not (tmp_path / "again").exists()
        path.write_bytes(good)


def test_a_missing_file_is_found_and_named(small: Path, store: Store) -> None:
    record = capture(small, store, dataset="shop_db")
    for path in (*store.packs.iterdir(), *store.trees.iterdir()):
        away = store.path / "away"
        path.rename(away)
        (first, *_) = verify(store, record.id, read_data=False)
        assert (first.dataset, first.snapshot) == ("shop_db", record.id)
        assert "missing" in first.reason
        away.rename(path)
    for pack in store.packs.iterdir():
        pack.unlink()
    damaged = {damage.file for damage in verify(store, record.id, read_data=False)}
    assert damaged == {"d/one", "two"}


def test_records_put_in_each_others_place_are_found(small: Path, store: Store) -> None:
    one = capture(small, store, dataset="data")
    (small / "two").write_text("other")
    two = capture(small, store, dataset="data")
    a, b = (store.snapshots / f"{record.id}.json" for record in (one, two))
    bodies = a.read_bytes(), b.read_bytes()
    a.write_bytes(bodies[1])
    b.write_bytes(bodies[0])
    for record in (one, two):
        with pytest.raises(Damaged, match="altered"):
            store.read(record.id)


def test_damage_heals_when_the_content_is_captured_again(
    small: Path, store: Store, tmp_path: Path
) -> None:
    """A pack that cannot be used counts as absent, so its blocks are written anew."""
    record = capture(small, store, dataset="data")
    for pack in store.packs.iterdir():
        pack.write_bytes(pack.read_bytes()[:-10])
    assert store.damaged_packs()
    capture(small, store, dataset="data", parent=record.id)
    restore(store, record.id, tmp_path / "again")
    assert tree_equal(small, tmp_path / "again") == []


def test_a_damaged_block_stops_the_restore_and_names_the_file(
    small: Path, store: Store, tmp_path: Path
) -> None:
    record = capture(small, store, dataset="data")
    largest = max(store.packs.iterdir(), key=lambda pack: pack.stat().st_size)
    with open(largest, "r+b") as file:
        os.pwrite(file.fileno(), b"\x00\x01\x02\x03", 100_000)
    with pytest.raises(Damaged, match=r"d/one.*altered"):
        restore(store, record.id, tmp_path / "again")
