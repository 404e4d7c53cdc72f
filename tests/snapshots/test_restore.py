"""Single paths, and a target that others work in: only what was named is touched."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from snapshots.capture import capture
from snapshots.compare import tree_equal
from snapshots.errors import SnapshotError, TargetNotEmpty, UnknownPath, Unsupported
from snapshots.livepoint import LivePoint
from snapshots.pack import read_index
from snapshots.restore import restore
from snapshots.store import Store
from tests.snapshots.trees import MIB, OLD_NS, holes


def names(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def test_one_file_comes_with_the_folders_that_lead_there(
    source: Path, store: Store, tmp_path: Path
) -> None:
    record = capture(source, store, dataset="data")
    done = restore(store, record.id, tmp_path / "out", only=["/a/./dangling", "sparse"])
    assert names(tmp_path / "out") == {"a", "a/dangling", "sparse"}
    assert done.files == 2
    assert holes(tmp_path / "out" / "sparse") == holes(source / "sparse")
    for path in (".", "a"):
        one, other = (source / path).stat(), (tmp_path / "out" / path).stat()
        assert (one.st_mode, one.st_uid, one.st_gid) == (other.st_mode, other.st_uid, other.st_gid)
        assert one.st_mtime_ns == other.st_mtime_ns


def test_a_folder_comes_with_all_in_it(source: Path, store: Store, tmp_path: Path) -> None:
    record = capture(source, store, dataset="data")
    restore(store, record.id, tmp_path / "out", only=["a"])
    expected = {name for name in names(source) if name == "a" or name.startswith("a/")}
    assert names(tmp_path / "out") == expected
    linked = tmp_path / "out" / "a" / "b" / "c" / "another name of big"
    assert linked.read_bytes() == (source / "big").read_bytes()
    assert (linked.stat().st_nlink, linked.stat().st_mtime_ns) == (1, OLD_NS + len("big"))
    assert tree_equal(source / "a" / "empty folder", tmp_path / "out" / "a" / "empty folder") == []


def test_a_link_to_what_is_not_chosen_becomes_a_file(store: Store, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    (folder / "x").mkdir(parents=True)
    (folder / "a").write_bytes(os.urandom(9 * MIB))
    (folder / "b").write_bytes(b"b")
    (folder / "other").write_bytes(b"other")
    os.chown(folder / "a", 70, 71)
    for name in ("one", "two"):
        os.link(folder / "a", folder / "x" / name)
    os.link(folder / "b", folder / "x" / "three")
    os.link(folder / "other", folder / "zz")
    record = capture(folder, store, dataset="data")
    done = restore(store, record.id, tmp_path / "out", only=["x"])
    out = tmp_path / "out" / "x"
    assert done.files == 3
    for name in ("one", "two", "three"):
        assert (out / name).read_bytes() == (folder / "x" / name).read_bytes()
    one, two = (out / "one").stat(), (out / "two").stat()
    assert one.st_ino == two.st_ino
    assert (one.st_nlink, one.st_uid, one.st_gid) == (2, 70, 71)
    assert one.st_mtime_ns == (folder / "a").stat().st_mtime_ns
    assert (out / "three").stat().st_nlink == 1


def test_in_place_only_what_is_named_is_touched(small: Path, store: Store, tmp_path: Path) -> None:
    record = capture(small, store, dataset="data")
    target = tmp_path / "target"
    (target / "d").mkdir(parents=True)
    (target / "mine").write_text("mine")
    (target / "d" / "mine too").write_text("mine")
    (target / "d").chmod(0o711)
    target.chmod(0o711)
    with pytest.raises(TargetNotEmpty):
        restore(store, record.id, target, only=["d/one"])
    restore(store, record.id, target, only=["d/one"], in_place=True)
    assert names(target) == {"d", "d/one", "d/mine too", "mine"}
    assert (target / "d" / "one").read_bytes() == (small / "d" / "one").read_bytes()
    assert target.stat().st_mode & 0o777 == (target / "d").stat().st_mode & 0o777 == 0o711
    restore(store, record.id, target, only=["d"], in_place=True)
    assert names(target) == {"d", "d/one", "mine"}
    assert (target / "d").stat().st_mtime_ns == (small / "d").stat().st_mtime_ns


AS_USER = """
import os, sys
from pathlib import Path
from snapshots.capture import capture
from snapshots.compare import tree_equal
from snapshots.restore import restore
from snapshots.store import Store
base = Path(sys.argv[1])
os.chown(base, 1234, 1234)
os.setgroups([]); os.setgid(1234); os.setuid(1234)
os.chdir(base)
folder, out = Path("folder"), Path("out")
(folder / "shut").mkdir(parents=True)
(folder / "shut" / "file").write_text("x")
(folder / "read only").write_text("y")
for path, mode in (("shut/file", 0o400), ("read only", 0o444), ("shut", 0o555)):
    (folder / path).chmod(mode)
