"""What the containers of a world tell at one moment: how they stand, what they use, their logs."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

from reconciler.docker import Docker
from reconciler.docker.dockervalues import Row
from reconciler.errors import LockstepError
from reconciler.evidence.hiding import Hiding

LOG_LINES = 5000
"""Per container, the newest."""
_AT_ONCE = 8
_ANSWERS = ("running", "paused")

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class Log:
    """What a container said."""

    text: str
    whole: bool
    """Nothing older was left out."""


class Witness:
    """Asks Docker of the containers of worlds; what it was not told is a sentence in `missing`."""

    def __init__(self, docker: Docker, hiding: Hiding) -> None:
        self.docker = docker
        self.hiding = hiding
        self.missing: list[str] = []

    def look(self, world: str) -> list[dict[str, Any]]:
        """Each container: a line of `docker compose ps --all`, how it ended, `stats` where it runs,
        and the whole of `inspect`, masked."""
        rows = self.told(f"docker compose ps of {world}", lambda: self.docker.rows(world)) or ()
        return in_parallel(self._container, rows)

    def _container(self, row: Row) -> dict[str, Any]:
        # First, for what is looked at beside a switch may be stopped at any moment.
        stats = self._stats(row) if row.state in _ANSWERS else None
        said = self.told(f"inspect of {row.name}", lambda: self.docker.told(row.id))
        inspected = self.hiding.inspected(said) if said is not None else {}
        state = inspected.get("State") or {}
        found: dict[str, Any] = {
            **self.hiding.document(asdict(row)),
            "exit_code": state.get("ExitCode"),
            "oom_killed": state.get("OOMKilled"),
            "restarts": inspected.get("RestartCount"),
            "started": state.get("StartedAt"),
            "finished": state.get("FinishedAt"),
            "inspect": inspected,
        }
        return found if stats is None else {**found, "stats": stats}

    def _stats(self, row: Row) -> dict[str, int | float]:
        stats = self.told(f"stats of {row.name}", lambda: self.docker.stats(row.id))
        if stats is not None and "memory_bytes" not in stats:
            self.missing.append(f"stats of {row.name}: it did not run any more, or is not counted")
        return stats or {}

    def log(self, container: str, name: str, *, since: float, limit: int) -> Log | None:
        """Its newest lines since then (seconds since 1970; 0: all), each with its time, masked."""
        said = self.told(
            f"log of {name}",
            lambda: self.docker.log_tail(container, since=since, lines=LOG_LINES, limit=limit),
        )
        if said is None:
            return None
        whole = len(said) < limit and said.count(b"\n") < LOG_LINES
        return Log(self.hiding.text(said.decode(errors="replace")), whole)

    def events(self, since: float, until: float, ours: Callable[[str], bool]) -> list[str]:
        """Docker's events of containers, networks and volumes that `ours` knows by name, one JSON
        document a line. What is executed in a container is left out: health checks are."""
        said = self.told("docker events", lambda: self.docker.events(since, until)) or []
        found = []
        for event in said:
            attributes = (event.get("Actor") or {}).get("Attributes") or {}
            name = str(attributes.get("name") or (event.get("Actor") or {}).get("ID") or "")
            action = str(event.get("Action") or "")
            if action.startswith("exec_") or not (event.get("Type") == "daemon" or ours(name)):
                continue
            kept = {k: attributes[k] for k in ("exitCode", "signal", "image") if k in attributes}
            document = {
                "time": event.get("timeNano", 0) / 1e9,
                "type": event.get("Type"),
                "action": action,
                "name": name,
                **kept,
            }
            found.append(json.dumps(self.hiding.document(document)))
        return found

    def told(self, what: str, ask: Callable[[], T]) -> T | None:
        """The answer; None where there was none, which is noted."""
        try:
            return ask()
        except LockstepError as error:
            self.missing.append(self.hiding.text(f"{what}: {error.message}"))
            return None


def in_parallel(work: Callable[[T], R], items: Iterable[T]) -> list[R]:
    """The same for each of them, a few at once."""
    waiting = list(items)
    if not waiting:
        return []
    with ThreadPoolExecutor(min(_AT_ONCE, len(waiting))) as pool:
        return list(pool.map(work, waiting))
