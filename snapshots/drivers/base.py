"""What a driver is: the knowledge of one engine that makes its data move faster and safer.

Every engine's files are consistent after a clean stop, so `directory`, which knows nothing, always
works. A driver adds a shorter stop, a point without a stop, credentials that follow the
environment, facts that can be counted, and reasons to refuse before anything stops.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Protocol, TypeVar

from snapshots import fs
from snapshots.compare import measure
from snapshots.errors import EngineFailed
from snapshots.livepoint import LivePoint

_Self = TypeVar("_Self")
_Answer = TypeVar("_Answer")


@dataclass(frozen=True)
class ExecResult:
    """How a command ended: exit code and both outputs, decoded with errors replaced."""

    code: int
    stdout: str
    stderr: str


Ask = Callable[[Sequence[str]], ExecResult]
"""Runs a command in a throw-away container of an image, without network and without data."""


class Session(Protocol):
    """One command that goes on in the engine's container: text in, lines out."""

    def send(self, text: str) -> None:
        """Write to its standard input. Raises EngineFailed when it has ended."""
        ...

    def read_until(self, mark: str, timeout: float) -> str:
        """Its standard output up to the line that equals `mark`, which is left out.

        Raises EngineFailed, with what it said, when it ends before that or takes longer than
        `timeout` seconds.
        """
        ...


class Exec(Protocol):
    """The engine's container, given by the caller. Calling it runs a command to its end;
    one that takes longer than `timeout` seconds ends with code 124."""

    def __call__(
        self, argv: Sequence[str], *, stdin: str | None = None, timeout: float = 30
    ) -> ExecResult: ...

    def session(self, argv: Sequence[str]) -> AbstractContextManager[Session]:
        """Start a command that goes on until the context is left, and ends then, or with us."""
        ...

    def frozen(self, seconds: float) -> AbstractContextManager[None]:
        """All processes of the container stand still, and go on when the context is left, when
        `seconds` are over, or when we die: whichever comes first. While they stand still no
        command can run in it. Raises EngineFailed on exit when the time was over before."""
        ...


def understood(ask: Callable[[_Self, Exec], _Answer]) -> Callable[[_Self, Exec], _Answer]:
    """What asks an engine: an answer that no such engine gives, from an image that only says that
    it has one, is an EngineFailed like any other."""

    @wraps(ask)
    def asked(self: _Self, run: Exec) -> _Answer:
        try:
            return ask(self, run)
        except (ValueError, TypeError, LookupError, OverflowError) as error:
            raise EngineFailed(f"its answer cannot be understood: {str(error)[:200]}") from None

    return asked


