"""What the kernel says of a process, by its number."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path


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
