"""One pass of a fork over source and target: what changed is copied, what is too much goes."""

from __future__ import annotations

import os
import stat
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from snapshots import fs
from snapshots.content import Content
from snapshots.errors import SourceChanging, naming, shown
from snapshots.inorder import THREADS, InOrder
from snapshots.pace import EACH_FILE, Pace
from snapshots.progress import Meter
from snapshots.seen import Seen, SeenFiles, SeenWriter, Twin

JOB = 32 << 20  # bytes of one file given to one thread
SYNC_NOW = 1 << 20  # in the first pass, copies of this size are synced one by one
SYNC_EACH = 256  # with more changed entries than this, one sync of the file system is cheaper


class _Vanished(Exception):
    """An entry of the source is not there any more, or is another one now."""


@contextmanager
def _reading_source() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in fs.EXCHANGED:
            raise _Vanished from error
        raise


class Pass:
    """One pass over both folders. One thread walks; others compare and copy."""

    def __init__(
        self,
        source: Path,
        seen: SeenFiles,
        record: SeenWriter,
        pace: Pace | None,
        *,
        first: bool,
        final: bool,
    ) -> None:
        self._source, self._seen, self._record, self._final = source, seen, record, final
        self._pace = pace
        self._links: dict[tuple[int, int], tuple[bytes, int]] = {}  # inode -> target path, inode
        self._open: set[int] = set()
        self._content = Content(live=not final, pace=pace)
        self._sync = _Sync(first)
        self.meter = Meter("", 0, None)
        self.files = self.changed = self.removed = self.written = self.reflinked = 0
        self.skipped: list[str] = []

    def run(self, src: int, dst: int) -> None:
        self._root = dst
        try:
            # Beside a service one at a time: the rate is not what the processors can do.
            with InOrder(1 if self._pace else THREADS) as self._jobs:
                self._directory(src, dst, b"", 0)
            self._sync.finish(dst)
            self._record.close(durable=not self._final)
        finally:
            self._sync.close()
            self._record.discard()
            for fd in self._open:
                os.close(fd)
        self.meter.finish()

    # -- the walk --------------------------------------------------------------------------------

    def _directory(self, src: int, dst: int, path: bytes, depth: int) -> None:
        before = self.changed + self.removed
        with naming("copy", path):
            entries, present = fs.entries_in(src), set(fs.names_in(dst))
            for extra in present.difference(name for name, _ in entries):
                fs.remove_entry(dst, extra)
                self.removed += 1
        same: list[tuple[bytes, Seen]] = []
        for name, st in entries:
            # Most files did not change: for them, this is all that happens.
            seen = self._seen.find(path, name)
            if (
                seen is not None
                and st is not None
                and seen[0] == (st.st_ino, st.st_size, st.st_mtime_ns, st.st_ctime_ns)
                and st.st_nlink == 1
                and name in present
            ):
                same.append((name, seen))
                continue
            self._unchanged(path, same)
            same = []
            inner = fs.below(path, name)
            with naming("copy", inner):
                try:
                    if st is None:
                        raise _Vanished
                    self._entry(src, dst, name, path, st, name in present, depth)
                except _Vanished:
                    if self._final:
                        raise self._not_at_rest(inner) from None
        self._unchanged(path, same)
        with naming("copy", path):
            meta = fs.meta_of(os.fstat(src), src)
            different = meta != fs.meta_of(os.fstat(dst), dst)
            if different:
                fs.apply_meta(dst, meta)
            if different or before != self.changed + self.removed:
                self._sync.directory(dst)

    def _unchanged(self, folder: bytes, files: list[tuple[bytes, Seen]]) -> None:
        """Files whose content was copied by an earlier pass, with what it remembered of them."""
        if files:
            self.files += len(files)
            self._jobs.then(partial(self._record.add_all, folder, files))
            self.meter.add(sum(key[1] for _, (key, _) in files))

    def _entry(
        self,
        src: int,
        dst: int,
        name: bytes,
        folder: bytes,
        st: os.stat_result,
        present: bool,
        depth: int,
    ) -> None:
        path = fs.below(folder, name)
        if fs.is_special(st):
            self.skipped.append(f"{shown(path)}: a {fs.kind_of(st)}")
            if present:
                fs.remove_entry(dst, name)
        elif stat.S_ISDIR(st.st_mode):
            self._subdirectory(src, dst, name, path, present, depth)
        else:
            self.files += 1
            inode = st.st_dev, st.st_ino
            if st.st_nlink > 1 and inode in self._links:
                self._hard_link(dst, name, present, *self._links[inode])
                return
            if stat.S_ISREG(st.st_mode):
                self._file(src, dst, name, folder, st, present)
            else:
                self._special(src, dst, name, st, present)
            if st.st_nlink > 1:
                self._links[inode] = path, fs.lstat(dst, name).st_ino

    def _subdirectory(
        self, src: int, dst: int, name: bytes, path: bytes, present: bool, depth: int
    ) -> None:
        depth = fs.deeper(depth, path)
        with _reading_source():
            inner = os.open(name, fs.DIRECTORY, dir_fd=src)
        try:
            if present and not stat.S_ISDIR(fs.lstat(dst, name).st_mode):
                os.unlink(name, dir_fd=dst)
                present = False
            if not present:
                os.mkdir(name, 0o700, dir_fd=dst)
                self.changed += 1
            with fs.opened(dst, name, fs.DIRECTORY) as target:
                self._directory(inner, target, path, depth)
        finally:
            os.close(inner)

    def _hard_link(self, dst: int, name: bytes, present: bool, first: bytes, inode: int) -> None:
        if present and fs.lstat(dst, name).st_ino == inode:
            return
        if present:
            fs.remove_entry(dst, name)
        fs.link_entry(self._root, first.split(b"/"), dst, name, inode)
        self.changed += 1

    def _special(self, src: int, dst: int, name: bytes, st: os.stat_result, present: bool) -> None:
        """A symbolic link or a FIFO: made anew unless it is the same already."""
        is_link = stat.S_ISLNK(st.st_mode)
        with _reading_source():
            meta = fs.read_entry_meta(src, name, st)
            points_to = os.readlink(name, dir_fd=src) if is_link else b""
        if present:
            there = fs.lstat(dst, name)
            same = stat.S_IFMT(there.st_mode) == stat.S_IFMT(st.st_mode) and (
                not is_link or os.readlink(name, dir_fd=dst) == points_to
            )
            if same and there.st_nlink == st.st_nlink == 1:
                if fs.read_entry_meta(dst, name, there) != meta:
                    fs.apply_entry_meta(dst, name, meta, link=is_link)
                    self.changed += 1
                return
            fs.remove_entry(dst, name)
        if is_link:
            os.symlink(points_to, name, dir_fd=dst)
        else:
            os.mkfifo(name, 0o600, dir_fd=dst)
        fs.apply_entry_meta(dst, name, meta, link=is_link)
        self.changed += 1

    # -- files -----------------------------------------------------------------------------------

    def _file(
        self, src: int, dst: int, name: bytes, folder: bytes, st: os.stat_result, present: bool
    ) -> None:
        seen = self._seen.find(folder, name)
        if seen and present and seen[0] == fs.Key.of(st):  # a first one of several names
            self.files -= 1
            self._unchanged(folder, [(name, seen)])
            return
        with _reading_source():
            src_fd = fs.open_file(src, name, fs.READ)
        self._open.add(src_fd)
        st, now = os.fstat(src_fd), time.time_ns()
        if not stat.S_ISREG(st.st_mode):
            raise _Vanished
        if present:
            there = fs.lstat(dst, name)
            if not stat.S_ISREG(there.st_mode) or there.st_nlink > 1:
                fs.remove_entry(dst, name)
                present = False
        dst_fd = fs.open_file(dst, name, fs.WRITE if present else fs.CREATE)
        self._open.add(dst_fd)
        self.changed += 1
        self._bring(_FileCopy(folder, name, src_fd, dst_fd, st, now, present))

    def _bring(self, copy: _FileCopy) -> None:
        """Give the content to the threads; whichever finishes last sets the metadata."""
        meta = fs.meta_of(copy.st, copy.src)
        size = copy.st.st_size
        if self._content.can_clone:
            starts, step = [0], size  # one job: if it cannot be cloned after all, it copies
        else:
            starts, step = list(range(0, size, JOB)) or [0], JOB
        if os.fstat(copy.dst).st_size != size:
            os.ftruncate(copy.dst, size)
        left = _Countdown(len(starts))

        def job(start: int) -> tuple[int, bool]:
            with naming("copy", copy.path):
                written, cloned = self._range(copy, start, min(start + step, size))
                if self._pace:
                    self._pace.spend(EACH_FILE)
                if left.last():
                    fs.apply_meta(copy.dst, meta)
                    copy.twin = _twin(copy.dst)
                    self._sync.file(copy.dst, 0 if cloned else size)
                return written, cloned

        for start in starts:
            self._jobs.submit(partial(job, start), self._count)
        self._jobs.then(partial(self._finish, copy))

    def _range(self, copy: _FileCopy, start: int, end: int) -> tuple[int, bool]:
        whole = start == 0 and end == copy.st.st_size
        if whole and self._content.clone(copy.src, copy.dst, end):
            return 0, True
        if copy.existing:
            return self._content.mend(copy.src, copy.dst, start, end), False
        return self._content.copy(copy.src, copy.dst, start, end), False

    def _count(self, done: tuple[int, bool]) -> None:
        self.written += done[0]
        self.reflinked += done[1]

    def _finish(self, copy: _FileCopy) -> None:
        key = fs.Key.of(copy.st)
        unchanged = fs.Key.of(os.fstat(copy.src)) == key
        for fd in (copy.src, copy.dst):
            self._open.remove(fd)
            os.close(fd)
        if self._final and not unchanged:
            raise self._not_at_rest(copy.path)
        if key.settled(copy.now_ns):
            assert copy.twin is not None
            self._record.add(copy.folder, copy.name, key, copy.twin)
        self.meter.add(copy.st.st_size)

    def _not_at_rest(self, path: bytes) -> SourceChanging:
        return SourceChanging(
            f"{shown(path)} in {self._source} changed during the final pass: "
            "stop what writes there and run it again"
        )


