"""What was captured comes back exactly."""

from __future__ import annotations

import mmap
import os
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from snapshots import fs
from snapshots.capture import capture
from snapshots.compare import measure, tree_equal
from snapshots.errors import SourceChanging, TargetNotEmpty, UnknownSnapshot, Unsupported
from snapshots.fs import MAX_DEPTH, Key
from snapshots.hints import Hints, HintsWriter
from snapshots.known import KnownFiles
from snapshots.livepoint import LivePoint
from snapshots.restore import restore
from snapshots.store import Store
from snapshots.verify import verify
from tests.snapshots.conftest import mounted
from tests.snapshots.reads import Read
from tests.snapshots.trees import MIB, everything, holes


def settle() -> None:
    """Wait until the files' times lie far enough back to be trusted."""
    time.sleep(0.1)


def test_fault_58_70_everything_comes_back(source: Path, store: Store, tmp_path: Path) -> None:
    """Owners, modes with setuid, ACLs, extended attributes, capabilities, hard links, holes, FIFOs
    and the root's own mode are captured and restored: both trees are equal in all of it."""
    record = capture(source, store, dataset="data", tags={"why": "test"})
    restored = restore(store, record.id, tmp_path / "again")
    assert tree_equal(source, tmp_path / "again") == []
    for name in ("sparse", "hole only", "big"):
        assert holes(tmp_path / "again" / name) == holes(source / name)
    assert (record.dataset, record.tags, record.parent) == ("data", {"why": "test"}, None)
    assert record.skipped == ["socket: a socket"]
    assert record.files == restored.files == measure(source).files - 1
    assert verify(store, record.id, read_data=True) == []
    assert not (tmp_path / "again" / "socket").exists()


def test_in_place_writes_only_what_differs(source: Path, store: Store, tmp_path: Path) -> None:
    record = capture(source, store, dataset="data")
    target = tmp_path / "again"
    restore(store, record.id, target)
    # What has several names is always written anew: another name might lie outside the target.
    again = restore(store, record.id, target, in_place=True)
    assert again.bytes_written == (source / "big").stat().st_size
    assert tree_equal(source, target) == []

    with open(target / "big", "r+b") as file:
        os.pwrite(file.fileno(), b"!", 5 * MIB)
    with open(target / "sparse", "r+b") as file:
        os.pwrite(file.fileno(), b"not a hole any more", 10 * MIB)
        file.truncate(35 * MIB)
        os.pwrite(file.fileno(), b"nor here", 33 * MIB)
    shutil.rmtree(target / "a")
    (target / "a").write_text("a file where a folder was")
    (target / "fifo").unlink()
    (target / "fifo").mkdir()
    (target / "fifo" / "inside").write_text("x")
    (target / "absolute").unlink()
    (target / "extra" / "deep").mkdir(parents=True)
    os.link(target / "tool", target / "too many names")
    os.removexattr(target / "big", "user.note")
    os.setxattr(target / "repeated", "user.extra", b"x")

    restored = restore(store, record.id, target, in_place=True)
    assert tree_equal(source, target) == []
    assert holes(target / "sparse") == holes(source / "sparse")
    # "big" lost one of its names, so it is written anew, and hard links follow it
    assert restored.bytes_written < 11 * MIB


def test_a_new_place_must_be_empty(small: Path, store: Store, tmp_path: Path) -> None:
    record = capture(small, store, dataset="data")
    target = tmp_path / "target"
    target.mkdir()
    (target / "mine").write_text("precious")
    with pytest.raises(TargetNotEmpty, match="mine"):
        restore(store, record.id, target)
    assert (target / "mine").read_text() == "precious"


def test_an_unknown_snapshot_is_named(store: Store, tmp_path: Path) -> None:
    for wrong in ("0" * 32, "../../etc/passwd", "", "x" * 10_000):
        with pytest.raises(UnknownSnapshot):
            restore(store, wrong, tmp_path / "target")


def test_equal_content_is_kept_once(source: Path, store: Store, tmp_path: Path) -> None:
    first = capture(source, store, dataset="data")
    before = store.size()
    shutil.copytree(source / "a" / "b", tmp_path / "b")
    second = capture(source, store, dataset="data", parent=first.id)
    assert second.root == first.root
    assert second.id != first.id
    assert store.size() - before < 32 * 1024


def test_unchanged_files_are_recognised(small: Path, store: Store, read: Read) -> None:
    settle()
    first = capture(small, store, dataset="data")
    (small / "two").write_bytes(b"TWO")
    read.clear()
    capture(small, store, dataset="data", parent=first.id)
    assert read == [b"two"]


def test_a_change_without_a_trace_is_found_by_the_sample(store: Store, tmp_path: Path) -> None:
    """The times of a file say "unchanged" and lie: a hint is forged for its changed content."""
    folder = tmp_path / "source"
    folder.mkdir()
    file = folder / "file"
    file.write_bytes(os.urandom(40 * MIB))
    settle()
    first = capture(folder, store, dataset="data")
    mtime = file.stat().st_mtime_ns
    file.write_bytes(os.urandom(40 * MIB))
    os.utime(file, ns=(mtime, mtime))
    forged = store.hints / f"{first.id}.hints"
    (hint,) = Hints(forged)
    packs = Hints(forged).packs
    forged.unlink()
    hints = HintsWriter(forged)
    now = file.stat()
    hints.add(b"", b"file", hint._replace(inode=now.st_ino, ctime_ns=now.st_ctime_ns))
    hints.close(first.root, packs)

    second = capture(folder, store, dataset="data", parent=first.id)
    assert second.root != first.root
    assert any("without its times changing" in note for note in second.skipped)
    restore(store, second.id, tmp_path / "again")
    assert tree_equal(folder, tmp_path / "again") == []


