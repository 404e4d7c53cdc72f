"""Folders brought from one state to the next as a program at work would: what changed, in place."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

STEP = 1 << 20


def bring(source: Path, target: Path) -> int:
    """Make `target` equal `source`; files whose size and time agree are not touched.

    A file that changed keeps its inode, and only the parts that differ are written, so that tools
    which look at times, inodes or blocks see what they would see in real life. Returns the number
    of files written or removed.
    """
    touched = 0
    target.mkdir(exist_ok=True)
    present = {entry.name: entry for entry in os.scandir(target)}
    for entry in os.scandir(source):
        there = present.pop(entry.name, None)
        place = target / entry.name
        if entry.is_dir(follow_symlinks=False):
            touched += bring(Path(entry.path), place)
            continue
        if there is not None and _same(entry, there):
            continue
        _write(Path(entry.path), place)
        touched += 1
    for extra in present.values():
        touched += 1
        if extra.is_dir(follow_symlinks=False):
            shutil.rmtree(extra.path)
        else:
            os.unlink(extra.path)
    _dress(source, target)
    return touched


def _same(one: os.DirEntry[str], other: os.DirEntry[str]) -> bool:
    a, b = one.stat(follow_symlinks=False), other.stat(follow_symlinks=False)
    return (a.st_size, a.st_mtime_ns) == (b.st_size, b.st_mtime_ns)


def _write(source: Path, target: Path) -> None:
    """The data of `source` into `target`, holes left out."""
    fd = os.open(target, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        with source.open("rb", buffering=0) as file:
            st = os.fstat(file.fileno())
            size = st.st_size
            if st.st_blocks * 512 < size:
                os.ftruncate(fd, 0)  # what was there must not show through the holes
            os.ftruncate(fd, size)
            for start, end in data_of(file.fileno(), size):
                for at in range(start, end, STEP):
                    data = os.pread(file.fileno(), min(STEP, end - at), at)
                    _patch(fd, data, at)
    finally:
        os.close(fd)
    _dress(source, target)


def _patch(fd: int, data: bytes, at: int, page: int = 8192) -> None:
    there = os.pread(fd, len(data), at)
    if there == data:
        return
    if not any(there):
        os.pwrite(fd, data, at)
        return
    for start in range(0, len(data), page):
        if there[start : start + page] != data[start : start + page]:
            os.pwrite(fd, data[start : start + page], at + start)


def last_lines(path: Path, size: int = 1 << 14) -> list[str]:
    """The whole lines among the last `size` bytes of a file that grows."""
    with path.open("rb") as file:
        end = file.seek(0, os.SEEK_END)
        file.seek(max(0, end - size))
        lines = file.read().decode(errors="replace").split("\n")
    return lines[0 if end <= size else 1 : -1]


def data_of(fd: int, size: int) -> list[tuple[int, int]]:
    """Where a file has data: (start, end), in order."""
    parts, at = [], 0
    while at < size:
        try:
            start = os.lseek(fd, at, os.SEEK_DATA)
        except OSError:  # nothing but a hole up to the end
            break
        at = os.lseek(fd, start, os.SEEK_HOLE)
        parts.append((start, at))
    return parts


def _dress(source: Path, target: Path) -> None:
    st = source.stat()
    os.chown(target, st.st_uid, st.st_gid)
    shutil.copystat(source, target)
