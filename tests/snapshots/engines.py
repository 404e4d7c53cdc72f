"""Real engines in real containers, for the drivers' tests."""

from __future__ import annotations

import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from snapshots.drivers import ExecResult, Session
from snapshots.errors import EngineFailed

LABEL = f"lockstep.test=snapshots-{uuid.uuid4().hex[:12]}"


def docker(*arguments: str, stdin: str | None = None, timeout: float = 60) -> ExecResult:
    done = subprocess.run(
        ["docker", *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        errors="replace",
    )
    return ExecResult(done.returncode, done.stdout, done.stderr)


def insist(result: ExecResult) -> str:
    assert result.code == 0, result.stderr + result.stdout
    return result.stdout


def insist_on_images(*images: str) -> None:
    if docker("version").code != 0:
        pytest.skip("no Docker daemon answers")
    for image in images:
        if docker("image", "inspect", image).code != 0:
            pytest.skip(f"the image {image} was not built: run make setup")


@dataclass
class Talk:
    """A command that goes on in a container, as a driver's Session."""

    process: subprocess.Popen[str]

    def send(self, text: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(text)
        self.process.stdin.flush()

    def read_until(self, mark: str, timeout: float) -> str:
        assert self.process.stdout is not None
        said: list[str] = []
        late = threading.Timer(timeout, self.process.kill)
        late.start()
        try:
            for line in self.process.stdout:
                if line.rstrip("\n") == mark:
                    return "".join(said)
                said.append(line)
        finally:
            late.cancel()
        raise EngineFailed("".join(said)[-500:] or "it said nothing")


@dataclass
class Container:
    """A running container; calling it runs a command inside, as a driver's Exec does."""

    name: str
    calls: list[tuple[Sequence[str], str | None]] = field(default_factory=list)
    talks: list[subprocess.Popen[str]] = field(default_factory=list)
    """The clients of its sessions."""

    def __call__(
        self, argv: Sequence[str], *, stdin: str | None = None, timeout: float = 30
    ) -> ExecResult:
        self.calls.append((argv, stdin))
        return docker("exec", "-i", self.name, *argv, stdin=stdin or "", timeout=timeout)

    @contextmanager
    def session(self, argv: Sequence[str]) -> Iterator[Session]:
        with subprocess.Popen(
            ["docker", "exec", "-i", self.name, *argv],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as process:
            self.talks.append(process)
            try:
                yield Talk(process)
            finally:
                process.kill()
                self.talks.remove(process)

    @contextmanager
    def frozen(self, seconds: float) -> Iterator[None]:
        insist(docker("pause", self.name))
        began = time.monotonic()
        try:
            yield
        finally:
            insist(docker("unpause", self.name))
        if time.monotonic() - began > seconds:
            raise EngineFailed(f"{self.name} stood still for more than {seconds:g} s")

    def wait_until(self, ready: Callable[[Container], bool]) -> None:
        deadline = time.monotonic() + 60
        while not ready(self):
            state = docker("inspect", "-f", "{{.State.Running}}", self.name).stdout.strip()
            assert state == "true", self.logs()
            assert time.monotonic() < deadline, self.logs()
            time.sleep(0.1)

    def logs(self) -> str:
        result = docker("logs", self.name)
        return result.stdout + result.stderr

    def stop(self) -> None:
        insist(docker("stop", "-t", "60", self.name, timeout=90))


@dataclass(frozen=True)
class Engine:
    """How one engine is run, and how rows (or keys, or files) get into it."""

    driver: str
    image: str
    target: str
    environment: dict[str, str]
    command: tuple[str, ...]
    ready: Callable[[Container], bool]
    write: Callable[[Container, int], None]
    expected: Callable[[int], dict[str, int]]
    options: tuple[str, ...] = ()

    @contextmanager
    def running(
        self,
        data: Path,
        environment: dict[str, str] | None = None,
        *,
        command: tuple[str, ...] = (),
    ) -> Iterator[Container]:
        """The engine on the folder `data`, ready; removed afterwards."""
        data.mkdir(exist_ok=True)
        name = f"lockstep-test-{uuid.uuid4().hex[:12]}"
        variables = [f"--env={k}={v}" for k, v in (self.environment | (environment or {})).items()]
        try:
            insist(
                docker(
                    "run",
                    "--detach",
                    "--name",
                    name,
                    "--label",
                    LABEL,
                    "--network",
                    "none",
                    "--volume",
                    f"{data}:{self.target}",
                    *variables,
                    *self.options,
                    self.image,
                    *self.command,
                    *command,
                )
            )
            container = Container(name)
            container.wait_until(self.ready)
            yield container
        finally:
            docker("rm", "--force", "--volumes", name)


# -- directory -----------------------------------------------------------------------------------


def _write_files(run: Container, count: int) -> None:
    script = f"for i in $(seq {count}); do echo content $i > /srv/files/$i; done"
    insist(run(["sh", "-c", script]))


FILES = Engine(
    "directory",
    "lockstep-base/python:3",
    "/srv/files",
    {},
    ("sleep", "600"),
    ready=lambda run: run(["true"]).code == 0,
    write=_write_files,
    expected=lambda _count: {},
    options=("--init",),
)

# -- postgres ------------------------------------------------------------------------------------


def sql(run: Container, statements: str, database: str = "postgres") -> str:
    argv = ["psql", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-U", "shop", "-d", database]
    return insist(run(argv, stdin=statements))


def login(run: Container, password: str) -> bool:
    """Whether the role shop gets in over TCP with this password."""
    done = docker(
        "exec",
        "--env",
        f"PGPASSWORD={password}",
        run.name,
        "psql",
        "-w",
        "-h",
        "127.0.0.1",
        "-U",
        "shop",
        "-d",
        "postgres",
        "-c",
        "select 1",
    )
    return done.code == 0


def _write_rows(run: Container, count: int) -> None:
    sql(run, "CREATE TABLE IF NOT EXISTS orders (id int PRIMARY KEY, note text);", "shop")
    sql(
        run,
        f"INSERT INTO orders SELECT n, repeat('x', 100) FROM generate_series(1, {count}) n "
        "ON CONFLICT DO NOTHING;",
        "shop",
    )


POSTGRES = Engine(
    "postgres",
    "lockstep-base/postgres:15",
    "/var/lib/postgresql/data",
    {"POSTGRES_USER": "shop", "POSTGRES_PASSWORD": "first password"},
    (),
    ready=lambda run: run(["pg_isready", "-h", "127.0.0.1"]).code == 0,
    write=_write_rows,
    expected=lambda count: {"shop.public.orders": count},
)

# -- redis ---------------------------------------------------------------------------------------


def _write_keys(run: Container, count: int) -> None:
    lines = "".join(f"SET key:{n} value{n}\n" for n in range(count))
    insist(run(["redis-cli"], stdin=lines))
    insist(run(["redis-cli", "-n", "3"], stdin="SET other 1\n"))


REDIS = Engine(
    "redis",
    "lockstep-base/redis:7",
    "/data",
    {},
    ("redis-server", "--save", "3600", "1"),
    ready=lambda run: run(["redis-cli", "ping"]).stdout.strip() == "PONG",
    write=_write_keys,
    expected=lambda count: {"db0": count, "db3": 1},
)
REDIS_AOF = Engine(
    "redis",
    "lockstep-base/redis:7",
    "/data",
    {},
    ("redis-server", "--save", "", "--appendonly", "yes"),
    ready=REDIS.ready,
    write=_write_keys,
    expected=REDIS.expected,
)
