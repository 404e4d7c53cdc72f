"""A second stream of entries put between those of a first, so that all stay in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from snapshots import fs
from snapshots.draft import Piece, Seen, piece_of
from snapshots.errors import SnapshotError, shown
from snapshots.tree import Blocks, Dir, Entry, Fifo, File, Hard, Symlink, Up


@dataclass(frozen=True)
class Insertion:
    """Something to put into a directory: its name there, and what writes it."""

    name: bytes
    put: Callable[[], None]


def splice(
    entries: Iterable[tuple[Entry, fs.Key | None]],
    insertions: Callable[[bytes, Dir], Iterable[Insertion]],
    write: Callable[[Piece], None],
) -> None:
    """`write` the entries of a tree, and in each directory put what `insertions` has for its path.

    An insertion replaces a file of the same name. Raises SnapshotError where it cannot.
    """
    path: list[bytes] = []
    waiting: list[deque[Insertion]] = []  # for each open directory, ascending by name
    size: int | None = None  # of the file that is open
    ends: Seen | None = None
    for entry, key in entries:
        if isinstance(entry, Blocks):
            if size is not None:
                write(piece_of(entry, size))
            continue
        if ends:
            write(Piece(b"", ends=ends))
        size = ends = None
        if isinstance(entry, Up):
            for insertion in waiting.pop():
                insertion.put()
            path.pop()
            write(piece_of(entry))
            continue
        if waiting and _put_before(entry, waiting[-1], path):
            continue
        write(piece_of(entry))
        folder = b"/".join(path[1:])
        if isinstance(entry, File):
            size, ends = entry.size, Seen(folder, entry.name, key, entry.link is not None)
        elif isinstance(entry, Dir):
            path.append(entry.name)
            found = insertions(fs.below(folder, entry.name), entry)
            waiting.append(deque(sorted(found, key=lambda insertion: insertion.name)))


def _put_before(
    entry: Dir | File | Symlink | Fifo | Hard, here: deque[Insertion], path: list[bytes]
) -> bool:
    """Put what comes before an entry; True if one replaces it, which is then the next."""
    while here and here[0].name < entry.name:
        here.popleft().put()
    if not here or here[0].name != entry.name:
        return False
    if not isinstance(entry, File) or entry.link is not None:
        raise SnapshotError(
            f"{shown(b'/'.join((*path[1:], entry.name)))} cannot be replaced: it is "
            "not a plain file with one name; move it out of the folder"
        )
    return True


@contextmanager
def opened_below(root: int, path: bytes) -> Iterator[int]:
    """A descriptor of the directory at `path` below `root`; no step follows a link."""
    steps = path.split(b"/") if path else []
    if not steps:
        yield root
        return
    with fs.opened(root, steps[0], fs.DIRECTORY) as fd, opened_below(fd, b"/".join(steps[1:])) as i:
        yield i


def split(added: Mapping[bytes, bytes]) -> dict[bytes, dict[bytes, bytes]]:
    """Files by path as files by directory and name."""
    found: dict[bytes, dict[bytes, bytes]] = {}
    for path, content in added.items():
        folder, _, name = path.rpartition(b"/")
        found.setdefault(folder, {})[name] = content
    return found
