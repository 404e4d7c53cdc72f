"""What a driver is: the knowledge of one engine that makes its data move faster and safer.

Every engine's files are consistent after a clean stop, so `directory`, which knows nothing, always
works. A driver adds a shorter stop, a point without a stop, credentials that follow the
environment, facts that can be counted, and reasons to refuse before anything stops.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from snapshots import fs
from snapshots.compare import measure
from snapshots.errors import EngineFailed


@dataclass(frozen=True)
class ExecResult:
    """How a command ended: exit code and both outputs, decoded with errors replaced."""

    code: int
    stdout: str
    stderr: str


class Exec(Protocol):
    """Runs a command in the engine's container; given by the caller. `timeout` in seconds."""

    def __call__(
        self, argv: Sequence[str], *, stdin: str | None = None, timeout: float = 30
    ) -> ExecResult: ...


class Driver(Protocol):
    """One engine. No method keeps state; those with `run` need the engine to answer."""

    name: str

    def recognises(self, image: str, target: str) -> bool:
        """Whether a volume at the path `target` in a container of `image` is this engine's data."""
        ...

    def before_stop(self, run: Exec) -> None:
        """Shorten the stop that follows. Raises EngineFailed."""
        ...

    def live_point(self, run: Exec) -> None:
        """Make the files a usable point while the engine runs on; capture with `live` at once.

        Raises Unsupported where only a stop gives one, EngineFailed.
        """
        ...

    def align(self, run: Exec) -> None:
        """Credentials inside the data follow the container's environment. Raises EngineFailed."""
        ...

    def probe(self, run: Exec) -> dict[str, int]:
        """Facts that count, such as rows of each table. Raises EngineFailed."""
        ...

    def probe_path(self, path: Path) -> dict[str, int]:
        """Facts that can be had without the engine: files and bytes."""
        ...

    def version(self, path: Path) -> str | None:
        """The engine's version by which the files were written; None if unknown."""
        ...

    def check_path(self, path: Path) -> list[str]:
        """Why these files could not be captured or forked whole, before anything stops."""
        ...

    def check(self, run: Exec) -> list[str]:
        """What is wrong with the data as the running engine sees it."""
        ...


class DirectoryDriver:
    """Any files. Base of the others, for what an engine has nothing special to say about."""

    name = "directory"

    def recognises(self, image: str, target: str) -> bool:  # noqa: ARG002
        return True

    def before_stop(self, run: Exec) -> None:
        """Nothing to do."""

    def live_point(self, run: Exec) -> None:
        """Nothing to do: each file is taken as it is; whether that is enough, its owner knows."""

    def align(self, run: Exec) -> None:
        """Nothing to do."""

    def probe(self, run: Exec) -> dict[str, int]:  # noqa: ARG002
        return {}

    def probe_path(self, path: Path) -> dict[str, int]:
        size = measure(path)
        return {"files": size.files, "bytes": size.apparent_bytes}

    def version(self, path: Path) -> str | None:  # noqa: ARG002
        return None

    def check_path(self, path: Path) -> list[str]:
        return [] if path.is_dir() else [f"there is no folder {path}"]

    def check(self, run: Exec) -> list[str]:  # noqa: ARG002
        return []


def image_name(image: str) -> str:
    """The last part of an image's name: without registry, folders, tag and digest."""
    return re.split(r"[:@]", image.rsplit("/", 1)[-1], maxsplit=1)[0].lower()


def completed(result: ExecResult, doing: str) -> str:
    """The output of a command that succeeded. Raises EngineFailed with what it said."""
    if result.code != 0:
        said = (result.stderr.strip() or result.stdout.strip() or "it said nothing")[-500:]
        raise EngineFailed(f"{doing} failed (exit code {result.code}): {said}")
    return result.stdout


def read_small(path: Path, limit: int) -> bytes | None:
    """The beginning of a regular file; None if there is none. Never follows a link."""
    try:
        fd = os.open(path, fs.READ & ~os.O_NOATIME)
    except OSError:
        return None
    with open(fd, "rb") as file:
        try:
            return file.read(limit)
        except OSError:
            return None
