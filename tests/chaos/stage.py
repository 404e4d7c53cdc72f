"""The stack that is killed over and over: two forked datasets, one in place, a service that starts
early, one that waits for the commit, and a client that never stops writing notes."""

from __future__ import annotations

import http.client
import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.stacks.harness import Project, docker, python_image

MARK = "CHAOS_MARK"
"""In the environment of every process of a project: its name."""
PLACES = ("notes", "orders", "files")

APP = """
import http.server, json, os, pathlib, signal, sys

PLACES = {name: pathlib.Path("/data") / name / "lines" for name in ("notes", "orders", "files")}


def add(text):
    for place in PLACES.values():
        with place.open("a") as lines:
            lines.write(text + "\\n")
            lines.flush()
            os.fsync(lines.fileno())


if os.environ.get("BREAKS"):
    add("written by a release that fails")
    sys.exit(3)


class Handler(http.server.BaseHTTPRequestHandler):
    def answer(self, code, body):
        self.send_response(code)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    def do_GET(self):
        found = {n: p.read_text().split() if p.exists() else [] for n, p in PLACES.items()}
        self.answer(200, "ok" if self.path == "/health" else json.dumps(found))

    def do_POST(self):
        add(self.rfile.read(int(self.headers["Content-Length"])).decode())
        self.answer(201, os.environ["HOSTNAME"])

    def log_message(self, *args):
        pass


signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
http.server.ThreadingHTTPServer(("", 8000), Handler).serve_forever()
"""

IDLE = "import os, signal; signal.signal(15, lambda *_: os._exit(0)); signal.pause()"


def _compose(port: int) -> str:
    image, healthy = python_image(), {"test": ["CMD", "true"], "interval": "30s"}
    idle = {
        "image": image,
        "command": ["python3", "-c", IDLE],
        "healthcheck": healthy,
        "restart": "unless-stopped",
    }
    probe = "import urllib.request as u; u.urlopen('http://127.0.0.1:8000/health')"
    app = {
        "image": image,
        "command": ["python3", "/app.py"],
        "environment": {"VERSION": "0", "BREAKS": ""},
        "volumes": [
            "./app.py:/app.py:ro",
            "notes:/data/notes",
            "orders:/data/orders",
            "./files:/data/files",
        ],
        "ports": [f"127.0.0.1:{port}:8000"],
        "healthcheck": {"test": ["CMD", "python3", "-c", probe], "interval": "30s"},
        "restart": "unless-stopped",
        "stop_grace_period": "3s",
    }
    late = {**idle, "x-lockstep": {"start": "after-commit"}}
    # What has data of its own, and nothing in place, may start early.
    side = {**idle, "volumes": ["orders:/data/orders"]}
    services = {"app": app, "side": side, "late": late}
    return json.dumps({"services": services, "volumes": {"notes": {}, "orders": {}}}, indent=1)


def chaos_project(folder: Path) -> Project:
    """The project, its processes marked, with nothing initialised yet."""
    project = Project(folder)
    project.env[MARK] = project.name
    (folder / "files").mkdir(parents=True)
    (folder / "app.py").write_text(APP)
    (folder / "compose.yaml").write_text(_compose(project.port))
    return project


def edit(project: Project, *, breaks: bool) -> None:
    """Another version of the service in the compose file."""
    path = project.folder / "compose.yaml"
    model = json.loads(path.read_text())
    environment = model["services"]["app"]["environment"]
    environment["VERSION"] = str(int(environment["VERSION"]) + 1)
    environment["BREAKS"] = "yes" if breaks else ""
    path.write_text(json.dumps(model, indent=1))


@dataclass(frozen=True)
class Acknowledged:
    """A note that the service said it has."""

    note: str
    world: str


class Writer:
    """Writes one note after the other, and keeps what was acknowledged and what is unsure."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._guard = threading.Lock()
        self._over = threading.Event()
        self._number = 0
        self._worlds: dict[str, str] = {}
        self._acknowledged: list[Acknowledged] = []
        self.unsure: set[str] = set()
        """Notes without an answer: each may be in any of the datasets, or in none."""
        self._thread = threading.Thread(target=self._write, daemon=True)

    def __enter__(self) -> Writer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(30)

    @contextmanager
    def paused(self) -> Iterator[list[Acknowledged]]:
        """Nothing is written meanwhile; what was acknowledged since the last pause."""
        with self._guard:
            drained, self._acknowledged = self._acknowledged, []
            yield drained

    def _write(self) -> None:
        while not self._over.wait(0.05):
            with self._guard:
                self._number += 1
                self._one(f"n{self._number}")

    def _one(self, note: str) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=10)
        try:
            connection.connect()
        except OSError:
            return
        try:
            connection.request("POST", "/", note)
            answer = connection.getresponse()
            host = answer.read().decode()
            if answer.status != 201:
                raise OSError(answer.status)
            self._acknowledged.append(Acknowledged(note, self._world_of(host)))
        except (OSError, http.client.HTTPException):
            self.unsure.add(note)
        finally:
            connection.close()

    def _world_of(self, host: str) -> str:
        if host not in self._worlds:
            label = '{{index .Config.Labels "com.docker.compose.project"}}'
            self._worlds[host] = docker("inspect", "--format", label, host).strip()
        return self._worlds[host]


def read_all(project: Project) -> dict[str, frozenset[str]]:
    """Dataset -> notes, as the live service has them."""
    found = json.loads(project.get("/all", timeout=10))
    for name, lines in found.items():
        assert len(set(lines)) == len(lines), f"{name} has notes twice"
    return {name: frozenset(lines) for name, lines in found.items()}


def marked_processes(project: Project) -> dict[int, int]:
    """Process -> session of everything that a command of the project started and that runs."""
    mark, found = f"{MARK}={project.name}".encode(), {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            if mark in (entry / "environ").read_bytes().split(b"\0"):
                found[int(entry.name)] = os.getsid(int(entry.name))
        except (OSError, ProcessLookupError):
            continue
    return found


def until_quiet(project: Project, seconds: float = 90.0) -> None:
    """Wait until nothing that the project's commands started runs any more."""
    deadline = time.monotonic() + seconds
    while marked_processes(project):
        assert time.monotonic() < deadline, f"still running: {marked_processes(project)}"
        time.sleep(0.1)
