"""The tree of a snapshot: every entry of a folder, in the order of a walk, as a stream.

A tree is JSON lines inside one zstd frame, with the blake3 of the frame before it; its name is the
blake3 of the lines. An entry has a single name, never a path: where it lies follows from the
directories that are open at that point of the stream, so no tree can speak of anything outside its
root. Everything read is treated as hostile: `read_tree` yields only what it has checked.
docs/store-format.md has the whole format.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from json.encoder import encode_basestring_ascii
from pathlib import Path
from typing import Any

import zstandard
from blake3 import blake3

from snapshots import fs
from snapshots.errors import Damaged, shown

BLOCK = 64 * 1024  # measured best for database pages: docs/store-format.md has the table
HASH = 32
TREE_VERSION = 1
RUN = 512  # block hashes in one line at most
MAX_LINE = 1 << 20
MAX_SIZE = 1 << 62
_CHUNK = 1 << 18  # bytes of lines that are hashed and compressed at once
_ATTRIBUTES = 64 * 1024  # bytes of one extended attribute (the kernel's own limit)


@dataclass(frozen=True, slots=True)
class Dir:
    """A directory; what follows is inside it until its `Up`. The root's name is empty."""

    name: bytes
    meta: fs.Meta


@dataclass(frozen=True, slots=True)
class Up:
    """The end of the directory that is open."""


@dataclass(frozen=True, slots=True)
class File:
    """A file of `size` bytes; its `Blocks` follow. `link`: number that hard links refer to."""

    name: bytes
    meta: fs.Meta
    size: int
    link: int | None = None


@dataclass(frozen=True, slots=True)
class Blocks:
    """A run of neighbouring 64 KiB blocks of the file before it, beginning with block `at`.

    `parts`: where the run has data, as (offset in the file, length), None when everywhere.
    What no run covers is a hole.
    """

    at: int
    hashes: tuple[bytes, ...]
    parts: tuple[tuple[int, int], ...] | None = None


@dataclass(frozen=True, slots=True)
class Symlink:
    name: bytes
    meta: fs.Meta
    target: bytes
    link: int | None = None


@dataclass(frozen=True, slots=True)
class Fifo:
    name: bytes
    meta: fs.Meta
    link: int | None = None


@dataclass(frozen=True, slots=True)
class Hard:
    """Another name of the entry whose `link` is `of`."""

    name: bytes
    of: int


Entry = Dir | Up | File | Blocks | Symlink | Fifo | Hard


def block_length(index: int, size: int) -> int:
    """How many bytes block `index` of a file of `size` bytes has."""
    return min(BLOCK, size - index * BLOCK)


def data_parts(blocks: Blocks, size: int) -> list[tuple[int, int]]:
    """Where in the file this run has data, as (offset, length)."""
    if blocks.parts is not None:
        return list(blocks.parts)
    start = blocks.at * BLOCK
    return [(start, min(start + len(blocks.hashes) * BLOCK, size) - start)]


# -- writing -------------------------------------------------------------------------------------


class TreeWriter:
    """Writes entries to `path`; `close` makes it durable and returns the root hash."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")  # noqa: SIM115
        self._file.write(bytes(HASH))  # the place of the frame's own hash
        self._stream = zstandard.ZstdCompressor(level=1).stream_writer(self._file, closefd=False)
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
        if self._length >= _CHUNK:
            self._flush()

    def close(self) -> str:
        self.add(_line({"t": "e", "files": self.files, "bytes": self.bytes}))
        self._flush()
        self._stream.close()  # type: ignore[no-untyped-call]
        self._file.flush()
        fs.write_all(self._file.fileno(), _hash_of_frame(self._path), 0)
        os.fsync(self._file.fileno())
        os.posix_fadvise(self._file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        self._file.close()
        root: str = self._hash.hexdigest()
        check_hash(self._path, root)
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


# -- reading -------------------------------------------------------------------------------------


def read_tree(path: Path, root: str) -> Iterator[Entry]:
    """All entries of the tree `root`, checked one by one; the hash of the whole at the end.

    Whoever acts on entries reads the tree to its end once before. Raises Damaged.
    """
    check = _Check(path.name)
    try:
        for line in _lines(path, root):
            entry = check.line(line)
            if entry is not None:
                yield entry
    except (KeyError, TypeError, ValueError, RecursionError, UnicodeError) as error:
        raise Damaged(f"tree {root[:12]} is not well formed: {error}") from error
    check.at_end()


def with_paths(entries: Iterator[Entry]) -> Iterator[tuple[bytes, Entry]]:
    """Each entry with its path below the root: for `Blocks` that of their file."""
    path: list[bytes] = []
    leaf = b""
    for entry in entries:
        if isinstance(entry, Up):
            yield b"/".join(path[1:]), entry
            path.pop()
            continue
        if isinstance(entry, Dir):
            path.append(entry.name)
            leaf = b"/".join(path[1:])
        elif not isinstance(entry, Blocks):
            leaf = b"/".join((*path[1:], entry.name))
        yield leaf, entry


class TreeLines:
    """Parts of the lines of a tree, taken in order without looking into them. Raises Damaged.

    The hash of the frame is checked at once; that of the lines, when all was taken, by `finish`.
    """

    def __init__(self, path: Path, root: str) -> None:
        self._root, self._hash = root, blake3()
        self._chunks = _chunks(path, root, self._hash)
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


def check_hash(path: Path, root: str) -> None:
    """Damaged unless the tree's bytes are those that its root names."""
    TreeLines(path, root).finish()


