"""SQLite: each database in the folder is copied by SQLite itself while its users go on."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

from snapshots.drivers.base import DirectoryDriver, Exec, image_name, read_small
from snapshots.drivers.sqlitefile import TooLong, back_up, end_at, failures, reading, scratch
from snapshots.errors import EngineFailed, shown
from snapshots.livepoint import LivePoint

COUNT_SECONDS = 60.0
CHECK_SECONDS = 30.0
LOOKED_AT = 10_000  # files whose first bytes are read to find out whether a folder has a database

_MAGIC = b"SQLite format 3\0"
_WRITER_VERSION = slice(96, 100)
_BESIDE = (b"-wal", b"-shm", b"-journal")

_TABLES = """
SELECT name FROM sqlite_master
 WHERE type = 'table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'
   AND sql NOT LIKE 'CREATE VIRTUAL TABLE%' ORDER BY name
"""


class SqliteDriver(DirectoryDriver):
    """Databases are known by their header, whatever their names; other files are plain files.

    The driver works from this host on the volume's files: SQLite's locks and its -shm memory hold
    between containers and host, because they are those of one kernel.
    """

    name = "sqlite"

    def recognises(self, image: str, target: str) -> bool:  # noqa: ARG002
        return image_name(image) in ("sqlite", "sqlite3")

    def looks_like(self, path: Path) -> bool:
        return any(True for _ in _databases(path, LOOKED_AT))

    @contextmanager
    def live(self, run: Exec, path: Path) -> Iterator[LivePoint]:  # noqa: ARG002
        """A copy of each database by the backup API, with what its log holds; its -wal, -shm and
        -journal are no part of the point.

        Each database is a point of its own. With a WAL nobody waits for the copy; with a rollback
        journal writers do, for as long as the copy of that one database takes. All copies are done
        before the capture begins: the capture opens the databases, too, and whoever closes a file
        loses all the locks that its process has on it.
        """
        databases = list(_databases(path))
        with scratch(sum((path / os.fsdecode(each)).stat().st_size for each in databases)) as room:
            copies = {each: room / str(number) for number, each in enumerate(databases)}
            for each, copy in copies.items():
                back_up(path / os.fsdecode(each), copy)
            beside = {each + suffix for each in databases for suffix in _BESIDE}
            yield LivePoint(left_out=beside.__contains__, instead=copies)

    def probe_path(self, path: Path) -> dict[str, int]:
        """Rows of each table as "file.table"; files and bytes where there is no database.

        Raises EngineFailed, also when counting takes longer than COUNT_SECONDS.
        """
        deadline = time.monotonic() + COUNT_SECONDS
        rows: dict[str, int] = {}
        for each in _databases(path):
            with failures(each), reading(path / os.fsdecode(each)) as database:
                end_at(database, deadline)
                for (table,) in database.execute(_TABLES).fetchall():
                    quoted = '"' + table.replace('"', '""') + '"'
                    (count,) = database.execute(f"SELECT count(*) FROM {quoted}").fetchone()
                    rows[f"{shown(each)}.{table}"] = count
        return rows or super().probe_path(path)

    def version(self, path: Path) -> str | None:
        """Of the newest SQLite that wrote one of the databases."""
        versions = (_writer(path / os.fsdecode(each)) for each in _databases(path))
        newest = max(versions, default=0)
        if not newest:
            return None
        return f"{newest // 1_000_000}.{newest // 1000 % 1000}.{newest % 1000}"

    def check_path(self, path: Path) -> list[str]:
        """What `PRAGMA quick_check` finds; a database that takes too long is passed over."""
        if problems := super().check_path(path):
            return problems
        for each in _databases(path):
            try:
                with failures(each), reading(path / os.fsdecode(each)) as database:
                    end_at(database, time.monotonic() + CHECK_SECONDS)
                    found = [row[0] for row in database.execute("PRAGMA quick_check(3)")]
            except TooLong:
                continue
            except EngineFailed as error:
                found = [str(error)]
            if found != ["ok"]:
                problems.append(f"the database {shown(each)} is damaged: {'; '.join(found)}")
        return problems


def _databases(path: Path, limit: int | None = None) -> Iterator[bytes]:
    """Paths of the databases among the first `limit` files, relative to the folder; links are not
    followed."""
    for each in islice(_files(os.fsencode(path)), limit):
        if read_small(path / os.fsdecode(each), len(_MAGIC)) == _MAGIC:
            yield each


def _files(root: bytes) -> Iterator[bytes]:
    for folder, folders, names in os.walk(root):
        folders.sort()
        for name in sorted(names):
            yield os.path.relpath(os.path.join(folder, name), root)


def _writer(file: Path) -> int:
    """SQLite's number for its version, as 3040001 for 3.40.1."""
    return int.from_bytes((read_small(file, 100) or b"")[_WRITER_VERSION], "big")
