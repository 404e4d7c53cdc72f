"""The machine: what it is, its page cache, and programs that are asked something."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from pathlib import Path

from bench.errors import BenchError


def ask(*argv: str | Path, seconds: float = 120, env: dict[str, str] | None = None) -> str:
    """What a program prints. Raises BenchError with what it said when it fails."""
    try:
        done = subprocess.run(
            [str(word) for word in argv],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=seconds,
            env={**os.environ, **(env or {})},
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BenchError(f"{argv[0]}: {error}") from None
    if done.returncode != 0:
        said = (done.stderr.strip() or done.stdout.strip())[-1500:]
        raise BenchError(f"{' '.join(map(str, argv))[:160]} ended with {done.returncode}: {said}")
    return done.stdout.strip()


def empty_caches() -> None:
    """Write back what waits, then empty the page cache. Raises BenchError where that is barred."""
    os.sync()
    try:
        Path("/proc/sys/vm/drop_caches").write_text("3\n")
    except OSError as error:
        raise BenchError(
            f"the page cache cannot be emptied here ({error.strerror}): use --warm"
        ) from None


def filesystem(path: Path) -> str:
    """`ext4`, `xfs`, `btrfs`, ..."""
    return {"ext2/ext3": "ext4"}.get(kind := ask("stat", "-f", "-c", "%T", path), kind)


def free_bytes(path: Path) -> int:
    state = os.statvfs(path)
    return state.f_bavail * state.f_frsize


def description(place: Path) -> dict[str, str]:
    """The facts about this machine that a reader of the figures wants."""
    processor = re.search(r"model name\s*:\s*(.*)", Path("/proc/cpuinfo").read_text())
    memory = re.search(r"MemTotal:\s*(\d+) kB", Path("/proc/meminfo").read_text())
    return {
        "processor": f"{processor[1] if processor else platform.machine()}, {os.cpu_count()} cores",
        "memory": f"{int(memory[1]) / 2**20:.0f} GiB" if memory else "?",
        "kernel": platform.release(),
        "file system": filesystem(place),
        "docker": ask("docker", "version", "--format", "{{.Server.Version}}"),
        "python": platform.python_version(),
    }
