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


def test_fault_21_a_flipped_bit_anywhere_is_found(
    small: Path, store: Store, tmp_path: Path
) -> None:
    """A bit turns over in packs, trees, records and the format, at both ends of each file and in
    between: verify finds it, a restore refuses, and with the bit turned back all is whole."""
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


@pytest.mark.parametrize(
    "step", [pytest.param(1, marks=pytest.mark.chaos), 7], ids=["each-bit", "each-byte"]
)
def test_fault_24_every_byte_counts(step: int, store: Store, tmp_path: Path) -> None:
    """In each byte of a small store a bit is turned over (in the long form each bit, one after the
    other), also those by which zstd would decode to the same content: each is found."""
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "pages").write_bytes(b"a page of a database " * 3000)
    record = capture(folder, store, dataset="data")
    for path in meaningful_files(store):
        good = path.read_bytes()
        for bit in range(0, 8 * len(good), step):
            bad = bytearray(good)
            bad[bit // 8] ^= 1 << (bit % 8)
            path.write_bytes(bad)
            assert is_found(store.path, record.id), f"{path.name}, bit {bit}"
        path.write_bytes(good)
    assert not is_found(store.path, record.id)


def test_fault_22_a_file_cut_off_anywhere_is_found_without_reading_data(
    small: Path, store: Store, tmp_path: Path
) -> None:
    """Packs, tree, record and format are cut at every 512 bytes and at their last bytes: verify
    finds it without reading data, and a restore refuses before it makes its target."""
    record = capture(small, store, dataset="data")
    for path in meaningful_files(store):
        good = path.read_bytes()
        last = range(max(0, len(good) - 4), len(good))
        for length in sorted({*range(0, len(good), 512), 1, *last}):
            os.truncate(path, length)
            if path.name == "format":
                with pytest.raises(StoreUnusable):
                    Store.open(store.path)
            else:
                assert verify(store, record.id, read_data=False), f"{path.name} at {length}"
                with pytest.raises(Damaged):
                    restore(store, record.id, tmp_path / "again")
                assert not (tmp_path / "again").exists()
            path.write_bytes(good)
    assert verify(store, record.id, read_data=True) == []


def test_fault_23_a_missing_pack_or_tree_is_found_and_named(
    small: Path, store: Store, tmp_path: Path
) -> None:
    """Each pack and the tree is taken away: verify names dataset, snapshot and files without
    reading data, and a restore refuses before it makes its target."""
    record = capture(small, store, dataset="shop_db")
    for path in (*store.packs.iterdir(), *store.trees.iterdir()):
        away = store.path / "away"
        path.rename(away)
        (first, *_) = verify(store, record.id, read_data=False)
        assert (first.dataset, first.snapshot) == ("shop_db", record.id)
        assert "missing" in first.reason
        with pytest.raises(Damaged, match="missing"):
            restore(store, record.id, tmp_path / "again")
        assert not (tmp_path / "again").exists()
        away.rename(path)
    for pack in store.packs.iterdir():
        pack.unlink()
    damaged = {damage.file for damage in verify(store, record.id, read_data=False)}
    assert damaged == {"d/one", "two"}


@pytest.mark.parametrize("folder", ["snapshots", "trees", "packs"])
def test_fault_25_files_of_two_snapshots_put_in_each_others_place_are_found(
    folder: str, small: Path, store: Store, tmp_path: Path
) -> None:
    """The records, the trees, or the packs of two sound snapshots are swapped: verify finds both,
    and neither is restored as the other."""
    records, files = [], set()
    for text in ("one", "two"):
        for path in small.rglob("*"):
            if path.is_file():
                path.write_text(f"{text} {path.name}")
        known = set(getattr(store, folder).iterdir())
        records.append(capture(small, store, dataset="data"))
        (new,) = set(getattr(store, folder).iterdir()) - known
        files.add(new)
    a, b = files
    bodies = a.read_bytes(), b.read_bytes()
    a.write_bytes(bodies[1])
    b.write_bytes(bodies[0])
    for record in records:
        assert verify(store, record.id, read_data=True)
        with pytest.raises(Damaged):
            restore(store, record.id, tmp_path / "again")
        assert not (tmp_path / "again").exists()


def test_fault_26_an_old_record_put_back_is_found(
    small: Path, store: Store, tmp_path: Path
) -> None:
    """The record of a snapshot that was forgotten and swept is put back, later with its tree: it is
    sound by itself, and what it names is found to be missing before a target is made."""
    old = capture(small, store, dataset="data")
    record_file, tree_file = store.snapshots / f"{old.id}.json", store.tree_path(old.root)
    record, tree = record_file.read_bytes(), tree_file.read_bytes()
    (small / "d" / "one").write_bytes(b"other content")
    new = capture(small, store, dataset="data", parent=old.id)
    store.sweep([new.id])
    record_file.write_bytes(record)
    assert store.read(old.id) == old
    for missing in ("tree", "block"):
        (first, *_) = verify(store, old.id, read_data=False)
        assert missing in first.reason
        with pytest.raises(Damaged, match="missing"):
            restore(store, old.id, tmp_path / "again")
        assert not (tmp_path / "again").exists()
        tree_file.write_bytes(tree)
    assert verify(store, new.id, read_data=True) == []


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
