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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from blake3 import blake3

from snapshots import fs
from snapshots.cipher import PLAIN, Cipher
from snapshots.errors import Damaged, shown
from snapshots.treefile import chunks

BLOCK = 64 * 1024  # measured best for database pages: docs/store-format.md has the table
HASH = 32
TREE_VERSION = 1
RUN = 512  # block hashes in one line at most
MAX_LINE = 1 << 20
MAX_SIZE = 1 << 62
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


# -- reading -------------------------------------------------------------------------------------


def read_tree(path: Path, root: str, cipher: Cipher = PLAIN) -> Iterator[Entry]:
    """All entries of the tree `root`, checked one by one; the hash of the whole at the end.

    Whoever acts on entries reads the tree to its end once before. Raises Damaged.
    """
    check = _Check(path.name)
    try:
        for line in _lines(path, root, cipher):
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


def _lines(path: Path, root: str, cipher: Cipher) -> Iterator[bytes]:
    digest = blake3()
    rest = b""
    for chunk in chunks(path, root, digest, cipher):
        *whole, rest = (rest + chunk).split(b"\n")
        if max(map(len, (*whole, rest))) >= MAX_LINE:
            raise Damaged(f"tree {root[:12]} has an endless line")
        yield from whole
    if rest:
        raise Damaged(f"tree {root[:12]} is cut off")
    if digest.hexdigest() != root:
        raise Damaged(f"tree {root[:12]} was altered: its content has another hash")


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
