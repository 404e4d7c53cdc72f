"""Killed at any step of a sweep or a capture, a store has too much in it, never too little."""

from __future__ import annotations

import os
import random
import shutil
from pathlib import Path

import pytest

from snapshots.capture import capture
from snapshots.compare import tree_equal
from snapshots.pack import MEMBER, read_index
from snapshots.restore import restore
from snapshots.store import Store
from snapshots.verify import verify
from tests.snapshots.killing import kill_at_each_step
from tests.snapshots.trees import MIB

WORK = """
import sys
from pathlib import Path
from snapshots.capture import capture

folder, what, kept = Path(sys.argv[1]), sys.argv[2], sys.argv[3]

def work(store):
    if what == "sweep":
        store.sweep([kept])
    else:
        capture(folder / "new", store, dataset="r", parent=kept,
                streams=lambda path: path.endswith(b".rdb"))
"""


def is_rdb(path: bytes) -> bool:
    return path.endswith(b".rdb")


@pytest.fixture
def kept(tmp_path: Path) -> str:
    """A store with what a sweep has to do: records, trees, hints and packs to remove, packs to
    write anew, a group, and what somebody left unfinished. Returns the snapshot to keep."""
    store = Store.open(tmp_path / "store")
    content = random.Random(3)
    folder = tmp_path / "folder"
    folder.mkdir()
    keys = [content.randbytes(100) for _ in range(12_000)]
    parent = None
    for number in range(3):
        (folder / "large").write_bytes(content.randbytes(MIB))
        (folder / f"small{number}").write_bytes(content.randbytes(200_000))
        content.shuffle(keys)
        (folder / "dump.rdb").write_bytes(b"".join(keys))
        parent = capture(folder, store, dataset="r", parent=parent, streams=is_rdb).id
    (store.packs / ".unfinished.tmp").write_bytes(b"x")
    shutil.copytree(folder, tmp_path / "new")
    (tmp_path / "new" / "more").write_bytes(content.randbytes(MIB))
    content.shuffle(keys)
    (tmp_path / "new" / "dump.rdb").write_bytes(b"".join(keys))
    assert parent is not None
    return parent


@pytest.mark.parametrize("what", ["sweep", "capture"])
def test_a_kill_at_each_step_loses_nothing(what: str, kept: str, tmp_path: Path) -> None:
    steps = kill_at_each_step(tmp_path, what, WORK, kept)
    assert steps > 10
    whole = Store.open(tmp_path / f"{what}-{steps}")
    whole.sweep([kept])
    for step in range(1, steps):
        store = Store.open(tmp_path / f"{what}-{step}")
        ids = store.ids()
        assert kept in ids
        for snapshot in ids:
            assert verify(store, snapshot, read_data=True) == [], f"{snapshot} after step {step}"
        again = capture(tmp_path / "new", store, dataset="r", parent=kept, streams=is_rdb)
        assert verify(store, again.id, read_data=True) == []
        assert store.sweep([kept]).held_back == []
        assert store.ids() == [kept]
        assert not list(store.path.rglob("*.tmp"))
        assert verify(store, kept, read_data=True) == []
        assert store.size() < 1.5 * whole.size()
        shutil.rmtree(store.path)
    packs = whole.packs.iterdir()
    assert MEMBER in {placed.codec for pack in packs for placed in read_index(pack, pack.stem)}
    restore(whole, kept, tmp_path / "again")
    assert tree_equal(tmp_path / "folder", tmp_path / "again") == []
    assert os.listdir(whole.snapshots) == [f"{kept}.json"]