def test_nothing_is_reused_where_times_prove_nothing(store: Store, tmp_path: Path) -> None:
    """On tmpfs a write through mmap changes no time at all."""
    for point in mounted(tmp_path, "-t", "tmpfs", "-o", "size=10m", "tmpfs"):
        with open(point / "mapped", "w+b") as file:
            file.truncate(4096)
            with mmap.mmap(file.fileno(), 4096) as page:
                page[0] = 1
                settle()
                first = capture(point, store, dataset="data")
                before = Key.of((point / "mapped").stat())
                page[0] = 2
                assert Key.of((point / "mapped").stat()) == before
                second = capture(point, store, dataset="data", parent=first.id)
    restore(store, second.id, tmp_path / "again")
    assert (tmp_path / "again" / "mapped").read_bytes()[0] == 2


@pytest.mark.parametrize(
    "content", [b"", b"\0" * 100, b'{"hints": 1}\n[1]\n', b'{"hints": 1}\n5\n']
)
def test_a_damaged_hint_costs_only_time(small: Path, store: Store, content: bytes) -> None:
    settle()
    first = capture(small, store, dataset="data")
    frame = zstandard.ZstdCompressor().compress(content) if content else b""
    (store.hints / f"{first.id}.hints").write_bytes(frame)
    assert capture(small, store, dataset="data", parent=first.id).root == first.root


def test_a_file_changed_just_before_the_look_is_read_again(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second change within one tick of the clock would leave the same times."""
    # So long that "just before" is true on a busy machine, too.
    monkeypatch.setattr(fs, "SETTLE_NS", 2 * 10**9)
    folder = tmp_path / "source"
    folder.mkdir()
    (folder / "old").write_text("x")
    time.sleep(2.1)
    (folder / "young").write_text("x")
    record = capture(folder, store, dataset="data")
    known = KnownFiles(store, record.id)
    old, young = known.find(b"", b"old"), known.find(b"", b"young")
    assert old is not None
    assert young is not None
    assert old.key == Key.of((folder / "old").stat())
    assert young.key is None


def test_fault_28_a_source_that_grows_is_refused_unless_live(store: Store, tmp_path: Path) -> None:
    """A file grows while it is captured: no snapshot, the file is named; of a live one it says so,
    and has a beginning of the file."""
    folder = tmp_path / "source"
    folder.mkdir()
    log = folder / "log"
    log.write_bytes(os.urandom(30 * MIB))
    stop = threading.Event()

    def write() -> None:
        with open(log, "ab", buffering=0) as file:
            while not stop.is_set():
                file.write(b"more")
                time.sleep(0.001)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        with pytest.raises(SourceChanging, match="log"):
            capture(folder, store, dataset="data")
        assert store.ids() == []
        record = capture(folder, store, dataset="data", live=LivePoint())
    finally:
        stop.set()
        writer.join()
    assert record.skipped == ["log: changed while it was captured"]
    restore(store, record.id, tmp_path / "again")
    content = (tmp_path / "again" / "log").read_bytes()
    assert log.read_bytes().startswith(content)


def test_too_deep_is_said_before_anything_is_kept(store: Store, tmp_path: Path) -> None:
    folder = tmp_path / "source"
    folder.mkdir()
    here = os.open(folder, os.O_RDONLY)
    for _ in range(MAX_DEPTH + 2):
        os.mkdir("d", dir_fd=here)
        inner = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = inner
    os.close(here)
    with pytest.raises(Unsupported, match="deep"):
        capture(folder, store, dataset="data")
    assert store.ids() == []


def test_deepest_allowed_comes_back(store: Store, tmp_path: Path) -> None:
    folder = tmp_path / "source"
    folder.mkdir()
    folder.joinpath(*["d"] * MAX_DEPTH).mkdir(parents=True)
    record = capture(folder, store, dataset="data")
    restore(store, record.id, tmp_path / "again")
    assert tree_equal(folder, tmp_path / "again") == []


def exchange_link(link: Path) -> None:
    link.unlink()
    link.symlink_to("elsewhere")


def test_tree_equal_sees_each_kind_of_difference(source: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    everything(other)
    assert tree_equal(source, other) == []
    changes: dict[str, Callable[[], object]] = {
        "content": lambda: (other / "empty").write_bytes(b"x"),
        "mode": lambda: (other / "tool").chmod(0o755),
        "uid": lambda: os.chown(other / "-rf", 3, 0),
        "mtime": lambda: os.utime(other / "a", ns=(1, 1)),
        "xattrs": lambda: os.setxattr(other / "sparse", "user.x", b"x"),
        "missing": lambda: (other / "fifo").unlink(),
        "too much": lambda: (other / "more").touch(),
        "points": lambda: exchange_link(other / "a" / "dangling"),
        "linked": lambda: os.link(other / "hole only", other / "a" / "second name"),
    }
    for word, change in changes.items():
        change()
        assert any(word in difference for difference in tree_equal(source, other)), word


def test_progress_is_told(source: Path, store: Store, tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []

    def tell(what: str, done: int, total: int) -> None:
        told.append((what, done, total))

    record = capture(
        source,
        store,
        dataset="data",
        progress=tell,
    )
    restore(
        store,
        record.id,
        tmp_path / "again",
        progress=tell,
    )
    assert {what for what, _, _ in told} == {"capture", "restore"}
    assert all(0 <= done <= total for _, done, total in told)
