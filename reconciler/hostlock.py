"""One operation per host: a kernel lock, freed by its holder's death.

The lock belongs to the open file, not to the process: the switch inherits the descriptor and
holds the lock on when its caller dies. So it is only ever given back by closing, never unlocked.
"""

from __future__ import annotations

import fcntl
import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType

from reconciler.errors import Busy, LockstepError

DIRECTORY = "LOCKSTEP_LOCK_DIR"
"""Environment variable: another folder for the lock file than /run/lock."""

_POLL_SECONDS = 0.1
_HOLDER_BYTES = 4096


@dataclass(frozen=True)
class Holder:
    """Who has the lock, as the lock file says; for people only."""

    pid: int
    stack: str
    operation: str
    since: str
    """UTC, ISO 8601."""

    def __str__(self) -> str:
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
            lock = cls(_locked(_path(), wait))
            lock.describe(operation, stack)
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
        """Say in the lock file what this process holds it for."""
        since = datetime.now(UTC).isoformat(timespec="seconds")
        holder = Holder(os.getpid(), stack, operation, since)
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, json.dumps(asdict(holder)).encode(), 0)

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
    path = _path()
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return _described(descriptor)
    else:
        return None
    finally:
        os.close(descriptor)


def _path() -> Path:
    return Path(os.environ.get(DIRECTORY, "/run/lock")) / "lockstep.lock"


def _locked(path: Path, wait: float) -> int:
    """The descriptor of the locked file. Raises Busy."""
    with _naming(path):
        descriptor = _open(path)
    deadline = time.monotonic() + wait
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return descriptor
        except BlockingIOError:
            if time.monotonic() >= deadline:
                by = _described(descriptor)
                os.close(descriptor)
                raise Busy(
                    f"another operation is under way on this host: {by or 'somebody'}",
                    next_step="wait until it has ended, then run this again",
                ) from None
            time.sleep(_POLL_SECONDS)


def _open(path: Path) -> int:
    """Every user of Docker on the host takes the same lock, so the file is writable by all.

    Opened before it is created: the kernel may forbid creating over another user's file.
    """
    flags = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        return os.open(path, flags)
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
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


def _described(descriptor: int) -> Holder | None:
    try:
        found = json.loads(os.pread(descriptor, _HOLDER_BYTES, 0))
        return Holder(
            int(found["pid"]),
            str(found["stack"])[:100],
            str(found["operation"])[:100],
            str(found["since"])[:40],
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None
