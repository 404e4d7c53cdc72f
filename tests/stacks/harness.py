"""Stacks under test: a real compose project in a folder of its own, driven by the command that a
user types, on the real Docker. Everything is named after a random project, and removed by it."""

from __future__ import annotations

import json
import os
import pty
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cli import engines
from setup.base_images import IMAGES, exists
from tests import documents
from tests.stacks import warm

ROOT = Path(__file__).resolve().parent.parent.parent
TIMEOUT_SECONDS = 120.0
OFFICIAL = engines.find(os.environ.get("PATH", ""), ROOT)
"""The official Pulumi CLI, if there is one."""

APP = """
import http.server, json, os, pathlib, signal, sys

NOTES = pathlib.Path("/notes/notes.txt")
EXTRA = pathlib.Path("/settings.toml")


class Handler(http.server.BaseHTTPRequestHandler):
    def answer(self, code, body):
        self.send_response(code)
        self.end_headers()
        self.wfile.write(body.encode())

    def do_GET(self):
        if self.path == "/health":
            broken = os.environ.get("BROKEN")
            self.answer(503 if broken else 200, broken or "ok")
        elif self.path == "/notes":
            self.answer(200, NOTES.read_text() if NOTES.exists() else "")
        elif self.path == "/settings":
            self.answer(200, EXTRA.read_text() if EXTRA.exists() else "")
        else:
            self.answer(200, os.environ.get(self.path.strip("/").upper(), ""))

    def do_POST(self):
        text = self.rfile.read(int(self.headers["Content-Length"])).decode()
        with NOTES.open("a") as notes:
            notes.write(text + "\\n")
            notes.flush()
            os.fsync(notes.fileno())
        self.answer(201, "noted")

    def log_message(self, *args):
        pass


signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
http.server.ThreadingHTTPServer(("", 8000), Handler).serve_forever()
"""

COMPOSE = """
services:
  app:
    image: {image}
    command: ["python3", "/app.py"]
    environment:
      VERSION: "1"
    volumes:
      - ./app.py:/app.py:ro
      - notes:/notes
    ports: ["127.0.0.1:{port}:8000"]
    healthcheck:
      test: ["CMD", "python3", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8000/health')"]
      interval: 30s
    restart: unless-stopped
    stop_grace_period: 2s
volumes:
  notes:
"""


@dataclass(frozen=True)
class Ran:
    """What a command printed, and how it ended."""

    args: tuple[str, ...]
    code: int
    out: str
    err: str

    @property
    def text(self) -> str:
        return self.out + self.err

    def json(self) -> Any:
        return json.loads(self.out)


