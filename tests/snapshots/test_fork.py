"""A fork made under a writer equals the source once that has stopped."""

from __future__ import annotations

import mmap
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from snapshots import fs
from snapshots.compare import tree_equal
from snapshots.errors import SourceChanging, TargetNotEmpty, Unsupported
from snapshots.fork import Fork, measure
from snapshots.fs import MAX_DEPTH
from snapshots.pace import Pace
from snapshots.reflink import can_reflink
from tests.snapshots.conftest import mounted
from tests.snapshots.trees import ACL, MIB, everything, holes

# Writes in every way there is: in place, appending, through mmap, new, renamed and removed files.
WRITER = """
import mmap, os, random, sys, time
os.chdir(sys.argv[1])
random.seed(7)
with open("mapped", "wb") as f:
    f.write(os.urandom(16 << 20))
mapped_file = open("mapped", "r+b")
mapped = mmap.mmap(mapped_file.fileno(), 0)
mapped[:] = os.urandom(len(mapped))  # every page is writable now: later writes leave no trace
table = open("table", "w+b")
table.truncate(32 << 20)
log = open("log", "ab", buffering=0)
os.makedirs("folder", exist_ok=True)
print("ready", flush=True)
step = 0
while True:
    step += 1
    at = random.randrange(len(mapped) - 8)
    mapped[at:at + 8] = step.to_bytes(8, "big")
    table.seek(random.randrange(32 << 20) & ~8191)
    table.write(random.randbytes(8192))
    table.flush()
    log.write(b"%d\\n" % step)
    name = f"folder/{random.randrange(50)}"
    if step % 3 == 0:
        with open(name + ".new", "wb") as f:
            f.write(random.randbytes(random.randrange(100_000)))
        os.rename(name + ".new", name)
    elif step % 7 == 0 and os.path.exists(name):
        os.unlink(name)
    elif step % 11 == 0:
        os.makedirs(name + "d", exist_ok=True)
        open(name + "d/inner", "w").close()
    elif step % 13 == 0 and os.path.exists(name + "d"):
        os.unlink(name + "d/inner")
        os.rmdir(name + "d")
    elif step % 17 == 0:
        os.chmod("log", random.randrange(0o1000) | 0o600)
    time.sleep(0.0005)
"""


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(folder)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    try:
        yield
        assert process.poll() is None, "the writer died before it was stopped"
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def folders(base: Path) -> tuple[Path, Path, Path]:
    source, target = base / "source", base / "target"
    source.mkdir(exist_ok=True)
    target.mkdir()
    return source, target, base / "index"


def fork_under_writer(base: Path, passes: int, pace: Pace | None = None) -> None:
    source, target, index = folders(base)
    with writing(source):
        fork = Fork(source, target, index=index, pace=pace)
        fork.first_pass()
        for _ in range(passes):
            time.sleep(0.1)
            fork.catch_up()
        time.sleep(0.1)
    stats = Fork(source, target, index=index).final_pass()  # as another process would
    assert tree_equal(source, target) == []
    assert stats.changed > 0
    assert not index.exists()


@pytest.mark.parametrize("number", range(int(os.environ.get("LOCKSTEP_ROUNDS", "5"))))
def test_equal_after_a_writer_was_stopped(tmp_path: Path, number: int) -> None:
    fork_under_writer(tmp_path, number % 5)


def test_equal_on_tmpfs_where_times_prove_nothing(tmp_path: Path) -> None:
    for point in mounted(tmp_path, "-t", "tmpfs", "-o", "size=300m", "tmpfs"):
        for attempt in range(3):
            base = point / str(attempt)
            base.mkdir()
            fork_under_writer(base, attempt)
            shutil.rmtree(base)


def test_mmap_writes_that_change_no_time_are_caught(tmp_path: Path) -> None:
    """A page that is dirty and writable takes writes without any change of time.

    The target lies on another file system, whose sync does not reach the source's pages.
    """
    source, index = tmp_path / "source", tmp_path / "index"
    source.mkdir()
    for target in mounted(tmp_path, "-t", "tmpfs", "-o", "size=10m", "tmpfs"):
        with open(source / "mapped", "w+b") as file:
            file.truncate(MIB)
            with mmap.mmap(file.fileno(), MIB) as pages:
                for step in range(10):
                    pages[0:4] = step.to_bytes(4, "big")  # dirty now
                    time.sleep(0.07)
                    fork = Fork(source, target, index=index)
                    fork.catch_up()
                    pages[0:4] = (step + 1000).to_bytes(4, "big")
                    fork.final_pass()
                    assert (target / "mapped").read_bytes()[:4] == (step + 1000).to_bytes(4, "big")


