"""The watchdog of frozen containers: a process apart that thaws them, whatever becomes of us.

Its standard input ends with whoever holds the other end. When that happens, or the time is over, it
thaws what it was given; who has thawed everything himself kills it. It is on the watch before the
first container is frozen. `python -m reconciler.frozen SECONDS CONTAINER ...` is that process.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from reconciler.errors import LockstepError, Unavailable

_READY = b"ready\n"
_THAW_AFTER = (0.0, 0.2, 1.0, 3.0, 10.0, 30.0)
"""Seconds between attempts: Docker carries out a request to freeze even when its client has died
meanwhile, so the first attempt may come before it."""


class Watchdog:
    """The end of who freezes. Inside its context the watchdog is on the watch."""

    def __init__(self, containers: Sequence[str], seconds: float, endpoint: str | None) -> None:
        package = str(Path(__file__).resolve().parent.parent)
        path = os.pathsep.join(p for p in (package, os.environ.get("PYTHONPATH", "")) if p)
        self._environment = {**os.environ, "PYTHONPATH": path}
        if endpoint is not None:
            self._environment["DOCKER_HOST"] = endpoint
        self._argv = [sys.executable, "-m", "reconciler.frozen", f"{seconds:g}", *containers]

    def __enter__(self) -> Watchdog:
        self._process = subprocess.Popen(
            self._argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=self._environment,
            cwd="/",
            start_new_session=True,
        )
        assert self._process.stdout is not None
        if self._process.stdout.readline() != _READY:
            self._process.kill()
            self._process.wait()
            raise Unavailable("nobody would thaw what is frozen: nothing was frozen")
        return self

    def dismiss(self) -> None:
        """Everything is thawed: nothing is left to do for it."""
        self._process.kill()
        self._process.wait()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """One that was not dismissed thaws now, and for as long as that takes nobody waits."""
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()


def _watch(seconds: float, containers: Sequence[str]) -> None:
    from reconciler.docker import connect

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    docker = connect()
    os.write(1, _READY)
    select.select([0], [], [], seconds)
    for wait in _THAW_AFTER:
        time.sleep(wait)
        for container in containers:
            with suppress(LockstepError):
                docker.unpause(container)


if __name__ == "__main__":
    _watch(float(sys.argv[1]), sys.argv[2:])
