"""One question, asked once, whatever its kind."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from reconciler.docker import ContainerDetails, Docker
from reconciler.errors import DockerFailed
from reconciler.gates.judging import Answer, silent
from reconciler.gates.model import KINDS, Gate, describe


@dataclass(frozen=True)
class Ground:
    """What the gates of one world are asked with."""

    docker: Docker
    secrets: Mapping[str, str] = field(default_factory=dict)
    """The stack's, by name: for requests that need one."""
    folder: Path = Path()
    """Where commands on the host run."""
    facts: Callable[[], Mapping[str, Any]] = dict
    """What a command on the host is told."""
    before: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """dataset -> what its data probe counted when the content of this world was sealed."""
    restarts: Callable[[str], int] = lambda _container_id: 0
    """How often we started a container again."""
    given_up: threading.Event = field(default_factory=threading.Event)


@dataclass(frozen=True)
class Question:
    """One question of a gate. `service` "": the whole stack."""

    service: str
    gate: Gate
    kind: str
    asks: Any

    @property
    def name(self) -> str:
        """What it is called: its gate's name, or what it asks."""
        alone = len(list(self.gate.asks())) == 1
        if self.gate.name:
            return self.gate.name if alone else f"{self.gate.name} ({self.kind})"
        return describe(self.kind, self.asks)

    @property
    def seconds(self) -> float:
        """What one try may take."""
        return self.gate.timeout or KINDS[self.kind]

    @property
    def again(self) -> Question | None:
        """What of it is asked once more before the commit: what it forbids may come later."""
        if self.kind == "log" and self.asks.never:
            return replace(self, asks=self.asks.model_copy(update={"must": ()}))
        if self.kind == "resources":
            # How busy it is takes seconds to tell, and says little of one moment.
            left = self.asks.model_copy(update={"cpu_percent": None})
            return None if left.says_nothing else replace(self, asks=left)
        return None

    @property
    def on_host(self) -> bool:
        """Whether no container is asked."""
        return self.kind == "host"


def questions(service: str, gates: tuple[Gate, ...]) -> list[Question]:
    """All that the gates of a service (or of the stack, "") ask."""
    return [
        Question(service or gate.service, gate, kind, asks)
        for gate in gates
        for kind, asks in gate.asks()
    ]


def ask(
    ground: Ground, question: Question, container: ContainerDetails | None, timeout: float
) -> Answer:
    """Ask once, for at most `timeout` seconds. `container`: None only for the host's commands."""
    try:
        return _ask(ground, question, container, timeout)
    except DockerFailed as error:
        return silent(error.message)


def _ask(
    ground: Ground, question: Question, container: ContainerDetails | None, timeout: float
) -> Answer:
    # Each kind costs its import only where it is used.
    docker, asks, unsure_codes = ground.docker, question.asks, question.gate.inconclusive_codes
    if container is None:
        from reconciler.gates import onhost

        facts = ground.facts()
        return onhost.ask_host(asks, facts, ground.folder, timeout, unsure_codes, ground.given_up)
    if question.kind in ("http", "tcp", "certificate"):
        from reconciler.gates import web

        if question.kind == "http":
            return web.ask_http(docker, container, asks, timeout, ground.secrets)
        if question.kind == "tcp":
            return web.ask_tcp(docker, container, asks, timeout)
        return web.ask_certificate(docker, container, asks, timeout)
    if question.kind in ("command", "sql", "redis"):
        from reconciler.gates import inside

        if question.kind == "command":
            return inside.ask_command(docker, container, asks, timeout, unsure_codes)
        if question.kind == "sql":
            return inside.ask_sql(docker, container, asks, timeout, ground.before)
        return inside.ask_redis(docker, container, asks, timeout)
    from reconciler.gates import watching

    if question.kind == "log":
        return watching.ask_log(docker, container, asks)
    if question.kind == "health":
        return watching.ask_health(container)
    return watching.ask_resources(docker, container, asks, ground.restarts(container.id))
