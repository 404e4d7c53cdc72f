"""Files are read into the store: each in the order stat, write out, read, look again.

In that order later times prove later writes, those through mmap as well: what is dirty is written
out before it is read, and the next write to it changes the file's times.
"""

from __future__ import annotations

import errno
import os
import stat
import threading
import time
from collections import deque
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from snapshots import fs
from snapshots.batch import Batch
from snapshots.blocks import BlockSink
from snapshots.draft import Piece, Seen, piece_of
from snapshots.errors import named, naming
from snapshots.pace import Pace
from snapshots.streams import GROUP, StreamWriter
from snapshots.tree import BLOCK, Blocks, File
from snapshots.treewriter import encode

JOB_BLOCKS = 64  # blocks read, hashed and packed by one job: 4 MiB
SMALL = 1 << 20  # bytes; files up to this are read by the dozen

Parts = tuple[tuple[int, int], ...] | None


class FileReader:
    """Puts the content of files into `sink` and their pieces of the tree into `out`.

    `changed`: path and what happened, of files that did not keep still; not in order.
    """

    def __init__(self, sink: BlockSink, out: Batch, pace: Pace | None = None) -> None:
        self._sink, self._out, self._pace = sink, out, pace
        self._open: set[int] = set()
        self._buffers = threading.local()
        self._device = -1, False  # the last one met, and whether ranges can be written out there
        self.changed: deque[tuple[bytes, str]] = deque()

    def close(self) -> None:
        """After an error, when no thread works any more."""
        while self._open:
            os.close(self._open.pop())

    # -- small ones, by the dozen ----------------------------------------------------------------

    def small(self, dir_fd: int, folder: bytes, name: bytes, size: int) -> None:
        own = self._out.folder(dir_fd)
        self._out.make(partial(self._small, own, folder, name), 1 + (size >> 14))

    def _small(self, dir_fd: int, folder: bytes, name: bytes) -> Piece:
        path = fs.below(folder, name)
        try:
            fd = _opened(dir_fd, name)
            try:
                return self._whole(fd, folder, name, path)
            finally:
                os.close(fd)
        except FileNotFoundError:
            self.changed.append((path, "vanished while it was captured"))
            return Piece(b"")
        except OSError as error:
            raise named(error, "capture", path) from error

    def _whole(self, fd: int, folder: bytes, name: bytes, path: bytes) -> Piece:
        st, now = self._settle(fd)
        size = st.st_size
        lines = encode(File(name, fs.meta_of(st, fd), size))
        for first in range(0, -(-size // BLOCK), JOB_BLOCKS):
            count = min(JOB_BLOCKS, -(-size // BLOCK) - first)
            lines += self._read(fd, path, size, first, count, None).lines
        key = self._look_again(fd, path, st, now)
        return Piece(lines, 1, size, Seen(folder, name, key))

    # -- any size --------------------------------------------------------------------------------

    def large(self, dir_fd: int, folder: bytes, name: bytes, link: int | None) -> None:
        """Raises FileNotFoundError if it is gone."""
        path = fs.below(folder, name)
        fd = _opened(dir_fd, name)
        self._open.add(fd)
        st, now = self._settle(fd)
        self._out.ready(piece_of(File(name, fs.meta_of(st, fd), st.st_size, link)))
        self._content(fd, path, st)

        def finish() -> Piece:
            key = self._look_again(fd, path, st, now)
            return self._end(fd, Seen(folder, name, key, link is not None))

        self._out.then(finish)

    def elsewhere(
        self, content: Path, folder: bytes, name: bytes, meta: fs.Meta, link: int | None
    ) -> None:
        """A file with this metadata, and the content of another one."""
        fd = os.open(content, os.O_RDONLY | os.O_CLOEXEC)
        self._open.add(fd)
        st = os.fstat(fd)
        self._out.ready(piece_of(File(name, meta, st.st_size, link)))
        self._content(fd, fs.below(folder, name), st)
        self._out.then(lambda: self._end(fd, Seen(folder, name, None, link is not None)))

    def added(self, folder: bytes, name: bytes, meta: fs.Meta, content: bytes) -> None:
        """A file that is nowhere but in the snapshot."""
        self._out.ready(piece_of(File(name, meta, len(content))))
        for first, count, _ in _runs(iter([(0, len(content))]), len(content)):
            view = memoryview(content)[first * BLOCK : (first + count) * BLOCK]
            self._out.ready(piece_of(self._blocks(view, first, None), len(content)))
        self._out.ready(Piece(b"", ends=Seen(folder, name, None)))

    def stream(
        self, dir_fd: int, folder: bytes, name: bytes, link: int | None, writer: StreamWriter
    ) -> None:
        """A file in groups, each against older content; on the caller's thread."""
        path = fs.below(folder, name)
        fd = _opened(dir_fd, name)
        self._open.add(fd)
        st, now = self._settle(fd)
        with naming("capture", path):
            size = st.st_size
            self._out.ready(piece_of(File(name, fs.meta_of(st, fd), size, link)))
            buffer = memoryview(bytearray(min(size, GROUP * BLOCK)))
            for start in range(0, size, GROUP * BLOCK):
                data = buffer[: min(len(buffer), size - start)]
                done = fs.read_into(fd, data, start)
                data[done:] = bytes(len(data) - done)
                run = Blocks(start // BLOCK, tuple(writer.put(start // BLOCK, data)))
                self._out.ready(piece_of(run, size))
            key = self._look_again(fd, path, st, now)
            self._out.ready(self._end(fd, Seen(folder, name, key, link is not None)))

    def opened(self, dir_fd: int, name: bytes) -> int:
        """A descriptor that `run` may use and `end` closes."""
        fd = _opened(dir_fd, name)
        self._open.add(fd)
        return fd

    def run(self, fd: int, path: bytes, size: int, first: int, count: int, parts: Parts) -> None:
        """Read `count` blocks from `first`."""
        self._out.alone(partial(self._read, fd, path, size, first, count, parts))

    def end(self, fd: int, seen: Seen) -> None:
        """Close a file when all before was written."""
        self._out.then(lambda: self._end(fd, seen))

    def _end(self, fd: int, seen: Seen) -> Piece:
        self._open.remove(fd)
        os.close(fd)
        return Piece(b"", ends=seen)

    def _content(self, fd: int, path: bytes, st: os.stat_result) -> None:
        sparse = st.st_blocks * 512 < st.st_size
        parts = fs.segments(fd, st.st_size) if sparse else iter([(0, st.st_size)])
        for first, count, inside in _runs(parts, st.st_size):
            self.run(fd, path, st.st_size, first, count, inside)

    # -- both ------------------------------------------------------------------------------------

    def _settle(self, fd: int) -> tuple[os.stat_result, int]:
        """Raises FileNotFoundError if it is no file any more."""
        st, now = os.fstat(fd), time.time_ns()
        if not stat.S_ISREG(st.st_mode):
            raise _gone()
        if st.st_dev != self._device[0]:
            self._device = st.st_dev, fs.writes_out_ranges(fd)
        fs.write_out(fd, 0, 0, ranges=self._device[1])
        return st, now

    def _look_again(self, fd: int, path: bytes, st: os.stat_result, now: int) -> fs.Key | None:
        key = fs.Key.of(st)
        if fs.Key.of(os.fstat(fd)) != key:
            self.changed.append((path, "changed while it was captured"))
            return None
        return key if key.settled(now) else None

    def _read(self, fd: int, path: bytes, size: int, first: int, count: int, parts: Parts) -> Piece:
        start = first * BLOCK
        buffer = self._buffer()[: min(count * BLOCK, size - start)]
        try:
            done = fs.read_through(fd, buffer, start)
            if done < len(buffer):  # it shrank, which is noticed when it is looked at again
                buffer[done:] = bytes(len(buffer) - done)
            blocks = self._blocks(buffer, first, parts)
        except OSError as error:
            raise named(error, "capture", path) from error
        if self._pace:
            self._pace.spend(len(buffer))
        return piece_of(blocks, size) if parts else Piece(encode(blocks), 0, len(buffer))

    def _blocks(self, data: memoryview, first: int, parts: Parts) -> Blocks:
        put = self._sink.put
        hashes = tuple(put(data[at : at + BLOCK]) for at in range(0, len(data), BLOCK))
        return Blocks(first, hashes, parts)

    def _buffer(self) -> memoryview:
        buffer: memoryview | None = getattr(self._buffers, "buffer", None)
        if buffer is None:
            buffer = self._buffers.buffer = memoryview(bytearray(JOB_BLOCKS * BLOCK))
        return buffer


def _opened(dir_fd: int, name: bytes) -> int:
    """Raises FileNotFoundError also where something else has the name of the file by now."""
    try:
        return fs.open_file(dir_fd, name, fs.READ)
    except OSError as error:
        if error.errno in fs.EXCHANGED:
            raise _gone() from error
        raise


def _gone() -> FileNotFoundError:
    return FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))


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
