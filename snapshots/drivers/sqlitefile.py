"""SQLite's files: copied while in use, and read without changing anything."""

from __future__ import annotations

import fcntl
import os
import shutil
import sqlite3
import stat
import struct
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from urllib.parse import quote

from snapshots import fs
from snapshots.drivers.base import read_small
from snapshots.errors import EngineFailed, NotEnoughSpace, shown

BUSY_SECONDS = 30.0

_WAL_WRITES, _WAL_VERSION = 18, 2
_SHM_IN_USE = 128  # the byte of the -shm file that everybody who has a WAL database open locks
_DATABASE_LOCKS = (0x40000000, 512)
_SCRATCH = "lockstep-sqlite-"
_BUSY = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


class TooLong(EngineFailed):
    """A statement was given up because its time was over."""


@contextmanager
def scratch(size: int) -> Iterator[Path]:
    """A folder with room for `size` bytes, removed at the end; also one that a killed run left.

    Raises NotEnoughSpace.
    """
    place = Path(os.environ.get("TMPDIR") or "/var/tmp")
    for left in place.glob(f"{_SCRATCH}*"):
        with suppress(OSError), _locked(left):
            shutil.rmtree(left)
    free = shutil.disk_usage(place).free
    if free < size:
        raise NotEnoughSpace(
            f"copying the SQLite databases needs {size >> 20} MiB in {place}, which has "
            f"{free >> 20} MiB: free some space, or set TMPDIR to another folder"
        )
    room = Path(tempfile.mkdtemp(prefix=_SCRATCH, dir=place))
    try:
        with _locked(room):
            yield room
    finally:
        shutil.rmtree(room, ignore_errors=True)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Raises OSError when another process uses the folder."""
    fd = os.open(folder, fs.DIRECTORY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(fd)


def back_up(source: Path, copy: Path) -> None:
    name = os.fsencode(source)
    before = os.lstat(source)
    if not stat.S_ISREG(before.st_mode):
        raise EngineFailed(f"{shown(name)} is being exchanged: capture it again")
    give_up = time.monotonic() + BUSY_SECONDS

    def watch(status: int, _remaining: int, _total: int) -> None:
        if status in _BUSY and time.monotonic() > give_up:
            raise EngineFailed(
                f"the database {shown(name)} was locked for {BUSY_SECONDS:.0f} s by who uses it: "
                "run it again when that has finished, or stop it"
            )

    with failures(name), _connected(source) as database, closing(sqlite3.connect(copy)) as target:
        target.execute("PRAGMA synchronous = OFF")
        database.backup(target, pages=-1, progress=watch, sleep=0.05)
    after = os.lstat(source)
    if (before.st_dev, before.st_ino) != (after.st_dev, after.st_ino):
        raise EngineFailed(f"{shown(name)} was exchanged while it was copied: capture it again")


# -- ways in -------------------------------------------------------------------------------------


@contextmanager
def _connected(file: Path) -> Iterator[sqlite3.Connection]:
    """To a database that others may use: read-only, unless SQLite has to bring it in order first
    (a log that nobody has open, or the journal of somebody who died)."""
    with ExitStack() as stack:
        try:
            database = stack.enter_context(closing(_open(file, "mode=ro")))
            database.execute("SELECT 1 FROM sqlite_master").fetchone()
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode in _BUSY:
                raise
            database = stack.enter_context(closing(_open(file, "mode=rw")))
        yield database


@contextmanager
def reading(file: Path) -> Iterator[sqlite3.Connection]:
    """To a database that may be in use or at rest, of which nothing at all may change.

    At rest no lock is needed. What a log or journal holds then can only be had from a copy, as
    SQLite brings it into the database first.
    """
    with ExitStack() as stack:
        if _in_use(file):
            database = _open(file, "mode=ro")
        elif not any(_size(_beside(file, suffix)) for suffix in (b"-wal", b"-journal")):
            database = _open(file, "mode=ro" if not _is_wal(file) else "immutable=1")
        else:
            files = [file, _beside(file, b"-wal"), _beside(file, b"-journal")]
            room = stack.enter_context(scratch(sum(map(_size, files))))
            for each in files:
                with suppress(FileNotFoundError):
                    shutil.copyfile(each, room / each.name, follow_symlinks=False)
            database = _open(room / file.name, "mode=rw")
        yield stack.enter_context(closing(database))


def _in_use(file: Path) -> bool:
    """Whether somebody has this database open in a way that can be seen: each user of a WAL locks
    a byte of the -shm file; a rollback journal belongs to a running transaction or to a dead one,
    which a lock on the database tells apart."""
    if _is_wal(file):
        return _is_locked(_beside(file, b"-shm"), _SHM_IN_USE, 1)
    return _is_locked(file, *_DATABASE_LOCKS)


def _is_locked(file: Path, start: int, length: int) -> bool:
    """Whether another process has a lock on this range of bytes."""
    layout = "hhqqi4x"
    question = struct.pack(layout, fcntl.F_WRLCK, os.SEEK_SET, start, length, 0)
    try:
        fd = os.open(file, fs.READ & ~os.O_NOATIME)
    except OSError:
        return False
    try:
        answer = fcntl.fcntl(fd, fcntl.F_GETLK, question)
    finally:
        os.close(fd)
    return bool(struct.unpack(layout, answer)[0] != fcntl.F_UNLCK)


def _open(file: Path, how: str) -> sqlite3.Connection:
    location = f"file:{quote(os.fsencode(file))}?{how}"
    return sqlite3.connect(location, uri=True, timeout=BUSY_SECONDS, isolation_level=None)


def end_at(database: sqlite3.Connection, deadline: float) -> None:
    """Statements end with an error when the time is over."""
    database.set_progress_handler(lambda: time.monotonic() > deadline, 10_000)


@contextmanager
def failures(name: bytes) -> Iterator[None]:
    """SQLite's errors become ours."""
    try:
        yield
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", None)
        if code == sqlite3.SQLITE_INTERRUPT:
            raise TooLong(f"the database {shown(name)} takes too long to read") from None
        raise EngineFailed(f"the database {shown(name)} cannot be read: {error}") from None


def _is_wal(file: Path) -> bool:
    return (read_small(file, 100) or bytes(100))[_WAL_WRITES] == _WAL_VERSION


def _beside(file: Path, suffix: bytes) -> Path:
    return file.with_name(file.name + suffix.decode())


def _size(file: Path) -> int:
    try:
        return os.lstat(file).st_size
    except FileNotFoundError:
        return 0
