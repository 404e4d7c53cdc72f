"""A small real project: a PostgreSQL, and a web service that answers from it.

It is run as people do it: by `docker compose`, `docker stop` and `start`, and `lockstep`.
"""

from __future__ import annotations

import os
import random
import shutil
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from bench import images
from bench.daemons import Daemon
from bench.errors import BenchError
from bench.subjects import settings
from bench.sweeping import sweep_docker
from bench.work import bring

ROOT = Path(__file__).resolve().parent.parent
LIMIT = 600.0

COMPOSE = """\
name: {name}
x-labels: &labels ["{label}"]
services:
  web:
    image: {python}
    command: ["python3", "/app.py"]
    labels: *labels
    environment:
      PGHOST: db
      PGUSER: {user}
      PGDATABASE: {user}
      PGPASSWORD: ${{DB_PASSWORD:?}}
      ROWS: "{rows}"
      VERSION: "{version}"
      BROKEN: "{broken}"
    volumes: ["./app.py:/app.py:ro"]
    ports: ["{address}:{port}:8000"]
    depends_on: [db]
    healthcheck:
      test: ["CMD", "python3", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8000/')"]
      interval: 10s
    restart: unless-stopped
    stop_grace_period: 5s
  db:
    image: {postgres}
    command: [{command}]
    labels: *labels
    environment:
      POSTGRES_USER: {user}
      POSTGRES_PASSWORD: ${{DB_PASSWORD:?}}
    volumes: ["data:/var/lib/postgresql/data"]
    healthcheck:
      test: ["CMD", "pg_isready", "--host=127.0.0.1", "--username={user}"]
      interval: 10s
    restart: unless-stopped
    stop_grace_period: 60s
volumes:
  data:
    labels: *labels
"""


@dataclass(frozen=True)
class Containers:
    """The two containers that run, where the database's files lie, and its address."""

    web: str
    db: str
    data: Path
    address: str


