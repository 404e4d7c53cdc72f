"""Files that are being restored: made or taken over, filled, and given their metadata."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from snapshots import fs
from snapshots.contents import Contents, Piece
from snapshots.errors import SnapshotError, named, shown
from snapshots.plan import Run
from snapshots.tree import File


@dataclass(slots=True)
class FileTask:
    """A file to restore under its name in an open directory, and its runs of blocks as they come.

    `folder`: the names of the directories that lead there, for hard links to it.
    """

    dir_fd: int
    folder: tuple[bytes, ...]
    path: bytes
    file: File
    runs: list[Run] = field(default_factory=list)
    blocks: int = 0  # in `runs`
    data: int = 0  # bytes in them
    done: int = 0  # up to where the file was given out as pieces

    def add(self, run: Run) -> None:
        self.runs.append(run)
        self.blocks += len(run.blocks)
        self.data += sum(length for _, length in run.parts)

    def reaches_its_end(self) -> bool:
        """Whether writing the runs that came gives the file its size."""
        parts = self.runs[-1].parts if self.runs else ()
        return self.file.size == (sum(parts[-1]) if parts else 0)

    def piece(self, made: Made, *, last: bool) -> Piece:
        """What came since the piece before; `last`: up to the end of the file."""
        ends = (offset + length for run in self.runs for offset, length in run.parts)
        end = self.file.size if last else max(ends, default=self.done)
        piece = Piece(
            made.fd,
            self.path,
            self.file.size,
            self.done,
            end,
            self.runs,
            made.kept,
            made.past_cache,
        )
        self.done, self.runs, self.blocks = end, [], 0
        return piece


@dataclass(frozen=True, slots=True)
class Made:
    """An open file. `kept`: it was there before, with content and metadata.

    `past_cache`: as in a Piece.
    """

    fd: int
    kept: bool
    past_cache: int | None = None

    @property
    def descriptors(self) -> set[int]:
        """All that are open for it."""
        return {self.fd} if self.past_cache is None else {self.fd, self.past_cache}

    def close(self) -> None:
        for fd in self.descriptors:
            os.close(fd)


@dataclass(frozen=True, slots=True)
class Finished:
    """A file as it was left."""

    task: FileTask
    st: os.stat_result


class Files:
    """Restores files. Used by several threads at once. `in_place`: there may be files already."""

    def __init__(self, contents: Contents, in_place: bool, *, plain: bool) -> None:
        self._contents, self._in_place = contents, in_place
        self._plain = plain  # new entries have no attributes that they were not given

    def whole(self, tasks: Sequence[FileTask]) -> tuple[list[Finished], int]:
        """Restore files from the first byte to their metadata; also returns the bytes written."""
        made: list[Made] = []
        try:
            pieces = []
            for task in tasks:
                made.append(self.make(task))
                pieces.append(task.piece(made[-1], last=True))
            written = self._contents.fill(pieces)
            return [self.finish(t, file) for t, file in zip(tasks, made, strict=True)], written
        finally:
            for file in made:
                file.close()

    def make_large(self, task: FileTask) -> Made:
        """As `make`, for a file whose content is too much to fill the page cache with."""
        made = self.make(task)
        if task.file.size % fs.ALIGNED == 0:
            return replace(made, past_cache=fs.past_the_cache(made.fd))
        return made

    def make(self, task: FileTask) -> Made:
        """Open the file, of its final size; one that is there is kept if it is nobody else's."""
        try:
            made = self._taken_over(task) if self._in_place else None
            if made is None:
                made = Made(fs.open_file(task.dir_fd, task.file.name, fs.CREATE), kept=False)
                if not task.reaches_its_end():
                    os.ftruncate(made.fd, task.file.size)
            elif os.fstat(made.fd).st_size != task.file.size:
                os.ftruncate(made.fd, task.file.size)
            return made
        except OSError as error:
            raise named(error, "restore", task.path) from error

    def _taken_over(self, task: FileTask) -> Made | None:
        name = task.file.name
        try:
            present = fs.lstat(task.dir_fd, name)
        except FileNotFoundError:
            return None
        # Other names of it, which may lie outside the target, must not see what is written.
        if not stat.S_ISREG(present.st_mode) or present.st_nlink != 1:
            fs.remove_entry(task.dir_fd, name)
            return None
        try:
            fd = fs.open_file(task.dir_fd, name, fs.WRITE)
        except PermissionError:  # its mode forbids it to all but root: it is made anew
            fs.remove_entry(task.dir_fd, name)
            return None
        found = os.fstat(fd)
        if (found.st_ino, found.st_dev, found.st_nlink) != (present.st_ino, present.st_dev, 1):
            os.close(fd)
            raise SnapshotError(
                f"{shown(task.path)}: somebody else changes the target; stop that first"
            )
        return Made(fd, kept=True)

    def finish(self, task: FileTask, made: Made) -> Finished:
        """Its metadata, when all of its content is there."""
        fd, meta = made.fd, task.file.meta
        try:
            if made.kept or meta.xattrs or not self._plain:
                fs.apply_meta(fd, meta)
            else:
                os.chown(fd, meta.uid, meta.gid)
                os.chmod(fd, meta.mode)
                os.utime(fd, ns=(meta.mtime_ns, meta.mtime_ns))
            return Finished(task, os.fstat(fd))
        except OSError as error:
            raise named(error, "restore", task.path) from error