def test_everything_is_forked(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.mkdir()
    fork = Fork(source, target, index=tmp_path / "index")
    stats = fork.first_pass()
    assert stats.skipped == ["socket: a socket"]
    assert tree_equal(source, target) == []
    time.sleep(0.1)
    fork.catch_up()
    again = fork.final_pass()
    # a symbolic link with two names is made anew each time, which is cheaper than to be sure
    assert (again.changed, again.removed, again.bytes_written) == (2, 0, 0)
    assert tree_equal(source, target) == []
    for name in ("sparse", "hole only"):
        assert holes(target / name) == holes(source / name)


def test_only_changed_pages_are_written_at_the_end(tmp_path: Path) -> None:
    source, target, index = folders(tmp_path)
    (source / "table").write_bytes(os.urandom(40 * MIB))
    (source / "still").write_bytes(os.urandom(40 * MIB))
    time.sleep(0.1)
    Fork(source, target, index=index).first_pass()
    with open(source / "table", "r+b") as file:
        for at in (0, 8192 * 7 + 1, 39 * MIB):
            os.pwrite(file.fileno(), b"changed", at)
    stats = Fork(source, target, index=index).final_pass()
    assert (stats.changed, stats.bytes_written) == (1, 3 * 8192)
    assert tree_equal(source, target) == []


def test_every_change_of_kind_and_link_reaches_the_fork(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.mkdir()
    for name in ("becomes a hole", "ends in a hole"):
        (source / name).write_bytes(os.urandom(MIB))
    (source / "twin one").write_text("both")
    os.link(source / "twin one", source / "twin two")
    Fork(source, target, index=tmp_path / "index").first_pass()
    outside = tmp_path / "outside"
    outside.write_text("mine")

    (source / "empty").unlink()
    (source / "empty").mkdir()
    shutil.rmtree(source / "a" / "b")
    os.symlink(outside, source / "a" / "b")
    (source / "fifo").unlink()
    (source / "fifo").write_text("a file now")
    (source / "absolute too").unlink()
    os.symlink("elsewhere", source / "absolute too")
    os.link(source / "tool", source / "tool two")
    (source / "repeated").unlink()
    os.link(source / "sparse", source / "repeated")
    with open(source / "sparse", "r+b") as file:
        os.pwrite(file.fileno(), b"x" * 9000, 20 * MIB)
        file.truncate(38 * MIB)
    (source / "twin two").unlink()
    (source / "twin two").write_text("only mine")
    for name, kept in (("becomes a hole", 0), ("ends in a hole", 5000)):
        os.truncate(source / name, kept)
        os.truncate(source / name, MIB)
    os.setxattr(source / "big", "system.posix_acl_access", ACL)
    os.removexattr(source / "big", "user.note")
    os.removexattr(source / "tool", "security.capability")
    os.chown(source / "-rf", 1, 2)

    Fork(source, target, index=tmp_path / "index").final_pass()
    assert tree_equal(source, target) == []
    assert outside.read_text() == "mine"


def test_a_file_changed_just_before_the_look_is_not_taken_as_seen(tmp_path: Path) -> None:
    """A second change within one tick of the clock would leave the same times."""
    source, target, index = folders(tmp_path)
    (source / "old").write_text("x")
    time.sleep(0.1)
    (source / "new").write_text("x")
    Fork(source, target, index=index).first_pass()
    kept = index.read_bytes()
    assert b"old" in kept
    assert b"new" not in kept


@pytest.mark.parametrize("damage", ["missing", "flipped", "cut", "foreign"])
def test_without_a_sound_index_everything_is_compared(tmp_path: Path, damage: str) -> None:
    source, target, index = folders(tmp_path)
    (source / "file").write_bytes(os.urandom(MIB))
    time.sleep(0.1)
    Fork(source, target, index=index).first_pass()
    with open(target / "file", "r+b") as file:  # what an index must not hide
        os.pwrite(file.fileno(), b"!", 1000)
    content = index.read_bytes()
    if damage == "missing":
        index.unlink()
    elif damage == "flipped":
        index.write_bytes(content[:-40] + bytes([content[-40] ^ 1]) + content[-39:])
    elif damage == "cut":
        index.write_bytes(content[:-1])
    else:
        (tmp_path / "other").mkdir()
        Fork(source, tmp_path / "other", index=index).first_pass()
    Fork(source, target, index=index).final_pass()
    assert (source / "file").read_bytes() == (target / "file").read_bytes()


FIRST_PASS = """
import sys
from pathlib import Path
from snapshots.fs import MAX_DEPTH
from snapshots.reflink import can_reflink
from snapshots.fork import Fork
print("ready", flush=True)
while True:
    Fork(Path(sys.argv[1]), Path(sys.argv[2]), index=Path(sys.argv[3])).first_pass()
"""


def test_a_killed_pass_is_finished_by_the_next(tmp_path: Path) -> None:
    source, target, index = folders(tmp_path)
    everything(source) if os.geteuid() == 0 else (source / "f").write_bytes(os.urandom(MIB))
    for number in range(8):
        process = subprocess.Popen(
            [sys.executable, "-c", FIRST_PASS, str(source), str(target), str(index)],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        time.sleep(0.003 + number * 0.011)
        process.kill()
        process.wait()
        process.stdout.close()
        (source / "empty").write_text(f"changed {number}")
    Fork(source, target, index=index).final_pass()
    assert tree_equal(source, target) == []


def test_a_source_that_is_not_at_rest_fails_the_final_pass(tmp_path: Path) -> None:
    source, target, index = folders(tmp_path)
    (source / "table").write_bytes(os.urandom(200 * MIB))
    writer = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys, time\nf = open(sys.argv[1], 'ab', buffering=0)\n"
            "print('ready', flush=True)\nwhile True: f.write(b'x'); time.sleep(0.001)",
            str(source / "table"),
        ],
        stdout=subprocess.PIPE,
    )
    assert writer.stdout is not None
    writer.stdout.readline()
    try:
        with pytest.raises(SourceChanging, match="table"):
            Fork(source, target, index=index).final_pass()
    finally:
        writer.kill()
        writer.wait()
        writer.stdout.close()


def test_a_folder_is_not_forked_onto_itself(small: Path, tmp_path: Path) -> None:
    (tmp_path / "alias").symlink_to(small)
    for target in (small, tmp_path / "alias", small / "d", tmp_path):
        fork = Fork(small, target, index=tmp_path / "index")
        for run in (fork.first_pass, fork.final_pass):
            with pytest.raises(Unsupported, match="each other"):
                run()
    assert len(list(small.rglob("*"))) == 3


def test_a_target_with_content_is_not_overwritten(small: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.mkdir()
    (target / "precious").write_text("mine")
    with pytest.raises(TargetNotEmpty, match="precious"):
        Fork(small, target, index=tmp_path / "index").first_pass()
    assert (target / "precious").read_text() == "mine"
    assert not (tmp_path / "index").exists()


def test_the_deepest_folders_are_forked(tmp_path: Path) -> None:
    source, target, index = folders(tmp_path)
    source.joinpath(*["d"] * MAX_DEPTH).mkdir(parents=True)
    Fork(source, target, index=index).first_pass()
    shutil.rmtree(source / "d")
    (source / "d").write_text("gone")
    Fork(source, target, index=index).final_pass()
    assert tree_equal(source, target) == []


# -- file systems that share blocks --------------------------------------------------------------


def image(tmp_path: Path, mkfs: str) -> Iterator[Path]:
    """A loop-mounted file system for one test, or a skip that says why not."""
    tool = shutil.which(mkfs) or shutil.which(mkfs, path="/usr/sbin:/sbin")
    if tool is None:
        pytest.skip(f"{mkfs} is not installed")
    disk = tmp_path / "disk.img"
    with open(disk, "wb") as file:
        file.truncate(1 << 30)
    subprocess.run([tool, "-q", str(disk)], check=True, timeout=60, capture_output=True)
    yield from mounted(tmp_path, "-o", "loop", str(disk))
    disk.unlink()


@pytest.fixture(params=["mkfs.xfs", "mkfs.btrfs"])
def sharing(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    yield from image(tmp_path, request.param)


def test_a_changed_file_is_cloned_again_as_a_whole(
    sharing: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One call, whatever its size: nothing of it is read, compared or written."""
    source, target, index = folders(sharing)
    with open(source / "large", "wb") as large:
        large.write(os.urandom(MIB))
        os.posix_fallocate(large.fileno(), 0, 300 * MIB)
        large.truncate(1 << 30)
    (source / "still").write_bytes(os.urandom(MIB))
    time.sleep(0.1)
    Fork(source, target, index=index).first_pass()

    def read(*_: object) -> int:
        raise AssertionError("content was read")

    monkeypatch.setattr("snapshots.content.Content.mend", read)
    monkeypatch.setattr("snapshots.content.Content.copy", read)
    with open(source / "large", "r+b") as file:
        os.pwrite(file.fileno(), b"changed", 299 * MIB)
    stats = Fork(source, target, index=index).final_pass()
    assert (stats.changed, stats.reflinked, stats.bytes_written) == (1, 1, 0)
    with open(target / "large", "rb") as copy:
        assert os.pread(copy.fileno(), 7, 299 * MIB) == b"changed"
        assert os.fstat(copy.fileno()).st_size == 1 << 30


@pytest.mark.parametrize("pace", [None, Pace(floor=200 * MIB)], ids=["at once", "in parts"])
def test_a_reflink_fork_under_a_writer(sharing: Path, tmp_path: Path, pace: Pace | None) -> None:
    base = sharing
    source, target, index = folders(base)
    (source / "cold").write_bytes(os.urandom(200 * MIB))
    assert can_reflink(source, target)
    assert not can_reflink(source, tmp_path)
    os.sync()
    free = os.statvfs(base).f_bfree
    with writing(source):
        fork = Fork(source, target, index=index, pace=pace)
        stats = fork.first_pass()
        assert stats.reflinked > 2
        time.sleep(0.2)
        assert fork.catch_up().bytes_written == 0
    final = Fork(source, target, index=index).final_pass()
    assert final.bytes_written == 0
    assert final.reflinked > 0
    assert tree_equal(source, target) == []
    os.sync()
    used = (free - os.statvfs(base).f_bfree) * os.statvfs(base).f_frsize
    assert used < 150 * MIB, "the fork shares the 200 MiB that nobody wrote"
    cold = source / "cold"
    with open(target / "cold", "r+b") as file:
        os.pwrite(file.fileno(), b"new world", 0)
    assert cold.read_bytes()[:9] != b"new world"


def test_reflink_forks_in_parts_under_writers(sharing: Path) -> None:
    """Through mmap, in place, appending: what a part missed, the final pass has."""
    for number in range(int(os.environ.get("LOCKSTEP_ROUNDS", "2"))):
        base = sharing / str(number)
        base.mkdir()
        fork_under_writer(base, number % 5, Pace(floor=200 * MIB))
        shutil.rmtree(base)


@pytest.mark.parametrize("left", [0, MIB // 2, 3 * MIB + 5])
def test_a_file_is_cut_off_while_it_is_cloned_in_parts(
    sharing: Path, monkeypatch: pytest.MonkeyPatch, left: int
) -> None:
    """The final pass has it as it is then, and the clones of others go on."""
    source, target, index = folders(sharing)
    for name in ("a", "cut", "z"):
        (source / name).write_bytes(os.urandom(5 * MIB))
    lasting = fs.clone_range
    parts: list[int] = []

    def clone_range(src: int, dst: int, offset: int, length: int) -> bool:
        if os.fstat(src).st_ino == (source / "cut").stat().st_ino and offset in (0, 2 * MIB):
            os.truncate(source / "cut", left)
        parts.append(offset)
        return lasting(src, dst, offset, length)

    monkeypatch.setattr("snapshots.fs.clone_range", clone_range)
    stats = Fork(source, target, index=index, pace=Pace(floor=200 * MIB)).first_pass()
    assert (stats.reflinked, stats.bytes_written) == (3, 0)
    assert parts[:5] == [at * MIB for at in range(5)]
    Fork(source, target, index=index).final_pass()
    assert tree_equal(source, target) == []


def test_everything_is_forked_by_reflink(sharing: Path, source: Path, tmp_path: Path) -> None:
    there, target, _ = folders(sharing)
    Fork(source, there, index=tmp_path / "index").final_pass()
    assert tree_equal(source, there) == []
    Fork(there, target, index=tmp_path / "index").final_pass()
    assert tree_equal(source, target) == []


def test_no_reflink_is_said_where_there_is_none(tmp_path: Path) -> None:
    for point in mounted(tmp_path, "-t", "tmpfs", "-o", "size=10m", "tmpfs"):
        source, target, _ = folders(point)
        (source / "file").write_text("content")
        assert not can_reflink(source, target)


def test_measure_counts_links_once_and_holes_not_at_all(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "file").write_bytes(os.urandom(MIB))
    os.link(tmp_path / "a" / "file", tmp_path / "b")
    with open(tmp_path / "sparse", "wb") as file:
        file.truncate(1 << 40)
    os.sync()
    size = measure(tmp_path)
    assert size.files == 3
    assert MIB <= size.bytes < 1.1 * MIB
    assert size.apparent_bytes == MIB + (1 << 40)
