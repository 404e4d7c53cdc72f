"""Files that never repeat in place: stored against what they were, read from the store alone."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest
from blake3 import blake3

from snapshots import groups
from snapshots.blocks import BlockIndex, BlockSink
from snapshots.capture import capture
from snapshots.compare import tree_equal
from snapshots.errors import Damaged
from snapshots.pack import MEMBER, PackReader, read_index
from snapshots.restore import restore
from snapshots.store import Store
from snapshots.tree import BLOCK
from snapshots.verify import verify
from tests.snapshots.trees import MIB


def is_rdb(path: bytes) -> bool:
    return path.endswith(b".rdb")


class Dump:
    """A file of many keys whose order is another one each time."""

    def __init__(self, path: Path) -> None:
        self._path, self._random = path, random.Random(7)
        self._keys = [self._random.randbytes(120) for _ in range(30_000)]

    def write(self, changed: int) -> None:
        for _ in range(changed):
            self._keys[self._random.randrange(len(self._keys))] = self._random.randbytes(120)
        self._random.shuffle(self._keys)
        self._path.write_bytes(b"".join(self._keys))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "other").write_bytes(os.urandom(100_000))
    return folder


def codecs(store: Store) -> list[int]:
    return [
        placed.codec for pack in store.packs.iterdir() for placed in read_index(pack, pack.stem)
    ]


def test_a_stream_costs_what_changed_and_stands_alone(
    folder: Path, store: Store, tmp_path: Path
) -> None:
    dump = Dump(folder / "dump.rdb")
    parent, ids = None, []
    for number in range(4):
        dump.write(300)
        before = store.size()
        parent = capture(folder, store, dataset="r", parent=parent, streams=is_rdb).id
        ids.append(parent)
        if number:
            assert store.size() - before < MIB
            assert verify(store, parent, read_data=True) == []
    restore(store, parent or "", tmp_path / "again")
    assert tree_equal(folder, tmp_path / "again") == []

    store.sweep([ids[-1]])
    assert verify(store, ids[-1], read_data=True) == []
    restore(store, ids[-1], tmp_path / "alone")
    assert tree_equal(folder, tmp_path / "alone") == []
    store.sweep([])
    assert list(store.packs.iterdir()) == []


def test_a_group_survives_that_its_pack_is_written_anew(
    folder: Path, store: Store, tmp_path: Path
) -> None:
    dump = Dump(folder / "dump.rdb")
    dump.write(0)
    first = capture(folder, store, dataset="r", streams=is_rdb)
    dump.write(100)
    (folder / "gone").write_bytes(os.urandom(5 * MIB))
    second = capture(folder, store, dataset="r", parent=first.id, streams=is_rdb)
    (folder / "gone").unlink()
    third = capture(folder, store, dataset="r", parent=second.id, streams=is_rdb)
    packs = set(store.packs.iterdir())
    assert store.sweep([third.id]).bytes_freed > 4 * MIB
    assert set(store.packs.iterdir()) != packs
    assert MEMBER in codecs(store)
    restore(store, third.id, tmp_path / "again")
    assert tree_equal(folder, tmp_path / "again") == []


def test_content_that_is_all_new_becomes_the_next_reference(folder: Path, store: Store) -> None:
    dump = folder / "dump.rdb"
    parent = None
    for _ in range(2):
        dump.write_bytes(os.urandom(2 * MIB))
        parent = capture(folder, store, dataset="r", parent=parent, streams=is_rdb).id
    assert MEMBER not in codecs(store)
    assert verify(store, parent or "", read_data=True) == []


def test_a_lost_or_altered_reference_is_damage(folder: Path, store: Store, tmp_path: Path) -> None:
    dump = Dump(folder / "dump.rdb")
    dump.write(0)
    first = capture(folder, store, dataset="r", streams=is_rdb)
    reference = max(store.packs.iterdir(), key=lambda pack: pack.stat().st_size)
    dump.write(100)
    second = capture(folder, store, dataset="r", parent=first.id, streams=is_rdb)
    good = reference.read_bytes()
    bad = bytearray(good)
    bad[200_000] ^= 1
    for content, read_data in ((bytes(bad), True), (None, False)):
        if content is None:
            reference.unlink()
        else:
            reference.write_bytes(content)
        assert any(d.file == "dump.rdb" for d in verify(store, second.id, read_data=read_data))
        with pytest.raises(Damaged):
            restore(store, second.id, tmp_path / f"again{read_data}")
    assert store.sweep([second.id]).held_back
    reference.write_bytes(good)
    restore(store, second.id, tmp_path / "again")
    assert tree_equal(folder, tmp_path / "again") == []


def test_no_group_is_two_steps_from_plain_content(store: Store) -> None:
    """Forged: the head of a group lies in a group itself."""
    content = b"x" * BLOCK
    digest = blake3(content).digest()
    with BlockIndex(store.packs) as index:
        sink = BlockSink(index)
        sink.put_as_is(digest, BLOCK, MEMBER, groups.member(digest, 0))
        sink.seal()
    with store.reading() as source, pytest.raises(Damaged, match="is in a group"):
        source.get(digest, BLOCK)
    (pack,) = store.packs.iterdir()
    (placed,) = read_index(pack, pack.stem)
    with pytest.raises(Damaged, match="is in a group"):
        PackReader().block(pack, placed)


@pytest.mark.parametrize(
    ("head", "reason"),
    [
        (b"short", "not well formed"),
        (groups.head(bytes(32), 1 << 31, []), "too large"),
        (groups.head(bytes(32), BLOCK, []) + b"x", "half a hash"),
        (groups.head(bytes(32), BLOCK, []), "missing"),
    ],
)
def test_a_forged_group_is_damage(store: Store, head: bytes, reason: str) -> None:
    digest = blake3(b"x" * BLOCK).digest()
    with BlockIndex(store.packs) as index:
        sink = BlockSink(index)
        sink.put_as_is(digest, BLOCK, MEMBER, groups.member(sink.put(head), 0))
        sink.seal()
    with store.reading() as source, pytest.raises(Damaged, match=reason):
        source.get(digest, BLOCK)
