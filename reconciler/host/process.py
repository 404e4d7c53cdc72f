"""What the kernel says of a process, by its number; what a process of our own code needs."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

CODE = Path(__file__).resolve().parents[2]
"""The folder in which our packages lie."""


def environment_of_ours() -> dict[str, str]:
    """The environment of a process that runs a module of ours: it finds them wherever it starts."""
    path = os.pathsep.join(p for p in (str(CODE), os.environ.get("PYTHONPATH", "")) if p)
    return {**os.environ, "PYTHONPATH": path}


def is_alive(pid: int) -> bool:
    """Whether there is a process of this number, of whatever user; a zombie is none."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return _state(pid) != "Z"


def is_stopped(pid: int) -> bool:
    """Whether somebody has stopped it (SIGSTOP)."""
    return _state(pid) == "T"


def _state(pid: int) -> str:
    """R, S, D, T, Z ..., or nothing where it cannot be told."""
    with suppress(OSError):
        # The name before it, in parentheses, may hold anything.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    return ""
