"""What drivers are given of a container: commands, conversations and standstill."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property

from reconciler.docker import Docker
from reconciler.masking import masked
from snapshots.counts import Counts
from snapshots.drivers import ExecResult, Session, way_in
from snapshots.errors import EngineFailed, shown

MOST_COUNTS, LONGEST_NAME = 20_000, 200


def counted(counts: Mapping[str, int]) -> dict[str, int]:
    """What a driver's probe found, as it may be written down: names come from a container, which
    may say anything. Raises EngineFailed for more of them than anybody has."""
    if len(counts) > MOST_COUNTS:
        raise EngineFailed(f"it names {len(counts)} things to count")
    guessed = counts.estimated if isinstance(counts, Counts) else ()
    found = Counts({_name(name): number for name, number in counts.items()})
    found.estimated = frozenset(_name(name) for name in guessed)
    return found


def _name(said: str) -> str:
    return masked(shown(said.encode()))[:LONGEST_NAME]


@dataclass(frozen=True)
class Inside:
    """A running container, as the drivers' `Exec`. Failures of Docker itself are DockerFailed."""

    docker: Docker
    container_id: str

    def __call__(
        self, argv: Sequence[str], *, stdin: str | None = None, timeout: float = 30
    ) -> ExecResult:
        return self.docker.exec(
            self.container_id, argv, stdin=stdin, timeout=timeout, environment=self._way_in
        )

    def session(self, argv: Sequence[str]) -> AbstractContextManager[Session]:
        return self.docker.session(self.container_id, argv, environment=self._way_in)

    @cached_property
    def _way_in(self) -> Mapping[str, str]:
        return way_in(self.docker.command(self.container_id), self._text)

    def _text(self, path: str) -> str:
        return self.docker.exec(self.container_id, ["cat", path]).stdout

    def frozen(self, seconds: float) -> AbstractContextManager[None]:
        return self.docker.frozen([self.container_id], seconds)
