"""Capture: a folder becomes a snapshot in the store."""

from __future__ import annotations

import fcntl
import itertools
import os
import random
import stat
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from blake3 import blake3

from snapshots import fs
from snapshots.blocks import BlockIndex, BlockSink
from snapshots.draft import Draft
from snapshots.errors import SnapshotError, SourceChanging, naming, shown
from snapshots.hints import Known, KnownFiles
from snapshots.inorder import InOrder
from snapshots.livepoint import LivePoint, never, nothing
from snapshots.progress import Meter, Progress
from snapshots.splice import Insertion, opened_below, splice, split
from snapshots.store import SnapshotRecord, Store
from snapshots.tree import (
    BLOCK,
    Blocks,
    Dir,
    Entry,
    Fifo,
    File,
    Hard,
    Symlink,
    Up,
    block_length,
)

JOB_BLOCKS = 64  # blocks read, hashed and packed by one job: 4 MiB
SAMPLE = 0.01  # share of the blocks of reused files that is read and compared all the same
MAX_SKIPPED = 200  # entries named in a record; more are counted
MAX_NOTE = 400  # characters of one of them, so that a record keeps its limit

Parts = tuple[tuple[int, int], ...] | None


def capture(
    source: Path,
    store: Store,
    *,
    dataset: str,
    parent: str | None = None,
    tags: Mapping[str, str] = {},
    live: LivePoint | None = None,
    paranoid: bool = False,
    streams: Callable[[bytes], bool] = never,
    twins: Path | None = None,
    progress: Progress | None = None,
) -> SnapshotRecord:
    """Capture the folder `source`; returns the record, which is durable and proved readable.

    `parent`: an earlier snapshot of the same folder; files that did not change since (size, mtime,
    ctime, inode) are not read again, except for a random sample of their blocks, and if that finds
    a difference, nothing is reused; nor is it with `paranoid`, or on file systems whose times
    prove nothing. `twins`: the file that a fork of the parent's folder, or a restore of the
    parent, left when it made `source`. Sockets and devices are skipped and named in the record.
    `streams`: files (by path) whose content never repeats in place, such as an RDB.

    `source` must be at rest: SourceChanging if a file changes or vanishes meanwhile. With `live`
    (from a driver) such a file is captured as it was read, or left out, and named in `skipped`.
    Raises NotEnoughSpace, StoreBusy, SnapshotError.
    """
    doing = f"capture {source} into the store", os.fsencode(store.path)
    fs.insist_apart(source, store.path)
    with naming(*doing), store.locked(fcntl.LOCK_SH):
        try:
            first = _Capture(source, store, live, streams, progress)
            return first.run(dataset, parent, tags, reuse=not paranoid, twins=twins)
        except _ReuseDisproved as disproved:
            note = f"{disproved}: had changed without its times changing; everything was read"
            again = _Capture(source, store, live, streams, progress)
            again.skipped.append(note)
            return again.run(dataset, parent, tags, reuse=False)


class _ReuseDisproved(Exception):
    """A file that should be unchanged has other content than its snapshot."""


