"""Restore: a snapshot becomes a folder again, exactly, and nothing outside that folder changes."""

from __future__ import annotations

import os
import stat
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from blake3 import blake3

from snapshots import fs
from snapshots.blocks import BlockSource
from snapshots.errors import (
    Damaged,
    NotEnoughSpace,
    TargetNotEmpty,
    naming,
    shown,
)
from snapshots.inorder import InOrder
from snapshots.progress import Meter, Progress
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
    data_parts,
    read_tree,
    with_paths,
)
from snapshots.twins import RestoredTwins

JOB_BLOCKS = 64
SPARE = 64 << 20  # room that is left free on the target's file system


@dataclass(frozen=True)
class Restored:
    """What a restore did: entries that are not directories, bytes written, seconds."""

    files: int
    bytes_written: int
    seconds: float


def restore(
    store: Store,
    snapshot_id: str,
    target: Path,
    *,
    in_place: bool = False,
    twins: Path | None = None,
    progress: Progress | None = None,
) -> Restored:
    """Make `target` the folder that was captured, durably.

    `target` is made if missing and must be empty, unless `in_place`: then only what differs is
    written and what is too much is removed. Every block is checked against its hash before it is
    written; the whole tree is read and checked before anything is. If a restore fails, what is in
    `target` is no longer of use. `twins`: a file to write, by which a capture of `target` knows
    what is still as it was restored.

    Raises Damaged, UnknownSnapshot, TargetNotEmpty, NotEnoughSpace.
    """
    began = time.monotonic()
    fs.insist_apart(target, store.path)
    record = store.read(snapshot_id)
    with naming("restore into", os.fsencode(target)), store.reading() as source:
        needed = _check(store, record, source)
        target.mkdir(mode=0o700, exist_ok=True)
        with fs.opened_root(target) as root, RestoredTwins(twins, record.root) as finished:
            if not in_place:
                _insist_on_room(target, root, needed)
            work = _Restore(source, in_place, finished, Meter("restore", record.bytes, progress))
            work.run(store, record, root)
            fs.sync_filesystem(root)
    return Restored(record.files, work.written, time.monotonic() - began)


def _check(store: Store, record: SnapshotRecord, source: BlockSource) -> int:
    """Before anything is written: the whole tree is sound, and every block is there.

    Returns the bytes of data in it.
    """
    files = size = data = 0
    for path, entry in with_paths(read_tree(store.tree_path(record.root), record.root)):
        if isinstance(entry, File):
            size = entry.size
        elif isinstance(entry, Blocks):
            data += sum(length for _, length in data_parts(entry, size))
            try:
                source.find_all(entry, size)
            except Damaged as damage:
                raise Damaged(f"{shown(path)}: {damage}") from damage
        if isinstance(entry, (File, Symlink, Fifo, Hard)):
            files += 1
    if (files, data) != (record.files, record.bytes):
        raise Damaged(f"snapshot {record.id} and its tree {record.root[:12]} do not agree")
    return data


