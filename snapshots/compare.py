"""Are two folders the same? And how large is one?"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from snapshots import fs
from snapshots.errors import naming, shown

CHUNK = 1 << 20


def measure(path: Path) -> fs.Size:
    """What a folder takes; hard-linked content counts once. Entries that vanish are left out."""
    with naming("measure", os.fsencode(path)), fs.opened_root(path) as fd:
        return fs.measure_fd(fd, set())


def tree_equal(a: Path, b: Path) -> list[str]:
    """All differences of content and metadata between two folders, as sentences; [] if none.

    Compared are names, kinds, content, owner, mode, modification time, extended attributes, link
    targets and which names are hard links of each other. Sockets and devices are left out.
    """
    with fs.opened_root(a) as a_fd, fs.opened_root(b) as b_fd:
        comparison = _Comparison()
        comparison.directories(a_fd, b_fd, b"")
        return comparison.differences


class _Comparison:
    def __init__(self) -> None:
        self.differences: list[str] = []
        self._links: dict[tuple[int, int], tuple[int, int]] = {}

    def _differs(self, path: bytes, what: str) -> None:
        self.differences.append(f"{shown(path)}: {what}")

    def directories(self, a: int, b: int, path: bytes) -> None:
        in_a, in_b = self._names(a), self._names(b)
        for name in sorted(in_a.keys() | in_b.keys()):
            inner = fs.below(path, name)
            if name not in in_b:
                self._differs(inner, "is missing")
            elif name not in in_a:
                self._differs(inner, "is too much")
            else:
                self._entries(a, b, name, inner, in_a[name], in_b[name])
        self._metadata(path, fs.meta_of(os.fstat(a), a), fs.meta_of(os.fstat(b), b))

    @staticmethod
    def _names(fd: int) -> dict[bytes, os.stat_result]:
        found = {name: fs.lstat(fd, name) for name in fs.names_in(fd)}
        return {name: st for name, st in found.items() if not fs.is_special(st)}

    def _entries(
        self,
        a: int,
        b: int,
        name: bytes,
        path: bytes,
        in_a: os.stat_result,
        in_b: os.stat_result,
    ) -> None:
        if stat.S_IFMT(in_a.st_mode) != stat.S_IFMT(in_b.st_mode):
            self._differs(path, "is of another kind")
            return
        if stat.S_ISDIR(in_a.st_mode):
            with fs.opened(a, name, fs.DIRECTORY) as fd_a, fs.opened(b, name, fs.DIRECTORY) as fd_b:
                self.directories(fd_a, fd_b, path)
            return
        if in_a.st_nlink > 1 or in_b.st_nlink > 1:
            mine, theirs = (in_a.st_dev, in_a.st_ino), (in_b.st_dev, in_b.st_ino)
            if self._links.setdefault(mine, theirs) != theirs or in_a.st_nlink != in_b.st_nlink:
                self._differs(path, "is linked to other names")
        if stat.S_ISREG(in_a.st_mode):
            with fs.opened(a, name, fs.READ) as fd_a, fs.opened(b, name, fs.READ) as fd_b:
                if (offset := _first_difference(fd_a, fd_b)) is not None:
                    self._differs(path, f"has other content from byte {offset}")
        elif stat.S_ISLNK(in_a.st_mode) and (
            os.readlink(name, dir_fd=a) != os.readlink(name, dir_fd=b)
        ):
            self._differs(path, "points elsewhere")
        self._metadata(path, fs.read_entry_meta(a, name, in_a), fs.read_entry_meta(b, name, in_b))

    def _metadata(self, path: bytes, a: fs.Meta, b: fs.Meta) -> None:
        for field in ("mode", "uid", "gid", "mtime_ns", "xattrs"):
            if getattr(a, field) != getattr(b, field):
                self._differs(path, f"{field} is {getattr(b, field)}, not {getattr(a, field)}")


def _first_difference(a: int, b: int) -> int | None:
    offset = 0
    while True:
        data, other = os.pread(a, CHUNK, offset), os.pread(b, CHUNK, offset)
        if data != other:
            pairs = enumerate(zip(data, other, strict=False))
            shorter = min(len(data), len(other))
            return offset + next((at for at, (x, y) in pairs if x != y), shorter)
        if not data:
            return None
        offset += len(data)
