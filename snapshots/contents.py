"""The content of files that are being restored: blocks from the store, proved, then written."""

from __future__ import annotations

import mmap
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from blake3 import blake3

from snapshots import fs
from snapshots.blocks import BlockSource, Place
from snapshots.copies import whole_copies
from snapshots.errors import Damaged, named, naming, shown
from snapshots.pace import EACH_FILE, Pace
from snapshots.plan import Run
from snapshots.tree import BLOCK

READ = 32  # blocks of a file that are read and compared together: half as many take 1.3 x as long
LARGE = 1 << 20  # bytes
TOGETHER = 4 << 20  # bytes that go past the page cache with one call

Content = bytes | memoryview | Damaged


@dataclass(frozen=True, slots=True)
class Piece:
    """The bytes [start, end) of an open file: these runs of data, and holes for the rest.

    `kept`: the file has content already; what equals it is not written again. `past_cache`: a
    descriptor of the file that goes past the page cache, if there is one.
    """

    fd: int
    path: bytes
    size: int  # of the whole file
    start: int
    end: int
    runs: Sequence[Run]
    kept: bool
    past_cache: int | None = None

    def blocks(self) -> Iterator[tuple[int, bytes, Place]]:
        """Number, hash and place of each block."""
        for run in self.runs:
            for number, (digest, place) in enumerate(run.blocks, start=run.at):
                yield number, digest, place


class Contents:
    """Fills pieces of files. Used by several threads at once."""

    def __init__(self, source: BlockSource, pace: Pace | None = None) -> None:
        self._source, self._pace = source, pace
        self._local = threading.local()

    def fill(self, pieces: Sequence[Piece]) -> int:
        """Give each piece its content; returns the bytes written. Raises Damaged."""
        missing = {id(piece): self._compared(piece) for piece in pieces if piece.kept}
        content = self._fetched(
            (digest, place)
            for piece in pieces
            for number, digest, place in piece.blocks()
            if not piece.kept or number in missing[id(piece)]
        )
        total = 0
        for piece in pieces:
            try:
                differs = missing.get(id(piece))
                written = sum(self._write(piece, run, content, differs) for run in piece.runs)
                if written >= LARGE and piece.past_cache is None:  # small ones: the sync
                    fs.begin_writing(piece.fd, piece.start, piece.end - piece.start)
            except OSError as error:
                raise named(error, "restore", piece.path) from error
            total += written
        if self._pace:
            self._pace.spend(total + len(pieces) * EACH_FILE)
        return total

    def _compared(self, piece: Piece) -> set[int]:
        """Make holes where they belong; returns the numbers of the blocks that differ."""
        with naming("restore", piece.path):
            at = piece.start
            for offset, length in (part for run in piece.runs for part in run.parts):
                if offset > at:
                    fs.punch_where_data(piece.fd, at, offset)
                at = offset + length
            if piece.end > at:
                fs.punch_where_data(piece.fd, at, piece.end)
            return set(self._differing(piece))

    def _differing(self, piece: Piece) -> Iterator[int]:
        for run in piece.runs:
            for first in range(0, len(run.blocks), READ):
                blocks = run.blocks[first : first + READ]
                start = (run.at + first) * BLOCK
                view = self._buffer()[: min(len(blocks) * BLOCK, piece.size - start)]
                view = view[: fs.read_through(piece.fd, view, start)]
                for at, (digest, _) in enumerate(blocks):
                    if blake3(view[at * BLOCK : (at + 1) * BLOCK]).digest() != digest:
                        yield run.at + first + at

    def _buffer(self) -> memoryview:
        buffer: memoryview | None = getattr(self._local, "buffer", None)
        if buffer is None:
            buffer = self._local.buffer = memoryview(bytearray(READ * BLOCK))
        return buffer

    def _fetched(self, blocks: Iterable[tuple[bytes, Place]]) -> dict[bytes, Content]:
        """These blocks, each read once and proved, or why one cannot be had from any pack."""
        content: dict[bytes, Content] = dict(self._source.get_many(dict(blocks)))
        bad = {digest for digest, data in content.items() if isinstance(data, Damaged)}
        if bad:
            index = self._source.index
            content.update(whole_copies(index.folder, index.cipher, bad))
        return content

    def _write(
        self, piece: Piece, run: Run, content: Mapping[bytes, Content], missing: set[int] | None
    ) -> int:
        """Write the data of a run, or of its `missing` blocks, neighbours together."""
        written = 0
        for offset, length in run.parts:
            buffers: list[bytes | memoryview] = []
            begin = at = offset
            while at < offset + length:
                number = at // BLOCK
                end = min((number + 1) * BLOCK, offset + length)
                if missing is None or number in missing:
                    data = content[run.blocks[number - run.at][0]]
                    if isinstance(data, Damaged):
                        raise Damaged(f"{shown(piece.path)}: {data}")
                    if end - at != len(data):
                        data = memoryview(data)[at - number * BLOCK : end - number * BLOCK]
                    buffers.append(data)
                else:
                    written += self._put(piece, buffers, begin)
                    begin, buffers = end, []
                at = end
            written += self._put(piece, buffers, begin)
        return written

    def _put(self, piece: Piece, buffers: Sequence[bytes | memoryview], offset: int) -> int:
        """Write neighbouring buffers; returns how many bytes."""
        length = sum(map(len, buffers))
        if piece.past_cache is None or offset % fs.ALIGNED or length % fs.ALIGNED:
            return fs.write_buffers(piece.fd, buffers, offset)
        memory, filled = self._aligned(), 0
        for data in buffers:
            if filled + len(data) > len(memory):
                fs.write_all(piece.past_cache, memory[:filled], offset)
                offset, filled = offset + filled, 0
            memory[filled : filled + len(data)] = data
            filled += len(data)
        fs.write_all(piece.past_cache, memory[:filled], offset)
        return length

    def _aligned(self) -> memoryview:
        memory: memoryview | None = getattr(self._local, "aligned", None)
        if memory is None:
            pages = mmap.mmap(-1, TOGETHER)
            with suppress(OSError):  # of large pages the disk gets few pieces instead of many
                pages.madvise(mmap.MADV_HUGEPAGE)
            memory = self._local.aligned = memoryview(pages)
        return memory
