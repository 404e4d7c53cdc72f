"""Stores and volumes on real file systems that are too small: ext4 in a loop image."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from snapshots.capture import capture
from snapshots.compare import tree_equal
from snapshots.errors import NotEnoughSpace
from snapshots.fork import Fork
from snapshots.repair import repair
from snapshots.restore import restore
from snapshots.store import Store
from snapshots.tree import BLOCK
from snapshots.verify import verify
from tests.snapshots.conftest import mounted
from tests.snapshots.trees import MIB, holes

Ext4 = Callable[..., Path]


@pytest.fixture
def ext4(tmp_path: Path) -> Iterator[Ext4]:
    """Makes and mounts file systems of so many MiB and, if that is said, inodes."""

    @contextmanager
    def made(size: int, inodes: int) -> Iterator[Path]:
        image = tmp_path / f"{size}-{inodes}.img"
        with open(image, "wb") as file:
            file.truncate(size * MIB)
        few = ["-N", str(inodes)] if inodes else []
        tool = shutil.which("mkfs.ext4", path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
        if tool is None:
            pytest.skip("mkfs.ext4 is not installed")
        # -m 0: root has no more room than anybody.
        argv = [tool, "-q", "-F", "-m", "0", "-O", "^has_journal", *few, str(image)]
        subprocess.run(argv, check=True, timeout=60, capture_output=True)
        yield from mounted(tmp_path, "-o", "loop", str(image))

    with ExitStack() as stack:
        yield lambda size, inodes=0: stack.enter_context(made(size, inodes))


def fill(folder: Path, but: int = 0) -> Path:
    """Takes all room of a file system but so many bytes."""
    ballast = folder / "ballast"
    zeros = bytes(1 << 16)
    with open(ballast, "wb", buffering=0) as file, suppress(OSError):
        while os.fstatvfs(file.fileno()).f_bavail * 4096 > but:
            file.write(zeros)
        while not but:  # and the last block, which is written alone
            file.write(b"0")
    return ballast


def take_inodes(folder: Path, but: int = 0) -> None:
    """Takes all inodes but so many."""
    for number in range(os.statvfs(folder).f_favail - but):
        (folder / f"taken-{number}").touch()


def files_of(store: Store) -> set[Path]:
    return {path for path in store.path.rglob("*") if path.is_file()}


def test_fault_11_a_full_store_makes_no_snapshot_and_harms_none(small: Path, ext4: Ext4) -> None:
    """A capture fills a store of 64 MiB on ext4: "no space left", no record, no file is left of it,
    and the snapshots before it are whole; when there is room, the same capture works."""
    disk = ext4(64)
    store = Store.open(disk / "store")
    first = capture(small, store, dataset="data")
    before = files_of(store)
    ballast = fill(disk, but=3 * MIB)
    (small / "large").write_bytes(os.urandom(20 * MIB))
    with pytest.raises(NotEnoughSpace, match="No space left"):
        capture(small, store, dataset="data", parent=first.id)
    assert files_of(store) == before
    assert verify(store, first.id, read_data=True) == []
    ballast.unlink()
    second = capture(small, store, dataset="data", parent=first.id)
    assert verify(store, second.id, read_data=True) == []


def test_fault_11_84_a_full_store_is_pruned_all_the_same(small: Path, ext4: Ext4) -> None:
    """Not a byte is free: what nobody needs is removed first, so pruning makes its own room; what
    could not be written anew for that is said, and done by the next one."""
    disk = ext4(32)
    store = Store.open(disk / "store")
    folder = small.parent / "folder"
    folder.mkdir()
    blocks = [os.urandom(BLOCK) for _ in range(128)]
    (folder / "file").write_bytes(b"".join(blocks))
    large = capture(folder, store, dataset="data")
    (folder / "file").write_bytes(b"".join(blocks[::4]))  # a quarter of each pack
    kept = capture(folder, store, dataset="data", parent=large.id)
    capture(small, store, dataset="unneeded")
    fill(disk)
    swept = store.sweep([kept.id])
    assert swept.bytes_freed > 0
    assert any("no room" in reason for reason in swept.held_back)
    assert not list(store.path.rglob("*.tmp"))
    assert verify(store, kept.id, read_data=True) == []
    (disk / "ballast").unlink()
    again = store.sweep([kept.id])
    assert again.held_back == []
    assert again.bytes_freed > 5 * MIB
    assert verify(store, kept.id, read_data=True) == []


def test_fault_11_a_repair_without_room_leaves_all_as_it_was(small: Path, ext4: Ext4) -> None:
    """A damaged pack is to be written anew and there is no room: said, the store is no worse, and
    the repair works when there is."""
    disk = ext4(32)
    store = Store.open(disk / "store")
    (small / "large").write_bytes(os.urandom(8 * MIB))
    record = capture(small, store, dataset="data")
    pack = max(store.packs.iterdir(), key=lambda path: path.stat().st_size)
    with open(pack, "r+b") as file:
        os.pwrite(file.fileno(), b"damaged", 100_000)
    before, damages = files_of(store), len(verify(store, record.id, read_data=True))
    assert damages > 0
    ballast = fill(disk)
    with pytest.raises(NotEnoughSpace):
        repair(store, {"data": [small]})
    assert files_of(store) == before
    assert len(verify(store, record.id, read_data=True)) == damages
    ballast.unlink()
    assert repair(store, {"data": [small]}).unmended == []
    assert verify(store, record.id, read_data=True) == []


def test_fault_12_a_target_without_room_is_refused_with_the_numbers(
    ext4: Ext4, store: Store, tmp_path: Path
) -> None:
    """A restore of 20 MiB into 12 MiB: refused before a byte is written, with both numbers."""
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "large").write_bytes(os.urandom(20 * MIB))
    record = capture(folder, store, dataset="data")
    target = ext4(12) / "target"
    target.mkdir()
    with pytest.raises(NotEnoughSpace, match=r"\d+ MiB free .* needs 20 MiB"):
        restore(store, record.id, target)
    assert list(target.iterdir()) == []


def test_fault_14_without_inodes_nothing_is_begun_or_left(
    ext4: Ext4, store: Store, tmp_path: Path
) -> None:
    """A file system without free inodes: a restore into it is refused with the numbers, a capture
    into a store on it fails and leaves nothing, a fork into it fails by name."""
    folder = tmp_path / "folder"
    (folder / "d").mkdir(parents=True)
    for number in range(300):
        (folder / "d" / str(number)).write_bytes(b"%d" % number)
    record = capture(folder, store, dataset="data")
    disk = ext4(16, inodes=256)
    target = disk / "target"
    target.mkdir()
    with pytest.raises(NotEnoughSpace, match=r"\d+ inodes free .* needs 302"):
        restore(store, record.id, target)
    assert list(target.iterdir()) == []
    with pytest.raises(NotEnoughSpace, match="d/"):
        Fork(folder, target, index=tmp_path / "index").first_pass()
    shutil.rmtree(target)
    beside = Store.open(disk / "store")
    first = capture(folder, beside, dataset="data")
    take_inodes(disk)
    before = files_of(beside)
    (folder / "more").write_text("more")
    with pytest.raises(NotEnoughSpace):
        capture(folder, beside, dataset="data", parent=first.id)
    assert files_of(beside) == before
    assert verify(beside, first.id, read_data=True) == []


def test_fault_71_a_sparse_file_of_a_tebibyte_costs_what_it_holds(
    ext4: Ext4, tmp_path: Path
) -> None:
    """A file of 1 TiB with 12 KiB in it, on a disk of 64 MiB: captured, restored and forked there
    with the same holes, at once."""
    disk = ext4(64)
    source = disk / "source"
    source.mkdir()
    size = 1 << 40
    with open(source / "sparse", "wb") as file:
        file.truncate(size)
        for offset in (0, size // 2, size - 4096):
            os.pwrite(file.fileno(), b"data" * 1024, offset)
    store = Store.open(disk / "store")
    record = capture(source, store, dataset="data")
    assert record.bytes == 3 * 4096
    assert store.size() < MIB
    assert verify(store, record.id, read_data=True) == []
    restore(store, record.id, disk / "again")
    (disk / "fork").mkdir()
    fork = Fork(source, disk / "fork", index=tmp_path / "index")
    fork.first_pass()
    with open(source / "sparse", "r+b") as file:
        os.pwrite(file.fileno(), b"late" * 1024, 1 << 35)
    fork.final_pass()
    for name, known in (("again", 3), ("fork", 4)):
        made = disk / name / "sparse"
        assert made.stat().st_size == size
        assert len(holes(made)) == known
        for offset, length in holes(made):
            with open(made, "rb") as one, open(source / "sparse", "rb") as other:
                data = os.pread(one.fileno(), length, offset)
                assert data == os.pread(other.fileno(), length, offset)
    restore(store, record.id, disk / "fork", in_place=True)
    assert holes(disk / "fork" / "sparse") == holes(disk / "again" / "sparse")


@pytest.mark.parametrize(
    "count", [pytest.param(1_000_000, marks=pytest.mark.chaos), 2_000], ids=["long", "short"]
)
@pytest.mark.timeout(5400)
def test_fault_72_very_many_files(count: int, store: Store, tmp_path: Path) -> None:
    """A million files (two thousand in the short form) are captured, captured again unread, forked
    and restored, every name and content."""
    source = tmp_path / "source"
    for number in range(count):
        folder = source / f"{number // 1000:04d}"
        if number % 1000 == 0:
            folder.mkdir(parents=True)
        fd = os.open(folder / f"{number:07d}", os.O_WRONLY | os.O_CREAT, 0o600)
        os.write(fd, b"%d" % (number % 5000))
        os.close(fd)
    record = capture(source, store, dataset="data")
    assert record.files == count
    (source / "0000" / "0000007").write_text("another")
    second = capture(source, store, dataset="data", parent=record.id)
    assert verify(store, second.id, read_data=True) == []
    (tmp_path / "fork").mkdir()
    fork = Fork(source, tmp_path / "fork", index=tmp_path / "index")
    fork.first_pass()
    fork.final_pass()
    restore(store, second.id, tmp_path / "again")
    assert tree_equal(tmp_path / "fork", tmp_path / "again") == []
    assert (tmp_path / "again" / "0000" / "0000007").read_text() == "another"
