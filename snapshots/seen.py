"""What a pass of a fork saw of each file, in the order of the walk, kept in a file.

Read and written as streams, so that memory does not grow with the number of files. A file that is
damaged, cut off, or of another pair of folders counts as empty: then everything is compared.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from blake3 import blake3

from snapshots import fs

MAGIC = b"LSSEEN01"
_ENTRY = struct.Struct("<H4q")  # length of the path, then inode, size, mtime, ctime; path follows
_HASH = 32


class SeenWriter:
    """Collects one pass; `close` puts it in the place of the last one, durably."""

    def __init__(self, path: Path, identity: bytes) -> None:
        self._path = path
        self._temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        fd = os.open(self._temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        self._file = open(fd, "wb")  # noqa: SIM115
        self._hash = blake3()
        self._write(MAGIC + identity)

    def add(self, path: bytes, key: fs.Key) -> None:
        """Remember a file whose content was copied after it was seen like this."""
        numbers = (key.inode, key.size, key.mtime_ns, key.ctime_ns)
        self._write(_ENTRY.pack(len(path), *numbers) + path)

    def close(self) -> None:
        self._file.write(self._hash.digest())
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        os.replace(self._temporary, self._path)
        fs.sync_folder(self._path.parent)

    def discard(self) -> None:
        """Leave the last one in place; harmless after `close`."""
        with suppress(OSError):
            self._file.close()
        self._temporary.unlink(missing_ok=True)

    def _write(self, data: bytes) -> None:
        self._hash.update(data)
        self._file.write(data)


class SeenFiles:
    """What the last pass saw, asked for in the order of the walk. `path` None: nothing."""

    def __init__(self, path: Path | None, identity: bytes) -> None:
        self._entries = _entries(path, identity) if path else iter(())
        self._next = next(self._entries, None)

    def find(self, path: bytes) -> fs.Key | None:
        """How the file was when its content was copied. Paths come in the order of the walk."""
        parts = path.split(b"/")
        while self._next and self._next[0] < parts:
            self._next = next(self._entries, None)
        return self._next[1] if self._next and self._next[0] == parts else None


def _entries(path: Path, identity: bytes) -> Iterator[tuple[list[bytes], fs.Key]]:
    header = MAGIC + identity
    try:
        file = open(path, "rb")  # noqa: SIM115
    except FileNotFoundError:
        return
    with file:
        end = os.fstat(file.fileno()).st_size - _HASH
        if not _is_whole(path, end) or file.read(len(header)) != header:
            return
        while file.tell() < end:
            length, *numbers = _ENTRY.unpack(file.read(_ENTRY.size))
            yield file.read(length).split(b"/"), fs.Key(*numbers)


def _is_whole(path: Path, end: int) -> bool:
    digest = blake3()
    with open(path, "rb") as file:
        left = end
        while left > 0 and (data := file.read(min(left, 1 << 20))):
            digest.update(data)
            left -= len(data)
        return end > 0 and left == 0 and file.read() == digest.digest()
