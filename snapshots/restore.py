"""Restore: a snapshot becomes a folder again, exactly, and nothing outside that folder changes.

Every name is one component, looked up in a directory that is held open, and no link is followed:
neither a record nor somebody who exchanges entries of the target meanwhile can lead elsewhere.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from failpoints import failpoint
from snapshots import fs
from snapshots.contents import Contents
from snapshots.errors import NotEnoughSpace, TargetNotEmpty, Unsupported, naming, shown
from snapshots.files import Files, FileTask, Finished, Made
from snapshots.inorder import InOrder
from snapshots.pace import Pace
from snapshots.plan import Plan, Room, Run, Step, Way, make_plan, with_room
from snapshots.progress import Meter, Progress
from snapshots.store import Store
from snapshots.tree import Dir, Fifo, File, Hard, Symlink, Up
from snapshots.twins import RestoredTwins

SPARE = 64 << 20  # room that is left free on the target's file system
THREADS = 6  # some decode while others wait for the disk
# In place most of it is reading what is there: from more places at once the disk gives it slower.
IN_PLACE_THREADS = 2
WAITING = 8  # batches given out and not yet done
# What one job restores at most, and a run more: 2 to 4 MiB stay in the caches and cost few faults.
BATCH_FILES, BATCH_BLOCKS = 64, 32
SMALL_BLOCKS = 4  # of a file, on average: with fewer most of the work is not their content
MAX_ACTIONS = 24  # of what waits for one batch: directories are open meanwhile


@dataclass(frozen=True)
class RestoreStats:
    """What a restore did: entries that are not directories, bytes written, seconds.

    `skipped`: what the snapshot does not have and why, such as sockets and devices.
    """

    files: int
    bytes_written: int
    seconds: float
    skipped: tuple[str, ...]


def restore(
    store: Store,
    snapshot_id: str,
    target: Path,
    *,
    in_place: bool = False,
    only: Sequence[str] = (),
    twins: Path | None = None,
    pace: Pace | None = None,
    progress: Progress | None = None,
) -> RestoreStats:
    """Make `target` the folder that was captured, durably.

    `target` is made if missing and must be empty, unless `in_place`: then only what differs is
    written and what is too much is removed. `only`: files and folders by their paths in the
    snapshot; nothing else is touched, except that directories which lead there are made, with
    their metadata, where they are missing, and a name whose hard links lie elsewhere becomes a
    file of its own. `twins`: a file to write, by which a capture of `target` knows what is still
    as it was restored. `pace`: for the sake of a service that uses the disk meanwhile.

    Every block is checked against its hash before it is written, and the whole tree before
    anything is; if a pack has lost a block, any other that has it is used. If a restore fails,
    what is in `target` is no longer of use. Raises Damaged, UnknownSnapshot, UnknownPath,
    TargetNotEmpty, NotEnoughSpace, Unsupported.
    """
    began = time.monotonic()
    fs.insist_apart(target, store.path)
    record = store.read(snapshot_id)
    with naming("restore into", os.fsencode(target)), store.reading() as source, Plan() as plan:
        source.payloads_too = False  # a block with the right hash is the right block
        make_plan(plan, store, record, source.index, only)
        made = not target.exists()
        target.mkdir(mode=0o700, exist_ok=True)
        failpoint("data.restore")
        with fs.opened_root(target) as root, RestoredTwins(twins, record.root) as finished:
            if not in_place:
                _insist_on_room(target, root, plan)
            meter = Meter("restore", plan.data, progress)
            work = _Restore(Contents(source, pace), root, made, in_place, finished, meter)
            with pace.watching(target) if pace else nullcontext():
                work.run(plan, pace.yield_to_others if pace else None)
            failpoint("data.restored")
            fs.sync_filesystem(root)
    return RestoreStats(plan.files, work.written, time.monotonic() - began, tuple(record.skipped))


def _insist_on_room(target: Path, root: int, plan: Plan) -> None:
    """Room for all of it, and inodes, before the first byte is written."""
    if names := fs.names_in(root):
        raise TargetNotEmpty(
            f"{target} is not empty ({shown(names[0])}): restore into an empty folder, or in place"
        )
    state = os.fstatvfs(root)
    free, needed = state.f_bavail * state.f_frsize, plan.data
    if free < needed + min(SPARE, needed // 10):
        raise NotEnoughSpace(
            f"{target} has {free >> 20} MiB free and the snapshot needs {needed >> 20} MiB: "
            "free some space and run it again"
        )
    # 0 of 0: they are made as they are needed, as on btrfs.
    if state.f_files and state.f_favail < plan.files + plan.folders:
        raise NotEnoughSpace(
            f"{target} has {state.f_favail} inodes free and the snapshot needs "
            f"{plan.files + plan.folders}: remove some files and run it again"
        )


@dataclass
class _Open:
    """A directory that is being restored. `meta`: to be applied at the end, None to leave it."""

    fd: int
    path: bytes
    names: tuple[bytes, ...]
    meta: fs.Meta | None
    extras: set[bytes] = field(default_factory=set)


class _Restore:
    """Carries out a plan: directories on this thread, content on others, in batches.

    What has to wait until earlier files are done (links, the metadata of directories) is done on
    this thread again, when the results of their batches are taken, in order.
    """

    def __init__(
        self,
        contents: Contents,
        root: int,
        made: bool,
        in_place: bool,
        twins: RestoredTwins,
        meter: Meter,
    ) -> None:
        self._contents, self._root, self._made = contents, root, made
        self._files = Files(contents, in_place, plain=made or not fs.read_xattrs(root))
        self._in_place, self._twins, self._meter = in_place, twins, meter
        self._device = os.fstat(root).st_dev
        self._dirs: list[_Open] = []
        self._held: set[int] = set()  # descriptors to close, whatever happens
        self._links: dict[int, tuple[tuple[bytes, ...], int]] = {}  # number -> names, inode
        self._task: FileTask | None = None  # the file whose runs come now
        self._large: Made | None = None  # the same, open, if it is more than one batch takes
        self._room: Room | None = None  # to be made for runs that come now
        self._batch: list[FileTask] = []
        self._batch_blocks = 0
        self._actions: list[Callable[[], None]] = []  # after the batch
        self.written = 0

    def run(self, plan: Plan, begin: Callable[[], None] | None) -> None:
        try:
            threads = IN_PLACE_THREADS if self._in_place else THREADS
            with InOrder(threads, WAITING, begin) as self._jobs:
                for step in with_room(plan.steps()):
                    if isinstance(step, Run):
                        self._run_of_blocks(step)
                    elif isinstance(step, Room):
                        self._room = step
                    else:
                        self._finish_file()
                        self._step(step)
                self._flush()
        finally:
            for fd in self._held:
                os.close(fd)
        self._meter.finish()

    def _step(self, step: Step) -> None:
        if isinstance(step, Up):
            self._leave_dir()
        elif not self._dirs:
            assert isinstance(step, (Dir, Way))
            self._enter(self._root, b"", step, fresh=self._made)
        else:
            assert not isinstance(step, Run)
            here = self._dirs[-1]
            path = fs.below(here.path, step.name)
            here.extras.discard(step.name)
            if isinstance(step, File):
                self._task = FileTask(here.fd, here.names, path, step)
                return
            with naming("restore", path):
                if isinstance(step, (Dir, Way)):
                    self._dir(here, path, step)
                else:
                    self._afterwards(partial(self._link_or_fifo, here, path, step))

    # -- directories -----------------------------------------------------------------------------

    def _enter(self, fd: int, path: bytes, step: Dir | Way, *, fresh: bool) -> None:
        """`fresh`: it was made for this restore. Others that only lead on keep their metadata."""
        meta = step.meta if fresh or isinstance(step, Dir) else None
        extras = set(fs.names_in(fd)) if self._in_place and isinstance(step, Dir) else set()
        names = (*self._dirs[-1].names, step.name) if self._dirs else ()
        self._dirs.append(_Open(fd, path, names, meta, extras))

    def _dir(self, here: _Open, path: bytes, step: Dir | Way) -> None:
        present = self._present(here.fd, step.name)
        if present is not None and not stat.S_ISDIR(present.st_mode):
            os.unlink(step.name, dir_fd=here.fd)
            present = None
        if present is None:
            os.mkdir(step.name, 0o700, dir_fd=here.fd)
        fd = os.open(step.name, fs.DIRECTORY, dir_fd=here.fd)
        self._held.add(fd)
        if os.fstat(fd).st_dev != self._device:
            raise Unsupported(f"{shown(path)} in the target is a mount point: unmount it first")
        if isinstance(step, Dir) and present is not None and not present.st_mode & stat.S_IWUSR:
            os.chmod(fd, 0o700)  # until its own metadata follows
        self._enter(fd, path, step, fresh=present is None)

    def _leave_dir(self) -> None:
        self._afterwards(partial(self._complete_dir, self._dirs.pop()))

    def _complete_dir(self, done: _Open) -> None:
        """Its own metadata last: everything in it was made by now, and would change its time."""
        with naming("restore", done.path):
            for name in done.extras:
                fs.remove_entry(done.fd, name)
            if done.meta is not None:
                fs.apply_meta(done.fd, done.meta)
        if done.fd != self._root:
            self._held.remove(done.fd)
            os.close(done.fd)

    def _present(self, dir_fd: int, name: bytes) -> os.stat_result | None:
        """What is there under this name already; only looked for in place."""
        if not self._in_place:
            return None
        try:
            return fs.lstat(dir_fd, name)
        except FileNotFoundError:
            return None

    # -- entries without content -----------------------------------------------------------------

    def _link_or_fifo(self, here: _Open, path: bytes, step: Symlink | Fifo | Hard) -> None:
        with naming("restore", path):
            if isinstance(step, Hard):
                self._hard(here, step)
                return
            if self._present(here.fd, step.name) is not None:
                fs.remove_entry(here.fd, step.name)
            if isinstance(step, Symlink):
                os.symlink(step.target, step.name, dir_fd=here.fd)
            else:
                os.mkfifo(step.name, 0o600, dir_fd=here.fd)
            fs.apply_entry_meta(here.fd, step.name, step.meta, link=isinstance(step, Symlink))
            if step.link is not None:
                inode = fs.lstat(here.fd, step.name).st_ino
                self._links[step.link] = (*here.names, step.name), inode

    def _hard(self, here: _Open, step: Hard) -> None:
        names, inode = self._links[step.of]
        present = self._present(here.fd, step.name)
        if present is not None:
            if present.st_ino == inode and not stat.S_ISDIR(present.st_mode):
                return
            fs.remove_entry(here.fd, step.name)
        fs.link_entry(self._root, names, here.fd, step.name, inode)

    # -- files -----------------------------------------------------------------------------------

    def _run_of_blocks(self, run: Run) -> None:
        assert self._task is not None
        self._task.add(run)
        if self._task.blocks >= BATCH_BLOCKS:
            if self._large is None:
                self._flush()
                self._large = self._files.make_large(self._task)
                self._held |= self._large.descriptors
            self._give_out(self._large, last=False)

    def _finish_file(self) -> None:
        """No more runs of the open file come."""
        task, self._task = self._task, None
        if task is None:
            return
        if self._large is None:
            self._batch.append(task)
            self._batch_blocks += task.blocks
            if len(self._batch) >= BATCH_FILES or self._batch_blocks >= BATCH_BLOCKS:
                self._flush()
            return
        made, self._large = self._large, None
        self._task = task
        self._give_out(made, last=True)
        self._task = None
        self._jobs.then(partial(self._finish_large, task, made))

    def _give_out(self, made: Made, *, last: bool) -> None:
        """What came of a large file, as a job of its own."""
        assert self._task is not None
        piece = self._task.piece(made, last=last)
        if self._room and not made.kept:
            with naming("restore", self._task.path):
                for offset, length in self._room.parts:
                    fs.preallocate(made.fd, offset, length)
        self._room = None
        data = sum(length for run in piece.runs for _, length in run.parts)
        self._jobs.submit(partial(self._contents.fill, [piece]), partial(self._count, data))

    def _finish_large(self, task: FileTask, made: Made) -> None:
        self._finished(self._files.finish(task, made))
        self._held -= made.descriptors
        made.close()

    def _finished(self, file: Finished) -> None:
        task = file.task
        self._twins.add(task.path, file.st)
        if task.file.link is not None:
            self._links[task.file.link] = (*task.folder, task.file.name), file.st.st_ino

    def _count(self, data: int, written: int) -> None:
        self._meter.add(data)
        self.written += written

    # -- batches ---------------------------------------------------------------------------------

    def _flush(self) -> None:
        """Give out the files that were gathered, and what is to be done after them."""
        tasks, actions = self._batch, self._actions
        small = self._batch_blocks < SMALL_BLOCKS * len(tasks)
        self._batch, self._batch_blocks, self._actions = [], 0, []

        def then(result: tuple[list[Finished], int]) -> None:
            finished, written = result
            for file in finished:
                self._finished(file)
            self._count(sum(task.data for task in tasks), written)
            for action in actions:
                action()

        if tasks:
            self._jobs.submit(partial(self._files.whole, tasks), then, in_turn=small)

    def _afterwards(self, action: Callable[[], None]) -> None:
        """Do this on this thread when every file before it is done."""
        if not self._batch:
            self._jobs.then(action)
            return
        self._actions.append(action)
        if len(self._actions) >= MAX_ACTIONS:
            self._flush()
