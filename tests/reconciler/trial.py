"""A small stack on real Docker, taken from release to release the way `up` does it."""

from __future__ import annotations

import json
import os
import secrets
import socket
import subprocess
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from reconciler import config, decide, observe, switch, worlds
from reconciler.catalog import Catalog
from reconciler.docker import PROJECT, Compose, Docker, connect
from reconciler.host.hostlock import HostLock
from reconciler.making import newrelease
from reconciler.plan import Plan
from reconciler.reaching import helper
from reconciler.records.ledger import Committed, Outcome, Recovered, Reverted, State
from reconciler.upkeep import debts
from tests.failing import failing

PYTHON = "lockstep-base/python:3"
REDIS = "lockstep-base/redis:7"
POSTGRES = "lockstep-base/postgres:15"

APP = r"""
import http.server, json, os, signal, socket, sys, time
mode, version = os.environ.get("MODE", "ok"), os.environ.get("VERSION", "1")
notes = os.path.join(os.environ.get("DATA", "/data"), "notes")
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
print("starting", version, mode, os.environ.get("TOKEN", ""), flush=True)
if mode == "crash":
    print("cannot go on", flush=True)
    sys.exit(3)
if mode.startswith("job"):
    time.sleep(0.2)
    open(notes, "a").write("job %s\n" % version)
    sys.exit(int(mode[3:] or 0))
if mode == "empties":
    for name in os.listdir(os.path.dirname(notes)):
        os.remove(os.path.join(os.path.dirname(notes), name))
if mode == "needs-cache":
    socket.create_connection(("cache", 6379), timeout=2).close()
born = time.monotonic()

class Handler(http.server.BaseHTTPRequestHandler):
    def answer(self, code, value):
        body = json.dumps(value).encode()
        self.send_response(code)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def do_GET(self):
        if self.path == "/health":
            late = mode == "late" and time.monotonic() - born < 1.0
            self.answer(503 if mode == "sick" or late else 200, {"version": version})
        else:
            try:
                lines = open(notes).read().split("\n")[:-1]
            except FileNotFoundError:
                lines = []
            self.answer(200, {"version": version, "notes": lines})
    def do_POST(self):
        text = self.rfile.read(int(self.headers["Content-Length"])).decode()
        with open(notes, "a") as file:
            file.write(text + "\n")
            file.flush()
            os.fsync(file.fileno())
        self.answer(201, {})
    def log_message(self, *_):
        pass

http.server.ThreadingHTTPServer(("", 8000), Handler).serve_forever()
"""

HEALTH = [
    "CMD",
    "python3",
    "-c",
    "import urllib.request as r; r.urlopen('http://127.0.0.1:8000/health', timeout=2)",
]


def web(**changes: Any) -> dict[str, Any]:
    """A web service with notes in a volume, a published port and a slow health check."""
    body = {
        "image": PYTHON,
        "command": ["python3", "/app.py"],
        "environment": {"VERSION": "${VERSION}", "MODE": "${MODE}"},
        "ports": ["127.0.0.1:${PORT}:8000"],
        "volumes": ["notes:/data", "./app.py:/app.py:ro"],
        "healthcheck": {"test": HEALTH, "interval": "30s"},
        "restart": "unless-stopped",
        "stop_grace_period": "3s",
    }
    return {key: value for key, value in {**body, **changes}.items() if value is not None}


def cache(**changes: Any) -> dict[str, Any]:
    """Redis with its data in a volume."""
    body = {
        "image": REDIS,
        "command": ["redis-server", "--appendonly", "yes"],
        "volumes": ["cache-data:/data"],
        "healthcheck": {"test": ["CMD", "redis-cli", "ping"], "interval": "30s"},
        "restart": "always",
    }
    return {**body, **changes}


