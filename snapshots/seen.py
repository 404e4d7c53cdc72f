"""What a pass saw of each file, and what its copy looked like afterwards, kept in a file.

Read and written as a stream of groups of neighbouring files of one folder, so that memory does not
grow with the number of files and most of the work is done by the hundred. A file that is damaged,
cut off, or has another header counts as empty: then everything is compared, or read again.
"""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, NamedTuple

from blake3 import blake3

from snapshots import fs

MAGIC = b"LSSEEN02"
HEADER = len(MAGIC) + 32
_GROUP = struct.Struct("<3I")  # files, bytes of the folder's path, bytes of the names
_NUMBERS = 6  # of each file: its key, then the copy's inode and ctime
_MOST = 4096  # files in one group
_TRAILER = struct.Struct("<q")  # when it was closed
_HASH = 32


class Twin(NamedTuple):
    """By what a copy is recognised, beside the size and mtime that it has from its source."""

    inode: int
    ctime_ns: int


# A file as it was when its content was copied, and the copy as it was left: what is in a Key and
# in a Twin. Plain, for there may be a million of them.
Seen = tuple[tuple[int, int, int, int], tuple[int, int]]


class SeenWriter:
    """Collects one pass; `close` puts it in the place of the last one.

    `subject`: 32 bytes that say what it speaks of.
    """

    def __init__(self, path: Path, subject: bytes) -> None:
        self._path = path
        self._temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        fd = os.open(self._temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        self._file = open(fd, "wb")  # noqa: SIM115
        self._hash = blake3()
        self._folder = b""
        self._names: list[bytes] = []
        self._numbers: list[int] = []
        self._write(MAGIC + subject)

    def add(self, folder: bytes, name: bytes, key: fs.Key, twin: Twin) -> None:
        """Remember a file whose content was copied after it was seen like this.

        Files come in the order of the walk.
        """
        self.add_all(folder, [(name, (key, twin))])

    def add_all(self, folder: bytes, files: list[tuple[bytes, Seen]]) -> None:
        """Remember files of one folder, most of them as they were remembered before."""
        if folder != self._folder or len(self._names) >= _MOST:
            self._end_group()
            self._folder = folder
        self._names += [name for name, _ in files]
        for _, (key, twin) in files:
            self._numbers += key
            self._numbers += twin

    def close(self, *, durable: bool = True) -> None:
        """Put it in place. Without `durable` a power cut may leave it damaged, which is noticed."""
        self._end_group()
        self._write(_TRAILER.pack(time.time_ns()))
        self._file.write(self._hash.digest())
        self._file.flush()
        if durable:
            os.fsync(self._file.fileno())
        self._file.close()
        os.replace(self._temporary, self._path)
        if durable:
            fs.sync_folder(self._path.parent)

    def discard(self) -> None:
        """Leave the last one in place; harmless after `close`."""
        with suppress(OSError):
            self._file.close()
        self._temporary.unlink(missing_ok=True)

    def _end_group(self) -> None:
        if not self._names:
            return
        names = b"\0".join(self._names)
        self._write(
            _GROUP.pack(len(self._names), len(self._folder), len(names))
            + self._folder
            + names
            + struct.pack(f"<{len(self._numbers)}q", *self._numbers)
        )
        self._names, self._numbers = [], []

    def _write(self, data: bytes) -> None:
        self._hash.update(data)
        self._file.write(data)


class SeenFiles:
    """What the last pass saw, asked for in the order of the walk. `path` None: nothing.

    `subject` None: whatever it speaks of. `closed_ns`: when it was closed; 0: there is none.
    """

    def __init__(self, path: Path | None, subject: bytes | None = None) -> None:
        self.subject, self.closed_ns, groups = _open(path, subject) if path else _NOTHING
        self._groups = groups
        self._folder = self._last = b""
        self._files: dict[bytes, Seen] = {}
        self._more = True
        self._advance()

    def find(self, folder: bytes, name: bytes) -> Seen | None:
        """What is remembered of a file. Files come in the order of the walk."""
        if folder != self._folder or name > self._last:
            wanted = _parts(folder, name)
            while self._more and _parts(self._folder, self._last) < wanted:
                self._advance()
        return self._files.get(name) if folder == self._folder else None

    def _advance(self) -> None:
        group = next(self._groups, None)
        if group is None:
            self._more, self._files = False, {}
            return
        self._folder, names, numbers = group
        self._last = names[-1]
        keys = zip(*(numbers[n::_NUMBERS] for n in range(4)), strict=True)
        twins = zip(*(numbers[n::_NUMBERS] for n in (4, 5)), strict=True)
        self._files = dict(zip(names, zip(keys, twins, strict=True), strict=True))


_Group = tuple[bytes, list[bytes], tuple[int, ...]]
_NOTHING: tuple[bytes, int, Iterator[_Group]] = b"", 0, iter(())


def _parts(folder: bytes, name: bytes) -> list[bytes]:
    return [*folder.split(b"/"), name] if folder else [name]


def _open(path: Path, subject: bytes | None) -> tuple[bytes, int, Iterator[_Group]]:
    """Its subject, when it was closed, its groups; _NOTHING unless it is whole and speaks of it."""
    try:
        file = open(path, "rb")  # noqa: SIM115
    except FileNotFoundError:
        return _NOTHING
    end = os.fstat(file.fileno()).st_size - _HASH - _TRAILER.size
    if end >= HEADER and (closed := _closing_time(path, end)):
        header = file.read(HEADER)
        found = header[len(MAGIC) :]
        if header.startswith(MAGIC) and subject in (None, found):
            return found, closed, _groups(file, end)
    file.close()
    return _NOTHING


def _groups(file: BinaryIO, end: int) -> Iterator[_Group]:
    """Up to the first that is not well formed."""
    with file, suppress(struct.error):
        while file.tell() < end:
            count, folder_length, names_length = _GROUP.unpack(file.read(_GROUP.size))
            size = count * _NUMBERS
            # Sizes are not trusted: they would be allocated before the first byte.
            if folder_length + names_length + size * 8 > end - file.tell():
                return
            folder, names = file.read(folder_length), file.read(names_length).split(b"\0")
            if len(names) != count:
                return
            numbers = struct.unpack(f"<{size}q", file.read(size * 8))
            yield folder, names, numbers


def _closing_time(path: Path, end: int) -> int | None:
    """None unless the hash at the end is that of all before it."""
    digest = blake3()
    with open(path, "rb") as file:
        left = end
        while left > 0 and (data := file.read(min(left, 1 << 20))):
            digest.update(data)
            left -= len(data)
        trailer = file.read(_TRAILER.size)
        digest.update(trailer)
        if file.read() != digest.digest():
            return None
    closed: int = _TRAILER.unpack(trailer)[0]
    return closed