def _lines(path: Path, root: str) -> Iterator[bytes]:
    digest = blake3()
    rest = b""
    for chunk in _chunks(path, root, digest):
        *whole, rest = (rest + chunk).split(b"\n")
        if max(map(len, (*whole, rest))) >= MAX_LINE:
            raise Damaged(f"tree {root[:12]} has an endless line")
        yield from whole
    if rest:
        raise Damaged(f"tree {root[:12]} is cut off")
    if digest.hexdigest() != root:
        raise Damaged(f"tree {root[:12]} was altered: its content has another hash")


def _chunks(path: Path, root: str, digest: blake3) -> Iterator[bytes]:
    """What is in the frame, whose own hash is checked first; `digest` is of all that was taken."""
    try:
        frame = _hash_of_frame(path)
        with open(path, "rb") as file:
            if file.read(HASH) != frame:
                raise Damaged(f"tree {root[:12]} was altered or is cut off")
            with zstandard.ZstdDecompressor(max_window_size=1 << 27).stream_reader(file) as stream:
                while chunk := stream.read(_CHUNK):
                    digest.update(chunk)
                    yield chunk
    except FileNotFoundError as error:
        raise Damaged(f"tree {root[:12]} is missing from the store") from error
    except (OSError, zstandard.ZstdError) as error:
        raise Damaged(f"tree {root[:12]} cannot be read: {error}") from error


def _hash_of_frame(path: Path) -> bytes:
    digest = blake3()
    with open(path, "rb") as file:
        file.seek(HASH)
        while data := file.read(1 << 20):
            digest.update(data)
    return digest.digest()


