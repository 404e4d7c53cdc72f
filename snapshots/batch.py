"""The pieces of a tree in their order: some are ready, some are still made by a thread."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial

from snapshots.draft import Piece
from snapshots.inorder import InOrder

Make = Callable[[], Piece]

WORK = 64  # makes in one job; a make may count for several
READY = 1024  # pieces in all that wait to be written
FOLDERS = 8  # directories kept open for one job
OPEN = 128  # in all
AHEAD = 48  # jobs given out and not yet taken: bounds open files


class Batch:
    """Gives out work to `jobs` by the dozen and has all pieces written in the order of the calls.

    `write` runs on the caller's thread.
    """

    def __init__(self, jobs: InOrder, write: Callable[[Sequence[Piece]], None]) -> None:
        self._jobs, self._write = jobs, write
        self._items: list[Piece | Make] = []
        self._work = 0
        self._folders: dict[int, int] = {}  # descriptor given -> our own, open as long as needed
        self._open: set[int] = set()

    def ready(self, piece: Piece) -> None:
        self._items.append(piece)
        if len(self._items) >= READY:
            self.flush()

    def make(self, make: Make, weight: int) -> None:
        """A piece that is made together with others."""
        self._items.append(make)
        self._work += weight
        if self._work >= WORK:
            self.flush()

    def alone(self, make: Make) -> None:
        """A piece whose making is worth a job of its own."""
        self.flush()
        self._jobs.submit(make, lambda piece: self._write([piece]))

    def then(self, make: Make) -> None:
        """A piece that is made on the caller's thread, when everything before is written."""
        self.flush()
        self._jobs.then(lambda: self._write([make()]))

    def folder(self, fd: int) -> int:
        """A descriptor of the same directory for makes of the batch that is open."""
        own = self._folders.get(fd)
        if own is None:
            if len(self._folders) >= FOLDERS:
                self.flush()
            while len(self._open) >= OPEN:
                self._jobs.take()
            own = self._folders[fd] = os.dup(fd)
            self._open.add(own)
        return own

    def leave(self, fd: int) -> None:
        """The number of this descriptor is about to mean something else."""
        if fd in self._folders:
            self._folders[-1 - len(self._folders)] = self._folders.pop(fd)

    def flush(self) -> None:
        items, folders = self._items, list(self._folders.values())
        work, self._items, self._work, self._folders = self._work, [], 0, {}
        if not items:
            return

        def written(pieces: list[Piece]) -> None:
            self._write(pieces)
            for fd in folders:
                self._open.remove(fd)
                os.close(fd)

        if work:
            self._jobs.submit(partial(_made, items), written)
        else:
            self._jobs.then(lambda: written([i for i in items if isinstance(i, Piece)]))

    def close(self) -> None:
        """After an error, when no thread works any more."""
        while self._open:
            os.close(self._open.pop())


def _made(items: list[Piece | Make]) -> list[Piece]:
    return [item if isinstance(item, Piece) else item() for item in items]
