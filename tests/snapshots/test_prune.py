"""Sweeping beside others, and with things in the store that this version cannot read."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from blake3 import blake3

from snapshots import store as store_module
from snapshots.capture import capture
from snapshots.compare import tree_equal
from snapshots.errors import Damaged, StoreBusy, UnknownSnapshot
from snapshots.restore import restore
from snapshots.store import SnapshotRecord, Store
from snapshots.verify import verify
from tests.snapshots.trees import MIB


def forge(store: Store, body: bytes) -> str:
    """A record as somebody else's version writes it; its name is right."""
    name = str(blake3(body).hexdigest())[:32]
    (store.snapshots / f"{name}.json").write_bytes(body)
    return name


def of_the_future(store: Store, record: SnapshotRecord) -> None:
    body = json.loads((store.snapshots / f"{record.id}.json").read_bytes())
    store.forget(record.id)
    forge(store, json.dumps({**body, "record": 2, "pieces": [body.pop("root")]}).encode())


def unparseable(store: Store, record: SnapshotRecord) -> None:
    store.forget(record.id)
    forge(store, b"\x00 not json")


def cut_off(store: Store, record: SnapshotRecord) -> None:
    os.truncate(store.snapshots / f"{record.id}.json", 40)


def unreadable_tree(store: Store, record: SnapshotRecord) -> None:
    os.truncate(store.tree_path(record.root), 40)


def missing_tree(store: Store, record: SnapshotRecord) -> None:
    store.tree_path(record.root).unlink()


@pytest.mark.parametrize(
    "what", [of_the_future, unparseable, cut_off, unreadable_tree, missing_tree]
)
def test_fault_84_nothing_is_freed_while_something_cannot_be_read(
    what: Callable[[Store, SnapshotRecord], None], small: Path, store: Store
) -> None:
    """A record of a later version, one that is no record, one cut off, a tree that is damaged or
    gone: whatever such a snapshot may need stays, every pack and tree, and the reason is said."""
    pinned = capture(small, store, dataset="a")
    (small / "two").write_bytes(b"other")
    other = capture(small, store, dataset="a")
    (small / "d" / "one").write_bytes(os.urandom(300_000))
    unneeded = capture(small, store, dataset="a")
    what(store, other)
    kept = {*store.packs.iterdir(), *store.trees.iterdir()}
    swept = store.sweep([pinned.id, other.id])
    assert swept.forgotten == [unneeded.id]
    assert len(swept.held_back) == 1
    assert {*store.packs.iterdir(), *store.trees.iterdir()} == kept
    assert verify(store, pinned.id, read_data=True) == []


RACER = """
import sys, time
from pathlib import Path
from snapshots.capture import capture
from snapshots.store import Store
store, folder, kept = Store.open(Path(sys.argv[1])), Path(sys.argv[2]), sys.argv[3]
print("ready", flush=True)
while True:
    store.sweep([kept])
    time.sleep(0.03)
"""


def test_fault_85_pruning_while_a_snapshot_is_restored(store: Store, tmp_path: Path) -> None:
    """Another process sweeps again and again while snapshots are captured and restored here: each
    restore is whole, or refused before its target is made because its snapshot is gone."""
    folder = tmp_path / "folder"
    folder.mkdir()
    chance = random.Random(7)
    (folder / "file").write_bytes(chance.randbytes(2 * MIB))
    kept = capture(folder, store, dataset="kept")
    racer = subprocess.Popen(
        [sys.executable, "-c", RACER, str(store.path), str(folder), kept.id],
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )
    outcomes = {"whole": 0, "gone": 0}
    try:
        assert racer.stdout is not None
        assert racer.stdout.readline() == b"ready\n"
        deadline = time.monotonic() + 60
        number = 0
        while min(outcomes.values()) < 1 and time.monotonic() < deadline:
            number += 1
            (folder / "other").write_bytes(chance.randbytes(100_000))
            target = tmp_path / f"target-{number}"
            with suppress(UnknownSnapshot):  # forgotten before its capture could read it back
                record = capture(folder, store, dataset="other", parent=kept.id)
                if number % 2:
                    time.sleep(0.02)
                try:
                    restore(store, record.id, target)
                except (UnknownSnapshot, Damaged):
                    assert not target.exists()
                    outcomes["gone"] += 1
                else:
                    assert tree_equal(folder, target) == []
                    outcomes["whole"] += 1
        assert racer.poll() is None
    finally:
        racer.kill()
        racer.wait()
        assert racer.stdout is not None
        racer.stdout.close()
    assert min(outcomes.values()) >= 1, outcomes
    assert verify(store, kept.id, read_data=True) == []


def test_fault_85_what_is_being_restored_is_not_swept_away(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sweep comes in the midst of a restore of what it is to forget: it waits, and when that
    takes too long it gives up by name; the restore is whole."""
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "file").write_bytes(os.urandom(20 * MIB))
    record = capture(folder, store, dataset="data")
    monkeypatch.setattr(store_module, "LOCK_SECONDS", 0.3)
    busy: list[StoreBusy] = []

    def sweep() -> None:
        try:
            Store.open(store.path).sweep([])
        except StoreBusy as error:
            busy.append(error)

    sweeper = threading.Thread(target=sweep)

    def half_way(what: str, done: int, total: int) -> None:
        if what == "restore" and not busy and 0 < done < total:
            if not sweeper.ident:
                sweeper.start()
            sweeper.join()

    restore(store, record.id, tmp_path / "again", progress=half_way)
    assert [str(error) for error in busy] == [
        f"the store {store.path} is in use by another process; run it again when that has finished"
    ]
    assert tree_equal(folder, tmp_path / "again") == []
    assert store.sweep([]).forgotten == [record.id]
