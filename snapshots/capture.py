"""Capture: a folder becomes a snapshot in the store."""

from __future__ import annotations

import fcntl
import itertools
import os
import stat
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from snapshots import fs
from snapshots.batch import AHEAD, Batch
from snapshots.blocks import BlockSink, BlockSource
from snapshots.draft import Draft, Piece, Seen, piece_of
from snapshots.errors import SnapshotError, SourceChanging, named, naming, shown
from snapshots.inorder import InOrder
from snapshots.known import KnownFiles
from snapshots.livepoint import LivePoint, never, nothing
from snapshots.pace import Pace
from snapshots.progress import Meter, Progress
from snapshots.reading import SMALL, FileReader
from snapshots.splice import Insertion, opened_below, splice, split
from snapshots.store import SnapshotRecord, Store
from snapshots.streams import StreamWriter
from snapshots.takeover import ReuseDisproved, TakeOver
from snapshots.tree import Dir, Fifo, Hard, Symlink, Up

MAX_SKIPPED = 200  # entries named in a record; more are counted
MAX_NOTE = 400  # characters of one of them, so that a record keeps its limit


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
    pace: Pace | None = None,
    progress: Progress | None = None,
) -> SnapshotRecord:
    """Capture the folder `source`; returns the record, which is durable and proved readable.

    `parent`: an earlier snapshot of the same folder; files that did not change since (size, mtime,
    ctime, inode) are not read again, except for a random sample of their blocks, and if that finds
    a difference, nothing is reused; nor is it with `paranoid`, or on file systems whose times
    prove nothing. `twins`: the file that a fork of the parent's folder, or a restore of the
    parent, left when it made `source`. Sockets and devices are skipped and named in the record.
    `streams`: files (by path) whose content never repeats in place, such as an RDB. `pace`: for the
    sake of a service that uses the disk meanwhile.

    `source` must be at rest: SourceChanging if a file changes or vanishes meanwhile. With `live`
    (from a driver) such a file is captured as it was read, or left out, and named in `skipped`.
    Raises NotEnoughSpace, StoreBusy, SnapshotError.
    """
    doing = f"capture {source} into the store", os.fsencode(store.path)
    fs.insist_apart(source, store.path)
    with naming(*doing), store.locked(fcntl.LOCK_SH):
        try:
            first = _Capture(source, store, live, streams, pace, progress)
            known = parent, twins, not paranoid
            return first.run(dataset, parent, tags, known)
        except ReuseDisproved as disproved:
            note = f"{disproved}; everything was read"
            again = _Capture(source, store, live, streams, pace, progress)
            again.skipped.append(note)
            return again.run(dataset, parent, tags, (None, None, False))


