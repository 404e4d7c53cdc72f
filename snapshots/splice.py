"""A second stream of entries put between those of a first, so that all stay in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from snapshots import fs
from snapshots.errors import SnapshotError, shown
from snapshots.tree import Blocks, Dir, Entry, File, Up


@dataclass(frozen=True)
class Insertion:
    """Something to put into a directory: its name there, and what writes it."""

    name: bytes
    put: Callable[[], None]


def splice(
    entries: Iterable[tuple[Entry, fs.Key | None]],
    insertions: Callable[[bytes, Dir], Iterable[Insertion]],
    write: Callable[[Entry, fs.Key | None], None],
) -> None:
    """`write` the entries of a tree, and in each directory put what `insertions` has for its path.

    An insertion replaces a file of the same name. Raises SnapshotError where it cannot.
    """
    path: list[bytes] = []
    waiting: list[deque[Insertion]] = []  # for each open directory, ascending by name
    replaced = False
    for entry, key in entries:
        if isinstance(entry, Blocks):
            if not replaced:
                write(entry, None)
            continue
        replaced = False
        if isinstance(entry, Up):
            for insertion in waiting.pop():
                insertion.put()
            path.pop()
            write(entry, None)
            continue
        if waiting:
            here = waiting[-1]
            while here and here[0].name < entry.name:
                here.popleft().put()
            if here and here[0].name == entry.name:
                if not isinstance(entry, File) or entry.link is not None:
                    raise SnapshotError(
                        f"{shown(b'/'.join((*path[1:], entry.name)))} cannot be replaced: it is "
                        "not a plain file with one name; move it out of the folder"
                    )
                replaced = True
                continue
        write(entry, key)
        if isinstance(entry, Dir):
            path.append(entry.name)
            found = insertions(b"/".join(path[1:]), entry)
            waiting.append(deque(sorted(found, key=lambda insertion: insertion.name)))


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