store = Store.open(Path("store"))
record = capture(folder, store, dataset="mine")
restore(store, record.id, out)
assert tree_equal(folder, out) == []
(out / "shut").chmod(0o755)
(out / "shut" / "extra").touch()
(out / "shut" / "file").unlink()
(out / "shut").chmod(0o555)
restore(store, record.id, out, in_place=True)
assert tree_equal(folder, out) == []
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_a_user_restores_what_is_his_own() -> None:
    """Without root's rights, in place also over what his own modes forbid him to write."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, "-c", AS_USER, folder], timeout=60, check=True)


@pytest.mark.parametrize("path", ["nothing", "d/nothing", "two/x", "../two", "d/../../two", "a\0"])
def test_a_path_that_is_not_there_is_named_before_anything_is_made(
    path: str, small: Path, store: Store, tmp_path: Path
) -> None:
    record = capture(small, store, dataset="data")
    with pytest.raises(UnknownPath):
        restore(store, record.id, tmp_path / "out", only=["two", path])
    assert not (tmp_path / "out").exists()


def test_damage_elsewhere_keeps_nobody_from_a_single_file(
    small: Path, store: Store, tmp_path: Path
) -> None:
    record = capture(small, store, dataset="data")
    packs = {pack: list(read_index(pack, pack.stem)) for pack in store.packs.iterdir()}
    pack, placed = next((p, e) for p, es in packs.items() for e in es if e.raw == 65536)
    body = bytearray(pack.read_bytes())
    body[placed.offset] ^= 1
    pack.write_bytes(body)
    restore(store, record.id, tmp_path / "out", only=["two"])
    assert (tmp_path / "out" / "two").read_bytes() == b"two"


def test_odd_names_can_be_named(source: Path, store: Store, tmp_path: Path) -> None:
    record = capture(source, store, dataset="data")
    odd = os.fsdecode(b"not utf-8 \xff\xfe")
    restore(store, record.id, tmp_path / "out", only=[odd, "new\nline"])
    assert sorted(os.listdir(tmp_path / "out")) == sorted([odd, "new\nline"])


def test_what_was_skipped_is_said_again(source: Path, store: Store, tmp_path: Path) -> None:
    record = capture(source, store, dataset="data")
    assert restore(store, record.id, tmp_path / "out").skipped == ("socket: a socket",)


def test_a_mount_inside_the_target_is_refused(small: Path, store: Store, tmp_path: Path) -> None:
    """In place: what is mounted there is not the target's own."""
    record = capture(small, store, dataset="data")
    for name in ("d", "extra"):
        place = tmp_path / f"target {name}" / name
        place.mkdir(parents=True)
        mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)]
        if subprocess.run(mount, capture_output=True, timeout=30, check=False).returncode != 0:
            pytest.skip("cannot mount here")
        try:
            (place / "theirs").write_text("theirs")
            with pytest.raises(Unsupported, match="mount point"):
                restore(store, record.id, place.parent, in_place=True)
            assert (place / "theirs").read_text() == "theirs"
        finally:
            subprocess.run(["umount", "-l", str(place)], timeout=30, check=True)


@pytest.fixture
def exchanging(tmp_path: Path) -> Iterator[tuple[Path, Path]]:
    """A target in which somebody exchanges entries for links that lead outside, all the time."""
    target, outside = tmp_path / "target", tmp_path / "outside"
    (target / "d").mkdir(parents=True)
    (outside / "d").mkdir(parents=True)
    for place in (outside / "one", outside / "two", outside / "d" / "one"):
        place.write_text("mine")
        place.chmod(0o640)
        os.utime(place, ns=(OLD_NS, OLD_NS))
    stop = threading.Event()

    def exchange() -> None:
        trap = tmp_path / "trap"
        while not stop.is_set():
            for name, bait in (
                ("two", outside / "two"),
                ("d/one", outside / "one"),
                ("d", outside / "d"),
            ):
                for make in (os.symlink, os.link):
                    try:
                        make(bait, trap)
                        os.rename(trap, target / name)
                    except OSError:
                        trap.unlink(missing_ok=True)
                    if (target / "d").is_symlink():
                        (target / "d").unlink(missing_ok=True)

    thread = threading.Thread(target=exchange)
    thread.start()
    yield target, outside
    stop.set()
    thread.join()


