"""Pace: how fast a copy may go while a service uses the same disk.

    pace = Pace(floor=20 << 20)
    with pace.watching(folder):     # on the file system that is written
        # on each copying thread
        pace.yield_to_others()      # once
        pace.spend(count)           # after each portion

How much the service is disturbed is not asked of it but seen on the host: by the latency of a
small durable write of our own, and by how long others wait for the disk, both compared with how it
was before the copy began. While it is calm the rate grows steadily; when it is not, it falls.
"""

from __future__ import annotations

import ctypes
import os
import platform
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

PORTION = 1 << 20  # bytes copied and written out between two looks at the rate
EACH_FILE = 16 << 10  # what a file costs beside its content
LIGHTER = 4
FLOOR = 20 << 20  # bytes per second, if nothing else is asked for

UNNOTICED = 16 << 20  # bytes of one pass that nobody waits for
INTERVAL = 0.1  # seconds between two looks at the host
LOOKS_AT_REST = 8  # before the first byte, at a shorter interval
GROWTH = 4 << 20  # bytes per second more, each calm interval;
FIRST_GROWTH = 0.2  # or this share of the rate, as long as there was no strain at all
FALL = 0.5  # of the rate is left after a strained one
SLOWER = 2.0  # times the latency at rest is a strain,
NOTICEABLE = 0.0015  # unless it is less than so many seconds more
WAITING = 0.2  # so much more of the time that others wait for the disk is a strain

_PRESSURE = Path("/proc/pressure/io")
_IOPRIO_SET = {"x86_64": 251, "aarch64": 30}
_IOPRIO_LAST = (2 << 13) | 7  # of those that are served at all on a busy disk: the floor holds
_NICE = 10  # about a tenth of a busy processor
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class Look:
    """The host at one moment: seconds a small durable write took (None: could not be tried), and
    the share of the time since the look before that some process but ours waited for the disk."""

    latency: float | None
    waiting: float