class Driver(Protocol):
    """One engine. No method keeps state; those with `run` need the engine to answer.

    `stands_still`: nobody is served while a live point is captured, so all that can be read is
    read before.
    """

    name: str
    stands_still: bool

    def recognises(self, image: str, target: str) -> bool:
        """Whether a volume at the path `target` in a container of `image` is this engine's data."""
        ...

    def looks_like(self, path: Path) -> bool:
        """Whether the folder `path` (on this host) holds this engine's data, where no image tells;
        a short look."""
        ...

    def before_stop(self, run: Exec) -> None:
        """Shorten the stop that follows. Raises EngineFailed."""
        ...

    def live(self, run: Exec, path: Path) -> AbstractContextManager[LivePoint]:
        """A usable point of the folder `path` (on this host) while the engine runs on.

        It is captured inside the context, which puts everything back when it is left, whatever
        happened. Raises Unsupported where only a stop gives a point, EngineFailed; also when it is
        left and finds that what was captured is no point: then the snapshot must not be kept.
        """
        ...

    def still(self, run: Exec, path: Path, seconds: float) -> AbstractContextManager[LivePoint]:
        """What the engine needs right before all its processes are frozen, so that the files of
        that moment are a usable point; for at most `seconds`, and undone on exit whatever happens.
        No write is acknowledged inside that is not in them. Raises Unsupported, EngineFailed."""
        ...

    def is_stream(self, path: bytes) -> bool:
        """Whether a file (relative to the captured folder) is written anew from its beginning each
        time, so that its blocks never recur: it is stored as a difference to its last version."""
        ...

    def load(self, run: Exec, path: Path) -> None:
        """What a snapshot holds beside the files, such as a dump, goes into the engine that was
        just started on the folder `path` (on this host); once. Raises EngineFailed."""
        ...

    def align(self, run: Exec) -> None:
        """Credentials inside the data follow the container's environment. Raises EngineFailed."""
        ...

    def probe(self, run: Exec) -> dict[str, int]:
        """Facts that count, such as rows of each table. Raises EngineFailed."""
        ...

    def truly_empty(self, run: Exec, path: Path) -> bool:
        """Whether an engine that counts nothing has read what is in the folder `path` (on this
        host), and that is nothing: then what it held before was taken out by its users. Raises
        EngineFailed."""
        ...

    def data_sums(self, run: Exec) -> dict[str, int]:
        """One number for the whole content of each table, where that can be had in bounded time;
        equal content, equal number. Raises EngineFailed."""
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

    def unfit(self, path: Path, ask: Ask) -> list[str]:
        """Why the engine of an image could not run on these files, each with the way out."""
        ...

    def check(self, run: Exec) -> list[str]:
        """What is wrong with the data as the running engine sees it; quick, others wait for it."""
        ...

    def examine(self, run: Exec) -> list[str]:
        """What only a long look finds wrong; for a copy that nobody waits for."""
        ...

    def advise(self, run: Exec) -> list[str]:
        """What is not wrong, but wants somebody's hand, each with what to do."""
        ...


class DirectoryDriver:
    """Any files. Base of the others, for what an engine has nothing special to say about."""

    name = "directory"
    stands_still = False

    def recognises(self, image: str, target: str) -> bool:  # noqa: ARG002
        return True

    def looks_like(self, path: Path) -> bool:  # noqa: ARG002
        return False

    def before_stop(self, run: Exec) -> None:
        """Nothing to do."""

    @contextmanager
    def live(self, run: Exec, path: Path) -> Iterator[LivePoint]:  # noqa: ARG002
        """Each file is taken as it is; whether that is enough, its owner knows."""
        yield LivePoint()

    @contextmanager
    def still(self, run: Exec, path: Path, seconds: float) -> Iterator[LivePoint]:  # noqa: ARG002
        """Nothing: the files are then as after a crash, from which engines recover."""
        yield LivePoint()

    def is_stream(self, path: bytes) -> bool:  # noqa: ARG002
        return False

    def load(self, run: Exec, path: Path) -> None:
        """Nothing to do."""

    def align(self, run: Exec) -> None:
        """Nothing to do."""

    def probe(self, run: Exec) -> dict[str, int]:  # noqa: ARG002
        return {}

    def truly_empty(self, run: Exec, path: Path) -> bool:  # noqa: ARG002
        return False

    def data_sums(self, run: Exec) -> dict[str, int]:  # noqa: ARG002
        return {}

    def probe_path(self, path: Path) -> dict[str, int]:
        size = measure(path)
        return {"files": size.files, "bytes": size.apparent_bytes}

    def version(self, path: Path) -> str | None:  # noqa: ARG002
        return None

    def check_path(self, path: Path) -> list[str]:
        return [] if path.is_dir() else [f"there is no folder {path}"]

    def unfit(self, path: Path, ask: Ask) -> list[str]:  # noqa: ARG002
        return []

    def check(self, run: Exec) -> list[str]:  # noqa: ARG002
        return []

    def examine(self, run: Exec) -> list[str]:  # noqa: ARG002
        return []

    def advise(self, run: Exec) -> list[str]:  # noqa: ARG002
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
