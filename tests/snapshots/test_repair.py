"""What can be had anywhere is put back; what cannot is said; nothing gets worse on the way."""

from __future__ import annotations

import os
import random
import shutil
from contextlib import suppress
from pathlib import Path

import pytest

from snapshots.capture import capture
from snapshots.compare import tree_equal
from snapshots.errors import Damaged
from snapshots.pack import ENTRY, MEMBER, TRAILER, PackReader, Placed, read_index
from snapshots.repair import repair
from snapshots.report import Report
from snapshots.restore import restore
from snapshots.store import SnapshotRecord, Store
from snapshots.tree import BLOCK
from snapshots.verify import verify_all
from tests.snapshots.killing import kill_at_each_step
from tests.snapshots.trees import MIB


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What a sealed volume has: a few files, one of which has many blocks."""
    folder = tmp_path / "volume"
    (folder / "d").mkdir(parents=True)
    (folder / "d" / "large").write_bytes(random.Random(1).randbytes(2 * MIB + 5))
    (folder / "text").write_bytes(b"a line of text\n" * 20_000)
    (folder / "small").write_bytes(b"small")
    return folder


def packs(store: Store) -> list[Path]:
    return sorted(store.packs.glob("*.pack"), key=lambda path: path.stat().st_size)


def flip(path: Path, at: int, bit: int = 0) -> None:
    body = bytearray(path.read_bytes())
    body[at] ^= 1 << bit
    path.write_bytes(body)


def block_at(store: Store, nth: int) -> tuple[Path, Placed]:
    """A block in the largest pack."""
    path = packs(store)[-1]
    return path, sorted(read_index(path, path.stem), key=lambda placed: placed.offset)[nth]


def look(store: Store) -> Report:
    return verify_all(store, None, read_data=True)


def insist_on_whole(store: Store, record: SnapshotRecord, folder: Path, tmp_path: Path) -> None:
    assert look(store).damages == []
    restore(store, record.id, tmp_path / "again")
    assert tree_equal(folder, tmp_path / "again") == []


def test_a_block_comes_back_from_the_volume(folder: Path, store: Store, tmp_path: Path) -> None:
    record = capture(folder, store, dataset="db")
    path, placed = block_at(store, 7)
    flip(path, placed.offset + 100)
    (damage,) = look(store).damages
    assert (damage.dataset, damage.snapshots) == ("db", (record.id,))
    assert damage.files == ("d/large",)
    assert (damage.blocks, damage.elsewhere) == (1, False)

    done = repair(store, {"db": [tmp_path / "not there", folder]})
    assert (done.blocks, done.unmended, done.aside) == (1, [], [])
    assert path not in packs(store)
    insist_on_whole(store, record, folder, tmp_path)


def test_a_block_comes_back_from_a_file_of_another_name(
    folder: Path, store: Store, tmp_path: Path
) -> None:
    record = capture(folder, store, dataset="db")
    path, placed = block_at(store, 7)
    flip(path, placed.offset + 100)
    shutil.copytree(folder, tmp_path / "renamed")
    (tmp_path / "renamed" / "d" / "large").rename(tmp_path / "renamed" / "other")
    assert repair(store, {"other dataset": [folder]}).unmended != []
    assert repair(store, {"db": [tmp_path / "renamed"]}).unmended == []
    insist_on_whole(store, record, folder, tmp_path)


def copy_of_a_block(store: Store, tmp_path: Path) -> Placed:
    """A pack more that has a block of the largest one, as two captures side by side leave it."""
    path, placed = block_at(store, 3)
    reader = PackReader()
    content = bytes(reader.block(path, placed))
    reader.close()
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "file").write_bytes(content)
    beside = Store.open(tmp_path / "beside")
    capture(tmp_path / "one", beside, dataset="other")
    for pack in packs(beside):
        shutil.copy(pack, store.packs)
    return placed


def test_a_block_comes_back_from_another_pack(folder: Path, store: Store, tmp_path: Path) -> None:
    record = capture(folder, store, dataset="db")
    path, placed = block_at(store, 3)
    copy_of_a_block(store, tmp_path)
    flip(path, placed.offset)
    (damage,) = look(store).damages
    assert damage.elsewhere
    # It can even be restored as it is.
    restore(store, record.id, tmp_path / "before")
    assert tree_equal(folder, tmp_path / "before") == []
    assert repair(store, {}).unmended == []
    insist_on_whole(store, record, folder, tmp_path)


def test_what_cannot_be_mended_is_named_and_kept_aside(folder: Path, store: Store) -> None:
    record = capture(folder, store, dataset="db")
    path, placed = block_at(store, 7)
    flip(path, placed.offset + 100)
    done = repair(store, {})
    (left,) = done.unmended
    assert (left.snapshots, left.files) == ((record.id,), ("d/large",))
    assert done.aside == [store.path / "damaged" / path.name]
    assert done.aside[0].exists()
    (damage,) = look(store).damages
    assert "missing" in damage.reason
    assert (damage.blocks, damage.files) == (1, ("d/large",))
    # Captured again, it is whole again.
    capture(folder, store, dataset="db")
    assert look(store).damages == []


@pytest.mark.parametrize("field", ["magic", "hash", "offset", "count", "where", "cut", "gone"])
def test_a_pack_whose_index_is_damaged(
    field: str, folder: Path, store: Store, tmp_path: Path
) -> None:
    record = capture(folder, store, dataset="db")
    path = packs(store)[-1]
    size = path.stat().st_size
    blocks = len(list(read_index(path, path.stem)))
    start = size - TRAILER.size - blocks * ENTRY.size
    at = {"magic": 3, "hash": start + 5, "offset": start + 33, "where": size - 45}
    if field == "gone":
        path.unlink()
    elif field == "cut":
        path.write_bytes(path.read_bytes()[: size // 2])
    else:
        flip(path, at.get(field, size - TRAILER.size), bit=2)
    assert look(store).damages
    done = repair(store, {} if field in ("magic", "where", "count") else {"db": [folder]})
    assert done.unmended == []
    insist_on_whole(store, record, folder, tmp_path)


def test_a_tree_comes_back_from_the_volume_if_it_is_the_same(
    folder: Path, store: Store, tmp_path: Path
) -> None:
    record = capture(folder, store, dataset="db")
    flip(store.tree_path(record.root), 60)
    (damage,) = look(store).damages
    assert (damage.dataset, damage.snapshots, damage.files) == ("db", (record.id,), ())
    shutil.copytree(folder, tmp_path / "other")
    (tmp_path / "other" / "small").write_bytes(b"other")
    (left,) = repair(store, {"db": [tmp_path / "other"]}).unmended
    assert left.snapshots == (record.id,)
    done = repair(store, {"db": [folder]})
    assert done.unmended == []
    assert store.ids() == [record.id]
    insist_on_whole(store, record, folder, tmp_path)


def test_a_record_with_one_bit_turned_over(folder: Path, store: Store) -> None:
    record = capture(folder, store, dataset="db")
    path = store.snapshots / f"{record.id}.json"
    flip(path, 50, bit=3)
    assert repair(store, {}).unmended == []
    assert store.read(record.id) == record
    flip(path, 50, bit=3)
    flip(path, 51, bit=3)
    (left,) = repair(store, {"db": [folder]}).unmended
    assert left.snapshots == (record.id,)
    assert "altered" in left.reason


def test_damaged_hints_are_dropped(folder: Path, store: Store) -> None:
    record = capture(folder, store, dataset="db")
    (hints,) = store.hints.iterdir()
    assert repair(store, {}).mended == []
    flip(hints, 20)
    (mended,) = repair(store, {}).mended
    assert record.id[:12] in mended
    assert list(store.hints.iterdir()) == []


def test_nothing_is_written_where_nothing_is_wrong(folder: Path, store: Store) -> None:
    capture(folder, store, dataset="db")
    before = {path: path.stat().st_mtime_ns for path in store.path.rglob("*")}
    done = repair(store, {"db": [folder]})
    assert (done.mended, done.blocks, done.unmended, done.aside) == ([], 0, [], [])
    assert {path: path.stat().st_mtime_ns for path in store.path.rglob("*")} == before


def test_a_folder_that_leads_out_gives_nothing(folder: Path, store: Store, tmp_path: Path) -> None:
    """Links in a volume are not followed, and content that is not the block is not taken."""
    capture(folder, store, dataset="db")
    path, placed = block_at(store, 7)
    flip(path, placed.offset + 100)
    trap = tmp_path / "trap"
    trap.mkdir()
    (trap / "d").symlink_to(folder / "d")
    (trap / "text").symlink_to(folder / "d" / "large")
    (trap / "other").write_bytes(os.urandom(3 * BLOCK))
    assert repair(store, {"db": [trap]}).unmended != []


WORK = """
import sys
from pathlib import Path
from snapshots.repair import repair