@dataclass(frozen=True)
class AtRest:
    """How the host is without the copy."""

    latency: float | None
    waiting: float

    @classmethod
    def of(cls, looks: list[Look]) -> AtRest:
        latencies = sorted(look.latency for look in looks if look.latency is not None)
        waits = sorted(look.waiting for look in looks)
        return cls(
            latencies[len(latencies) // 2] if latencies else None,
            waits[len(waits) // 2] if waits else 0.0,
        )

    def is_strained(self, look: Look) -> bool:
        """Whether the host does clearly worse than at rest."""
        if look.waiting > self.waiting + WAITING:
            return True
        if look.latency is None or self.latency is None:
            return False
        return look.latency > max(self.latency * SLOWER, self.latency + NOTICEABLE)


def next_rate(rate: int, floor: int, cap: int, *, strained: bool, ever: bool = True) -> int:
    """Additive increase, multiplicative decrease, within floor and cap (0: none).

    `ever`: there was a strain before; until then the increase is multiplicative as well.
    """
    growth = GROWTH if ever else max(GROWTH, int(rate * FIRST_GROWTH))
    wanted = int(rate * FALL) if strained else rate + growth
    wanted = max(wanted, floor)
    return min(wanted, cap) if cap else wanted


class Pace:
    """The rate that all threads of a copy share. `floor`, `cap`: bytes per second, cap 0: none."""

    def __init__(self, floor: int = FLOOR, cap: int = 0) -> None:
        self.floor, self.cap = max(1, min(floor, cap) if cap else floor), cap
        self.rate = self.floor
        self._lock = threading.Lock()
        self._spent = 0
        self._free_at = 0.0  # when the next portion may begin
        self._busy = 0.0  # seconds that our threads worked since the last look
        self._resumed = threading.local()
        self._needed, self._ready = threading.Event(), threading.Event()

    def lighter(self) -> Pace:
        """For a short pass, during which more and more is left for later: it may disturb more."""
        return Pace(self.floor * LIGHTER, self.cap)

    @contextmanager
    def watching(self, folder: Path) -> Iterator[None]:
        """Adapt the rate to what the host bears. `folder`: on the file system to look at."""
        ended = threading.Event()
        self._spent = 0
        self._needed.clear()
        self._ready.clear()
        watcher = threading.Thread(
            target=self._watch, args=(folder, ended), name="pace", daemon=True
        )
        watcher.start()
        try:
            yield
        finally:
            ended.set()
            self._needed.set()
            watcher.join()

    def _watch(self, folder: Path, ended: threading.Event) -> None:
        """Nothing as long as little is spent. Then the copy waits while we look at the host."""
        self._needed.wait()
        try:
            if ended.is_set():
                return
            with _probe(folder) as probe:
                host = _Host(probe, ended)
                at_rest = AtRest.of([host.look(INTERVAL / 4) for _ in range(LOOKS_AT_REST)])
                self._ready.set()
                ever = False
                while not ended.is_set():
                    strained = at_rest.is_strained(host.look(INTERVAL, self._busy_since_last))
                    ever = ever or strained
                    bounds = self.floor, self.cap
                    self.rate = next_rate(self.rate, *bounds, strained=strained, ever=ever)
        finally:
            self._ready.set()

    def _busy_since_last(self) -> float:
        with self._lock:
            busy, self._busy = self._busy, 0.0
        return busy

    def yield_to_others(self) -> None:
        """The calling thread comes after others, at the disk and at the processor."""
        thread = threading.get_native_id()
        with suppress(OSError):
            nice = max(_NICE, os.getpriority(os.PRIO_PROCESS, thread))
            os.setpriority(os.PRIO_PROCESS, thread, nice)
        number = _IOPRIO_SET.get(platform.machine())
        if number is not None:
            _libc.syscall(number, 1, 0, _IOPRIO_LAST)  # refused or not: the rate holds

    def spend(self, count: int) -> None:
        """Wait until so many bytes, which the calling thread has just worked on, are paid for."""
        now = time.monotonic()
        with self._lock:
            self._spent += count
            little = self._spent <= UNNOTICED
        if little:
            return
        if not self._ready.is_set():
            self._needed.set()
            self._ready.wait()
            now = time.monotonic()
        with self._lock:
            self._busy += now - getattr(self._resumed, "at", now)
            self._free_at = max(self._free_at, now - INTERVAL) + count / self.rate
            wait = self._free_at - now
        if wait > 0:
            time.sleep(wait)
        self._resumed.at = time.monotonic()

    def leave_to_others(self, seconds: float) -> None:
        """Wait as long as the calling thread has just kept others from what they use."""
        self.spend(int(2 * seconds * self.rate))  # that time itself counts as well


class _Host:
    """Looks at the host, again and again."""

    def __init__(self, probe: int | None, ended: threading.Event) -> None:
        self._probe, self._ended = probe, ended
        self._waited = _waited()
        self._at = time.monotonic()

    def look(self, interval: float, own: Callable[[], float] = float) -> Look:
        """After `interval` seconds. `own`: how many of those since the last look we worked."""
        self._ended.wait(interval)
        latency = self._latency()
        waited, now = _waited(), time.monotonic()
        past = now - self._at
        ours = own() + (latency or 0.0)
        share = max(0.0, (waited - self._waited - ours) / past) if past > 0 else 0.0
        self._waited, self._at = waited, now
        return Look(latency, share)

    def _latency(self) -> float | None:
        if self._probe is None:
            return None
        began = time.monotonic()
        try:
            os.pwrite(self._probe, b"\0" * 4096, 0)
            os.fdatasync(self._probe)
        except OSError:  # a full disk is for the copy to report
            return None
        return time.monotonic() - began


@contextmanager
def _probe(folder: Path) -> Iterator[int | None]:
    """A file without a name, or None where there are none."""
    try:
        fd = os.open(folder, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError:
        yield None
        return
    try:
        yield fd
    finally:
        os.close(fd)


def _waited() -> float:
    """Seconds since the start in which some process waited for a disk; 0 if that is not counted."""
    with suppress(OSError, ValueError):
        for line in _PRESSURE.read_text().splitlines():
            if line.startswith("some"):
                return int(line.rsplit("total=", 1)[1]) / 1e6
    return 0.0
