"""The health check's own test, and how a command ended, for a person."""

from __future__ import annotations

from reconciler.docker import ContainerDetails, Docker
from reconciler.errors import DockerFailed
from snapshots.drivers.base import ExecResult

LEAST_SECONDS = 1.0
"""What a test gets at least, however little is left: a shorter one would say nothing."""
_TOO_LATE = 124


def unhealthy(docker: Docker, container: ContainerDetails, limit: float) -> str | None:
    """Run the health check's own test once, for at most its timeout or `limit` seconds; what is
    wrong, or None."""
    if container.health is None:
        return None
    timeout = max(LEAST_SECONDS, min(container.health.timeout, limit))
    try:
        result = docker.exec(container.id, container.health.argv, timeout=timeout)
    except DockerFailed as error:
        return error.message
    return None if result.code == 0 else ended(result)


def ended(result: ExecResult) -> str:
    """`ended with exit code 3 (its last line)`."""
    last = last_line(result)
    if result.code == _TOO_LATE and not result.stdout.strip():
        return last
    return f"ended with exit code {result.code}" + (f" ({last})" if last else "")


def last_line(result: ExecResult) -> str:
    """The last that it said on either output."""
    lines = [line.strip() for line in f"{result.stdout}\n{result.stderr}".splitlines()]
    return next((line for line in reversed(lines) if line), "")[:200]
