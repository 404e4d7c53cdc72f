"""The line protocol between a process and one that works for it elsewhere: JSON, one per line.

One side calls and the other works; while it works, the worker may ask the caller something. Errors
travel by the name of their class, so that they are the same on both sides.

    caller:  {"call": name, "with": {...}}       worker:  {"done": value} or {"failed": error}
    worker:  {"ask": name, "with": {...}}        caller:  {"answer": value} or {"refuse": error}
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from snapshots import errors
from snapshots.errors import SnapshotError

NUMBER = "lockstep_number"
"""Attribute of an error by which its side knows it again when it comes back."""
MAX_LINE = 64 << 20
"""Bytes: what a command in a container said may be long, a line without an end is a mistake."""


class Foreign(SnapshotError):
    """An error of the caller's own kind, on its way through the worker and back."""


def identity(path: str) -> list[str | int]:
    """By what both sides see whether they mean one folder: the running kernel, and its inode.
    Raises OSError."""
    found = os.stat(path)
    return [Path("/proc/sys/kernel/random/boot_id").read_text().strip(), found.st_dev, found.st_ino]


def line(message: Mapping[str, Any]) -> bytes:
    """A message as it is sent."""
    return json.dumps(message, separators=(",", ":")).encode() + b"\n"


def message(read: bytes) -> dict[str, Any]:
    """A message as it was read. Raises ValueError for anything else."""
    found = json.loads(read)
    if not isinstance(found, dict):
        raise ValueError("a message is an object")
    return found


def as_error(error: BaseException) -> dict[str, Any]:
    """An error as it travels."""
    said: dict[str, Any] = {"class": type(error).__name__, "text": str(error)}
    if isinstance(error, OSError) and error.errno is not None:
        said |= {"class": "OSError", "errno": error.errno, "text": error.strerror or str(error)}
        if isinstance(error.filename, str):
            said["file"] = error.filename
    number = getattr(error, NUMBER, None)
    return said if number is None else {**said, "number": number}


def error(said: Mapping[str, Any]) -> Exception:
    """The error that travelled: of the class it had where that is one of this package or the
    operating system's, else Foreign."""
    text, name = str(said.get("text", "")), said.get("class")
    kind = getattr(errors, name, None) if isinstance(name, str) else None
    found: Exception
    if name == "OSError" and isinstance(said.get("errno"), int):
        file = (said["file"],) if isinstance(said.get("file"), str) else ()
        found = OSError(said["errno"], text, *file)
    elif isinstance(kind, type) and issubclass(kind, SnapshotError):
        found = kind(text)
    else:
        found = Foreign(text)
    if isinstance(said.get("number"), int):
        setattr(found, NUMBER, said["number"])
    return found