class _Capture:
    def __init__(
        self,
        source: Path,
        store: Store,
        live: LivePoint | None,
        streams: Callable[[bytes], bool],
        pace: Pace | None,
        progress: Progress | None,
    ) -> None:
        self.pace = pace
        self.source, self.store, self.streams, self.progress = source, store, streams, progress
        self.at_rest, self.point = live is None, live or LivePoint()
        self.skipped: list[str] = []
        self._by_path = live is not None or streams is not never
        self._links: dict[tuple[int, int], int] = {}
        self._link_numbers = itertools.count()
        self._later: set[bytes] | None = None  # directories with entries that are captured later
        self._elsewhere = set(self.point.instead)  # not come across yet

    def run(
        self,
        dataset: str,
        parent: str | None,
        tags: Mapping[str, str],
        known: tuple[str | None, Path | None, bool],
    ) -> SnapshotRecord:
        """`known`: the snapshot to compare with, its twins, whether unchanged is left unread."""
        snapshot, twins, reuse = known
        with fs.opened_root(self.source) as root, self.store.index() as index:
            self.store.upgrade()
            self._meter = Meter("capture", self._total(root, parent), self.progress)
            self._known = KnownFiles(
                self.store,
                snapshot,
                packs=index.names,
                twins=twins,
                trusted=reuse and fs.times_are_honest(root),
            )
            sink, self._draft = BlockSink(index), Draft(self.store)
            self._index, self._source, self._sink = index, BlockSource(index), sink
            self._jobs = InOrder(
                waiting=AHEAD, begin=self.pace.yield_to_others if self.pace else None
            )
            self._out = Batch(self._jobs, self._write)
            self._reader = FileReader(sink, self._out, self.pace)
            self._taking = TakeOver(self._known, index, self._reader, self._out)
            try:
                with self._watched(), self._jobs:
                    if self.point.later is never and self.point.finish is nothing:
                        self._directory(root, b"", b"", 0)
                    else:
                        self._directory_then_later(root)
                    self._out.flush()
                self._taking.finish()
                self._insist_on_elsewhere()
                sink.seal()
                tree_root = self._draft.close({*index.names, *sink.sealed})
                return self._record(tree_root, dataset, parent, tags)
            finally:
                self._out.close()
                self._reader.close()
                self._source.close()
                sink.discard()
                self._draft.discard()

    def _watched(self) -> AbstractContextManager[None]:
        return self.pace.watching(self.store.path) if self.pace else nullcontext()

    def _total(self, root: int, parent: str | None) -> int:
        """About how many bytes there are, for progress."""
        if self.progress is None:
            return 0
        try:
            return self.store.read(parent or "").bytes
        except SnapshotError:
            return fs.measure_fd(root, set()).bytes

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

    def _write(self, pieces: Sequence[Piece]) -> None:
        while self._reader.changed:
            self._changed(*self._reader.changed.popleft())
        self._draft.write(pieces)
        self._meter.add(sum(piece.data for piece in pieces))

    def _changed(self, path: bytes, what: str) -> None:
        if self.at_rest:
            raise SourceChanging(
                f"{shown(path)} in {self.source} {what}: stop what writes there, or capture it live"
            )
        self.skipped.append(f"{shown(path)}: {what}")

    # -- the walk --------------------------------------------------------------------------------

    def _directory(self, fd: int, name: bytes, path: bytes, depth: int) -> None:
        with naming("read", path):
            entry = Dir(name, fs.meta_of(os.fstat(fd), fd))
            names = fs.names_in(fd)
        self._out.ready(piece_of(entry))
        for inner in names:
            try:
                self._entry(fd, path, inner, depth)
            except OSError as error:
                if error.errno in fs.EXCHANGED:
                    self._changed(fs.below(path, inner), "vanished while it was captured")
                else:
                    raise named(error, "read", fs.below(path, inner)) from error
        self._out.ready(piece_of(Up()))
        self._out.leave(fd)

    def _entry(self, dir_fd: int, folder: bytes, name: bytes, depth: int) -> None:
        if self._by_path:
            path = fs.below(folder, name)
            if self.point.left_out(path):
                return
            if self._later is not None and self.point.later(path):
                self._later.add(folder)
                return
        st = os.stat(name, dir_fd=dir_fd, follow_symlinks=False)
        if stat.S_ISREG(st.st_mode) and st.st_nlink == 1:
            self._file(dir_fd, folder, name, st, None)
        elif stat.S_ISDIR(st.st_mode):
            path = fs.below(folder, name)
            depth = fs.deeper(depth, path)
            with fs.opened(dir_fd, name, fs.DIRECTORY) as fd:
                self._directory(fd, name, path, depth)
        elif fs.is_special(st):
            self.skipped.append(f"{shown(fs.below(folder, name))}: a {fs.kind_of(st)}")
        else:
            self._entry_with_names(dir_fd, folder, name, st)

    def _entry_with_names(
        self, dir_fd: int, folder: bytes, name: bytes, st: os.stat_result
    ) -> None:
        """Something that may have several names: the first one met is the entry."""
        link = None
        if st.st_nlink > 1:
            number = self._links.get((st.st_dev, st.st_ino))
            if number is not None:
                self._out.ready(piece_of(Hard(name, number)))
                return
            link = next(self._link_numbers)
        if stat.S_ISREG(st.st_mode):
            self._file(dir_fd, folder, name, st, link)
        else:
            meta = fs.read_entry_meta(dir_fd, name, st)
            if stat.S_ISLNK(st.st_mode):
                target = os.readlink(name, dir_fd=dir_fd)
                self._out.ready(piece_of(Symlink(name, meta, target, link)))
            else:
                self._out.ready(piece_of(Fifo(name, meta, link)))
        if link is not None:
            self._links[st.st_dev, st.st_ino] = link

    def _file(
        self, dir_fd: int, folder: bytes, name: bytes, st: os.stat_result, link: int | None
    ) -> None:
        if self._by_path and (elsewhere := self.point.instead.get(fs.below(folder, name))):
            self._elsewhere.discard(fs.below(folder, name))
            with fs.opened(dir_fd, name, fs.READ) as fd:
                meta = fs.meta_of(os.fstat(fd), fd)
            self._reader.elsewhere(elsewhere, folder, name, meta, link)
            return
        hint = self._known.find(folder, name)
        if hint is not None:
            now = fs.Key.of(st)
            if self._known.unchanged(hint, folder, name, now):
                seen = Seen(folder, name, now, link is not None)
                self._taking.file(dir_fd, seen, hint, link)
                return
        if self._by_path and st.st_size > SMALL and self.streams(fs.below(folder, name)):
            before = self._taking.blocks(hint) if hint else []
            writer = StreamWriter(self._index, self._source, self._sink, before)
            self._reader.stream(dir_fd, folder, name, link, writer)
        elif link is None and st.st_size <= SMALL and st.st_blocks * 512 >= st.st_size:
            self._reader.small(dir_fd, folder, name, st.st_size)
        else:
            self._reader.large(dir_fd, folder, name, link)

    # -- what a live point leaves for later ------------------------------------------------------

    def _directory_then_later(self, root: int) -> None:
        """All but what is `later` goes into a first draft; then the point is finished, and what is
        left is read while the first draft is copied, each entry in its place among its siblings.
        """
        final, first, self._later = self._draft, Draft(self.store), set()
        try:
            self._draft = first
            self._directory(root, b"", b"", 0)
            self._out.flush()
            self._jobs.wait()
            self._taking.finish()
            first.close(())
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
                *(
                    Insertion(name, partial(self._add, path, name, new[name], folder))
                    for name in new
                ),
            ]

        splice(first.entries(), insertions, self._out.ready)
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
                    self._entry(fd, path, name, path.count(b"/") + bool(path))
            except FileNotFoundError:
                self._changed(inner, "vanished while it was captured")

    def _add(self, path: bytes, name: bytes, content: bytes, folder: Dir) -> None:
        meta = fs.Meta(0o600, folder.meta.uid, folder.meta.gid, time.time_ns())
        self._reader.added(path, name, meta, content)

    def _insist_on_elsewhere(self) -> None:
        if self._elsewhere:
            raise SnapshotError(
                f"{shown(min(self._elsewhere))} is not a file in {self.source}: its content "
                "was to be taken from elsewhere; run it again"
            )
