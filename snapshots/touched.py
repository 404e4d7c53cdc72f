"""Was a folder at rest written to since it was captured? Told by names, sizes and times alone."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from snapshots import fs
from snapshots.errors import Damaged, naming, shown
from snapshots.hints import Hint, Hints
from snapshots.store import Store

NAMED = 3  # files of each kind that are named; the look ends when so many differ for certain


@dataclass(frozen=True)
class Touched:
    """Files (paths, printable) that are not as they were captured. `changed`: for certain, by name,
    size or modification time. `unsure`: only their inode or status time is another, so that
    reading them tells. Of each the first few."""

    changed: tuple[str, ...] = ()
    unsure: tuple[str, ...] = ()


def touched(folder: Path, store: Store, snapshot_id: str) -> Touched:
    """What the times of regular files tell; nothing of links, pipes and folders themselves, and
    nothing at all where the snapshot has no hints. Raises UnknownSnapshot, Damaged."""
    hints = Hints(store.hints / f"{snapshot_id}.hints", store.cipher)
    if hints.root != store.read(snapshot_id).root:
        raise Damaged(f"the hints of snapshot {snapshot_id[:12]} are of another one")
    changed: list[str] = []
    unsure: list[str] = []
    with naming("look at", os.fsencode(folder)), fs.opened_root(folder) as root:
        honest = fs.times_are_honest(root)
        for path, hint, now in _pairs(_known(hints), _files(root, b"", 0, set())):
            if len(changed) == NAMED:
                break
            if hint is None or now is None:
                changed.append(shown(path))
            elif hint.key is not None and hint.key != now:
                certain = (hint.size, hint.mtime_ns) != (now.size, now.mtime_ns)
                if certain or honest:
                    (changed if certain else unsure).append(shown(path))
    return Touched(tuple(changed), tuple(unsure[:NAMED]))


def _pairs(
    known: Iterator[tuple[bytes, Hint]], found: Iterator[tuple[bytes, fs.Key]]
) -> Iterator[tuple[bytes, Hint | None, fs.Key | None]]:
    """Both in the order of a walk, side by side; None where one of them has no such file."""
    was, now = next(known, None), next(found, None)
    while was is not None or now is not None:
        if now is None or (was is not None and _steps(was[0]) < _steps(now[0])):
            assert was is not None
            yield was[0], was[1], None
            was = next(known, None)
        elif was is None or _steps(now[0]) < _steps(was[0]):
            yield now[0], None, now[1]
            now = next(found, None)
        else:
            yield now[0], was[1], now[1]
            was, now = next(known, None), next(found, None)


def _steps(path: bytes) -> list[bytes]:
    return path.split(b"/")


def _known(hints: Hints) -> Iterator[tuple[bytes, Hint]]:
    for folder, names, group in hints.groups():
        for name, hint in zip(names, group, strict=True):
            yield fs.below(folder, name), hint


def _files(
    fd: int, path: bytes, depth: int, links: set[tuple[int, int]]
) -> Iterator[tuple[bytes, fs.Key]]:
    """Regular files, each under the first of its names, as `capture` walks them."""
    for name, st in fs.entries_in(fd):
        if st is None:
            continue
        inner = fs.below(path, name)
        if stat.S_ISDIR(st.st_mode):
            with fs.opened(fd, name, fs.DIRECTORY) as below:
                yield from _files(below, inner, fs.deeper(depth, inner), links)
        elif stat.S_ISREG(st.st_mode):
            if st.st_nlink > 1:
                if (st.st_dev, st.st_ino) in links:
                    continue
                links.add((st.st_dev, st.st_ino))
            yield inner, fs.Key.of(st)
