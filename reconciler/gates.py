"""How a service shows that it works: its health check's own test, and its gate.

Every function returns None when the service answers as it must, else what it did instead.
"""

from __future__ import annotations

import http.client
import socket
from collections.abc import Iterator

from reconciler.config import Gate, HttpGate
from reconciler.docker import ContainerDetails, Docker
from reconciler.errors import DockerFailed
from snapshots.drivers import ExecResult

_ANSWER_SECONDS = 5.0
_LEAST_SECONDS = 1.0
"""What a test gets at least, however little is left: a shorter one would say nothing."""
_COMMAND_SECONDS = 60.0
_BODY_BYTES = 1 << 20


def unhealthy(docker: Docker, container: ContainerDetails, limit: float) -> str | None:
    """Run the health check's own test once, for at most its timeout or `limit` seconds."""
    if container.health is None:
        return None
    timeout = max(_LEAST_SECONDS, min(container.health.timeout, limit))
    return _run(docker, container, container.health.argv, timeout)


def ungated(docker: Docker, container: ContainerDetails, gate: Gate, limit: float) -> str | None:
    """Ask once what the gate asks, for at most `limit` seconds an answer."""
    timeout = max(_LEAST_SECONDS, min(_ANSWER_SECONDS, limit))
    if gate.http is not None:
        said = _http(docker, container, gate.http, timeout)
        if said is not None:
            return said
    if gate.tcp is not None:
        said = _tcp(docker, container, gate.tcp, timeout)
        if said is not None:
            return said
    if gate.command:
        return _run(
            docker, container, gate.command, max(_LEAST_SECONDS, min(_COMMAND_SECONDS, limit))
        )
    return None


def describe(gate: Gate) -> str:
    """What the gate asks, for a person: `GET :8000/health`."""
    parts = []
    if gate.http is not None:
        parts.append(f"GET :{gate.http.port}{gate.http.path}")
    if gate.tcp is not None:
        parts.append(f"a connection to port {gate.tcp}")
    if gate.command:
        parts.append(" ".join(gate.command))
    return " and ".join(parts)


def _run(
    docker: Docker, container: ContainerDetails, argv: tuple[str, ...], timeout: float
) -> str | None:
    try:
        result = docker.exec(container.id, argv, timeout=timeout)
    except DockerFailed as error:
        return error.message
    return None if result.code == 0 else _failed(result)


def _failed(result: ExecResult) -> str:
    lines = [line.strip() for line in f"{result.stdout}\n{result.stderr}".splitlines()]
    last = next((line for line in reversed(lines) if line), "")
    return f"ended with exit code {result.code}" + (f" ({last[:200]})" if last else "")


def _http(
    docker: Docker, container: ContainerDetails, gate: HttpGate, timeout: float
) -> str | None:
    said: str | None = "has no address"
    for host, port in _addresses(docker, container, gate.port):
        connection = http.client.HTTPConnection(host, port, timeout=timeout)
        try:
            connection.request("GET", gate.path)
            answer = connection.getresponse()
            body = answer.read(_BODY_BYTES).decode(errors="replace")
        except (OSError, http.client.HTTPException) as error:
            said = _refused(error)
            continue
        finally:
            connection.close()
        if answer.status != gate.status:
            return f"answered {answer.status}"
        if gate.contains not in body:
            return f"answered {answer.status} without {gate.contains!r} in it"
        return None
    return said


def _tcp(docker: Docker, container: ContainerDetails, port: int, timeout: float) -> str | None:
    said: str | None = "has no address"
    for address in _addresses(docker, container, port):
        try:
            socket.create_connection(address, timeout=timeout).close()
        except OSError as error:
            said = _refused(error)
        else:
            return None
    return said


def _addresses(docker: Docker, container: ContainerDetails, port: int) -> Iterator[tuple[str, int]]:
    """Where a port of the container can be reached: its own addresses, then what it publishes.

    Its own come first: there nobody but this world can answer.
    """
    mode, _, other = container.network_mode.partition(":")
    if mode == "host":
        yield "127.0.0.1", port
        return
    owner = docker.inspect(other) if mode == "container" and other else container
    for address in owner.addresses.values():
        yield address, port
    for published in owner.ports:
        if published.container_port == port and published.protocol == "tcp":
            anywhere = published.host_ip in ("", "0.0.0.0", "::")
            yield ("127.0.0.1" if anywhere else published.host_ip), published.port


def _refused(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "did not answer in time"
    if isinstance(error, ConnectionRefusedError):
        return "refused the connection"
    return f"did not answer: {error or type(error).__name__}"
