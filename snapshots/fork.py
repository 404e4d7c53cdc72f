"""Fork: a second, equal folder, made while the first is written, finished after that stopped.

    fork = Fork(source, target, index=...)
    fork.first_pass()       # long, while the source is in use
    fork.catch_up()         # short, just before the stop: what it reads stays in the page cache
    fork.final_pass()       # source at rest: afterwards the target equals it

A pass looks at every entry and copies what changed since the pass before. Per file the order is
stat, write out, read: a writer through mmap changes no time while its page is dirty and writable,
but after that was written out the next write must. Where this does not hold (tmpfs, network file
systems) the final pass compares everything.

Where files can share their content (XFS, btrfs) each pass clones what changed: whole files by one
call each, whatever their size, or in parts beside a service, which waits for each such call;
elsewhere it reads both and writes the pages that differ.
"""

from __future__ import annotations

import os
import struct
import time
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from failpoints import failpoint
from snapshots import fs
from snapshots.compare import measure, tree_equal
from snapshots.errors import TargetNotEmpty, naming, shown
from snapshots.forkpass import Pass
from snapshots.fs import Size
from snapshots.pace import Pace
from snapshots.progress import Meter, Progress
from snapshots.seen import SeenFiles, SeenWriter
from snapshots.twins import twins_path

__all__ = ["Fork", "ForkStats", "Size", "measure", "tree_equal"]


@dataclass(frozen=True)
class ForkStats:
    """One pass: entries seen, copied or changed, removed; bytes written; how; seconds."""

    files: int
    changed: int
    removed: int
    bytes_written: int
    reflinked: int
    skipped: list[str]
    seconds: float


class Fork:
    """The making of one new generation.

    `index`: a file (its folder exists) that keeps, between processes, what the last pass saw. If
    it is missing or damaged, the next pass compares everything. The final pass removes it, and
    leaves beside it what `capture` of the new folder takes as `twins`. `pace`: of the first pass;
    a catch-up goes by a lighter one, the final pass never waits.
    """

    def __init__(
        self,
        source: Path,
        target: Path,
        *,
        index: Path,
        progress: Progress | None = None,
        pace: Pace | None = None,
    ) -> None:
        self._source, self._target, self._index = source, target, index
        self._progress, self._pace = progress, pace

    def first_pass(self) -> ForkStats:
        """Copy everything while the source is in use; entries that vanish are left out.

        Durable on return. Raises TargetNotEmpty, unless the index tells that an earlier pass into
        this target was begun: what a pass finds too much in its target, it removes.
        """
        if not self._index.exists():
            self._begin()
        failpoint("data.fork")
        return self._run("copy", first=True, pace=self._pace)

    def _begin(self) -> None:
        with (
            naming("begin a fork in", os.fsencode(self._target)),
            fs.opened_root(self._source) as src,
            fs.opened_root(self._target) as dst,
        ):
            fs.insist_apart(self._source, self._target)
            if names := fs.names_in(dst):
                raise TargetNotEmpty(
                    f"{self._target} is not empty ({shown(names[0])}): fork into an empty folder"
                )
            SeenWriter(self._index, _identity(os.fstat(src), os.fstat(dst))).close()

    def catch_up(self) -> ForkStats:
        """Copy what changed since the last pass while the source is in use. Durable on return."""
        pace = self._pace.lighter() if self._pace else None
        return self._run("catch up", pace=pace)

    def final_pass(self) -> ForkStats:
        """The source is at rest: afterwards the target equals it, durably.

        Raises SourceChanging if something vanishes or is exchanged meanwhile.
        """
        stats = self._run("final copy", final=True)
        failpoint("data.forked")
        with naming("remove", os.fsencode(self._index)):
            self._index.unlink(missing_ok=True)
        return stats

    @property
    def twins(self) -> Path:
        """Where the final pass leaves what `capture` of the new folder takes as `twins`."""
        return twins_path(self._index)

    def _run(
        self, what: str, *, first: bool = False, final: bool = False, pace: Pace | None = None
    ) -> ForkStats:
        began = time.monotonic()
        with (
            naming(f"fork {self._source} into", os.fsencode(self._target)),
            fs.opened_root(self._source) as src,
            fs.opened_root(self._target) as dst,
        ):
            fs.insist_apart(self._source, self._target)
            identity = _identity(os.fstat(src), os.fstat(dst))
            trusted = not final or fs.times_are_honest(src)
            seen = SeenFiles(self._index, identity) if trusted else SeenFiles(None)
            # Where times prove nothing, a twin could not be told from a file that changed.
            place = self.twins if final and trusted else self._index
            record = SeenWriter(place, identity)
            work = Pass(self._source, seen, record, pace, first=first, final=final)
            total = fs.measure_fd(src, set()).apparent_bytes if self._progress else 0
            work.meter = Meter(what, total, self._progress)
            with pace.watching(self._target) if pace else nullcontext():
                work.run(src, dst)
        return ForkStats(
            work.files,
            work.changed,
            work.removed,
            work.written,
            work.reflinked,
            work.skipped,
            time.monotonic() - began,
        )


def _identity(source: os.stat_result, target: os.stat_result) -> bytes:
    """The pair of folders that an index speaks of."""
    return struct.pack("<4Q", source.st_dev, source.st_ino, target.st_dev, target.st_ino)