@dataclass
class Project:
    """The project in a folder, on a daemon, with data of about `size` bytes."""

    folder: Path
    daemon: Daemon
    size: int
    rows: int
    port: int
    log: Path
    """All that `lockstep` prints, with the seconds since the command began."""
    name: str = ""
    version: int = 1
    broken: bool = False
    address: str = "127.0.0.1"
    _waiting: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.name = self.name or f"{self.daemon.owner}-{uuid.uuid4().hex[:4]}"

    @property
    def url(self) -> str:
        return f"http://{self.address}:{self.port}/"

    # as plain compose has it ----------------------------------------------------------------------

    def make(self, state: Path) -> None:
        """The folder, the volume with a copy of `state` in it, and everything running."""
        self.folder.mkdir(parents=True)
        shutil.copy(ROOT / "bench" / "app.py", self.folder / "app.py")
        (self.folder / ".env").write_text(f"DB_PASSWORD={images.PASSWORD}\n")
        self._write()
        label = images.label(self.daemon.owner)
        labels = [
            f"--label={text}"
            for text in (
                f"com.docker.compose.project={self.name}",
                "com.docker.compose.volume=data",
                label,
            )
        ]
        volume = f"{self.name}_data"
        self.daemon.docker("volume", "create", *labels, volume)
        form = "{{.Mountpoint}}"
        bring(state, Path(self.daemon.docker("volume", "inspect", "--format", form, volume)))
        self._compose("up", "--detach")

    def _write(self) -> None:
        command = ", ".join(f'"{word}"' for word in ("postgres", *settings(self.size)))
        text = COMPOSE.format(
            name=self.name,
            label=images.label(self.daemon.owner),
            python=images.PYTHON,
            postgres=images.POSTGRES,
            user=images.USER,
            rows=self.rows,
            version=self.version,
            broken="yes" if self.broken else "",
            port=self.port,
            address=self.address,
            command=command,
        )
        (self.folder / "compose.yaml").write_text(text)

    def _compose(self, *words: str) -> None:
        self.daemon.docker("compose", "--project-directory", self.folder, *words)

    def live(self) -> Containers:
        """What runs now. Raises BenchError when it is not exactly one of each."""
        web, db = (self._running(service) for service in ("web", "db"))
        form = (
            "{{range .Mounts}}{{.Source}}{{end}} "
            "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"
        )
        place, address = self.daemon.docker("inspect", "--format", form, db).split()
        return Containers(web, db, Path(place), address)

    def _running(self, service: str) -> str:
        form = '{{.ID}} {{.Label "com.docker.compose.project"}}'
        wanted = f"label=com.docker.compose.service={service}"
        listed = self.daemon.docker("ps", "--no-trunc", "--filter", wanted, "--format", form)
        found = [line.split() for line in listed.splitlines()]
        ours = [i for i, project in found if project == self.name or self._is_world(project)]
        if len(ours) != 1:
            raise BenchError(f"{len(ours)} containers of {service} run in {self.name}, not one")
        return ours[0]

    def _is_world(self, project: str) -> bool:
        return project.startswith(f"{self.name}-")

    # as lockstep has it ---------------------------------------------------------------------------

    def init(self) -> None:
        self.lockstep("init", "--yes", "--name", self.name)
        self.lockstep("config", "set", "window", "20")

    def new(self, *, broken: bool = False) -> None:
        """The next release, with another environment; `broken`: it takes orders, and never gets
        healthy."""
        self.version += 1
        self.broken = broken
        self._write()
        self.lockstep("new", f"version {self.version}")

    def lockstep(self, *words: str, heard: Callable[[str], None] = lambda _: None) -> None:
        """The command as typed; every line that it prints is `heard` as it comes."""
        process = subprocess.Popen(
            [*self.daemon.inside, sys.executable, "-m", "cli.main", *words],
            cwd=self.folder,
            env=self._environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        overdue = threading.Timer(LIMIT, process.kill)
        overdue.start()
        lines = []
        with self.log.open("a") as log:
            print(f"$ lockstep {' '.join(words)}", file=log)
            began = time.monotonic()
            try:
                for line in process.stdout or ():
                    lines.append(line.rstrip())
                    print(f"{time.monotonic() - began:7.3f} {lines[-1]}", file=log)
                    heard(lines[-1])
            except BaseException:
                process.kill()
                raise
            finally:
                overdue.cancel()
        if process.wait() != 0:
            said = "\n".join(lines[-30:])
            raise BenchError(f"lockstep {' '.join(words)} ended with {process.returncode}:\n{said}")

    def _environment(self) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("PULUMI_", "LOCKSTEP_"))}
        locks = self.folder.parent / f"{self.folder.name}.lock"
        locks.mkdir(exist_ok=True)
        return {
            **kept,
            **self.daemon.env,
            "PYTHONPATH": str(ROOT),
            "PYTHONUNBUFFERED": "1",
            "LOCKSTEP_LOCK_DIR": str(locks),
            "LOCKSTEP_ENGINE": "embedded",
        }

    # rest -----------------------------------------------------------------------------------------

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Running, and stopped afterwards so that another project has the machine."""
        if self._waiting:
            self.daemon.docker("start", *self._waiting)
        yield
        there = self.live()
        self._waiting = [there.db, there.web]
        self.daemon.docker("stop", there.web, there.db)

    def remove(self) -> None:
        """The folder, and everything on the daemon that bears its owner's mark."""
        sweep_docker(self.daemon, self.name)
        shutil.rmtree(self.folder, ignore_errors=True)
        shutil.rmtree(self.folder.parent / f"{self.folder.name}.lock", ignore_errors=True)


def free_port() -> int:
    """A port below the ephemeral range that nobody listens on now."""
    for _ in range(100):
        port = random.randrange(20000, 30000)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise BenchError("no free port was found between 20000 and 30000")


def wait_until(what: str, done: Callable[[], bool], seconds: float = 60.0) -> None:
    """Raises BenchError when it does not come about in time."""
    until = time.monotonic() + seconds
    while not done():
        if time.monotonic() > until:
            raise BenchError(f"{what}: not within {seconds:.0f} s")
        time.sleep(0.25)
