"""What a capture writes beside blocks: the tree, and the hints for the next capture."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator

from snapshots import fs
from snapshots.hints import HintsWriter, read_hints
from snapshots.store import Store
from snapshots.tree import Entry, File, TreeWriter, read_tree


class Draft:
    """A tree and its hints under temporary names, until they are placed."""

    def __init__(self, store: Store) -> None:
        name = f".{os.getpid()}-{secrets.token_hex(6)}.tmp"
        self._store = store
        self._tree_path, self._hints_path = store.trees / name, store.hints / name
        self._tree, self._hints = TreeWriter(self._tree_path), HintsWriter(self._hints_path)
        self._root = ""
        self.write = self._tree.write

    @property
    def files(self) -> int:
        """Entries so far that are not directories."""
        return self._tree.files

    @property
    def bytes(self) -> int:
        """Bytes of data so far, without holes."""
        return self._tree.bytes

    def hint(self, key: fs.Key | None) -> None:
        """By what the file written last will be recognised; None: it will be read again."""
        self._hints.write(key)

    def close(self) -> str:
        """Durable and read back; returns the root of the tree."""
        self._root = self._tree.close()
        self._hints.close()
        return self._root

    def place_tree(self) -> None:
        os.replace(self._tree_path, self._store.tree_path(self._root))
        fs.sync_folder(self._store.trees)

    def place_hints(self, snapshot_id: str) -> None:
        os.replace(self._hints_path, self._store.hints / f"{snapshot_id}.zst")

    def entries(self) -> Iterator[tuple[Entry, fs.Key | None]]:
        """After `close`: what was written, each file with its hint."""
        hints = read_hints(self._hints_path)
        for entry in read_tree(self._tree_path, self._root):
            yield entry, next(hints).key_of(entry) if isinstance(entry, File) else None

    def discard(self) -> None:
        """Forget what was not placed; harmless afterwards."""
        self._tree.discard()
        self._hints.discard()
