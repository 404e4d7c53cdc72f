"""Beside a snapshot: by what each of its files would be recognised if it is captured again.

Nothing depends on it. Lost or damaged, the next capture reads everything.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import zstandard

from snapshots import fs
from snapshots.errors import Damaged, SnapshotError
from snapshots.store import Store
from snapshots.tree import Blocks, Dir, Entry, File, Up, check_hash, read_tree
from snapshots.twins import Twins

HEADER = b'{"hints": 1}\n'


class HintsWriter:
    """One line for each file of the tree, in its order: inode and ctime, or null: read it again."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")  # noqa: SIM115
        self._stream = zstandard.ZstdCompressor(level=1).stream_writer(self._file, closefd=False)
        self._stream.write(HEADER)

    def write(self, key: fs.Key | None) -> None:
        self._stream.write(b"[%d,%d]\n" % (key.inode, key.ctime_ns) if key else b"null\n")

    def close(self) -> None:
        self._stream.close()  # type: ignore[no-untyped-call]
        self._file.close()

    def discard(self) -> None:
        with suppress(OSError, zstandard.ZstdError):
            self.close()
        self._path.unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class Hint:
    """What a hint adds to the entry of a file; `inode` 0: nothing is known."""

    inode: int = 0
    ctime_ns: int = 0

    def key_of(self, entry: File) -> fs.Key | None:
        if not self.inode:
            return None
        return fs.Key(self.inode, entry.size, entry.meta.mtime_ns, self.ctime_ns)


@dataclass(frozen=True)
class Known:
    """A file of an earlier snapshot. `runs` must be used up before the next one is asked for."""

    path: tuple[bytes, ...]
    key: fs.Key | None
    runs: Iterator[Blocks]


class KnownFiles:
    """The files of an earlier snapshot, asked for in the order of a walk.

    `twins`: what a fork or a restore left beside the folder, for one made from that snapshot's.
    """

    def __init__(self, store: Store, snapshot_id: str | None, *, twins: Path | None = None) -> None:
        self._files = _known_files(store, snapshot_id) if snapshot_id else iter(())
        self._next = next(self._files, None)
        self._twins = Twins(twins, _root(store, snapshot_id) if snapshot_id and twins else None)

    def find(self, path: tuple[bytes, ...]) -> Known | None:
        """The file at this path; paths come in ascending order."""
        while self._next and self._next.path < path:
            self._next = next(self._files, None)
        return self._next if self._next and self._next.path == path else None

    def unchanged(self, known: Known, now: fs.Key) -> bool:
        """Whether the file that was found has, as it is `now`, the content it had then."""
        return known.key == now or self._twins.equal(known.path, now, known.key)


def _root(store: Store, snapshot_id: str) -> str | None:
    try:
        return store.read(snapshot_id).root
    except SnapshotError:
        return None


def _known_files(store: Store, snapshot_id: str) -> Iterator[Known]:
    """Nothing at all if the tree is damaged: a wrong hash must not get into another snapshot."""
    try:
        record = store.read(snapshot_id)
        tree = store.tree_path(record.root)
        check_hash(tree, record.root)
        hints = read_hints(store.hints / f"{snapshot_id}.zst")
        yield from _joined(read_tree(tree, record.root), hints)
    except (SnapshotError, OSError, ValueError, TypeError, LookupError, zstandard.ZstdError):
        return


def _joined(entries: Iterator[Entry], hints: Iterator[Hint]) -> Iterator[Known]:
    open_dirs: list[bytes] = []
    entry = next(entries, None)
    while entry is not None:
        following: list[Entry | None] = []
        if isinstance(entry, Dir):
            open_dirs.append(entry.name)
        elif isinstance(entry, Up):
            open_dirs.pop()
        elif isinstance(entry, File):
            key = next(hints, Hint()).key_of(entry)
            runs = _runs(entries, following)
            yield Known((*open_dirs[1:], entry.name), key, runs)
            for _ in runs:
                pass
        entry = following[0] if following else next(entries, None)


def _runs(entries: Iterator[Entry], following: list[Entry | None]) -> Iterator[Blocks]:
    """The runs of the file that was read last; the entry after them goes into `following`."""
    for entry in entries:
        if not isinstance(entry, Blocks):
            following.append(entry)
            return
        yield entry


def read_hints(path: Path) -> Iterator[Hint]:
    """The hints in a file, one for each file of the tree. Raises what reading them raises."""
    with (
        open(path, "rb") as file,
        zstandard.ZstdDecompressor(max_window_size=1 << 27).stream_reader(file) as stream,
        io.BufferedReader(stream, 1 << 16) as lines,
    ):
        if lines.readline(100) != HEADER:
            raise Damaged(f"{path} is of an unknown format")
        while line := lines.readline(100):
            numbers = json.loads(line)
            yield Hint(*numbers) if numbers else Hint()