class Trial:
    """One stack in a folder of its own, under a project name nobody else has."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.project = f"lstrial{secrets.token_hex(4)}"
        self.port = free_port()
        self.settings: dict[str, Any] = {"deadline": 60, "secrets": {"TOKEN": "hush-hush-token"}}
        self.environment = {"PORT": str(self.port), "VERSION": "1", "MODE": "ok"}
        self.docker: Docker = connect()
        self.compose = Compose()
        self.said: list[str] = []
        (folder / "app.py").write_text(APP)

    # what a user writes ---------------------------------------------------------------------

    def write(self, services: Mapping[str, Any], **more: Any) -> None:
        """The compose file; JSON is YAML. Named volumes are declared when they are used."""
        used = {
            mount.split(":")[0]
            for body in services.values()
            for mount in body.get("volumes", ())
            if not mount.startswith((".", "/"))
        }
        volumes = {name: {} for name in sorted(used)} | more.pop("volumes", {})
        model = {"services": services, "volumes": volumes, **more}
        (self.folder / "compose.yaml").write_text(json.dumps(model))

    @property
    def stack(self) -> config.Stack:
        values = {**self.settings, "environment": self.environment}
        return config.read(self.project, "prod", self.folder, values)

    @property
    def catalog(self) -> Catalog:
        return Catalog(self.stack)

    @property
    def state(self) -> State:
        return self.catalog.state()

    def new(self, **environment: str) -> str:
        """Make a release and declare it; its name."""
        self.environment |= environment
        release, _ = newrelease.make(
            self.stack, self.catalog, self.docker, self.compose, description="", progress=self.say
        )
        self.settings["release"] = release.name
        return release.name

    def plan(self) -> Plan:
        facts = observe.observe(self.stack, self.catalog, self.state, self.docker, probe=False)
        return decide.decide(self.stack, self.state, facts)

    def up(
        self, release: str | None = None, *, crash_at: str | None = None, how: str = "kill"
    ) -> Plan:
        """What `up` does with the declared release, without paying debts after it. `how` its switch
        fails at the step `crash_at`: kill, error or full."""
        if release is not None:
            self.settings["release"] = release
        with self.locked() as lock:
            plan = self.plan()
            assert not plan.refusals, plan.refusals
            debts.capture_before_use(self.stack, self.catalog, self.docker, plan, self.say)
            self.make(plan)
            with failing(*([f"switch.{crash_at} {how}"] if crash_at else [])):
                switch.carry_out(self.stack, self.catalog, plan, lock, self.say)
        return plan

    def make(self, plan: Plan) -> None:
        worlds.make(self.stack, self.catalog, self.docker, self.compose, plan, self.say)

    def recover(self) -> list[str]:
        with self.locked() as lock:
            return switch.recover(self.stack, self.catalog, lock, self.say)

    @contextmanager
    def locked(self) -> Iterator[HostLock]:
        with HostLock.acquire("up", f"{self.project}/prod") as lock:
            yield lock

    def say(self, text: str) -> None:
        self.said.append(text)

    # what can be seen -----------------------------------------------------------------------

    def ask(self, path: str = "/", *, timeout: float = 5) -> dict[str, Any]:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=timeout) as got:
            answer: dict[str, Any] = json.load(got)
        return answer

    def note(self, text: str) -> None:
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/", data=text.encode(), method="POST"
        )
        with urllib.request.urlopen(request, timeout=5) as got:
            assert got.status == 201

    def notes(self) -> list[str]:
        notes: list[str] = self.ask()["notes"]
        return notes

    def running(self, world: str) -> set[str]:
        """Services of a world with a running container."""
        found = self.docker.listing(running=True, labels=[f"{PROJECT}={world}"])
        return {c.labels["com.docker.compose.service"] for c in found}

    def policies(self, world: str) -> dict[str, str]:
        return {c.service: c.restart_policy for c in self.docker.containers(project=world)}

    def world(self, number: int) -> str:
        return f"{self.project}-prod-{number:03d}"

    def last(self) -> Outcome:
        """The newest outcome in the ledger."""
        return self.state.outcomes[-1][1]

    def committed(self) -> Committed:
        last = self.last()
        assert isinstance(last, Committed), last
        return last

    def reverted(self) -> Reverted:
        last = self.last()
        assert isinstance(last, Reverted), last
        return last

    def recovered(self) -> Recovered:
        last = self.last()
        assert isinstance(last, Recovered), last
        return last

    def insist_on_one_world(self, world: str) -> None:
        """Promises that hold after every switch: one world runs, nothing is left over."""
        listed = self.docker.listing(running=True)
        found = {c.project for c in listed if c.project.startswith(self.project)}
        assert found == {world}
        assert self.state.live == world
        assert not self.catalog.journal.exists()
        for other in {w.name for w in self.state.worlds.values()} - {world}:
            assert set(self.policies(other).values()) <= {"no"}, other

    def exec(self, world: str, service: str, *argv: str) -> str:
        for container in self.docker.containers(project=world, running=True):
            if container.service == service:
                done = self.docker.exec(container.id, argv)
                assert done.code == 0, done
                return done.stdout
        raise AssertionError(f"{service} of {world} does not run")

    def plain(self, *args: str) -> None:
        """`docker compose ARGS` as a user has it in the project's folder."""
        done = subprocess.run(
            ["docker", "compose", "-p", self.project, *args],
            cwd=self.folder,
            env={**os.environ, **self.environment, **self.settings["secrets"]},
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr

    # the end --------------------------------------------------------------------------------

    def clear(self) -> None:
        """Remove everything this stack made, by its own project name."""
        helper.close()
        for listed in self.docker.listing():
            if listed.project.startswith(self.project) or listed.name.startswith(self.project):
                self.docker.remove_container(listed.id, force=True)
        for kind in ("network", "volume"):
            found: set[str] = set()
            for ours in (f"name={self.project}", f"label=lockstep.project={self.project}"):
                found |= set(docker_cli(kind, "ls", "-q", "--filter", ours).split())
            if found:
                docker_cli(kind, "rm", *found)
        tags = [t for t in self.docker.image_ids() if t.startswith(f"{self.project}-")]
        for tag in tags:
            self.docker.untag(tag)


def docker_cli(*args: str) -> str:
    done = subprocess.run(
        ["docker", *args], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port
