"""Writing the tree of a snapshot: entries become lines, lines a file."""

from __future__ import annotations

import base64
import json
import os
from contextlib import suppress
from json.encoder import encode_basestring_ascii
from pathlib import Path
from typing import Any, BinaryIO, cast

import zstandard
from blake3 import blake3

from failpoints import failpoint
from snapshots import fs
from snapshots.cipher import PLAIN, Cipher
from snapshots.tree import (
    BLOCK,
    TREE_VERSION,
    Blocks,
    Dir,
    Entry,
    File,
    Hard,
    Symlink,
    Up,
)
from snapshots.treefile import CHUNK, HASH, check_hash, hash_of_frame


class TreeWriter:
    """Writes entries to `path`; `close` makes it durable and returns the root hash."""

    def __init__(self, path: Path, cipher: Cipher = PLAIN) -> None:
        self._path, self._cipher = path, cipher
        self._file = open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")  # noqa: SIM115
        self._file.write(bytes(HASH))  # the place of the frame's own hash
        self._out = cipher.writer(self._file)
        self._stream = zstandard.ZstdCompressor(level=1).stream_writer(
            cast("BinaryIO", self._out), closefd=False
        )
        self._hash = blake3()
        self._waiting: list[bytes] = []
        self._written = self._length = 0
        self.files = 0
        self.bytes = 0
        self.add(_line({"tree": TREE_VERSION, "block": BLOCK}))

    @property
    def at(self) -> int:
        """Where the next line begins, counted in bytes of lines."""
        return self._written + self._length

    def add(self, lines: bytes, entries: int = 0, data: int = 0) -> None:
        """Lines in which `entries` entries but directories begin, with `data` bytes of content."""
        self.files += entries
        self.bytes += data
        self._waiting.append(lines)
        self._length += len(lines)
        if self._length >= CHUNK:
            self._flush()

    def close(self) -> str:
        self.add(_line({"t": "e", "files": self.files, "bytes": self.bytes}))
        self._flush()
        self._stream.close()  # type: ignore[no-untyped-call]
        self._out.finish()
        self._file.flush()
        fs.write_all(self._file.fileno(), hash_of_frame(self._path), 0)
        failpoint("store.tree-fsync")
        os.fsync(self._file.fileno())
        os.posix_fadvise(self._file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        self._file.close()
        root: str = self._hash.hexdigest()
        check_hash(self._path, root, self._cipher)
        return root

    def discard(self) -> None:
        """Forget what was written; harmless after `close`."""
        with suppress(OSError, zstandard.ZstdError):  # a full disk must not hide the first error
            self._stream.close()  # type: ignore[no-untyped-call]
        with suppress(OSError):
            self._file.close()
        self._path.unlink(missing_ok=True)

    def _flush(self) -> None:
        lines = b"".join(self._waiting)
        self._written += len(lines)
        self._waiting, self._length = [], 0
        self._hash.update(lines)
        self._stream.write(lines)


def _line(value: dict[str, Any]) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode() + b"\n"


def encode(entry: Entry) -> bytes:
    """The line of an entry."""
    if isinstance(entry, Up):
        return b'{"t":"u"}\n'
    if isinstance(entry, Blocks):
        parts = ""
        if entry.parts is not None:
            numbers = (str(number) for part in entry.parts for number in part)
            parts = f',"s":[{",".join(numbers)}]'
        packed = b"".join(entry.hashes).hex()
        return f'{{"t":"b","at":{entry.at},"h":"{packed}"{parts}}}\n'.encode()
    name = _text(entry.name)
    if isinstance(entry, Hard):
        return f'{{"t":"h","n":{name},"of":{entry.of}}}\n'.encode()
    meta = entry.meta
    shared = f'"n":{name},"m":{meta.mode},"u":{meta.uid},"g":{meta.gid},"mt":{meta.mtime_ns}'
    if meta.xattrs:
        shared += f',"x":{_attributes(meta.xattrs)}'
    if isinstance(entry, Dir):
        return f'{{"t":"d",{shared}}}\n'.encode()
    if entry.link is not None:
        shared += f',"id":{entry.link}'
    if isinstance(entry, File):
        return f'{{"t":"f",{shared},"s":{entry.size}}}\n'.encode()
    if isinstance(entry, Symlink):
        return f'{{"t":"l",{shared},"to":{_text(entry.target)}}}\n'.encode()
    return f'{{"t":"p",{shared}}}\n'.encode()


def _text(name: bytes) -> str:
    return encode_basestring_ascii(name.decode("latin-1"))


def _attributes(xattrs: tuple[tuple[str, bytes], ...]) -> str:
    encoded = {
        os.fsencode(name).decode("latin-1"): base64.b64encode(value).decode()
        for name, value in xattrs
    }
    return json.dumps(encoded, separators=(",", ":"))
