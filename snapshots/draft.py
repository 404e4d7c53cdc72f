"""What a capture writes beside blocks: the tree, and the hints for the next capture."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from failpoints import failpoint
from snapshots import fs
from snapshots.hints import UNKNOWN, Hints, HintsWriter
from snapshots.store import Store
from snapshots.tree import (
    Blocks,
    Dir,
    Entry,
    File,
    Up,
    data_parts,
    read_tree,
)
from snapshots.treewriter import TreeWriter, encode


class Seen(NamedTuple):
    """The file that a piece ends: by what it will be recognised, None: it will be read again."""

    folder: bytes
    name: bytes
    key: fs.Key | None
    linked: bool = False


class Piece(NamedTuple):
    """Lines of a tree, how many entries but directories begin in them, and bytes of their data."""

    lines: bytes
    entries: int = 0
    data: int = 0
    ends: Seen | None = None


def piece_of(entry: Entry, size: int = 0) -> Piece:
    """One entry; for `Blocks`, `size` is that of their file."""
    if isinstance(entry, Blocks):
        return Piece(encode(entry), 0, sum(length for _, length in data_parts(entry, size)))
    return Piece(encode(entry), 0 if isinstance(entry, (Dir, Up)) else 1)


class Draft:
    """A tree and its hints under temporary names, until they are placed."""

    def __init__(self, store: Store) -> None:
        name = f".{os.getpid()}-{secrets.token_hex(6)}.tmp"
        self._store = store
        self._tree_path, self._hints_path = store.trees / name, store.hints / name
        self._tree, self._hints = (
            TreeWriter(self._tree_path, store.cipher),
            HintsWriter(self._hints_path, store.cipher),
        )
        self._root = ""
        self._began = self._data = 0  # of the file that is open

    @property
    def files(self) -> int:
        """Entries so far that are not directories."""
        return self._tree.files

    @property
    def bytes(self) -> int:
        """Bytes of data so far, without holes."""
        return self._tree.bytes

    def write(self, pieces: Iterable[Piece]) -> None:
        for lines, entries, data, ends in pieces:
            if entries:
                self._began, self._data = self._tree.at, 0
            self._tree.add(lines, entries, data)
            self._data += data
            if ends:
                folder, name, key, linked = ends
                length = self._tree.at - self._began
                hint = (*(key or UNKNOWN), self._began, length, self._data, int(linked))
                self._hints.add(folder, name, hint)

    def close(self, packs: Iterable[str]) -> str:
        """Durable and read back; returns the root of the tree. `packs`: all it may need."""
        self._root = self._tree.close()
        self._hints.close(self._root, sorted(packs))
        return self._root

    def place_tree(self) -> None:
        failpoint("store.tree-rename")
        os.replace(self._tree_path, self._store.tree_path(self._root))
        failpoint("store.tree-renamed")
        fs.sync_folder(self._store.trees)

    def place_hints(self, snapshot_id: str) -> None:
        failpoint("store.hints")
        os.replace(self._hints_path, self._store.hints / f"{snapshot_id}.hints")

    def entries(self) -> Iterator[tuple[Entry, fs.Key | None]]:
        """After `close`: what was written, each file with its key."""
        hints = iter(Hints(self._hints_path, self._store.cipher))
        for entry in read_tree(self._tree_path, self._root, self._store.cipher):
            yield entry, next(hints).key if isinstance(entry, File) else None

    def discard(self) -> None:
        """Forget what was not placed; harmless afterwards."""
        self._tree.discard()
        self._hints.discard()