@dataclass
class _FileCopy:
    """A file that is being copied: where, both descriptors, how it was, at what time."""

    folder: bytes
    name: bytes
    src: int
    dst: int
    st: os.stat_result
    now_ns: int
    existing: bool  # the target has content from an earlier pass
    twin: Twin | None = None  # once it is copied

    @property
    def path(self) -> bytes:
        return fs.below(self.folder, self.name)


def _twin(fd: int) -> Twin:
    st = os.fstat(fd)
    return Twin(st.st_ino, st.st_ctime_ns)


class _Countdown:
    """Tells which of several jobs of a file is the last."""

    def __init__(self, count: int) -> None:
        self._left, self._lock = count, threading.Lock()

    def last(self) -> bool:
        with self._lock:
            self._left -= 1
            return self._left == 0


class _Sync:
    """Makes a pass durable. Used by several threads.

    In the first one large copies as they are done, so that no burst builds up, the rest at the end.
    Later all at the end, one by one: the first sync commits the times of all to the journal, and a
    sync of the whole file system would wait for everybody's writes; but above SYNC_EACH entries
    that is the cheaper way.
    """

    def __init__(self, first: bool) -> None:
        self._first, self._whole = first, False
        self._waiting: list[int] = []
        self._lock = threading.Lock()

    def file(self, fd: int, written: int) -> None:
        if self._first:
            if written >= SYNC_NOW:
                os.fsync(fd)
            else:
                self._whole = True
            return
        with self._lock:
            if len(self._waiting) >= SYNC_EACH:
                self._whole = True
                return
            self._waiting.append(os.dup(fd))
        fs.begin_writing(fd, 0, 0)

    def directory(self, fd: int) -> None:
        self.file(fd, 0)

    def finish(self, root: int) -> None:
        if self._whole:
            fs.sync_filesystem(root)
        else:
            for fd in self._waiting:
                os.fsync(fd)

    def close(self) -> None:
        while self._waiting:
            os.close(self._waiting.pop())
