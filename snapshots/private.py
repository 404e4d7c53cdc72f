"""Folders and files that nobody but their owner may look into."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from snapshots import fs
from snapshots.errors import StoreUnusable


def make_folder(path: Path) -> None:
    """A folder and what is missing above it, 0700 from their first moment, durable.

    Raises OSError.
    """
    for folder in (*reversed(path.parents), path):
        if not folder.exists():
            folder.mkdir(mode=0o700, exist_ok=True)
            fs.sync_folder(folder.parent)


def append(path: Path, *lines: bytes, durable: bool = False) -> None:
    """Add to a file, each line in one write, so that writers beside each other tear none; a new
    file is 0600 from its first moment. Raises OSError."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        for line in lines:
            os.write(descriptor, line)
        if durable:
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def complaint(folder: Path) -> str | None:
    """Why what lies in this folder could be read or exchanged by others, with the way out; None
    if it could not. The owner of a folder above it is trusted, everybody else is not."""
    state = folder.stat()
    if state.st_uid not in (0, os.geteuid()):
        return (
            f"{folder} belongs to another user (uid {state.st_uid}), who could read and change "
            f"it: chown -R {os.geteuid()} {folder}"
        )
    if state.st_mode & 0o077:
        return (
            f"{folder} is open to other users (mode {stat.S_IMODE(state.st_mode):o}): "
            f"chmod 700 {folder}"
        )
    for above in folder.resolve().parents:
        mode = above.stat().st_mode
        if mode & 0o002 and not mode & stat.S_ISVTX:
            return (
                f"{above} may be written by everybody, so {folder} could be exchanged: "
                f"chmod o-w {above}"
            )
    return None


def insist(folder: Path, what: str) -> None:
    """Raises StoreUnusable unless a folder is its owner's alone. `what` it is: "the store"."""
    wrong = complaint(folder)
    if wrong is not None:
        raise StoreUnusable(f"{what} would not be private: {wrong}")