def test_fault_61_links_put_in_while_a_restore_runs_lead_nowhere(
    exchanging: tuple[Path, Path], small: Path, store: Store
) -> None:
    """Somebody exchanges files and folders of the target for links to outside all the time while
    it is restored in place, sixty times: nothing outside is written, made or changed."""
    target, outside = exchanging
    record = capture(small, store, dataset="data")
    outcomes = set()
    for _ in range(60):
        try:
            restore(store, record.id, target, in_place=True)
            outcomes.add("restored")
        except SnapshotError:
            outcomes.add("refused")
    assert outcomes
    assert names(outside) == {"one", "two", "d", "d/one"}
    for path in (outside / "one", outside / "two", outside / "d" / "one"):
        assert path.read_text() == "mine"
        assert path.stat().st_mode & 0o777 == 0o640
        assert path.stat().st_mtime_ns == OLD_NS


def test_fault_61_links_put_in_while_it_is_captured_lead_nowhere(
    store: Store, tmp_path: Path
) -> None:
    """A folder and a file of the source are exchanged for links to outside all the time while it
    is captured: each capture is refused or has nothing but the source's own content."""
    source, outside = tmp_path / "source", tmp_path / "outside"
    (outside / "d").mkdir(parents=True)
    (outside / "d" / "one").write_text("outside")
    source.mkdir()
    stop = threading.Event()

    def exchange() -> None:
        while not stop.is_set():
            for name, bait in (("d", outside / "d"), ("one", outside / "d" / "one")):
                place = source / name
                os.symlink(bait, place)
                place.unlink()
                if name == "d":
                    place.mkdir()
                    (place / "one").write_text("inside")
                    (place / "one").unlink()
                    place.rmdir()
                else:
                    place.write_text("inside")
                    place.unlink()

    thread = threading.Thread(target=exchange)
    thread.start()
    taken = []
    try:
        for _ in range(60):
            with suppress(SnapshotError):
                taken.append(capture(source, store, dataset="data", live=LivePoint()))
    finally:
        stop.set()
        thread.join()
    assert taken
    for number, record in enumerate(taken):
        restore(store, record.id, tmp_path / f"back-{number}")
        for path in (tmp_path / f"back-{number}").rglob("*"):
            if path.is_file() and not path.is_symlink():
                assert path.read_text() in ("", "inside")


PEAK = """
import sys
from pathlib import Path
from snapshots.restore import restore
from snapshots.store import Store
from snapshots.verify import verify_all
store = Store.open(Path(sys.argv[1]))
for snapshot in store.ids():
    restore(store, snapshot, Path(sys.argv[2]) / snapshot)
    restore(store, snapshot, Path(sys.argv[2]) / snapshot, in_place=True)
assert verify_all(store, None, read_data=True).damages == []
# The process's own peak; what getrusage tells includes that of its parent before the exec.
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


def test_memory_does_not_grow_with_the_data(store: Store, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    with open(folder / "sparse", "wb") as file:
        file.truncate(100 << 30)
        for place in range(40):
            os.pwrite(file.fileno(), os.urandom(64 * 1024), place * (5 << 29))
    (folder / "dense").write_bytes(os.urandom(64 * MIB))
    for number in range(2000):
        (folder / f"small {number}").write_bytes(b"%d" % number)
    record = capture(folder, store, dataset="data")
    (tmp_path / "out").mkdir()
    peak = subprocess.run(
        [sys.executable, "-c", PEAK, str(store.path), str(tmp_path / "out")],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    ).stdout
    assert int(peak) < 200 * 1024
    again = tmp_path / "out" / record.id
    assert holes(again / "sparse") == holes(folder / "sparse")
    assert sum(path.stat().st_blocks for path in again.iterdir()) * 512 < 100 * MIB
