"""Docker on a file system of choice: this host's own daemon, or a second one with its data there.

The second one has its network to itself, so that it leaves the first one's rules alone.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from bench import images
from bench.errors import BenchError
from bench.grounds import Ground, mounts_below, unmount
from bench.machine import ask

START_SECONDS = 60.0


@dataclass(frozen=True)
class Daemon:
    """How a Docker daemon is reached: environment, and words that enter its network. `owner`: the
    mark that everything made there bears."""

    owner: str
    env: Mapping[str, str] = field(default_factory=dict)
    inside: Sequence[str] = ()

    def docker(self, *words: str | Path, seconds: float = 300) -> str:
        """The docker command's answer. Raises BenchError."""
        return ask("docker", *words, seconds=seconds, env=dict(self.env))


@contextmanager
def second(ground: Ground, owner: str) -> Iterator[Daemon]:
    """A daemon of our own whose volumes and images lie on the ground; gone afterwards."""
    run = Path(f"/run/{owner}-{ground.name}")
    run.mkdir(mode=0o700)
    endpoint = f"unix://{run}/docker.sock"
    words = [
        "dockerd", f"--data-root={ground.path}/docker", f"--exec-root={run}/exec",
        f"--pidfile={run}/pid", f"--host={endpoint}", "--storage-driver=overlay2",
    ]  # fmt: skip
    up = 'ip link set lo up; exec "$@"'
    with (ground.path / "dockerd.log").open("wb") as log:
        process = subprocess.Popen(
            ["unshare", "--net", "sh", "-c", up, "sh", *words],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={k: v for k, v in os.environ.items() if k != "DOCKER_HOST"},
        )
    inside = ["nsenter", f"--net=/proc/{process.pid}/ns/net", "--"]
    daemon = Daemon(owner, {"DOCKER_HOST": endpoint}, inside)
    try:
        _await(daemon, process, ground)
        _load(daemon)
        yield daemon
    finally:
        process.send_signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(60)
        process.kill()
        process.wait()
        _clear(run)


def _await(daemon: Daemon, process: subprocess.Popen[bytes], ground: Ground) -> None:
    until = time.monotonic() + START_SECONDS
    while True:
        try:
            daemon.docker("version", seconds=20)
            return
        except BenchError:
            if process.poll() is not None or time.monotonic() > until:
                said = (ground.path / "dockerd.log").read_text()[-1500:]
                raise BenchError(f"a second dockerd does not start:\n{said}") from None
            time.sleep(0.2)


def _load(daemon: Daemon) -> None:
    """Copy the images that the bench runs from this host's daemon."""
    names = [images.POSTGRES, images.PYTHON]
    saving = subprocess.Popen(["docker", "save", *names], stdout=subprocess.PIPE)
    done = subprocess.run(
        ["docker", "load", "--quiet"],
        stdin=saving.stdout,
        capture_output=True,
        text=True,
        timeout=600,
        env={**os.environ, **daemon.env},
    )
    if saving.wait() or done.returncode:
        raise BenchError(f"the images cannot be copied to a second dockerd: {done.stderr}")


def _clear(run: Path) -> None:
    """Remove a daemon's folder for sockets and the like, with what is still mounted there."""
    for place in mounts_below(run):
        unmount(place)
    shutil.rmtree(run, ignore_errors=True)


def end(run: Path) -> None:
    """End a second daemon that a killed run has left, and what it has mounted."""
    with suppress(OSError, ValueError):
        pid = int((run / "pid").read_text())
        # Its number may be another process's by now.
        if str(run).encode() in Path(f"/proc/{pid}/cmdline").read_bytes():
            os.kill(pid, signal.SIGTERM)
            until = time.monotonic() + START_SECONDS
            while Path(f"/proc/{pid}").exists() and time.monotonic() < until:
                time.sleep(0.1)
    _clear(run)
