"""Containers that stand still, and a process apart that thaws them, whatever becomes of us.

The standard input of that watchdog ends with whoever holds the other end. When that happens, or
the time is over, it thaws what it was given; who has thawed everything himself kills it. It is on
the watch before the first container is frozen.
`python -m reconciler.docker.frozen SECONDS CONTAINER ...` is that process.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import TYPE_CHECKING

from reconciler.errors import LockstepError, Unavailable
from reconciler.host import process
from snapshots.errors import EngineFailed

if TYPE_CHECKING:
    from reconciler.docker.containers import Containers

_READY = b"ready\n"
_THAW_AFTER = (0.0, 0.2, 1.0, 3.0, 10.0, 30.0)
"""Seconds between attempts: Docker carries out a request to freeze even when its client has died
meanwhile, so the first attempt may come before it."""


class Freezer:
    """Freezes containers. Inside its context a watchdog sees to it that none stays frozen for
    longer than `seconds`, or when this process dies. Raises Unavailable when there is none."""

    def __init__(self, docker: Containers, containers: Collection[str], seconds: float) -> None:
        self._docker = docker
        self._seconds = seconds
        self._argv = [sys.executable, "-m", "reconciler.docker.frozen", f"{seconds:g}", *containers]
        self._all_thawed = True

    def __enter__(self) -> Freezer:
        endpoint = self._docker.endpoint
        self._watchdog = subprocess.Popen(
            self._argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={
                **process.environment_of_ours(),
                **({"DOCKER_HOST": endpoint} if endpoint else {}),
            },
            cwd="/",
            start_new_session=True,
        )
        assert self._watchdog.stdout is not None
        if self._watchdog.stdout.readline() != _READY:
            self._dismiss()
            raise Unavailable("nobody would thaw what is frozen: nothing was frozen")
        self._until = time.monotonic() + self._seconds
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Where thawing failed the watchdog does it, now that its input ends."""
        if self._all_thawed:
            self._dismiss()
        for pipe in (self._watchdog.stdin, self._watchdog.stdout):
            assert pipe is not None
            pipe.close()

    @contextmanager
    def frozen(self, containers: Collection[str]) -> Iterator[None]:
        """Some of the containers stand still inside the context.

        Raises DockerFailed when one could not be frozen, EngineFailed on exit when they did not
        stand still all the time, because it was over.
        """
        try:
            for container in containers:
                self._docker.pause(container)
            yield
            states = [self._docker.inspect(container).state for container in containers]
            in_time = time.monotonic() <= self._until
        finally:
            self._thaw(containers)
        if not in_time or any(state != "paused" for state in states):
            raise EngineFailed(f"nothing may stand still for more than {self._seconds:g} s")

    def _thaw(self, containers: Collection[str]) -> None:
        try:
            for container in containers:
                self._docker.unpause(container)
        except LockstepError:
            self._all_thawed = False
            raise

    def _dismiss(self) -> None:
        self._watchdog.kill()
        self._watchdog.wait()


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