class _Check:
    """The rules of a tree, kept line by line. Violations are ValueError (KeyError, TypeError)."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._last: list[bytes] = []  # of each open directory, the last name seen
        self._begun = self._rooted = self._ended = False
        self._file: File | None = None
        self._next_block = 0
        self._links: set[int] = set()
        self._files = self._bytes = 0

    def line(self, line: bytes) -> Entry | None:
        value = json.loads(line)
        if not isinstance(value, dict):
            raise ValueError("a line is not an object")
        if not self._begun:
            if value != {"tree": TREE_VERSION, "block": BLOCK}:
                raise ValueError(f"unknown header {line[:60]!r}")
            self._begun = True
            return None
        if self._ended:
            raise ValueError("content after its end")
        kind = value["t"]
        if kind == "e":
            self._end(value)
            return None
        if self._rooted and not self._last:
            raise ValueError("entries after the root was closed")
        if kind == "b":
            return self._blocks(value)
        self._file = None
        if kind == "u":
            if not self._last:
                raise ValueError("a directory closed that was never opened")
            self._last.pop()
            return Up()
        if kind == "d":
            return self._dir(value)
        return self._leaf(kind, value)

    def at_end(self) -> None:
        if not self._ended:
            raise Damaged(f"tree {self._name[:12]} has no end")

    def _end(self, value: dict[str, Any]) -> None:
        if not self._rooted or self._last:
            raise ValueError("it ends inside a directory")
        if (value["files"], value["bytes"]) != (self._files, self._bytes):
            raise ValueError("its sums do not add up")
        self._ended = True

    def _dir(self, value: dict[str, Any]) -> Dir:
        if not self._rooted:
            if value["n"] != "":
                raise ValueError("the root has a name")
            self._rooted = True
            name = b""
        else:
            name = self._entry_name(value)
            if len(self._last) > fs.MAX_DEPTH:
                raise ValueError(f"directories deeper than {fs.MAX_DEPTH}")
        self._last.append(b"")
        return Dir(name, _meta(value))

    def _leaf(self, kind: object, value: dict[str, Any]) -> Entry:
        name = self._entry_name(value)
        self._files += 1
        if kind == "h":
            of = _number(value["of"], 0, MAX_SIZE)
            if of not in self._links:
                raise ValueError(f"{shown(name)} is linked to an entry that was not there before")
            return Hard(name, of)
        meta = _meta(value)
        link = None
        if "id" in value:
            link = _number(value["id"], 0, MAX_SIZE)
            if link in self._links:
                raise ValueError(f"link number {link} is used twice")
            self._links.add(link)
        if kind == "f":
            self._file = File(name, meta, _number(value["s"], 0, MAX_SIZE), link)
            self._next_block = 0
            return self._file
        if kind == "l":
            target = _bytes(value["to"], 4096)
            if not target or b"\0" in target:
                raise ValueError(f"{shown(name)} has an impossible link target")
            return Symlink(name, meta, target, link)
        if kind == "p":
            return Fifo(name, meta, link)
        raise ValueError(f"unknown kind of entry {kind!r}")

    def _entry_name(self, value: dict[str, Any]) -> bytes:
        name = _bytes(value["n"], 255)
        if name in (b"", b".", b"..") or b"/" in name or b"\0" in name:
            raise ValueError(f"{shown(name)!r} is not the name of an entry")
        if not self._last:
            raise ValueError("an entry outside the root")
        if name <= self._last[-1]:
            raise ValueError(f"{shown(name)!r} comes twice or out of order")
        self._last[-1] = name
        return name

    def _blocks(self, value: dict[str, Any]) -> Blocks:
        if self._file is None:
            raise ValueError("blocks without a file")
        size = self._file.size
        packed = bytes.fromhex(value["h"])
        hashes = tuple(packed[i : i + HASH] for i in range(0, len(packed), HASH))
        if not hashes or len(packed) % HASH or len(hashes) > RUN:
            raise ValueError("a run of blocks of impossible length")
        at = _number(value["at"], self._next_block, MAX_SIZE)
        end = at + len(hashes)
        if (end - 1) * BLOCK >= size:
            raise ValueError(f"blocks beyond the end of {shown(self._file.name)}")
        self._next_block = end
        parts = None
        if "s" in value:
            parts = _parts(value["s"], at * BLOCK, min(end * BLOCK, size))
        blocks = Blocks(at, hashes, parts)
        self._bytes += sum(length for _, length in data_parts(blocks, size))
        return blocks


def _parts(value: Any, start: int, end: int) -> tuple[tuple[int, int], ...]:
    if not isinstance(value, list) or len(value) % 2:
        raise ValueError("parts that are not pairs")
    parts = []
    for offset, length in zip(value[::2], value[1::2], strict=True):
        _number(offset, start, end)
        start = offset + _number(length, 1, end - offset)
        parts.append((offset, length))
    return tuple(parts)


def _meta(value: dict[str, Any]) -> fs.Meta:
    xattrs = []
    attributes = value.get("x", {})
    if not isinstance(attributes, dict):
        raise ValueError("extended attributes that are not an object")
    for name, encoded in attributes.items():
        decoded_name = os.fsdecode(_bytes(name, 255))
        if not fs.kept_xattr(decoded_name) or "\0" in decoded_name:
            raise ValueError(f"extended attribute {name!r} is not one that is kept")
        try:
            content = base64.b64decode(encoded, validate=True)
        except binascii.Error as error:
            raise ValueError(f"extended attribute {name!r}: {error}") from error
        if len(content) > _ATTRIBUTES:
            raise ValueError(f"extended attribute {name!r} is too large")
        xattrs.append((decoded_name, content))
    return fs.Meta(
        _number(value["m"], 0, 0o7777),
        _number(value["u"], 0, 2**32 - 2),
        _number(value["g"], 0, 2**32 - 2),
        _number(value["mt"], -MAX_SIZE, MAX_SIZE),
        tuple(xattrs),
    )


def _number(value: Any, low: int, high: int) -> int:
    if type(value) is not int or not low <= value <= high:
        raise ValueError(f"{value!r} is not a number from {low} to {high}")
    return value


def _bytes(value: Any, limit: int) -> bytes:
    """Bytes are written with one code point (U+0000 to U+00FF) for each byte."""
    if not isinstance(value, str) or len(value) > limit:
        raise ValueError("a name that is no text or too long")
    return value.encode("latin-1")
