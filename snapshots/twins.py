"""Twins: files of a new folder that have the content of a file which a snapshot knows already.

A fork and a restore know that, but the times and inodes of what they make are new, so a capture
would read everything. They leave a file that says which one equals which:

    fork      the file with twin K2 has what the source's file of the same path had with key K1
    restore   the file with twin K2 has what the file of the same path has in the tree

Nothing depends on it. Lost or damaged, the next capture reads everything.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from types import TracebackType

from snapshots import fs
from snapshots.seen import SeenFiles, SeenWriter, Twin


def twins_path(index: Path) -> Path:
    """Where a fork with this index leaves its twins."""
    return index.with_suffix(".twins")


class Twins:
    """Asked by `capture` in the order of its walk. `root`: of the parent snapshot's tree."""

    def __init__(self, path: Path | None, root: str | None) -> None:
        self._seen = SeenFiles(path if root else None)
        self._restored = bool(root) and self._seen.subject == bytes.fromhex(root or "")

    def equal(self, folder: bytes, name: bytes, now: fs.Key, then: fs.Key | None) -> bool:
        """Whether a file, as it is `now`, has what it has in the parent snapshot.

        `then`: how it was when that was captured.
        """
        seen = self._seen.find(folder, name)
        if seen is None:
            return False
        key, (inode, ctime) = seen
        # A write within the tick of the clock in which the copy was finished would not show.
        settled = ctime + fs.SETTLE_NS < self._seen.closed_ns
        same = (inode, key[1], key[2], ctime) == now
        return settled and same and (self._restored or key == then)


class RestoredTwins:
    """Written by a restore of the tree `root`: every file as it was left. `path` None: nowhere.

    A context: it is there once the block is left, and not at all after an error.
    """

    def __init__(self, path: Path | None, root: str) -> None:
        self._writer = SeenWriter(path, bytes.fromhex(root)) if path else None
        self._latest_ns = 0

    def add(self, path: bytes, st: os.stat_result) -> None:
        """A file that is finished. Files come in the order of the tree."""
        if self._writer is None:
            return
        folder, _, name = path.rpartition(b"/")
        key = fs.Key(0, st.st_size, st.st_mtime_ns, 0)
        self._writer.add(folder, name, key, Twin(st.st_ino, st.st_ctime_ns))
        self._latest_ns = max(self._latest_ns, st.st_ctime_ns)

    def __enter__(self) -> RestoredTwins:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _e: BaseException | None, _t: TracebackType | None
    ) -> None:
        if self._writer is None:
            return
        try:
            if kind is None:
                # No longer than that; most often the sync took it already.
                settled = min(self._latest_ns + fs.SETTLE_NS - time.time_ns(), fs.SETTLE_NS)
                time.sleep(max(0, settled + 1) / 1e9)
                self._writer.close(durable=False)
        finally:
            self._writer.discard()
