"""Gates against real sockets, and what they say when they do not let pass."""

from __future__ import annotations

import http.server
import socket
import threading
from collections.abc import Iterator
from dataclasses import replace

import pytest

from reconciler import gates, memory
from reconciler.config import Gate, HttpGate
from reconciler.docker import ContainerDetails, Docker, Published, connect
from tests.reconciler.test_early import service


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers with the status that the path says."""

    def do_GET(self) -> None:
        self.send_response(int(self.path[1:4]))
        self.end_headers()
        self.wfile.write(b"all is well")

    def log_message(self, *_: object) -> None:
        """Nobody reads it."""


@pytest.fixture(scope="module")
def docker() -> Docker:
    return connect()


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port
    server.shutdown()
    server.server_close()


@pytest.fixture
def silent() -> Iterator[int]:
    """A port that takes connections and never says anything."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.fixture
def closed() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        free: int = server.getsockname()[1]
    return free


def on_host() -> ContainerDetails:
    return service("web", mode="host", networks=()).containers[0]


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"path": "/200"}, None),
        ({"path": "/200", "contains": "well"}, None),
        ({"path": "/200", "contains": "bad"}, "answered 200 without 'bad' in it"),
        ({"path": "/503"}, "answered 503"),
        ({"path": "/404", "status": 404}, None),
        ({"path": "/302"}, "answered 302"),
    ],
)
def test_http(docker: Docker, port: int, asked: dict[str, object], said: str | None) -> None:
    gate = Gate(http=HttpGate.model_validate({"port": port, **asked}))
    assert gates.ungated(docker, on_host(), gate, 10) == said


def test_nobody_there(docker: Docker, closed: int, silent: int) -> None:
    for gate in (Gate(http=HttpGate(port=closed)), Gate(tcp=closed)):
        assert gates.ungated(docker, on_host(), gate, 10) == "refused the connection"
    mute = Gate(http=HttpGate(port=silent))
    assert gates.ungated(docker, on_host(), mute, 0.1) == "did not answer in time"
    assert gates.ungated(docker, on_host(), Gate(tcp=silent), 10) is None


def test_a_published_port_is_asked_when_the_container_has_no_address(
    docker: Docker, port: int
) -> None:
    published = Published("127.0.0.1", port, "tcp", 8000)
    container = replace(service("web").containers[0], ports=(published,))
    gate = Gate(http=HttpGate(port=8000, path="/200"))
    assert gates.ungated(docker, container, gate, 10) is None
    other = Gate(http=HttpGate(port=9000, path="/200"))
    assert gates.ungated(docker, container, other, 10) == "has no address"


def test_what_a_gate_asks_is_said() -> None:
    gate = Gate(http=HttpGate(port=80, path="/x"), tcp=81, command=("test", "-f", "/x"))
    assert gates.describe(gate) == "GET :80/x and a connection to port 81 and test -f /x"


def test_the_memory_of_a_container_is_known(docker: Docker) -> None:
    """A redis that holds 64 MiB uses at least so much, and not ten times as much."""
    from tests.reconciler.trial import REDIS, docker_cli

    fill = "redis-server --save '' & sleep 1; redis-cli setrange k 67108863 x; wait"
    made = docker_cli("run", "-d", "--rm", REDIS, "sh", "-c", fill).strip()
    try:
        pid = docker.inspect(made).pid
        used = 0
        for _ in range(100):
            used = memory.used(pid) or 0
            if used > 64 << 20:
                break
            threading.Event().wait(0.1)
        assert 64 << 20 < used < 640 << 20
    finally:
        docker_cli("kill", made)