def work(store):
    repair(store, {"db": [Path(sys.argv[3])]})
"""


def test_killed_at_any_step_a_repair_leaves_the_store_no_worse(
    folder: Path, store: Store, tmp_path: Path
) -> None:
    """A block, an index, a tree and a record are damaged, and one block that no volume has."""
    record = capture(folder, store, dataset="db")
    times = folder.stat()
    (folder / "gone").write_bytes(os.urandom(BLOCK))
    other = capture(folder, store, dataset="db")
    (folder / "gone").unlink()
    os.utime(folder, ns=(times.st_atime_ns, times.st_mtime_ns))
    path, placed = block_at(store, 7)
    flip(path, placed.offset + 100)
    for pack in packs(store):
        blocks = list(read_index(pack, pack.stem))
        if len(blocks) == 1 and blocks[0].raw == BLOCK:
            flip(pack, blocks[0].offset)
    flip(min(packs(store), key=lambda pack: len(list(read_index(pack, pack.stem)))), 1)
    before = {file for damage in look(store).damages for file in damage.files}
    flip(store.tree_path(record.root), 60)
    flip(store.snapshots / f"{other.id}.json", 50)

    steps = kill_at_each_step(tmp_path, "killed", WORK, str(folder))
    assert steps > 15
    for step in range(1, steps + 1):
        killed = Store.open(tmp_path / f"killed-{step}")
        assert {record.id, other.id} <= set(killed.ids())
        with suppress(Damaged):  # the other one's record may be damaged still
            for damage in verify_all(killed, [other.id], read_data=True).damages:
                assert set(damage.files) <= before | {"gone"}
        repaired = repair(killed, {"db": [folder]})
        assert [left.files for left in repaired.unmended] in ([], [("gone",)])
        killed.sweep()
        assert verify_all(killed, [record.id], read_data=True).damages == []
        restore(killed, record.id, tmp_path / f"again-{step}")
        assert tree_equal(folder, tmp_path / f"again-{step}") == []
        shutil.rmtree(killed.path)


@pytest.mark.parametrize("what", ["reference", "group", "member"])
@pytest.mark.parametrize("volume", ["of then", "of now"])
def test_content_stored_against_older_content(
    what: str, volume: str, store: Store, tmp_path: Path
) -> None:
    """A dump lies in groups whose reference is the dump before it: whatever of it is damaged comes
    back from either dump, or, where none has it, is named with all that depends on it."""
    folders = {name: tmp_path / name for name in ("of then", "of now")}
    keys = [random.Random(n).randbytes(120) for n in range(20_000)]
    records: list[SnapshotRecord] = []
    for number, folder in enumerate(folders.values()):
        folder.mkdir()
        random.Random(number).shuffle(keys)
        (folder / "dump.rdb").write_bytes(b"".join(keys))
        parent = records[-1].id if records else None
        records.append(capture(folder, store, dataset="r", parent=parent, streams=lambda _: True))
    blocks = [(pack, e) for pack in packs(store) for e in read_index(pack, pack.stem)]
    members = [(pack, e) for pack, e in blocks if e.codec == MEMBER]
    assert members
    largest = packs(store)[-1]
    plain = {
        "reference": [(pack, e) for pack, e in blocks if pack == largest],
        "group": [(p, e) for p, e in blocks if p != largest and e.codec != MEMBER],
        "member": members,
    }[what]
    pack, placed = max(plain, key=lambda each: each[1].stored)
    flip(pack, placed.offset + placed.stored // 2)
    found = look(store).damages
    assert {i for damage in found for i in damage.snapshots} == (
        {record.id for record in records} if what == "reference" else {records[1].id}
    )
    mendable = (what == "reference") == (volume == "of then")
    done = repair(store, {"r": [folders[volume]]})
    if mendable:
        assert done.unmended == []
        assert look(store).damages == []
        for number, (name, folder) in enumerate(folders.items()):
            restore(store, records[number].id, tmp_path / f"again {name}")
            assert tree_equal(folder, tmp_path / f"again {name}") == []
    else:
        assert done.unmended
        left = {i for damage in look(store).damages for i in damage.snapshots}
        assert left <= {i for damage in found for i in damage.snapshots}
        assert left
