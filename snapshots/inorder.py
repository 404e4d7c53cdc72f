"""Work on a few threads whose results are taken in the order in which it was given out."""

from __future__ import annotations

import ctypes
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from types import TracebackType
from typing import Any, TypeVar

T = TypeVar("T")

THREADS = 2
AHEAD_IN_TURN = 2  # jobs: the caller, who makes the next ones, takes the lock from that thread too
WAITING = 64  # jobs given out and not yet taken: bounds memory and open files

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # glibc's mallopt
_KEPT, _LARGEST = 64 << 20, 32 << 20  # bytes


class InOrder:
    """`submit` gives a job to the threads; its `then` runs on the caller's thread, in order.

    `begin` is called once on each thread. Leaving the `with` block waits for everything; after an
    error it drops what has not begun.
    """

    def __init__(
        self,
        threads: int = THREADS,
        waiting: int = WAITING,
        begin: Callable[[], None] | None = None,
    ) -> None:
        _keep_freed_memory()
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="snapshots", initializer=begin)
        self._turns = ThreadPoolExecutor(1, thread_name_prefix="snapshots", initializer=begin)
        self._limit = waiting
        self._queue: deque[tuple[Future[Any] | None, Callable[[Any], None]]] = deque()

    def submit(
        self, job: Callable[[], T], then: Callable[[T], None], *, in_turn: bool = False
    ) -> None:
        """Run `job` on a thread and later, after all earlier ones, `then` with its result.

        `in_turn`: on the one thread that does all such jobs. What consists of many short steps is
        done sooner by one: several would pass the interpreter's lock to and fro at each of them.
        """
        pool = self._turns if in_turn else self._pool
        self._queue.append((pool.submit(job), then))
        while len(self._queue) > (AHEAD_IN_TURN if in_turn else self._limit):
            self.take()

    def then(self, action: Callable[[], None]) -> None:
        """Run `action` on the caller's thread when everything submitted before it is done."""
        self._queue.append((None, lambda _: action()))
        while self._queue and self._queue[0][0] is None:
            self.take()
        while len(self._queue) > 4 * self._limit:
            self.take()

    def wait(self) -> None:
        """Until everything so far is done and taken."""
        while self._queue:
            self.take()

    def take(self) -> None:
        """Until the first that was given out and not yet taken is done and taken."""
        future, then = self._queue.popleft()
        then(future.result() if future else None)

    def __enter__(self) -> InOrder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _e: BaseException | None, _t: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self.wait()
        finally:
            for pool in (self._pool, self._turns):
                pool.shutdown(wait=True, cancel_futures=True)
            self._queue.clear()


@cache
def _keep_freed_memory() -> None:
    """Let the C library keep what a job frees for the next one.

    It would give it back to the kernel at once, and a page fault for each 4 KiB that passes
    through costs more than the work itself: a third of the time of a restore, measured.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:  # other C libraries do as they do
        mallopt(_TRIM_THRESHOLD, _KEPT)
        mallopt(_MMAP_THRESHOLD, _LARGEST)
