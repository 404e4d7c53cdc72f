"""Services that ignore their stop signal: stopping them takes their whole grace period."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path

from reconciler.docker import ContainerDetails, Docker, ImageInfo
from reconciler.facts import Container, Deaf


def services(docker: Docker, containers: Iterable[Container]) -> tuple[Deaf, ...]:
    """Those among the running containers whose first process does not handle the stop signal."""
    found = {}
    image = cache(docker.image)
    for container in containers:
        if container.state == "running":
            deaf = of(docker.inspect(container.id), image)
            if deaf is not None:
                found[deaf.service] = deaf
    return tuple(found.values())


def of(running: ContainerDetails, image_of: Callable[[str], ImageInfo | None]) -> Deaf | None:
    """None when it handles the signal, or is looked after by `init`. `image_of`: the image of an
    id."""
    image = image_of(running.image_id)
    name = image.stop_signal if image else "SIGTERM"
    if running.init or not ignores(running.pid, name):
        return None
    return Deaf(running.service, name, running.stop_grace)


def ignores(pid: int, name: str) -> bool:
    """Whether the process has no handler for the signal; PID 1 of a container then ignores it.
    False where this cannot be seen (another host, another user)."""
    number = getattr(signal, name, None)
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False
    return pid > 0 and isinstance(number, int) and not _caught(status) >> (number - 1) & 1


def _caught(status: str) -> int:
    """The signals that a process handles, as a bit mask, from its /proc/PID/status."""
    values = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
    return int(values.get("SigCgt", "f" * 16), 16)
