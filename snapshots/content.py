"""Bringing the content of one file to another: by clone, by copy, or only where it differs."""

from __future__ import annotations

import errno
import os
import threading
import time
from contextlib import suppress
from pathlib import Path

from snapshots import fs
from snapshots.pace import PORTION, Pace

CHUNK = 1 << 20  # read and compared at once
PAGE = 8192  # written at least, where a chunk differs
CACHED = 4  # one part in so many of the free memory may hold copies
READING = 8  # comparing costs the host so many times less than writing
CLONING = 64  # and cloning so many times

_CANNOT_COPY_IN_KERNEL = (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP)


def free_memory() -> int:
    """Bytes that can be had without pushing out anything in use; 0 if it cannot be told."""
    with suppress(OSError, ValueError, IndexError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) << 10
    return 0


class Content:
    """Safe for several threads. Ranges are [start, end) in bytes; results are bytes written.

    `live`: the source is in use, so what its writers hold is written out before it is read.
    """

    def __init__(self, *, live: bool, pace: Pace | None = None) -> None:
        self.can_clone = True
        self._live, self._pace = live, pace
        self._portion = PORTION if pace else 8 * CHUNK
        self._cacheable = free_memory() // CACHED if pace else 0
        self._lock = threading.Lock()
        self._local = threading.local()

    def clone(self, src: int, dst: int, size: int) -> bool:
        """Share the whole content, cut to `size`; False, once and for all, where that cannot be."""
        clone = self._clone_in_parts if self._pace and size > PORTION else _clone_at_once
        if self.can_clone and clone(src, dst, size):
            os.ftruncate(dst, size)
            return True
        self.can_clone = False
        return False

    def _clone_in_parts(self, src: int, dst: int, size: int) -> bool:
        """A clone keeps all others from the file until what is dirty was written out and each
        piece was shared that it lies in, of which a database has a hundred thousand in time. So
        it is written out beforehand, and between parts the others have it as long as we had."""
        assert self._pace is not None
        data = os.fstat(src).st_blocks * 512 * PORTION // size
        for at in range(0, size, PORTION):
            fs.start_writing(src, at, PORTION)
            began = time.monotonic()
            if not fs.clone_range(src, dst, at, PORTION if at + PORTION < size else 0):
                # Later than the first it was cut off, which is noticed when it is looked at again.
                return at > 0 or fs.clone_file(src, dst)
            self._pace.leave_to_others(time.monotonic() - began)
            self._pace.spend(min(data, PORTION) // CLONING)
        return True

    def _come_last(self) -> None:
        """Not for a clone: whoever waits for the file would wait for all that come before us."""
        if self._pace and not getattr(self._local, "comes_last", False):
            self._pace.yield_to_others()
            self._local.comes_last = True

    def copy(self, src: int, dst: int, start: int, end: int) -> int:
        """Copy into a range that is a hole still; holes stay holes."""
        self._come_last()
        return sum(
            self._copy_data(src, dst, offset, offset + length)
            for offset, length in fs.segments(src, end, start)
        )

    def _copy_data(self, src: int, dst: int, start: int, end: int) -> int:
        at = start
        while at < end:
            portion = min(end - at, self._portion)
            self._settle(src, at, portion)
            try:
                count = os.copy_file_range(src, dst, portion, at, at)
            except OSError as error:
                if error.errno not in _CANNOT_COPY_IN_KERNEL:
                    raise
                data = self._buffers()[0][: min(portion, CHUNK)]
                count = fs.read_into(src, data, at)
                fs.write_all(dst, data[:count], at)
            if count == 0:  # it shrank
                break
            if self._pace:
                fs.start_writing(dst, at, count)
                self._leave_the_cache(dst, at, count)
                self._pace.spend(count)
            at += count
        return at - start

    def _leave_the_cache(self, dst: int, offset: int, length: int) -> None:
        """What is copied beyond a share of the free memory must not push out what others use."""
        with self._lock:
            self._cacheable -= length
            full = self._cacheable < 0
        if full:
            os.posix_fadvise(dst, offset, length, os.POSIX_FADV_DONTNEED)

    def _settle(self, src: int, offset: int, length: int) -> None:
        if self._live:
            fs.write_out(src, offset, length)

    def mend(self, src: int, dst: int, start: int, end: int) -> int:
        """Write only what differs, and make holes where the source has them."""
        self._come_last()
        written, at = 0, start
        for offset, length in fs.segments(src, end, start):
            fs.punch_where_data(dst, at, offset)
            at = offset + length
            for chunk in range(offset, at, CHUNK):
                size = min(CHUNK, at - chunk)
                self._settle(src, chunk, size)
                changed = self._mend_chunk(src, dst, chunk, size)
                written += changed
                if self._pace:
                    fs.start_writing(dst, chunk, size)
                    self._pace.spend(changed + size // READING)
        fs.punch_where_data(dst, at, end)
        return written

    def _mend_chunk(self, src: int, dst: int, offset: int, length: int) -> int:
        wanted, there = (buffer[:length] for buffer in self._buffers())
        count = fs.read_into(src, wanted, offset)
        wanted, there = wanted[:count], there[:count]
        have = fs.read_into(dst, there, offset)
        if have == count and fs.same_bytes(wanted, there):
            return 0
        written, run = 0, None
        for page in range(0, count, PAGE):
            end = min(page + PAGE, count)
            same = end <= have and wanted[page:end].tobytes() == there[page:end].tobytes()
            if same and run is not None:
                fs.write_all(dst, wanted[run:page], offset + run)
                written, run = written + page - run, None
            elif not same and run is None:
                run = page
        if run is not None:
            fs.write_all(dst, wanted[run:count], offset + run)
            written += count - run
        return written

    def _buffers(self) -> tuple[memoryview, memoryview]:
        pair: tuple[memoryview, memoryview] | None = getattr(self._local, "pair", None)
        if pair is None:
            pair = memoryview(bytearray(CHUNK)), memoryview(bytearray(CHUNK))
            self._local.pair = pair
        return pair


def _clone_at_once(src: int, dst: int, size: int) -> bool:  # noqa: ARG001
    return fs.clone_file(src, dst)
