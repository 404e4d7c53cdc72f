"""The store itself: what it takes to be one, sweeping, kills, two at a time."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from snapshots import store as store_module
from snapshots.blocks import BlockIndex, BlockSink
from snapshots.capture import capture
from snapshots.compare import tree_equal
from snapshots.errors import (
    SnapshotError,
    StoreBusy,
    StoreUnusable,
    UnknownSnapshot,
    Unsupported,
)
from snapshots.pack import PACK_BYTES
from snapshots.restore import restore
from snapshots.store import Store
from snapshots.verify import verify
from tests.snapshots.conftest import mounted
from tests.snapshots.trees import MIB


def test_only_its_owner_can_look_into_it(small: Path, store: Store) -> None:
    capture(small, store, dataset="data")
    for folder, folders, files in os.walk(store.path):
        assert os.stat(folder).st_mode & 0o077 == 0
        for name in folders + files:
            assert os.stat(os.path.join(folder, name)).st_mode & 0o077 == 0


def test_what_is_no_store_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreUnusable, match="no store"):
        Store.open(tmp_path / "nowhere", create=False)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letters.txt").touch()
    with pytest.raises(StoreUnusable, match=r"letters\.txt"):
        Store.open(tmp_path / "full")
    (tmp_path / "file").touch()
    with pytest.raises(StoreUnusable):
        Store.open(tmp_path / "file")
    newer = Store.open(tmp_path / "newer")
    (newer.path / "format").write_text('{"format": "lockstep-store", "version": 4}\n')
    with pytest.raises(StoreUnusable, match=r'"version": 4.* reads versions 1 to 3'):
        Store.open(newer.path)


@pytest.fixture
def tmpfs(tmp_path: Path) -> Iterator[Path]:
    yield from mounted(tmp_path, "-t", "tmpfs", "-o", "size=8m", "tmpfs")


def test_fault_19_a_store_that_cannot_be_written_can_be_read(
    small: Path, tmpfs: Path, tmp_path: Path
) -> None:
    """The store's file system turns read-only: opening it to write says so, a capture under way
    fails by name, and what is in it is verified and restored."""
    writable = Store.open(tmpfs / "store")
    record = capture(small, writable, dataset="data")
    subprocess.run(["mount", "-o", "remount,ro", str(tmpfs)], check=True, timeout=30)
    with pytest.raises(StoreUnusable, match="Read-only"):
        Store.open(tmpfs / "store")
    with pytest.raises(SnapshotError, match=r"capture .* into .*Read-only"):
        capture(small, writable, dataset="data")
    assert verify(writable, record.id, read_data=True) == []
    restore(Store.open(tmpfs / "store", create=False), record.id, tmp_path / "again")
    assert tree_equal(small, tmp_path / "again") == []


def fill(folder: Path, seed: int) -> None:
    """A folder of which each seed shares half with the one before."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for part in (seed, seed + 1):
        content = random.Random(part).randbytes(3 * MIB)
        for number in range(6):
            half = content[number * (MIB // 2) : (number + 1) * (MIB // 2)]
            (folder / f"{part}-{number}").write_bytes(half)
    (folder / "large").write_bytes(random.Random(seed // 2).randbytes(5 * MIB))


def test_a_sweep_frees_what_nobody_needs_and_only_that(store: Store, tmp_path: Path) -> None:
    ids = []
    for seed in range(6):
        fill(tmp_path / "folder", seed)
        ids.append(capture(tmp_path / "folder", store, dataset="data").id)
    full = store.size()
    swept = store.sweep([ids[1], ids[4], "f" * 32])
    assert sorted(swept.forgotten) == sorted({*ids} - {ids[1], ids[4]})
    assert swept.held_back == []
    assert swept.bytes_freed == full - store.size()
    # 2 x 11 MiB are needed; a pack may be up to half unneeded
    assert store.size() < 2.1 * 22 * MIB
    for seed in (1, 4):
        fill(tmp_path / "folder", seed)
        assert verify(store, ids[seed], read_data=True) == []
        restore(store, ids[seed], tmp_path / f"again{seed}")
        for file in (tmp_path / "folder").iterdir():
            assert (tmp_path / f"again{seed}" / file.name).read_bytes() == file.read_bytes()
    assert store.sweep([ids[1], ids[4]]).bytes_freed == 0
    store.sweep([])
    assert store.ids() == []
    assert [*store.packs.iterdir(), *store.trees.iterdir(), *store.hints.iterdir()] == []


def test_a_half_needed_pack_is_written_anew(store: Store, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "small").write_bytes(os.urandom(MIB))
    kept_content = (folder / "small").read_bytes()
    (folder / "large").write_bytes(os.urandom(20 * MIB))
    both = capture(folder, store, dataset="data")
    (folder / "large").unlink()
    one = capture(folder, store, dataset="data")
    assert store.sweep([one.id]).bytes_freed > 19 * MIB
    assert both.id not in store.ids()
    restore(store, one.id, tmp_path / "again")
    assert (tmp_path / "again" / "small").read_bytes() == kept_content


def test_a_pack_that_equals_the_one_just_written_survives_the_sweep(
    store: Store, tmp_path: Path
) -> None:
    """As after a kill between writing packs anew and removing the old ones."""
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "kept").write_bytes(b"kept")
    (folder / "gone").write_bytes(os.urandom(60_000))
    capture(folder, store, dataset="data")
    (folder / "gone").unlink()
    record = capture(folder, store, dataset="data")
    with BlockIndex(store.packs, load=False) as index:
        sink = BlockSink(index)
        sink.put(b"kept")
        sink.seal()
    store.sweep([record.id])
    assert verify(store, record.id, read_data=True) == []
    store.sweep([record.id])
    assert verify(store, record.id, read_data=True) == []


def test_nothing_is_freed_while_something_cannot_be_read(
    small: Path, store: Store, tmp_path: Path
) -> None:
    good, bad = capture(small, store, dataset="a"), None
    (small / "two").write_bytes(b"other")
    bad = capture(small, store, dataset="a")
    path = store.snapshots / f"{bad.id}.json"
    body = path.read_bytes()
    path.write_bytes(body[:-1])
    swept = store.sweep([])
    assert swept.forgotten == [good.id]
    assert any(bad.id in reason for reason in swept.held_back)
    path.write_bytes(body)
    restore(store, bad.id, tmp_path / "again")
    assert tree_equal(small, tmp_path / "again") == []

    tree = store.tree_path(bad.root)
    good_tree = tree.read_bytes()
    tree.write_bytes(good_tree[:-1])
    assert store.sweep([bad.id]).held_back
    tree.write_bytes(good_tree)
    assert verify(store, bad.id, read_data=True) == []


def test_forget(small: Path, store: Store) -> None:
    record = capture(small, store, dataset="data")
    assert store.read(record.id) == record
    store.forget(record.id)
    assert store.ids() == []
    with pytest.raises(UnknownSnapshot, match=record.id):
        store.forget(record.id)


def test_a_store_is_neither_captured_nor_overwritten(small: Path, tmp_path: Path) -> None:
    inside = Store.open(small / "store")
    with pytest.raises(Unsupported, match="each other"):
        capture(small, inside, dataset="data")
    outside = Store.open(tmp_path / "outside" / "store")
    record = capture(small, outside, dataset="data")
    for target in (outside.path, tmp_path / "outside", outside.path / "packs"):
        with pytest.raises(Unsupported, match="each other"):
            restore(outside, record.id, target, in_place=True)
    assert verify(outside, record.id, read_data=True) == []


def test_no_sweep_while_somebody_reads(
    small: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    capture(small, store, dataset="data")
    monkeypatch.setattr(store_module, "LOCK_SECONDS", 0.2)
    with store.reading(), pytest.raises(StoreBusy, match="in use"):
        Store.open(store.path).sweep([])
    assert len(store.ids()) == 1


def test_captures_beside_each_other(store: Store, tmp_path: Path) -> None:
    folders = [tmp_path / f"folder{n}" for n in range(4)]
    for number, folder in enumerate(folders):
        fill(folder, number // 2)
    made: dict[int, str] = {}

    def work(number: int) -> None:
        made[number] = capture(folders[number], store, dataset=f"d{number}").id

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    store.sweep(made.values())
    for number, folder in enumerate(folders):
        restore(store, made[number], tmp_path / f"again{number}")
        assert tree_equal(folder, tmp_path / f"again{number}") == []


def test_packs_are_closed_at_their_size(store: Store, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    with open(folder / "large", "wb") as file:
        for _ in range(5):
            file.write(os.urandom(PACK_BYTES // 2))
    record = capture(folder, store, dataset="data")
    sizes = [pack.stat().st_size for pack in store.packs.iterdir()]
    assert len(sizes) >= 2
    assert max(sizes) < PACK_BYTES + 2 * MIB
    assert verify(store, record.id, read_data=True) == []


CAPTURE = """
import sys
from pathlib import Path
from snapshots.capture import capture
from snapshots.store import Store
store = Store.open(Path(sys.argv[1]))
print("ready", flush=True)
while True:
    capture(Path(sys.argv[2]), store, dataset="killed")
"""

SWEEP = """
import sys
from pathlib import Path
from snapshots.capture import capture
from snapshots.store import Store
store = Store.open(Path(sys.argv[1]))
print("ready", flush=True)
while True:
    capture(Path(sys.argv[2]), store, dataset="killed")
    store.sweep(sys.argv[3:])
"""


def run_and_kill(script: str, arguments: list[str], after: float) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", script, *arguments], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    time.sleep(after)
    assert process.poll() is None
    process.kill()
    process.wait()
    process.stdout.close()


@pytest.mark.parametrize("script", [CAPTURE, SWEEP], ids=["capture", "sweep"])
def test_a_kill_at_any_time_leaves_a_usable_store(
    script: str, store: Store, tmp_path: Path
) -> None:
    fill(tmp_path / "kept", 1)
    kept = capture(tmp_path / "kept", store, dataset="kept")
    for attempt in range(10):
        fill(tmp_path / "folder", attempt + 1)
        arguments = [str(store.path), str(tmp_path / "folder"), kept.id]
        run_and_kill(script, arguments, 0.02 + attempt * 0.037)
        store = Store.open(store.path)
        for snapshot in store.ids():
            assert verify(store, snapshot, read_data=True) == []
        assert kept.id in store.ids()
    restore(store, kept.id, tmp_path / "again")
    assert tree_equal(tmp_path / "kept", tmp_path / "again") == []
    again = capture(tmp_path / "folder", store, dataset="killed")
    assert verify(store, again.id, read_data=True) == []
    store.sweep([kept.id])
    assert not list(store.path.rglob("*.tmp"))
    assert store.size() < 14 * MIB
    with pytest.raises(UnknownSnapshot):
        store.read(again.id)
