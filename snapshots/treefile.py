"""The file of a tree: lines inside one zstd frame, with the hash of the frame before it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import zstandard
from blake3 import blake3

from snapshots.cipher import PLAIN, Cipher
from snapshots.errors import Damaged

HASH = 32  # bytes of the frame's own hash
CHUNK = 1 << 18  # bytes of lines that are hashed and compressed at once


class TreeLines:
    """Parts of the lines of a tree, taken in order without looking into them. Raises Damaged.

    The hash of the frame is checked at once; that of the lines, when all was taken, by `finish`.
    """

    def __init__(self, path: Path, root: str, cipher: Cipher = PLAIN) -> None:
        self._root, self._hash = root, blake3()
        self._chunks = chunks(path, root, self._hash, cipher)
        self._chunk, self._start = b"", 0  # the bytes at hand, and where they lie
        self._next()

    def take(self, at: int, length: int) -> Iterator[bytes]:
        """The `length` bytes at `at`, which no earlier one may lie behind, in whole lines."""
        end, rest = at + length, b""
        while at < end:
            part = self._part(at, end)
            at += len(part)
            cut = len(part) if at == end else part.rfind(b"\n") + 1
            if cut:
                yield rest + part[:cut]
            rest = part[cut:] if cut else rest + part

    def at_once(self, at: int, length: int) -> bytes:
        """As `take`, in one piece."""
        start = at - self._start
        if start >= 0 and start + length <= len(self._chunk):
            return self._chunk[start : start + length]
        return b"".join(self.take(at, length))

    def _part(self, at: int, end: int) -> bytes:
        while at >= self._start + len(self._chunk):
            self._next()
        if at < self._start:
            raise Damaged(f"tree {self._root[:12]} was asked for lines out of order")
        return self._chunk[at - self._start : end - self._start]

    def _next(self) -> None:
        self._start += len(self._chunk)
        try:
            self._chunk = next(self._chunks)
        except StopIteration:
            raise Damaged(f"tree {self._root[:12]} is shorter than it should be") from None

    def finish(self) -> None:
        for _ in self._chunks:
            pass
        if self._hash.hexdigest() != self._root:
            raise Damaged(f"tree {self._root[:12]} was altered: its content has another hash")


def check_hash(path: Path, root: str, cipher: Cipher = PLAIN) -> None:
    """Damaged unless the tree's bytes are those that its root names."""
    TreeLines(path, root, cipher).finish()


def chunks(path: Path, root: str, digest: blake3, cipher: Cipher) -> Iterator[bytes]:
    """What is in the frame, whose own hash is checked first; `digest` is of all that was taken."""
    try:
        frame = hash_of_frame(path)
        with open(path, "rb") as file:
            if file.read(HASH) != frame:
                raise Damaged(f"tree {root[:12]} was altered or is cut off")
        with (
            cipher.reader(path, HASH) as content,
            zstandard.ZstdDecompressor(max_window_size=1 << 27).stream_reader(content) as stream,
        ):
            while chunk := stream.read(CHUNK):
                digest.update(chunk)
                yield chunk
    except FileNotFoundError as error:
        raise Damaged(f"tree {root[:12]} is missing from the store") from error
    except (OSError, zstandard.ZstdError) as error:
        raise Damaged(f"tree {root[:12]} cannot be read: {error}") from error


def hash_of_frame(path: Path) -> bytes:
    digest = blake3()
    with open(path, "rb") as file:
        file.seek(HASH)
        while data := file.read(1 << 20):
            digest.update(data)
    return digest.digest()
