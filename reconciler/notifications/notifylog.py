"""The log of notifications: releases/logs/notifications.jsonl, one line for each receiver told."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from reconciler import clock
from snapshots import private

NAME = "notifications.jsonl"
_LARGEST = 1 << 20
"""Bytes; then it is set aside as .1, and the one set aside before goes."""


class Try(BaseModel):
    """One try to deliver a message."""

    model_config = ConfigDict(extra="ignore")

    at: str = Field(default_factory=clock.now)
    result: str = Field(description="sent, failed or timed-out")
    seconds: float = 0.0
    why: str = ""


class Entry(BaseModel):
    """What became of one message to one receiver."""

    model_config = ConfigDict(extra="ignore")

    at: str = Field(default_factory=clock.now)
    id: str
    event: str
    outcome: int = Field(0, description="seq of the ledger's outcome that it told; 0: none")
    to: str
    result: str = Field(description="begun, again (it is tried again), sent, failed, timed-out")
    seconds: float = Field(0.0, description="from its first try on")
    why: str = ""
    tries: tuple[Try, ...] = Field((), description="oldest first")
    trial: bool = Field(False, description="of `lockstep notify test`")


def write(path: Path, *entries: Entry) -> None:
    """Append entries, each at once. What cannot be written is left out: nobody waits for it."""
    with suppress(OSError):
        if path.exists() and path.stat().st_size > _LARGEST:
            path.replace(path.with_suffix(".jsonl.1"))
        private.append(path, *((entry.model_dump_json() + "\n").encode() for entry in entries))


def read(path: Path) -> list[Entry]:
    """Every message to every receiver as it ended, newest last; `begun` where its process has not
    told how."""
    found: dict[tuple[str, str], Entry] = {}
    for file in (path.with_suffix(".jsonl.1"), path):
        for entry in _lines(file):
            found[entry.id, entry.to] = entry
    return list(found.values())


def _lines(path: Path) -> Iterator[Entry]:
    with suppress(OSError):
        for line in path.read_bytes().splitlines():
            with suppress(ValidationError):
                yield Entry.model_validate_json(line)
