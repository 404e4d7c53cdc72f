"""One operation per host: a kernel lock, freed by its holder's death.

The lock is on the folder, because a file can be removed and made anew, and then two would hold
"it". The file in the folder only tells who the holder is. The lock belongs to the open descriptor,
not to the process: the switch inherits it and holds the lock on when its caller dies. So it is
only ever given back by closing, never unlocked.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType

from reconciler import clock
from reconciler.errors import Busy, LockstepError
from reconciler.host import process

DIRECTORY = "LOCKSTEP_LOCK_DIR"
"""Environment variable: another folder for the lock than /run/lock."""

_NOTE = "lockstep.lock"
_POLL_SECONDS = 0.1
_HOLDER_BYTES = 4096
_LOOK_SECONDS = 0.3
"""Whoever looks who the holder is has the lock for a moment."""


@dataclass(frozen=True)
class Holder:
    """Who has the lock, as the file in its folder says; for people only."""

    pid: int
    stack: str
    operation: str
    since: str
    """UTC, ISO 8601."""

    def __str__(self) -> str:
        if not self.operation:
            return f"process {self.pid}"
        return f"{self.operation} of stack {self.stack} (process {self.pid}, since {self.since})"


class HostLock:
    """The held lock. Use as a context manager, or `release` it.

    A process that holds it gets the same lock again from `acquire`; the last release frees it.
    """

    _guard = threading.Lock()
    _current: HostLock | None = None

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._depth = 1

    @classmethod
    def acquire(cls, operation: str, stack: str, wait: float = 0.0) -> HostLock:
        """Take the lock, trying for `wait` seconds. Raises Busy, which names the holder."""
        with cls._guard:
            if cls._current is not None:
                cls._current._depth += 1
                return cls._current
            lock = cls(_locked(_folder(), wait))
            try:
                lock.describe(operation, stack)
            except LockstepError:
                os.close(lock._descriptor)
                raise
            cls._current = lock
            return lock

    @classmethod
    def inherited(cls, descriptor: int) -> HostLock:
        """The lock that the parent process holds and handed down."""
        with cls._guard:
            cls._current = cls(descriptor)
            return cls._current

    @classmethod
    def current(cls) -> HostLock | None:
        """The lock if this process holds it."""
        return cls._current

    def describe(self, operation: str, stack: str) -> None:
        """Say in the file what this process holds the lock for. Raises LockstepError."""
        since = clock.now()
        said = json.dumps(asdict(Holder(os.getpid(), stack, operation, since))).encode()
        path = _folder() / _NOTE
        with _naming(path):
            descriptor = _open_note(path)
            try:
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, said, 0)
            finally:
                os.close(descriptor)

    def fileno(self) -> int:
        """The descriptor a child process inherits to hold the lock as well."""
        return self._descriptor

    def release(self) -> None:
        """Give the lock back, once for each `acquire`."""
        with self._guard:
            self._depth -= 1
            if self._depth == 0:
                os.close(self._descriptor)
                HostLock._current = None

    def __enter__(self) -> HostLock:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _e: BaseException | None, _t: TracebackType | None
    ) -> None:
        self.release()


def holder() -> Holder | None:
    """Who holds the lock now; None when nobody does."""
    try:
        descriptor = _open_folder(_folder())
    except OSError:
        return None
    try:
        # Shared: two that look at once must not take each other for a holder.
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _described(descriptor)
    else:
        return None
    finally:
        os.close(descriptor)


def _folder() -> Path:
    return Path(os.environ.get(DIRECTORY, "/run/lock"))


def _locked(folder: Path, wait: float) -> int:
    """The descriptor of the locked folder. Raises Busy."""
    with _naming(folder):
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = _open_folder(folder)
    deadline = time.monotonic() + max(wait, _LOOK_SECONDS)
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return descriptor
        except BlockingIOError:
            if time.monotonic() >= deadline:
                by = _described(descriptor)
                os.close(descriptor)
                raise Busy(
                    f"another operation is under way on this host: {by}",
                    next_step=_way_out(by),
                ) from None
            time.sleep(_POLL_SECONDS)


def _open_folder(folder: Path) -> int:
    return os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def _open_note(path: Path) -> int:
    """Every user of Docker on the host takes the same lock, so the file is writable by all.

    Opened before it is created: the kernel may forbid creating over another user's file.
    """
    flags = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        return os.open(path, flags)
    except FileNotFoundError:
        descriptor = os.open(path, flags | os.O_CREAT, 0o666)
        os.fchmod(descriptor, 0o666)
        return descriptor


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise LockstepError(
            f"the host lock {path} cannot be opened: {error.strerror}",
            next_step=f"export {DIRECTORY}=FOLDER   puts it elsewhere, the same for all users",
        ) from None


def _described(folder: int) -> Holder:
    """Who holds the lock, as the file says; where that is gone, the kernel knows a process."""
    try:
        descriptor = os.open(_NOTE, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
        try:
            found = json.loads(os.read(descriptor, _HOLDER_BYTES))
        finally:
            os.close(descriptor)
        return Holder(
            int(found["pid"]),
            str(found["stack"])[:100],
            str(found["operation"])[:100],
            str(found["since"])[:40],
        )
    except (OSError, ValueError, KeyError, TypeError):
        return Holder(_locker(folder), "", "", "")


def _locker(folder: int) -> int:
    """The process that took the lock, by /proc/locks; 0 if that does not tell."""
    inode = os.fstat(folder).st_ino
    with suppress(OSError):
        for line in Path("/proc/locks").read_text().splitlines():
            match = re.search(rf"FLOCK\s+ADVISORY\s+WRITE\s+(\d+) \w+:\w+:{inode} ", line)
            if match and "->" not in line:
                return int(match[1])
    return 0


def _way_out(by: Holder) -> str:
    if by.pid and process.is_stopped(by.pid):
        return f"kill -CONT {by.pid}   lets that process go on: somebody has stopped it"
    return "wait until it has ended, then run this again"
