"""How the folder of an engine that goes on is captured: what a driver knows and capture does."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path


def never(path: bytes) -> bool:  # noqa: ARG001
    """No entry at all."""
    return False


def nothing() -> Mapping[bytes, bytes]:
    """No files to add."""
    return {}


@dataclass(frozen=True)
class LivePoint:
    """A usable point in the files of a running engine.

    All paths are bytes, relative to the captured folder, with "/" between their names. While the
    folder is captured, nothing else is asked of the engine.

    `left_out`: entries, with all that is below them, that are not part of the point.
    `instead`: files whose content is taken from elsewhere; owner, mode, times are the original's.
    `later`: entries, with all below, that are captured only after `finish` was called; what has
    come into their directories by then and is `later`, too, is captured with them.
    `finish`: called once, when all but `later` was read; returns small files to add (path to
    content), which belong to the owner of their directory, with mode 0600. A file of the same path
    gives way.
    """

    left_out: Callable[[bytes], bool] = never
    instead: Mapping[bytes, Path] = field(default_factory=dict)
    later: Callable[[bytes], bool] = never
    finish: Callable[[], Mapping[bytes, bytes]] = nothing