class _Capture:
    def __init__(
        self,
        source: Path,
        store: Store,
        live: LivePoint | None,
        streams: Callable[[bytes], bool],
        progress: Progress | None,
    ) -> None:
        self.source, self.store, self.streams, self.progress = source, store, streams, progress
        self.at_rest, self.point = live is None, live or LivePoint()
        self.skipped: list[str] = []
        self._links: dict[tuple[int, int], int] = {}
        self._link_numbers = itertools.count()
        self._later: set[bytes] | None = None  # directories with entries that are captured later
        self._elsewhere = set(self.point.instead)  # not come across yet
        self._open: set[int] = set()
        self._buffers = threading.local()

    def run(
        self,
        dataset: str,
        parent: str | None,
        tags: Mapping[str, str],
        *,
        reuse: bool,
        twins: Path | None = None,
    ) -> SnapshotRecord:
        with fs.opened_root(self.source) as root, BlockIndex(self.store.packs) as index:
            total = fs.measure_fd(root, set()).bytes if self.progress else 0
            self._meter = Meter("capture", total, self.progress)
            self._index, self._sink = index, BlockSink(index)
            trusted = reuse and fs.times_are_honest(root)
            self._known = KnownFiles(self.store, parent if trusted else None, twins=twins)
            self._draft = Draft(self.store)
            try:
                with InOrder() as self._jobs:
                    if self.point.later is never and self.point.finish is nothing:
                        self._directory(root, b"", b"", (), 0)
                    else:
                        self._directory_then_later(root)
                self._insist_on_elsewhere()
                self._sink.seal()
                tree_root = self._draft.close()
                return self._record(tree_root, dataset, parent, tags)
            finally:
                for fd in self._open:
                    os.close(fd)
                self._sink.discard()
                self._draft.discard()

    def _record(
        self, root: str, dataset: str, parent: str | None, tags: Mapping[str, str]
    ) -> SnapshotRecord:
        """Everything else is durable by now; the record makes it a snapshot."""
        self._draft.place_tree()
        skipped = [note[-MAX_NOTE:] for note in self.skipped[:MAX_SKIPPED]]
        if len(self.skipped) > MAX_SKIPPED:
            skipped.append(f"and {len(self.skipped) - MAX_SKIPPED} more")
        record = self.store.add(
            dataset=dataset,
            created=datetime.now(UTC).isoformat(),
            parent=parent,
            bytes=self._draft.bytes,
            files=self._draft.files,
            tags=dict(tags),
            skipped=skipped,
            root=root,
        )
        self._draft.place_hints(record.id)
        self._meter.finish()
        return record

    # -- the walk --------------------------------------------------------------------------------

    def _directory(
        self, fd: int, name: bytes, path: bytes, key: tuple[bytes, ...], depth: int
    ) -> None:
        with naming("read", path):
            entry = Dir(name, fs.meta_of(os.fstat(fd), fd))
            names = fs.names_in(fd)
        self._jobs.then(lambda: self._draft.write(entry))
        for inner in names:
            inner_path = fs.below(path, inner)
            if self.point.left_out(inner_path):
                continue
            if self._later is not None and self.point.later(inner_path):
                self._later.add(path)
                continue
            with naming("read", inner_path):
                try:
                    self._entry(fd, inner, inner_path, (*key, inner), depth)
                except FileNotFoundError:
                    self._changed(inner_path, "vanished while it was captured")
        self._jobs.then(lambda: self._draft.write(Up()))

    def _entry(
        self, dir_fd: int, name: bytes, path: bytes, key: tuple[bytes, ...], depth: int
    ) -> None:
        st = fs.lstat(dir_fd, name)
        if stat.S_ISDIR(st.st_mode):
            depth = fs.deeper(depth, path)
            with fs.opened(dir_fd, name, fs.DIRECTORY) as fd:
                self._directory(fd, name, path, key, depth)
            return
        if fs.is_special(st):
            self.skipped.append(f"{shown(path)}: a {fs.kind_of(st)}")
            return
        link = None
        if st.st_nlink > 1:
            number = self._links.get((st.st_dev, st.st_ino))
            if number is not None:
                hard = Hard(name, number)
                self._jobs.then(lambda: self._draft.write(hard))
                return
            link = next(self._link_numbers)
        self._leaf(dir_fd, name, path, key, st, link)
        if link is not None:
            self._links[st.st_dev, st.st_ino] = link

    def _leaf(
        self,
        dir_fd: int,
        name: bytes,
        path: bytes,
        key: tuple[bytes, ...],
        st: os.stat_result,
        link: int | None,
    ) -> None:
        if stat.S_ISREG(st.st_mode):
            fd = fs.open_file(dir_fd, name, fs.READ)
            if path in self.point.instead:
                self._file_from_elsewhere(fd, name, path, link)
            else:
                self._file(fd, name, path, key, link)
            return
        meta = fs.read_entry_meta(dir_fd, name, st)
        if stat.S_ISLNK(st.st_mode):
            target = os.readlink(name, dir_fd=dir_fd)
            symlink = Symlink(name, meta, target, link)
            self._jobs.then(lambda: self._draft.write(symlink))
        else:
            fifo = Fifo(name, meta, link)
            self._jobs.then(lambda: self._draft.write(fifo))

    def _changed(self, path: bytes, what: str) -> None:
        if self.at_rest:
            raise SourceChanging(
                f"{shown(path)} in {self.source} {what}: stop what writes there, or capture it live"
            )
        self.skipped.append(f"{shown(path)}: {what}")

    # -- what a live point leaves for later ------------------------------------------------------

    def _directory_then_later(self, root: int) -> None:
        """All but what is `later` goes into a first draft; then the point is finished, and what is
        left is read while the first draft is copied, each entry in its place among its siblings.
        """
        final, first, self._later = self._draft, Draft(self.store), set()
        try:
            self._draft = first
            self._directory(root, b"", b"", (), 0)
            self._jobs.wait()
            first.close()
            self._draft, self._known = final, KnownFiles(self.store, None)
            self._links.clear()  # a link must not lead to an entry that now comes after it
            self._splice(root, first)
        finally:
            first.discard()

    def _splice(self, root: int, first: Draft) -> None:
        added = split(self.point.finish())
        with_later, self._later = self._later or set(), None

        def insertions(path: bytes, folder: Dir) -> list[Insertion]:
            new = added.pop(path, {})
            late = self._late_names(root, path) - new.keys() if path in with_later else set()
            return [
                *(Insertion(name, partial(self._late, root, path, name)) for name in late),
                *(Insertion(name, partial(self._add, name, new[name], folder)) for name in new),
            ]

        def write(entry: Entry, key: fs.Key | None) -> None:
            self._jobs.then(lambda: self._draft.write(entry))
            if isinstance(entry, File):
                self._jobs.then(lambda: self._draft.hint(key))

        splice(first.entries(), insertions, write)
        if added:
            raise SnapshotError(
                f"there is no folder {shown(min(added))} in {self.source}, in which the engine's "
                "driver wants to add a file"
            )

    def _late_names(self, root: int, path: bytes) -> set[bytes]:
        with naming("read", path), opened_below(root, path) as fd:
            return {
                name
                for name in fs.names_in(fd)
                if self.point.later(inner := fs.below(path, name))
                and not self.point.left_out(inner)
            }

    def _late(self, root: int, path: bytes, name: bytes) -> None:
        inner = fs.below(path, name)
        with naming("read", inner):
            try:
                with opened_below(root, path) as fd:
                    self._entry(fd, name, inner, (), path.count(b"/") + bool(path))
            except FileNotFoundError:
                self._changed(inner, "vanished while it was captured")

    def _add(self, name: bytes, content: bytes, folder: Dir) -> None:
        meta = fs.Meta(0o600, folder.meta.uid, folder.meta.gid, time.time_ns())
        hashes = tuple(
            self._sink.put(content[at : at + BLOCK]) for at in range(0, len(content), BLOCK)
        )
        self._jobs.then(lambda: self._draft.write(File(name, meta, len(content))))
        self._jobs.then(lambda: self._draft.hint(None))
        if hashes:
            self._jobs.then(lambda: self._draft.write(Blocks(0, hashes)))

    # -- files -----------------------------------------------------------------------------------

    def _file(
        self, fd: int, name: bytes, path: bytes, key: tuple[bytes, ...], link: int | None
    ) -> None:
        """Takes over `fd`. The order stat, fsync, read makes later times prove later writes."""
        self._open.add(fd)
        st, now = os.fstat(fd), time.time_ns()
        if not stat.S_ISREG(st.st_mode):
            raise SourceChanging(f"{shown(path)} in {self.source} is being exchanged: stop its use")
        os.fsync(fd)
        seen = fs.Key.of(st)
        entry = File(name, fs.meta_of(st, fd), st.st_size, link)
        known = self._known.find(key)
        self._jobs.then(lambda: self._draft.write(entry))
        if known and self._known.unchanged(known, seen):
            self._reuse(fd, path, st.st_size, known)
        else:
            self._content(fd, path, st)

        def finish() -> None:
            after = fs.Key.of(os.fstat(fd))
            self._open.remove(fd)
            os.close(fd)
            if after != seen:
                self._changed(path, "changed while it was captured")
            self._draft.hint(seen if after == seen and seen.settled(now) else None)
            self._meter.add(st.st_size)

        self._jobs.then(finish)

    def _file_from_elsewhere(self, fd: int, name: bytes, path: bytes, link: int | None) -> None:
        """The metadata of `fd`, which is closed, with the content that the driver names."""
        try:
            meta = fs.meta_of(os.fstat(fd), fd)
        finally:
            os.close(fd)
        fd = os.open(self.point.instead[path], fs.READ & ~os.O_NOATIME)
        self._open.add(fd)
        self._elsewhere.discard(path)
        st = os.fstat(fd)
        entry = File(name, meta, st.st_size, link)
        self._jobs.then(lambda: self._draft.write(entry))
        self._content(fd, path, st)

        def finish() -> None:
            self._open.remove(fd)
            os.close(fd)
            self._draft.hint(None)
            self._meter.add(st.st_size)

        self._jobs.then(finish)

    def _insist_on_elsewhere(self) -> None:
        if self._elsewhere:
            raise SnapshotError(
                f"{shown(min(self._elsewhere))} is not a file in {self.source}: its content "
                "was to be taken from elsewhere; run it again"
            )

    def _content(self, fd: int, path: bytes, st: os.stat_result) -> None:
        sparse = st.st_blocks * 512 < st.st_size
        parts = fs.segments(fd, st.st_size) if sparse else iter([(0, st.st_size)])
        for first, count, inside in _runs(parts, st.st_size):
            self._read(fd, path, st.st_size, first, count, inside)

    def _reuse(self, fd: int, path: bytes, size: int, known: Known) -> None:
        for run in known.runs:
            if all(self._index.has(digest) for digest in run.hashes):
                self._prove_one(fd, path, size, run)
                self._jobs.then(partial(self._draft.write, run))
            else:  # the store lost it: here it is again
                self._read(fd, path, size, run.at, len(run.hashes), run.parts)

    def _prove_one(self, fd: int, path: bytes, size: int, run: Blocks) -> None:
        """Now and then: is a block of an unchanged file still what the snapshot says?"""
        if random.random() >= SAMPLE * len(run.hashes):
            return
        at = random.randrange(len(run.hashes))
        data = bytearray(block_length(run.at + at, size))
        fs.read_into(fd, memoryview(data), (run.at + at) * BLOCK)
        if blake3(data).digest() != run.hashes[at]:
            raise _ReuseDisproved(shown(path))

    def _read(self, fd: int, path: bytes, size: int, first: int, count: int, parts: Parts) -> None:
        """Have `count` blocks from `first` read and stored, and their run written to the tree."""

        def job() -> Blocks:
            with naming("capture", path):
                start = first * BLOCK
                buffer = self._buffer()[: min(count * BLOCK, size - start)]
                done = fs.read_into(fd, buffer, start)
                buffer[done:] = bytes(len(buffer) - done)  # it shrank: `finish` will notice
                hashes = tuple(
                    self._sink.put(buffer[at : at + BLOCK]) for at in range(0, len(buffer), BLOCK)
                )
                return Blocks(first, hashes, parts)

        self._jobs.submit(job, self._draft.write)

    def _buffer(self) -> memoryview:
        buffer: memoryview | None = getattr(self._buffers, "buffer", None)
        if buffer is None:
            buffer = self._buffers.buffer = memoryview(bytearray(JOB_BLOCKS * BLOCK))
        return buffer


def _runs(parts: Iterator[tuple[int, int]], size: int) -> Iterator[tuple[int, int, Parts]]:
    """Cover the data `parts` of a file with runs of neighbouring blocks: first, count, parts.

    A run has at most JOB_BLOCKS blocks; its parts are None when it is data all through.
    """
    first = end = 0
    inside: list[tuple[int, int]] = []

    def run() -> tuple[int, int, Parts]:
        whole = [(first * BLOCK, min(end * BLOCK, size) - first * BLOCK)]
        return first, end - first, None if inside == whole else tuple(inside)

    for offset, length in parts:
        while length > 0:
            block = offset // BLOCK
            if inside and (block > end or block >= first + JOB_BLOCKS):
                yield run()
                inside = []
            if not inside:
                first = block
            take = min(length, (first + JOB_BLOCKS) * BLOCK - offset)
            inside.append((offset, take))
            offset, length = offset + take, length - take
            end = (offset - 1) // BLOCK + 1
    if inside:
        yield run()
