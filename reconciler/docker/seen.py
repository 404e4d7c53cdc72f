"""What containers say and use, as evidence and gates want it."""

from __future__ import annotations

from collections import deque
from typing import Any

from reconciler.docker import dockervalues as values
from reconciler.docker.containers import Containers
from reconciler.docker.dockervalues import (
    PROJECT,
    Usage,
)
from reconciler.docker.failing import mapped


class Seen(Containers):
    """What is seen of containers."""

    def logs(self, container_id: str, tail: int = 30, since: float | None = None) -> str:
        """The last lines of its output, both streams, with `\\n` between; `since`: only what it
        said after that time (seconds since 1970)."""
        api: Any = self._api  # its stubs know no fractions of a second
        with self._mapped_container("logs of", container_id):
            said = api.logs(container_id, stdout=True, stderr=True, tail=tail, since=since)
        return bytes(said).decode(errors="replace")

    def usage(self, container_id: str, *, cpu: bool) -> Usage | None:
        """What it uses now, None if it does not run; `cpu` takes a second or two more."""
        api: Any = self._api  # its stubs leave one_shot out
        options = {} if cpu else {"one_shot": True}
        with self._mapped_container("stats of", container_id):
            return values.usage(api.stats(container_id, stream=False, **options))

    def rows(self, project: str) -> tuple[values.Row, ...]:
        """What `docker compose ps --all` shows of a project, one-off containers too."""
        with mapped("the list of containers"):
            found = self._api.containers(all=True, filters={"label": [f"{PROJECT}={project}"]})
        return tuple(sorted(map(values.row, found), key=lambda row: row.name))

    def stats(self, container_id: str) -> dict[str, int | float]:
        """What a running container uses, by one look at its counters; see `values.stats`."""
        from docker.errors import InvalidVersion

        with self._mapped_container("stats of", container_id):
            try:
                said = self._api.stats(container_id, stream=False, one_shot=True)
            except InvalidVersion:  # that daemon would take two seconds for each
                return {}
        return values.stats(dict(said))

    def events(self, since: float, until: float) -> list[dict[str, Any]]:
        """What Docker still remembers of its events between two times (seconds since 1970)."""
        with mapped("docker events"):
            api: Any = self._api  # its stubs know no fractions of a second
            return list(api.events(since=since, until=until, decode=True))

    def log_tail(self, container_id: str, *, since: float, lines: int, limit: int) -> bytes:
        """Its newest output since then, both streams, each line with its time; at most so many
        lines and bytes. Raises DockerFailed, also where its logging driver cannot be read."""
        kept: deque[bytes] = deque()
        size = 0
        with self._mapped_container("logs of", container_id):
            for chunk in self._api.logs(
                container_id,
                stream=True,
                follow=False,  # of its own accord a stream would wait for what comes
                timestamps=True,
                tail=lines,
                since=since or None,
            ):
                kept.append(chunk)
                size += len(chunk)
                while size - len(kept[0]) >= limit:
                    size -= len(kept.popleft())
        return b"".join(kept)[-limit:]
