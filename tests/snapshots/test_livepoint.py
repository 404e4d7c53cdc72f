"""A folder whose engine goes on: what is left out, taken from elsewhere, read last and added."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snapshots import fs
from snapshots.capture import capture
from snapshots.compare import tree_equal
from snapshots.draft import Piece, piece_of
from snapshots.errors import SnapshotError
from snapshots.livepoint import LivePoint
from snapshots.restore import restore
from snapshots.splice import Insertion, splice
from snapshots.store import Store
from snapshots.tree import Blocks, Dir, Entry, File, Up
from snapshots.verify import verify
from tests.snapshots.trees import MIB

META = fs.Meta(0o644, 0, 0, 0)


@pytest.fixture
def cluster(tmp_path: Path) -> Path:
    """A folder that looks like the one of a PostgreSQL."""
    folder = tmp_path / "cluster"
    for inner in ("base/1", "pg_wal/archive_status", "pg_replslot"):
        (folder / inner).mkdir(parents=True)
    (folder / "base" / "1" / "1259").write_bytes(os.urandom(3 * MIB))
    (folder / "pg_wal" / "01").write_bytes(b"first segment")
    (folder / "PG_VERSION").write_text("15\n")
    (folder / "postmaster.pid").write_text("1\n")
    (folder / "pg_replslot" / "slot").write_text("x")
    (folder / "zz").write_text("last")
    if os.geteuid() == 0:
        for path in (folder, *folder.rglob("*")):
            os.chown(path, 70, 71)
    return folder


def in_wal(path: bytes) -> bool:
    return path.startswith(b"pg_wal/")


def test_later_entries_are_read_when_the_rest_was(
    cluster: Path, store: Store, tmp_path: Path
) -> None:
    wal = cluster / "pg_wal"
    finished = []

    def finish() -> Mapping[bytes, bytes]:
        finished.append(True)
        (cluster / "base" / "1" / "1259").write_bytes(b"written after the point")
        (wal / "00").write_bytes(b"came meanwhile")
        (wal / "01").write_bytes(b"first segment, continued")
        (wal / "archive_status" / "00.done").touch()
        os.link(wal / "00", wal / "02")
        return {b"backup_label": b"START WAL", b"base/tablespace_map": b"", b"~": b"x" * 200_000}

    before = (cluster / "base" / "1" / "1259").read_bytes()
    point = LivePoint(
        left_out=lambda path: path in (b"postmaster.pid", b"pg_replslot"),
        later=in_wal,
        finish=finish,
    )
    first = capture(cluster, store, dataset="data")
    record = capture(cluster, store, dataset="data", parent=first.id, live=point)
    assert finished == [True]
    assert verify(store, record.id, read_data=True) == []
    again = tmp_path / "again"
    restore(store, record.id, again)
    assert (again / "base" / "1" / "1259").read_bytes() == before
    assert [d for d in tree_equal(wal, again / "pg_wal") if "mtime_ns" not in d] == []
    assert (again / "pg_wal" / "00").stat().st_nlink == 2
    assert sorted(os.listdir(again)) == ["PG_VERSION", "backup_label", "base", "pg_wal", "zz", "~"]
    label = (again / "backup_label").stat()
    assert (again / "backup_label").read_bytes() == b"START WAL"
    assert (label.st_mode & 0o7777, label.st_uid) == (0o600, again.stat().st_uid)
    assert (again / "base" / "tablespace_map").read_bytes() == b""
    assert (again / "~").read_bytes() == b"x" * 200_000
    assert record.files == 10


def test_a_whole_folder_can_be_later(cluster: Path, store: Store, tmp_path: Path) -> None:
    point = LivePoint(later=lambda path: path == b"pg_wal" or in_wal(path))
    record = capture(cluster, store, dataset="data", live=point)
    restore(store, record.id, tmp_path / "again")
    assert tree_equal(cluster, tmp_path / "again") == []


def test_a_link_into_what_comes_later_becomes_a_file_of_its_own(
    cluster: Path, store: Store, tmp_path: Path
) -> None:
    os.link(cluster / "zz", cluster / "pg_wal" / "linked")
    record = capture(cluster, store, dataset="data", live=LivePoint(later=in_wal))
    restore(store, record.id, tmp_path / "again")
    assert (tmp_path / "again" / "pg_wal" / "linked").read_text() == "last"
    assert (tmp_path / "again" / "zz").read_text() == "last"


def test_an_added_file_takes_the_place_of_an_old_one(
    cluster: Path, store: Store, tmp_path: Path
) -> None:
    (cluster / "backup_label").write_bytes(os.urandom(100_000))
    point = LivePoint(finish=lambda: {b"backup_label": b"new"})
    record = capture(cluster, store, dataset="data", live=point)
    restore(store, record.id, tmp_path / "again")
    assert (tmp_path / "again" / "backup_label").read_bytes() == b"new"
    assert verify(store, record.id, read_data=True) == []


@pytest.mark.parametrize(
    ("added", "reason"),
    [(b"nowhere/label", "no folder nowhere"), (b"base", "cannot be replaced")],
)
def test_what_cannot_be_added_is_named(
    cluster: Path, store: Store, added: bytes, reason: str
) -> None:
    with pytest.raises(SnapshotError, match=reason):
        capture(cluster, store, dataset="data", live=LivePoint(finish=lambda: {added: b""}))
    assert store.ids() == []
    assert list(store.trees.iterdir()) == []


def test_content_from_elsewhere_has_the_metadata_of_the_original(
    cluster: Path, store: Store, tmp_path: Path
) -> None:
    copy = tmp_path / "copy.db"
    copy.write_bytes(os.urandom(200_000))
    original = (cluster / "zz").stat()
    point = LivePoint(instead={b"zz": copy})
    for parent in (None, *store.ids()):
        record = capture(cluster, store, dataset="data", live=point, parent=parent)
        restore(store, record.id, tmp_path / "again", in_place=True)
        found = (tmp_path / "again" / "zz").stat()
        assert (tmp_path / "again" / "zz").read_bytes() == copy.read_bytes()
        for field in ("st_uid", "st_gid", "st_mode", "st_mtime_ns"):
            assert getattr(found, field) == getattr(original, field)
    after = capture(cluster, store, dataset="data", parent=record.id)
    restore(store, after.id, tmp_path / "after")
    assert tree_equal(cluster, tmp_path / "after") == []
    with pytest.raises(SnapshotError, match="gone is not a file"):
        capture(cluster, store, dataset="data", live=LivePoint(instead={b"gone": copy}))


def test_a_point_that_cannot_be_finished_makes_no_snapshot(cluster: Path, store: Store) -> None:
    def finish() -> Mapping[bytes, bytes]:
        raise SnapshotError("the engine is gone")

    with pytest.raises(SnapshotError, match="the engine is gone"):
        capture(cluster, store, dataset="data", live=LivePoint(later=in_wal, finish=finish))
    assert store.ids() == []
    assert not list(store.path.rglob("*.tmp"))


names = st.binary(min_size=1, max_size=3)


@given(present=st.sets(names), put=st.sets(names))
def test_a_spliced_folder_is_in_order_and_whole(present: set[bytes], put: set[bytes]) -> None:
    entries: list[tuple[Entry, fs.Key | None]] = [(Dir(b"", META), None)]
    for name in sorted(present):
        entries += [(File(name, META, 1), None), (Blocks(0, (bytes(32),)), None)]
    entries.append((Up(), None))
    written: list[Piece] = []

    def insertions(path: bytes, folder: Dir) -> list[Insertion]:  # noqa: ARG001
        return [Insertion(n, partial(written.append, piece_of(File(n, META, 0)))) for n in put]

    splice(entries, insertions, written.append)
    lines = [json.loads(line) for piece in written for line in piece.lines.splitlines()]
    files = [line for line in lines if line["t"] == "f"]
    assert [line["n"].encode("latin-1") for line in files] == sorted(present | put)
    assert {line["n"].encode("latin-1") for line in files if line["s"] == 0} == put
    assert sum(line["t"] == "b" for line in lines) == len(present - put)
    assert lines[-1] == {"t": "u"}
    assert {piece.ends.name for piece in written if piece.ends} == present - put
