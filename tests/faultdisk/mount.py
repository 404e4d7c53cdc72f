"""What tests use: a disk of which the test decides what fails, and when power is lost."""

from __future__ import annotations

import errno
import json
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest


class FaultDisk:
    """A mounted disk. `path`: where."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._server = subprocess.Popen(
            [sys.executable, "-m", "tests.faultdisk.serve", str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
        )
        if self._line() != "mounted":
            self.close()
            pytest.skip("no FUSE file system can be mounted here")

    def _line(self) -> Any:
        assert self._server.stdout is not None
        line = self._server.stdout.readline()
        return json.loads(line) if line else None

    def _order(self, name: str, **given: Any) -> Any:
        assert self._server.stdin is not None
        self._server.stdin.write(json.dumps({"name": name, **given}) + "\n")
        self._server.stdin.flush()
        answer = self._line()
        if answer is None or "error" in answer:
            raise RuntimeError(f"the disk does not {name}: {answer}")
        return answer["result"]

    def fail(
        self,
        kind: str,
        nth: int = 1,
        code: int = errno.EIO,
        *,
        lasting: bool = False,
        of: str = "*",
    ) -> None:
        """From now on count operations of a kind (read, write, fsync, rename, create, remove, or
        change: all but read) on paths like `of`, and fail the nth, or all from there on."""
        self._order("fail", kind=kind, nth=nth, code=code, lasting=lasting, pattern=of)

    def heal(self) -> int:
        """Nothing fails any more, nor lies, nor is slow. How many operations failed."""
        return int(self._order("heal"))

    def passed(self) -> int:
        """How many operations of its kind came by since `fail`."""
        return int(self._order("passed"))

    def lie(self, of: str) -> None:
        """Writes to these paths are acknowledged, also their syncs, and thrown away."""
        self._order("lie", pattern=of)

    def slow(self, seconds: float) -> None:
        """So long takes each read, write and sync."""
        self._order("slow", seconds=seconds)

    def sync_all(self) -> None:
        """Everything so far is durable."""
        self._order("sync_all")

    def mark(self) -> int:
        """The moment, for `lose_power`: how many changes and syncs there were."""
        return int(self._order("mark"))

    def lose_power(self, at: int, folder: Path, keep: str = "some", seed: int = 0) -> Path:
        """What would be on the disk had power been lost at that moment, written into a folder.

        `keep`: of what was not synced, "none", "all" or "some" of it, by the seed.
        """
        shutil.rmtree(folder, ignore_errors=True)
        self._order("lose_power", at=at, keep=keep, seed=seed, folder=str(folder))
        return folder

    def close(self) -> None:
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.close()
        self._server.wait(timeout=30)
        self._server.stdout.close()


@contextmanager
def fault_disk(base: Path) -> Iterator[FaultDisk]:
    """A new, empty one; skips where FUSE cannot be had."""
    try:
        import mfusepy  # noqa: F401
    except (ImportError, OSError) as error:
        pytest.skip(f"FUSE cannot be used here: {error}")
    point = base / f"disk-{uuid.uuid4().hex[:8]}"
    point.mkdir()
    disk = FaultDisk(point)
    try:
        yield disk
    finally:
        disk.close()