@dataclass
class Project:
    """A compose project in a folder, with the `lockstep` command for it."""

    folder: Path
    name: str = field(default_factory=lambda: f"t{uuid.uuid4().hex[:8]}")
    port: int = field(default_factory=lambda: free_port())
    env: dict[str, str] = field(default_factory=dict)
    inside: tuple[str, ...] = ()
    """Words before every command that is to see the network of the project's daemon."""
    warm: bool = True
    """Commands are forked, not started: a test of their processes does without."""

    def docker(self, *args: str, check: bool = True) -> str:
        """The docker command line's answer, of the daemon that the project runs on."""
        return docker(*args, check=check, env=self.env)

    # the command ----------------------------------------------------------------------------

    def run(self, *args: str, code: int | None = 0, env: Mapping[str, str] | None = None) -> Ran:
        """Run `lockstep ARGS`; the exit code must be `code` (None: any)."""
        if env or self.inside or not self.warm:
            done = subprocess.run(
                [*self.inside, sys.executable, "-m", "cli.main", *args],
                cwd=self.folder,
                env=self.environment(env),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=TIMEOUT_SECONDS,
            )
        else:
            done = warm.run(args, self.folder, self.environment(), TIMEOUT_SECONDS)
        ran = Ran(args, done.returncode, done.stdout, done.stderr)
        assert code is None or ran.code == code, self._story(ran, code)
        assert "Traceback" not in ran.text, self._story(ran, code)
        if "--json" in args and ran.out:
            documents.insist(args, ran.json())
        return ran

    def start(
        self, *args: str, env: Mapping[str, str] | None = None, stdout: int = subprocess.PIPE
    ) -> subprocess.Popen[str]:
        """Start `lockstep ARGS` in a session of its own, to be killed or waited for."""
        return subprocess.Popen(
            [*self.inside, sys.executable, "-m", "cli.main", *args],
            cwd=self.folder,
            env=self.environment(env),
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def environment(self, more: Mapping[str, str] | None = None) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("PULUMI_", "LOCKSTEP_"))}
        locks = self.folder.parent / "locks"
        locks.mkdir(exist_ok=True)
        engine = os.environ.get("LOCKSTEP_TEST_ENGINE", "embedded")
        return {
            **kept,
            "PYTHONPATH": str(ROOT),
            "LOCKSTEP_LOCK_DIR": str(locks),
            "LOCKSTEP_ENGINE": engine,
            "LOCKSTEP_REACH": os.environ.get("LOCKSTEP_TEST_REACH", "auto"),
            # The official CLI has its plugins in its home.
            **({"PULUMI_HOME": str(locks / "pulumi")} if engine == "embedded" else {}),
            **self.env,
            **(more or {}),
        }

    def _story(self, ran: Ran, code: int | None) -> str:
        return f"lockstep {' '.join(ran.args)}: exit {ran.code}, not {code}\n{ran.text}"

    # a user's steps -------------------------------------------------------------------------

    def init(self) -> Ran:
        return self.run("init", "--yes", "--no-fence", "--name", self.name)

    def new(self, text: str = "a release", *args: str) -> str:
        """Make the next release; returns its name."""
        name, _, said = self.run("new", text, *args).out.partition(" ")
        assert said.startswith("is recorded and declared"), said
        return name

    def up(self, code: int = 0, **env: str) -> Ran:
        return self.run("up", "--yes", code=code, env=env)

    def release(self, text: str = "a release") -> str:
        """new + up."""
        name = self.new(text)
        self.up()
        assert self.live() == name
        return name

    def declare(self, release: str) -> None:
        self.run("config", "set", "release", release)

    def trust(self, refused: Ran) -> None:
        """Take releases/ as it is, by the mark that a refusal names."""
        self.run("config", "set", "trust", refused.text.split("config set trust ")[1].split()[0])

    def compose_file(self, **replacing: str) -> None:
        """Edit compose.yaml: each keyword's `old=new` text is replaced once."""
        path = self.folder / "compose.yaml"
        text = path.read_text()
        for change in replacing.values():
            old, new = change.split("=>")
            assert old in text, f"{old!r} is not in the compose file"
            text = text.replace(old, new)
        path.write_text(text)

    # what is there --------------------------------------------------------------------------

    def releases(self) -> list[dict[str, Any]]:
        return list(self.run("list", "--json").json()["releases"])

    def live(self) -> str | None:
        found = self.run("list", "--json").json()["live"]
        return str(found) if found else None

    def status(self) -> dict[str, str]:
        return {r["release"]: r["status"] for r in self.releases()}

    def entries(self) -> list[dict[str, Any]]:
        """The log, newest first."""
        return list(self.run("log", "--json").json()["entries"])

    def preview(self, code: int | None = 0) -> dict[str, Any]:
        return dict(self.run("preview", "--json", code=code).json())

    def containers(self, *, running: bool = True) -> dict[str, str]:
        """container id -> name, of every world of the project and of its plain project."""
        words = ["ps", "--no-trunc", "--format", "{{.ID}} {{.Names}}"]
        listed: dict[str, str] = {}
        for label in self._labels():
            out = self.docker(*words, *([] if running else ["--all"]), "--filter", f"label={label}")
            for line in out.splitlines():
                container, name = line.split(" ", 1)
                listed[container] = name
        return listed

    def volumes(self) -> set[str]:
        found: set[str] = set()
        for label in self._labels():
            found |= set(self.docker("volume", "ls", "-q", "--filter", f"label={label}").split())
        return found

    def images(self) -> set[str]:
        listed = self.docker("images", "--format", "{{.Repository}}:{{.Tag}}")
        return {i for i in listed.split() if i.startswith(f"{self.name}-")}

    def _labels(self) -> tuple[str, str]:
        return (f"lockstep.project={self.name}", f"com.docker.compose.project={self.name}")

    def nothing_to_do(self) -> None:
        """A second up plans nothing and touches nothing."""
        before = self.containers()
        ran = self.run("up", "--yes")
        changed = [w for w in (" created", " updated", " deleted", " replaced") if w in ran.text]
        assert changed == [], ran.text
        assert self.containers() == before

    # the app --------------------------------------------------------------------------------

    def get(self, path: str, timeout: float = 5.0) -> str:
        url = f"http://127.0.0.1:{self.port}{path}"
        if self.inside:
            return self._fetch(url, timeout)
        with urllib.request.urlopen(url, timeout=timeout) as answer:
            return str(answer.read().decode())

    def note(self, text: str, timeout: float = 5.0) -> None:
        url = f"http://127.0.0.1:{self.port}/notes"
        if self.inside:
            self._fetch(url, timeout, text)
            return
        request = urllib.request.Request(url, data=text.encode(), method="POST")
        with urllib.request.urlopen(request, timeout=timeout) as answer:
            assert answer.status == 201

    def _fetch(self, url: str, timeout: float, *posted: str) -> str:
        """The same from another network."""
        code = (
            "import sys, urllib.request as r; "
            "body = sys.argv[3].encode() if sys.argv[3:] else None; "
            "got = r.urlopen(sys.argv[1], data=body, timeout=float(sys.argv[2])); "
            "print(got.read().decode(), end='')"
        )
        words = [*self.inside, sys.executable, "-c", code, url, str(timeout), *posted]
        done = subprocess.run(words, capture_output=True, text=True, timeout=TIMEOUT_SECONDS)
        if done.returncode:
            raise OSError(done.stderr)
        return done.stdout

    def notes(self) -> list[str]:
        return self.get("/notes").splitlines()

    def wait_until_it_answers(self, seconds: float = 20.0) -> None:
        deadline = time.monotonic() + seconds
        while True:
            try:
                self.get("/health", timeout=1)
                return
            except OSError:
                assert time.monotonic() < deadline, "the app does not answer"
                time.sleep(0.1)

    # the end --------------------------------------------------------------------------------

    def remove(self) -> None:
        """Remove containers, networks, volumes and images of this project, by label and name."""
        for label in self._labels():
            ids = self.docker("ps", "--all", "-q", "--filter", f"label={label}").split()
            if ids:
                self.docker("rm", "--force", "--volumes", *ids)
            for kind in ("network", "volume"):
                names = self.docker(kind, "ls", "-q", "--filter", f"label={label}").split()
                if names:
                    self.docker(kind, "rm", *names, check=False)
        for line in self.docker("ps", "--all", "--format", "{{.ID}} {{.Names}}").splitlines():
            container, name = line.split(" ", 1)
            if name.startswith(f"{self.name}-"):
                self.docker("rm", "--force", container)
        networks = self.docker("network", "ls", "--format", "{{.Name}}").split()
        for network in [n for n in networks if n.startswith(f"{self.name}-")]:
            self.docker("network", "rm", network, check=False)
        images = self.images()
        if images:
            self.docker("rmi", "--force", *images, check=False)


