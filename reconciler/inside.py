"""What drivers are given of a container: commands, conversations and standstill."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

from reconciler.docker import Docker
from snapshots.drivers import ExecResult, Session


@dataclass(frozen=True)
class Inside:
    """A running container, as the drivers' `Exec`. Failures of Docker itself are DockerFailed."""

    docker: Docker
    container_id: str

    def __call__(
        self, argv: Sequence[str], *, stdin: str | None = None, timeout: float = 30
    ) -> ExecResult:
        return self.docker.exec(self.container_id, argv, stdin=stdin, timeout=timeout)

    def session(self, argv: Sequence[str]) -> AbstractContextManager[Session]:
        return self.docker.session(self.container_id, argv)

    def frozen(self, seconds: float) -> AbstractContextManager[None]:
        return self.docker.frozen([self.container_id], seconds)