def _insist_on_room(target: Path, root: int, needed: int) -> None:
    if names := fs.names_in(root):
        raise TargetNotEmpty(
            f"{target} is not empty ({shown(names[0])}): restore into an empty folder, or in place"
        )
    state = os.fstatvfs(root)
    free = state.f_bavail * state.f_frsize
    if free < needed + min(SPARE, needed // 10):
        raise NotEnoughSpace(
            f"{target} has {free >> 20} MiB free and the snapshot needs {needed >> 20} MiB: "
            "free some space and run it again"
        )


@dataclass
class _Open:
    """A directory that is being restored."""

    fd: int
    path: bytes
    entry: Dir
    extras: set[bytes]


class _Restore:
    def __init__(
        self, source: BlockSource, in_place: bool, twins: RestoredTwins, meter: Meter
    ) -> None:
        self._source, self._in_place, self._twins, self._meter = source, in_place, twins, meter
        self._dirs: list[_Open] = []
        self._links: dict[int, tuple[tuple[bytes, ...], int]] = {}  # number -> names, inode
        self._file: tuple[File, int, bytes] | None = None  # entry, descriptor, path
        self._end = 0  # up to where the open file is done
        self._open: set[int] = set()
        self._buffers = threading.local()
        self.written = 0

    def run(self, store: Store, record: SnapshotRecord, root: int) -> None:
        try:
            with InOrder() as self._jobs:
                for entry in read_tree(store.tree_path(record.root), record.root):
                    if not isinstance(entry, Blocks):
                        self._finish_file()
                    self._entry(entry, root)
        finally:
            for fd in self._open | {d.fd for d in self._dirs[1:]}:
                os.close(fd)
        self._meter.finish()

    def _entry(self, entry: Entry, root: int) -> None:
        if isinstance(entry, Blocks):
            self._blocks(entry)
        elif isinstance(entry, Up):
            self._leave_dir()
        elif not self._dirs:
            assert isinstance(entry, Dir)
            self._enter(root, b"", entry)
        else:
            here = self._dirs[-1]
            path = fs.below(here.path, entry.name)
            here.extras.discard(entry.name)
            with naming("restore", path):
                if isinstance(entry, Dir):
                    self._dir(here, path, entry)
                elif isinstance(entry, File):
                    self._begin_file(here, path, entry)
                elif isinstance(entry, Hard):
                    self._hard(here, entry)
                else:
                    self._special(here, entry)
                if isinstance(entry, (File, Symlink, Fifo)) and entry.link is not None:
                    names = (*(d.entry.name for d in self._dirs[1:]), entry.name)
                    self._links[entry.link] = names, fs.lstat(here.fd, entry.name).st_ino

    # -- directories -----------------------------------------------------------------------------

    def _enter(self, fd: int, path: bytes, entry: Dir) -> None:
        extras = set(fs.names_in(fd)) if self._in_place else set()
        self._dirs.append(_Open(fd, path, entry, extras))

    def _dir(self, here: _Open, path: bytes, entry: Dir) -> None:
        present = self._present(here.fd, entry.name)
        if present is not None and not stat.S_ISDIR(present.st_mode):
            os.unlink(entry.name, dir_fd=here.fd)
            present = None
        if present is None:
            os.mkdir(entry.name, 0o700, dir_fd=here.fd)
        self._enter(os.open(entry.name, fs.DIRECTORY, dir_fd=here.fd), path, entry)

    def _leave_dir(self) -> None:
        """Its own metadata last: everything in it was made by now, and would change its time."""
        done = self._dirs[-1]
        with naming("restore", done.path):
            for name in done.extras:
                fs.remove_entry(done.fd, name)
            fs.apply_meta(done.fd, done.entry.meta)
        self._dirs.pop()
        if self._dirs:
            os.close(done.fd)

    def _present(self, dir_fd: int, name: bytes) -> os.stat_result | None:
        """What is there under this name already; only looked for in place."""
        if not self._in_place:
            return None
        try:
            return fs.lstat(dir_fd, name)
        except FileNotFoundError:
            return None

    # -- entries without content -----------------------------------------------------------------

    def _special(self, here: _Open, entry: Symlink | Fifo) -> None:
        if self._present(here.fd, entry.name) is not None:
            fs.remove_entry(here.fd, entry.name)
        if isinstance(entry, Symlink):
            os.symlink(entry.target, entry.name, dir_fd=here.fd)
        else:
            os.mkfifo(entry.name, 0o600, dir_fd=here.fd)
        fs.apply_entry_meta(here.fd, entry.name, entry.meta, link=isinstance(entry, Symlink))

    def _hard(self, here: _Open, entry: Hard) -> None:
        names, inode = self._links[entry.of]
        present = self._present(here.fd, entry.name)
        if present is not None:
            if present.st_ino == inode and not stat.S_ISDIR(present.st_mode):
                return
            fs.remove_entry(here.fd, entry.name)
        fs.link_entry(self._dirs[0].fd, names, here.fd, entry.name, inode)

    # -- files -----------------------------------------------------------------------------------

    def _begin_file(self, here: _Open, path: bytes, entry: File) -> None:
        present = self._present(here.fd, entry.name)
        reuse = present is not None and stat.S_ISREG(present.st_mode) and present.st_nlink == 1
        if present is not None and not reuse:  # other names of it must not see what is written
            fs.remove_entry(here.fd, entry.name)
        flags = fs.WRITE if reuse else fs.CREATE
        fd = fs.open_file(here.fd, entry.name, flags)
        self._open.add(fd)
        if not reuse or present is None or present.st_size != entry.size:
            os.ftruncate(fd, entry.size)
        self._file, self._end = (entry, fd, path), 0

    def _blocks(self, run: Blocks) -> None:
        assert self._file is not None
        entry, fd, path = self._file
        parts = data_parts(run, entry.size)
        for first in range(0, len(run.hashes), JOB_BLOCKS):
            at, hashes = run.at + first, run.hashes[first : first + JOB_BLOCKS]
            end = min((at + len(hashes)) * BLOCK, entry.size)
            wanted = fs.clip(parts, at * BLOCK, end)
            if self._in_place:
                self._dig(fd, wanted, end)

            def job(
                at: int = at,
                hashes: tuple[bytes, ...] = hashes,
                wanted: list[tuple[int, int]] = wanted,
            ) -> int:
                try:
                    with naming("restore", path):
                        return self._write_blocks(fd, entry.size, at, hashes, wanted)
                except Damaged as damage:
                    raise Damaged(f"{shown(path)}: {damage}") from damage

            self._jobs.submit(job, self._count)

    def _dig(self, fd: int, parts: list[tuple[int, int]], end: int) -> None:
        """In place: make holes up to `end` wherever the snapshot has them and the file has data."""
        for offset, length in [*parts, (end, 0)]:
            if offset > self._end:
                fs.punch_where_data(fd, self._end, offset)
            self._end = offset + length

    def _write_blocks(
        self,
        fd: int,
        size: int,
        at: int,
        hashes: tuple[bytes, ...],
        parts: list[tuple[int, int]],
    ) -> int:
        written = 0
        for index, digest in enumerate(hashes, start=at):
            start, length = index * BLOCK, block_length(index, size)
            if self._in_place and self._is_there(fd, start, length, digest):
                continue
            data = memoryview(self._source.get(digest, length))
            for offset, count in fs.clip(parts, start, start + length):
                fs.write_all(fd, data[offset - start : offset - start + count], offset)
                written += count
        return written

    def _is_there(self, fd: int, start: int, length: int, digest: bytes) -> bool:
        buffer: bytearray | None = getattr(self._buffers, "buffer", None)
        if buffer is None:
            buffer = self._buffers.buffer = bytearray(BLOCK)
        view = memoryview(buffer)[:length]
        return fs.read_into(fd, view, start) == length and blake3(view).digest() == digest

    def _count(self, written: int) -> None:
        self.written += written

    def _finish_file(self) -> None:
        if self._file is None:
            return
        entry, fd, path = self._file
        self._file = None
        if self._in_place:
            self._dig(fd, [], entry.size)

        def finish() -> None:
            with naming("restore", path):
                fs.apply_meta(fd, entry.meta)
                self._twins.add(path, fd)
                self._open.remove(fd)
                os.close(fd)
            self._meter.add(entry.size)

        self._jobs.then(finish)
