"""A command's wall time, CPU time and memory, seen from outside."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from bench.errors import BenchError, TooSlow

LIMIT_SECONDS = 900.0
LOOK_SECONDS = 0.04


@dataclass(frozen=True)
class Command:
    """Something to type: words, where, and what it needs in its environment."""

    argv: Sequence[str]
    cwd: Path = Path("/")
    env: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Spent:
    """Wall seconds, CPU seconds (children included), peak bytes of memory of all its processes."""

    seconds: float
    cpu_seconds: float
    peak_bytes: int
    output: str


def run(command: Command, *, limit: float = LIMIT_SECONDS) -> Spent:
    """Run a command to its end. Raises BenchError with its last words, TooSlow at the limit."""
    with tempfile.TemporaryFile() as output:
        began = time.monotonic()
        process = subprocess.Popen(
            list(command.argv),
            cwd=command.cwd,
            env={**os.environ, **command.env},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        overdue = threading.Timer(limit, _end, [process.pid])
        overdue.start()
        try:
            with _Watch(process.pid) as watch:
                _, status, used = os.wait4(process.pid, 0)
        finally:
            overdue.cancel()
        seconds = time.monotonic() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        said = _tail(output)
    name = " ".join(command.argv)[:160]
    if seconds >= limit:
        raise TooSlow(f"{name} was ended after {seconds:.0f} s", seconds)
    if process.returncode != 0:
        raise BenchError(f"{name} ended with {process.returncode}: {said[-1500:]}")
    return Spent(seconds, used.ru_utime + used.ru_stime, watch.peak, said)


def _end(group: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(group, 9)


def _tail(output: IO[bytes]) -> str:
    output.seek(max(0, output.seek(0, os.SEEK_END) - 8192))
    return output.read().decode(errors="replace").strip()


class _Watch:
    """The peak memory of a process and its descendants, looked at now and then.

    The kernel's own figure (ru_maxrss) would count what this process had before `exec`.
    """

    def __init__(self, pid: int) -> None:
        self.peak = 0
        self._pid, self._over = pid, threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> _Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._over.wait(LOOK_SECONDS):
            self.peak = max(self.peak, sum(_high_water(pid) for pid in family(self._pid)))


def family(pid: int) -> Iterator[int]:
    """A process and its descendants that are there now."""
    yield pid
    with suppress(OSError, ValueError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                yield from family(int(child))


def _high_water(pid: int) -> int:
    with suppress(OSError):
        found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
        return int(found[1]) * 1024 if found else 0
    return 0
