"""Unchanged files are taken over from the parent snapshot, and a random sample of them proved."""

from __future__ import annotations

import json
import random
from typing import Any

from blake3 import blake3

from snapshots import fs
from snapshots.batch import Batch
from snapshots.blocks import BlockIndex
from snapshots.draft import Piece, Seen
from snapshots.errors import Damaged, shown
from snapshots.hints import Hint
from snapshots.known import KnownFiles
from snapshots.reading import FileReader
from snapshots.tree import BLOCK, HASH, Blocks, block_length, data_parts

SAMPLE = 0.01  # share of the blocks of reused files that is read and compared all the same
AT_ONCE = 1 << 16  # bytes of lines; a file with more is taken over in several pieces


class ReuseDisproved(Exception):
    """What should be unchanged is not what the parent snapshot says."""


class TakeOver:
    """Puts the pieces of unchanged files into `out`. Raises ReuseDisproved."""

    def __init__(
        self, known: KnownFiles, index: BlockIndex, reader: FileReader, out: Batch
    ) -> None:
        self._known, self._index, self._reader, self._out = known, index, reader, out

    def file(self, dir_fd: int, seen: Seen, hint: Hint, link: int | None) -> None:
        """The file that was `seen` unchanged, to be known by the number `link` if it has more
        names. Raises FileNotFoundError if it is gone."""
        try:
            prove = random.random() < SAMPLE * (hint.data // BLOCK + 1)
            plain = link is None and not hint.linked and hint.length <= AT_ONCE
            if plain and self._known.whole and not prove:
                lines = self._known.lines_at_once(hint)
                self._out.ready(Piece(lines, 1, hint.data, seen))
            else:
                self._line_by_line(dir_fd, seen, hint, link, prove)
        except (Damaged, ValueError, LookupError, TypeError) as error:
            raise ReuseDisproved(f"the tree of the parent snapshot: {error}") from error

    def blocks(self, hint: Hint) -> list[bytes]:
        """The hashes of the blocks that a changed file had."""
        try:
            return self._known.hashes(hint)
        except Damaged as error:
            raise ReuseDisproved(str(error)) from error

    def finish(self) -> None:
        """When the last file was taken over."""
        try:
            self._known.finish()
        except Damaged as error:
            raise ReuseDisproved(str(error)) from error

    def _line_by_line(
        self, dir_fd: int, seen: Seen, hint: Hint, link: int | None, prove: bool
    ) -> None:
        """With a look at each run: is it there, is it true? What is missing is read again."""
        path = fs.below(seen.folder, seen.name)
        fd = self._reader.opened(dir_fd, seen.name)
        first, blocks = True, hint.data // BLOCK + 1
        for lines in self._known.lines(hint):
            for line in lines.splitlines(keepends=True):
                if first:
                    self._out.ready(Piece(_renumbered(line, link), 1))
                    first = False
                    continue
                run = _run(json.loads(line))
                if self._known.whole or all(self._index.has(digest) for digest in run.hashes):
                    if prove and random.random() < max(SAMPLE, 1 / blocks) * len(run.hashes):
                        self._prove_one(fd, path, hint.size, run)
                    data = sum(length for _, length in data_parts(run, hint.size))
                    self._out.ready(Piece(line, 0, data))
                else:
                    self._reader.run(fd, path, hint.size, run.at, len(run.hashes), run.parts)
        self._reader.end(fd, seen)

    def _prove_one(self, fd: int, path: bytes, size: int, run: Blocks) -> None:
        at = random.randrange(len(run.hashes))
        data = bytearray(block_length(run.at + at, size))
        fs.read_through(fd, memoryview(data), (run.at + at) * BLOCK)
        if blake3(data).digest() != run.hashes[at]:
            raise ReuseDisproved(f"{shown(path)} had changed without its times changing")


def _renumbered(line: bytes, link: int | None) -> bytes:
    """The line of a file, with the number that it has in the new tree."""
    value: dict[str, Any] = json.loads(line)
    size = value.pop("s")
    value.pop("id", None)
    if link is not None:
        value["id"] = link
    return json.dumps(value | {"s": size}, separators=(",", ":")).encode() + b"\n"


def _run(value: dict[str, Any]) -> Blocks:
    packed = bytes.fromhex(value["h"])
    hashes = tuple(packed[at : at + HASH] for at in range(0, len(packed), HASH))
    numbers = value.get("s")
    parts = tuple(zip(numbers[::2], numbers[1::2], strict=True)) if numbers else None
    return Blocks(value["at"], hashes, parts)
