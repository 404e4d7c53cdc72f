"""How long work tells its caller how far it is."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Called now and then, from the calling thread, with bytes done of bytes in all."""

    def __call__(self, what: str, done: int, total: int) -> None: ...


class Meter:
    """Adds up what was done and reports it, at most once for each `STEP` bytes."""

    STEP = 16 << 20

    def __init__(self, what: str, total: int, progress: Progress | None) -> None:
        self._what, self._total, self._progress = what, total, progress
        self._done = self._reported = 0

    def add(self, count: int) -> None:
        self._done += count
        if self._progress and self._done - self._reported >= self.STEP:
            self._reported = self._done
            self._progress(self._what, self._done, max(self._total, self._done))

    def finish(self) -> None:
        if self._progress:
            self._progress(self._what, self._done, self._done)
