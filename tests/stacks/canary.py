"""Watching a host for values that must not be seen on it."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType

PAUSE_SECONDS = 0.02


class Watch:
    """Looks, for as long as its context lasts, at arguments and environment of every process.

    Containers' own processes are left out: the one that needs a secret has it.
    """

    def __init__(self, *values: str) -> None:
        self._values = [value.encode() for value in values]
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.seen: set[str] = set()
        self.processes: set[str] = set()

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._end.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._end.wait(PAUSE_SECONDS):
            for process in Path("/proc").glob("[0-9]*"):
                with suppress(OSError):
                    self._look(process)

    def _look(self, process: Path) -> None:
        if int(process.name) == os.getpid():
            return
        argv = (process / "cmdline").read_bytes()
        self.processes.add(argv.split(b"\0")[0].decode(errors="replace"))
        for what, text in (
            ("arguments", argv),
            ("environment", (process / "environ").read_bytes()),
        ):
            for value in self._values:
                if value in text and not _in_container(process):
                    shown = argv.replace(b"\0", b" ").decode(errors="replace")[:200]
                    self.seen.add(f"{what} of {shown}")


def _in_container(process: Path) -> bool:
    """Told by its namespace: cgroups of a container are not the same everywhere."""
    own = os.readlink("/proc/self/ns/mnt")
    return os.readlink(process / "ns" / "mnt") != own and (
        "docker" in (process / "cgroup").read_text()
    )


def holding(folder: Path, value: str, *, but: tuple[Path, ...] = ()) -> Iterator[str]:
    """Files below a folder that hold a value, in their content or name."""
    for path in sorted(folder.rglob("*")):
        if any(path == other or other in path.parents for other in but):
            continue
        if value in path.name:
            yield str(path)
        if path.is_file() and not path.is_symlink() and value.encode() in path.read_bytes():
            yield str(path)
