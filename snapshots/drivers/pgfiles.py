"""What PostgreSQL's files say without a server: where the data lies, of which version it is."""

from __future__ import annotations

import os
import struct
from pathlib import Path

from snapshots.drivers.base import read_small


def data_folders(path: Path) -> list[Path]:
    """The folders with PG_VERSION nearest to a volume's root, at most two below it; links are not
    followed. More than one only where a volume keeps the clusters of several versions.

    Each database inside a data folder has a PG_VERSION too: only the nearest to the root count.
    """
    level = [path]
    for _ in range(3):
        if found := [folder for folder in level if read_small(folder / "PG_VERSION", 1)]:
            return found
        level = [
            Path(entry.path)
            for folder in level
            for entry in sorted(os.scandir(folder), key=lambda e: e.name)
            if entry.is_dir(follow_symlinks=False)
        ]
    return []


def version_of(folder: Path) -> str | None:
    """The major version, `15` or `9.6`."""
    found = read_small(folder / "PG_VERSION", 64)
    return found.decode("ascii", "replace").strip() if found else None


def system_identifier(folder: Path) -> int | None:
    """The number that a cluster was given when it was made."""
    head = read_small(folder / "global" / "pg_control", 8)
    return int(struct.unpack("=Q", head)[0]) if head and len(head) == 8 else None


def problems_of(folder: Path) -> list[str]:
    """Why a data folder is not whole, or not all in one place."""
    problems = []
    if not read_small(folder / "global" / "pg_control", 1):
        problems.append(f"{folder} has no global/pg_control: it is not a whole data folder")
    if (folder / "pg_wal").is_symlink():
        problems.append(
            f"the write-ahead log of {folder} lies outside the volume "
            f"({os.readlink(folder / 'pg_wal')}): move it into the volume"
        )
    spaces = folder / "pg_tblspc"
    for space in sorted(spaces.iterdir()) if spaces.is_dir() else []:
        if space.is_symlink():
            problems.append(
                f"tablespace {space.name} lies outside the data folder "
                f"({os.readlink(space)}): move its tables to the default tablespace"
            )
    return problems


def segments(timeline: str, first: int, last: int, size: int) -> list[str]:
    """Names of the write-ahead log's files from the position `first` up to (without) `last`.

    `timeline`: eight hexadecimal digits; `size`: bytes of a file, a power of two.
    """
    per_log = (1 << 32) // size
    numbers = range(first // size, max(first, last - 1) // size + 1)
    return [f"{timeline}{n // per_log:08X}{n % per_log:08X}" for n in numbers]


def position(text: str) -> int:
    """A position in the log as a number: `1/A0` -> 0x1000000A0."""
    high, low = text.split("/")
    return int(high, 16) << 32 | int(low, 16)
