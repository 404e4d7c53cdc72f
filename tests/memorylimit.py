"""A limit on the memory of a process, by a cgroup of version 1 or 2."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

ROOT = Path("/sys/fs/cgroup")


@contextmanager
def memory_limit(limit: int) -> Iterator[Path]:
    """A cgroup in which all processes together may have so many bytes; who gets more is killed.

    A process enters it by writing its id to `cgroup.procs` there; what it has already does not
    count. Skips where that cannot be had.
    """
    first = (ROOT / "memory").is_dir()
    group = (ROOT / "memory" if first else ROOT) / f"lockstep-test-{uuid.uuid4().hex[:8]}"
    try:
        group.mkdir()
    except OSError as error:
        pytest.skip(f"no cgroup can be made here: {error}")
    try:
        if first:
            (group / "memory.limit_in_bytes").write_text(str(limit))
        elif not (group / "memory.max").exists():
            pytest.skip("cgroups do not limit memory here")
        else:
            (group / "memory.max").write_text(str(limit))
            (group / "memory.swap.max").write_text("0")
        yield group
    finally:
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:  # a killed process leaves it a moment later
            with suppress(OSError):
                os.rmdir(group)
                break
            time.sleep(0.05)


def enter(group: Path, pid: int) -> None:
    """From now on what the process gets counts in this group."""
    (group / "cgroup.procs").write_text(str(pid))


def killed_in(group: Path) -> int:
    """How many processes the kernel killed there for want of memory."""
    for name in ("memory.events", "memory.oom_control"):
        if (group / name).exists():
            lines = (group / name).read_text().splitlines()
            return sum(int(line.split()[1]) for line in lines if line.startswith("oom_kill "))
    return 0
