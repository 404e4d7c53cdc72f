"""Everything that can go wrong with a snapshot, as classes whose message can be shown as it is."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager


class SnapshotError(Exception):
    """Base of all errors of this package; the message names the thing, the reason, the way on."""

    exit_code = 1


class Damaged(SnapshotError):
    """Stored content is missing, altered, or not what a snapshot may contain."""

    exit_code = 7


class NotEnoughSpace(SnapshotError):
    """The file system that was to be written has no room; the message has the numbers if known."""


class StoreUnusable(SnapshotError):
    """The store's folder cannot be used: not writable, not a store, or of another format."""


class StoreBusy(StoreUnusable):
    """Another process works with the store in a way that excludes this operation."""

    exit_code = 6


class UnknownSnapshot(SnapshotError):
    """The store holds no snapshot of that id."""


class UnknownPath(SnapshotError):
    """A snapshot has no entry of that path."""


class SourceChanging(SnapshotError):
    """Somebody writes into what was declared to be at rest."""


class TargetNotEmpty(SnapshotError):
    """A restore into a new place found content there."""


class Unsupported(SnapshotError):
    """What was asked for cannot be done exactly, so it is not done at all."""


class EngineFailed(SnapshotError):
    """An engine's own tool, run by a driver, reported a failure."""


def shown(name: bytes) -> str:
    """A file name or path for a message: printable whatever bytes it has; '.' for the root."""
    text = name.decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text) or "."


def named(error: OSError, doing: str, path: bytes) -> SnapshotError:
    """An operating system error as ours: `doing` ("read") and the path."""
    reason = error.strerror or str(error)
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return NotEnoughSpace(
            f"cannot {doing} {shown(path)}: {reason}; free some space and run it again"
        )
    return SnapshotError(f"cannot {doing} {shown(path)}: {reason}")


@contextmanager
def naming(doing: str, path: bytes) -> Iterator[None]:
    """Turn an operating system error inside the block into ours, as `named`."""
    try:
        yield
    except OSError as error:
        raise named(error, doing, path) from error
