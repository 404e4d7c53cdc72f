"""What did not change is taken over unread, and nothing else is."""

from __future__ import annotations

import mmap
import os
import random
import resource
import time
from pathlib import Path

import pytest

from snapshots import fs, takeover
from snapshots.capture import capture
from snapshots.compare import tree_equal
from snapshots.pack import read_index
from snapshots.restore import restore
from snapshots.store import Store
from snapshots.verify import verify
from tests.snapshots.reads import Read
from tests.snapshots.trees import MIB, holes


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Small files, large ones, a sparse one, and names that belong together."""
    folder = tmp_path / "folder"
    (folder / "many").mkdir(parents=True)
    for number in range(300):
        (folder / "many" / f"{number}").write_bytes(b"%d" % number * 40)
    (folder / "large").write_bytes(random.Random(1).randbytes(9 * MIB + 5))
    with open(folder / "sparse", "wb") as file:
        file.truncate(30 * MIB)
        os.pwrite(file.fileno(), b"data" * 5000, 20 * MIB + 777)
    (folder / "one").write_bytes(b"linked")
    os.link(folder / "one", folder / "two")
    os.setxattr(folder / "one", "user.note", b"x")
    with fs.opened_root(folder) as fd:
        if not fs.times_are_honest(fd):
            pytest.skip("on this file system times prove nothing")
    time.sleep(fs.SETTLE_NS / 1e9 * 1.2)
    return folder


def test_nothing_unchanged_is_read(folder: Path, store: Store, read: Read, tmp_path: Path) -> None:
    first = capture(folder, store, dataset="data")
    del read[:]
    (folder / "many" / "70").write_bytes(b"changed")
    (folder / "many" / "7000").write_bytes(b"new")
    (folder / "many" / "3").unlink()
    (folder / "alone").write_bytes(b"x")
    os.link(folder / "alone", folder / "another")  # before "one": takes its number
    second = capture(folder, store, dataset="data", parent=first.id)
    assert sorted(set(read)) == [b"alone", b"many/70", b"many/7000"]
    assert verify(store, second.id, read_data=True) == []
    restore(store, second.id, tmp_path / "again")
    assert tree_equal(folder, tmp_path / "again") == []
    assert holes(tmp_path / "again" / "sparse") == holes(folder / "sparse")

    del read[:]
    third = capture(folder, store, dataset="data", parent=second.id)
    assert set(read) <= {b"alone", b"many/70", b"many/7000"}  # young, a moment ago
    assert third.root == second.root


def test_paranoid_reads_all(folder: Path, store: Store, read: Read) -> None:
    first = capture(folder, store, dataset="data")
    files = sorted(set(read))
    del read[:]
    second = capture(folder, store, dataset="data", parent=first.id, paranoid=True)
    assert sorted(set(read)) == files
    assert second.root == first.root
    assert second.parent == first.id


def test_packs_that_were_written_anew_are_no_reason_to_read(
    folder: Path, store: Store, read: Read, tmp_path: Path
) -> None:
    (folder / "passing").write_bytes(os.urandom(30 * MIB))
    capture(folder, store, dataset="data")
    (folder / "passing").unlink()
    second = capture(folder, store, dataset="data")
    assert store.sweep([second.id]).bytes_freed > 20 * MIB
    del read[:]
    third = capture(folder, store, dataset="data", parent=second.id)
    assert read == []
    assert third.root == second.root
    restore(store, third.id, tmp_path / "again")
    assert tree_equal(folder, tmp_path / "again") == []


def test_what_the_store_lost_is_read_again(
    folder: Path, store: Store, read: Read, tmp_path: Path
) -> None:
    first = capture(folder, store, dataset="data")
    largest = max(store.packs.iterdir(), key=lambda pack: pack.stat().st_size)
    lost = {placed.hash for placed in read_index(largest, largest.stem)}
    assert lost
    largest.unlink()
    del read[:]
    second = capture(folder, store, dataset="data", parent=first.id)
    assert b"large" in read
    assert second.root == first.root
    assert verify(store, first.id, read_data=True) == []
    restore(store, second.id, tmp_path / "again")
    assert tree_equal(folder, tmp_path / "again") == []


@pytest.mark.parametrize("damage", ["hints of another", "tree", "no hints", "half a hint"])
def test_what_cannot_be_trusted_costs_only_time(
    damage: str, folder: Path, store: Store, read: Read
) -> None:
    other = capture(folder / "many", store, dataset="data")
    first = capture(folder, store, dataset="data")
    hints = store.hints / f"{first.id}.hints"
    if damage == "hints of another":
        hints.write_bytes((store.hints / f"{other.id}.hints").read_bytes())
    elif damage == "no hints":
        hints.unlink()
    elif damage == "half a hint":
        hints.write_bytes(hints.read_bytes()[: hints.stat().st_size // 2])
    else:
        tree = store.tree_path(first.root)
        body = bytearray(tree.read_bytes())
        body[len(body) // 2] ^= 1
        tree.write_bytes(body)
    del read[:]
    second = capture(folder, store, dataset="data", parent=first.id)
    assert b"large" in read
    assert len(set(read)) == 303
    assert verify(store, second.id, read_data=True) == []


def test_a_small_file_that_lies_is_found_when_it_is_in_the_sample(
    folder: Path, store: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Content that changed on the disk while nothing wrote to it: only a look can find that."""
    first = capture(folder, store, dataset="data")
    monkeypatch.setattr(takeover, "SAMPLE", 1.0)
    original = fs.read_through

    def lying(fd: int, buffer: memoryview, offset: int) -> int:
        done = original(fd, buffer, offset)
        if bytes(buffer[:6]) == b"linked":
            buffer[:6] = b"LINKED"
        return done

    monkeypatch.setattr(fs, "read_through", lying)
    second = capture(folder, store, dataset="data", parent=first.id)
    assert any("without its times changing" in note for note in second.skipped)
    restore(store, second.id, tmp_path / "again")
    assert (tmp_path / "again" / "one").read_bytes() == b"LINKED"


def test_a_write_through_a_mapping_is_noticed(folder: Path, store: Store, tmp_path: Path) -> None:
    """Its page is dirty already when it is captured, and it is written once more afterwards."""
    with open(folder / "mapped", "w+b") as file:
        file.truncate(4096)
        with mmap.mmap(file.fileno(), 4096) as page:
            page[0] = 1
            time.sleep(fs.SETTLE_NS / 1e9 * 1.2)
            first = capture(folder, store, dataset="data")
            time.sleep(0.02)
            page[0] = 2
            second = capture(folder, store, dataset="data", parent=first.id)
    restore(store, second.id, tmp_path / "again")
    assert (tmp_path / "again" / "mapped").read_bytes()[0] == 2


def test_many_folders_need_few_open_files(store: Store, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    for number in range(2000):
        (folder / f"{number}").mkdir(parents=True)
        (folder / f"{number}" / "file").write_bytes(b"%d" % number)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 180, hard))
    try:
        record = capture(folder, store, dataset="data")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert record.files == 2000
    assert verify(store, record.id, read_data=True) == []
