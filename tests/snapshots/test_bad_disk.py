"""A store, and what is captured or restored, on a disk that fails, lies, is full or is slow."""

from __future__ import annotations

import errno
import re
from pathlib import Path

import pytest

from snapshots.capture import capture
from snapshots.compare import tree_equal
from snapshots.errors import Damaged, SnapshotError
from snapshots.fork import Fork
from snapshots.restore import restore
from snapshots.store import Store
from snapshots.verify import verify
from tests.faultdisk.mount import FaultDisk
from tests.snapshots.storework import (
    WORKS,
    Place,
    Promised,
    insist_on_going_on,
    insist_on_promises,
    prepared,
    put_on,
)


def fail_each(
    disk: FaultDisk, plain: Place, what: str, kind: str, code: int, tmp_path: Path, stride: int
) -> int:
    """The work once for each operation of this kind, which fails; returns how many there were.

    A full disk stays full; every other failure happens once, as a kernel reports it."""
    nth, happened = 1, 0
    while True:
        place = put_on(disk, plain, f"{kind}-{nth}")
        promised = Promised()
        disk.fail(kind, nth, code, lasting=code == errno.ENOSPC)
        failure = None
        try:
            WORKS[what](place, promised)
        except SnapshotError as error:
            failure = error
        if disk.heal() == 0:
            assert failure is None
            return happened
        happened += 1
        if failure is not None and code == errno.ENOSPC:
            assert re.search("No space left|no room", str(failure))
        if failure is None:
            assert kind == "remove", f"{kind} {nth} failed and nobody was told"
        insist_on_promises(place, what, promised)
        left = disk.lose_power(disk.mark(), tmp_path / "left", "none") / place.disk.name
        insist_on_promises(place.moved(left), what, promised)
        insist_on_going_on(place.moved(left), what, tmp_path / "again")
        nth += stride


@pytest.mark.parametrize(
    "stride", [pytest.param(1, marks=pytest.mark.chaos), 3], ids=["each", "some"]
)
@pytest.mark.parametrize("kind", ["fsync", "write", "rename", "create", "remove"])
@pytest.mark.parametrize("what", WORKS)
def test_fault_15_16_the_nth_operation_fails(
    what: str, kind: str, stride: int, disk: FaultDisk, tmp_path: Path
) -> None:
    """The Nth write, sync, rename, creation or removal of each work on a store fails with an
    input/output error, for every N: it is told, never retried as success, and harms nothing."""
    plain = prepared(tmp_path, what)
    fail_each(disk, plain, what, kind, errno.EIO, tmp_path, stride)


@pytest.mark.parametrize(
    "stride", [pytest.param(1, marks=pytest.mark.chaos), 4], ids=["each", "some"]
)
@pytest.mark.parametrize("what", [what for what in WORKS if what != "forget"])
def test_fault_11_12_the_disk_is_full_from_the_nth_write_on(
    what: str, stride: int, disk: FaultDisk, tmp_path: Path
) -> None:
    """The disk takes half of the Nth write and nothing more, for every N: "no space left" is said,
    there is no snapshot of it, and everything runs again when there is room."""
    plain = prepared(tmp_path, what)
    assert fail_each(disk, plain, what, "write", errno.ENOSPC, tmp_path, stride) > 0


def test_fault_15_a_file_that_cannot_be_read_is_named(
    disk: FaultDisk, store: Store, tmp_path: Path
) -> None:
    """Reading one file of the source gives an input/output error: capture and fork name the file,
    no snapshot is made, and both work when the disk does."""
    folder = disk.path / "data" / "base"
    folder.mkdir(parents=True)
    (folder / "good").write_bytes(b"good" * 1000)
    (folder / "1259").write_bytes(b"page" * 100_000)
    disk.fail("read", of="*/1259", lasting=True)
    with pytest.raises(SnapshotError, match=r"base/1259.*Input/output error"):
        capture(disk.path / "data", store, dataset="db")
    assert store.ids() == []
    (tmp_path / "target").mkdir()
    fork = Fork(disk.path / "data", tmp_path / "target", index=tmp_path / "index")
    with pytest.raises(SnapshotError, match=r"base/1259.*Input/output error"):
        fork.first_pass()
    assert disk.heal() > 0
    record = capture(disk.path / "data", store, dataset="db")
    assert verify(store, record.id, read_data=True) == []
    fork.final_pass()
    assert tree_equal(disk.path / "data", tmp_path / "target") == []


def test_fault_15_a_pack_that_cannot_be_read_is_damage(
    small: Path, disk: FaultDisk, tmp_path: Path
) -> None:
    """Reading a pack gives an input/output error: verify and restore name file and block."""
    store = Store.open(disk.path / "store")
    record = capture(small, store, dataset="data")
    disk.fail("read", of="*.pack", nth=4, lasting=True)
    (damage, *_) = verify(store, record.id, read_data=True)
    assert "Input/output error" in damage.reason
    disk.heal()
    disk.fail("read", of="*.pack", nth=4, lasting=True)
    with pytest.raises(Damaged, match=r"(d/one|two).*Input/output error"):
        restore(store, record.id, tmp_path / "again")
    disk.heal()
    assert verify(store, record.id, read_data=True) == []


@pytest.mark.parametrize("of", ["*/packs/*", "*/trees/*", "*/snapshots/*"])
def test_fault_17_writes_that_a_lying_disk_dropped_are_noticed(
    of: str, small: Path, disk: FaultDisk
) -> None:
    """The disk acknowledges writes and their syncs, and has dropped them: what is read back is not
    what was written, so there is no snapshot."""
    store = Store.open(disk.path / "store")
    first = capture(small, store, dataset="data")
    (small / "two").write_bytes(b"other")
    disk.lie(of)
    with pytest.raises(Damaged):
        capture(small, store, dataset="data", parent=first.id)
    disk.heal()
    assert verify(store, first.id, read_data=True) == []
    again = capture(small, store, dataset="data", parent=first.id)
    assert verify(store, again.id, read_data=True) == []


def test_fault_20_a_very_slow_disk_only_takes_longer(small: Path, disk: FaultDisk) -> None:
    """Each read, write and sync takes a tenth of a second: nothing gives up, all comes back."""
    store = Store.open(disk.path / "store")
    (disk.path / "target").mkdir()
    disk.slow(0.1)
    record = capture(small, store, dataset="data")
    assert verify(store, record.id, read_data=True) == []
    restore(store, record.id, disk.path / "target")
    disk.heal()
    assert tree_equal(small, disk.path / "target") == []
