"""Beside a snapshot: by what each of its files is recognised, and where its lines are in the tree.

With it the next capture takes unchanged files over by the hundred, without reading them or their
part of the tree. Nothing depends on it: lost, damaged, or not of this tree, everything is read.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, NamedTuple, cast

import zstandard
from blake3 import blake3

from snapshots import fs
from snapshots.cipher import PLAIN, Cipher, Writer
from snapshots.errors import Damaged

VERSION = 2
_GROUP = struct.Struct("<3I")  # files, bytes of the folder's path, bytes of the names
_MOST = 1024  # files in one group
_MAX_NAME, _MAX_PATH = 256, 256 * (fs.MAX_DEPTH + 1)  # bytes, with what comes between
_END = struct.Struct("<I32s")  # length of the summary before it, hash of all before this hash
_MAX_SUMMARY = 256 << 20


class Hint(NamedTuple):
    """What is known of a file. `inode` 0: it had changed just before it was captured.

    Its lines are `length` bytes at `at` of the tree's lines, with `data` bytes of content that is
    no hole. `linked` is 1 when its line has a number, for its other names.
    """

    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int
    at: int
    length: int
    data: int
    linked: int

    @property
    def key(self) -> fs.Key | None:
        return fs.Key(*self[:4]) if self.inode else None


UNKNOWN = (0, 0, 0, 0)


class HintsWriter:
    """Hints in the order of the tree; `close` says of which tree."""

    def __init__(self, path: Path, cipher: Cipher = PLAIN) -> None:
        self._path = path
        self._file = open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")  # noqa: SIM115
        self._out = _Hashing(cipher.writer(self._file))
        self._stream = zstandard.ZstdCompressor(level=1).stream_writer(
            cast("BinaryIO", self._out), closefd=False
        )
        self._folder = b""
        self._names: list[bytes] = []
        self._numbers: list[int] = []

    def add(self, folder: bytes, name: bytes, hint: tuple[int, ...]) -> None:
        if folder != self._folder or len(self._names) >= _MOST:
            self._end_group()
            self._folder = folder
        self._names.append(name)
        self._numbers += hint

    def close(self, root: str, packs: list[str]) -> None:
        """`packs`: all of which the tree may need blocks."""
        self._end_group()
        self._stream.write(_GROUP.pack(0, 0, 0))
        self._stream.close()  # type: ignore[no-untyped-call]
        summary = json.dumps({"hints": VERSION, "root": root, "packs": packs}).encode()
        self._out.write(summary + struct.pack("<I", len(summary)))
        self._out.write(self._out.hash.digest())
        self._out.finish()
        self._file.close()

    def discard(self) -> None:
        with suppress(OSError, zstandard.ZstdError):
            self._stream.close()  # type: ignore[no-untyped-call]
        with suppress(OSError):
            self._file.close()
        self._path.unlink(missing_ok=True)

    def _end_group(self) -> None:
        if not self._names:
            return
        names = b"\0".join(self._names)
        self._stream.write(
            _GROUP.pack(len(self._names), len(self._folder), len(names))
            + self._folder
            + names
            + struct.pack(f"<{len(self._numbers)}q", *self._numbers)
        )
        self._names, self._numbers = [], []


class _Hashing:
    """Passes on what is written, and has the hash of all of it."""

    def __init__(self, out: Writer) -> None:
        self._out, self.hash = out, blake3()
        self.finish = out.finish

    def write(self, data: bytes, /) -> int:
        self.hash.update(data)
        return self._out.write(data)


class Hints:
    """What `HintsWriter` wrote. Raises Damaged if it is not sound."""

    def __init__(self, path: Path, cipher: Cipher = PLAIN) -> None:
        self._path, self._cipher = path, cipher
        try:
            with cipher.reader(path) as file:
                end = file.seek(0, os.SEEK_END)
                if end < _END.size:
                    raise Damaged(f"{path} is cut off")
                file.seek(end - _END.size)
                length, digest = _END.unpack(file.read(_END.size))
                if length > min(_MAX_SUMMARY, end - _END.size):
                    raise Damaged(f"{path} is cut off")
                file.seek(0)
                if _hash_of(file, end - 32) != digest:
                    raise Damaged(f"{path} was altered")
                file.seek(end - _END.size - length)
                summary = json.loads(file.read(length))
            if summary["hints"] != VERSION:
                raise Damaged(f"{path} is of an unknown version")
            self.root: str = summary["root"]
            self.packs: list[str] = summary["packs"]
        except (OSError, ValueError, LookupError, TypeError, struct.error) as error:
            raise Damaged(f"{path} cannot be read: {error}") from error

    def groups(self) -> Iterator[tuple[bytes, list[bytes], list[Hint]]]:
        """Folder, names and hints of neighbouring files. Raises Damaged."""
        try:
            with (
                self._cipher.reader(self._path) as file,
                zstandard.ZstdDecompressor(max_window_size=1 << 27).stream_reader(file) as stream,
            ):
                while any(head := _GROUP.unpack(_exactly(stream, _GROUP.size))):
                    yield self._group(stream, *head)
        except (OSError, struct.error, zstandard.ZstdError) as error:
            raise Damaged(f"{self._path} cannot be read: {error}") from error

    def _group(
        self, stream: zstandard.ZstdDecompressionReader, files: int, folder: int, names: int
    ) -> tuple[bytes, list[bytes], list[Hint]]:
        # Sizes are not trusted: they would be allocated before the first byte.
        if files > _MOST or folder > _MAX_PATH or names > _MOST * _MAX_NAME:
            raise Damaged(f"{self._path} has sizes that nothing has")
        width = len(Hint._fields)
        body = _exactly(stream, folder + names + 8 * width * files)
        numbers = struct.unpack_from(f"<{width * files}q", body, folder + names)
        found = body[folder : folder + names].split(b"\0")
        if len(found) != files:
            raise Damaged(f"{self._path} has not as many names as hints")
        hints = [Hint(*numbers[at : at + width]) for at in range(0, width * files, width)]
        return body[:folder], found, hints

    def __iter__(self) -> Iterator[Hint]:
        for _, _, hints in self.groups():
            yield from hints


def _exactly(stream: zstandard.ZstdDecompressionReader, count: int) -> bytes:
    parts = []
    while count and (part := stream.read(count)):
        parts.append(part)
        count -= len(part)
    return b"".join(parts)


def _hash_of(file: BinaryIO, count: int) -> bytes:
    digest = blake3()
    while count and (data := file.read(min(count, 1 << 20))):
        digest.update(data)
        count -= len(data)
    return digest.digest()
