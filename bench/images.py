"""The images that the bench runs (set-up has made or pulled them), and the mark of a bench."""

from __future__ import annotations

import hashlib
from pathlib import Path

POSTGRES = "lockstep-base/postgres:15"
PYTHON = "lockstep-base/python:3"
USER = "bench"
PASSWORD = "bench-password"


def mark(folder: Path) -> str:
    """The beginning of the names of everything that the bench of this folder makes on the host."""
    return f"lockstep-bench-{hashlib.sha256(bytes(folder.resolve())).hexdigest()[:6]}"


def label(owner: str) -> str:
    """The label of everything that the bench with this mark makes on the host."""
    return f"io.lockstep.bench={owner}"