def notes_project(folder: Path, kind: type[Project] = Project, **more: Any) -> Project:
    """A project of one service with a volume, a config file and a published port."""
    project = kind(folder, **more)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "app.py").write_text(APP)
    (folder / "compose.yaml").write_text(COMPOSE.format(image=python_image(), port=project.port))
    return project


def pulumi(project: Project, *words: str) -> subprocess.CompletedProcess[str]:
    """`pulumi WORDS` as a person types it, of the engine that the project runs on."""
    embedded = project.environment()["LOCKSTEP_ENGINE"] == "embedded"
    command = [sys.executable, "-m", "cli.pulumi"] if embedded else [str(OFFICIAL)]
    return subprocess.run(
        [*command, *words, "--stack", "prod", "--non-interactive"],
        cwd=project.folder,
        env={
            **project.environment(),
            "PULUMI_CONFIG_PASSPHRASE_FILE": str(project.folder / ".lockstep" / "passphrase"),
        },
        capture_output=True,
        text=True,
        timeout=TIMEOUT_SECONDS,
    )


def on_a_terminal(project: Project, *words: str, answer: str) -> tuple[int, str]:
    """Run `lockstep WORDS` on a terminal and give it an answer; (exit code, what it showed)."""
    ours, theirs = pty.openpty()
    child = subprocess.Popen(
        [sys.executable, "-m", "cli.main", *words],
        cwd=project.folder,
        env={**project.environment(), "TERM": "dumb"},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    os.write(ours, answer.encode())
    shown = b""
    while True:
        try:
            piece = os.read(ours, 4096)
        except OSError:
            break
        if not piece:
            break
        shown += piece
    os.close(ours)
    return child.wait(timeout=60), shown.decode(errors="replace")


@contextmanager
def live_notes(folder: Path) -> Iterator[Project]:
    """The small project, live with one release that holds the note `a`; removed afterwards."""
    project = notes_project(folder)
    try:
        project.init()
        project.release("one")
        project.note("a")
        yield project
    finally:
        project.remove()


def base_image(official: str) -> str:
    """The local name of a base image that set-up pulled or built."""
    if exists(official):
        return official
    return next(image.name for image in IMAGES if image.official == official)


def python_image() -> str:
    return base_image("python:3.11-slim")


def free_port() -> int:
    """A port below the ephemeral range, so that no client's connection takes it meanwhile."""
    for _ in range(200):
        port = 20000 + uuid.uuid4().int % 10000
        with socket.socket() as probe:
            try:
                probe.bind(("0.0.0.0", port))
            except OSError:
                continue
            return port
    raise AssertionError("no free port")


def docker(*args: str, check: bool = True, env: Mapping[str, str] | None = None) -> str:
    """The docker command line's answer."""
    done = subprocess.run(
        ["docker", *args],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_SECONDS,
        env={**os.environ, **(env or {})},
    )
    assert not check or done.returncode == 0, f"docker {' '.join(args)}: {done.stderr}"
    return done.stdout


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=1):
            return True
    except (OSError, urllib.error.URLError):
        return False
