"""A Docker daemon that answers: found, started, or installed."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path

from setup.steps import TOOLS, SetupError, Stopwatch, answer, apt_install, run, say

PACKAGES = ["docker.io", "containerd", "runc", "iptables"]
INSTALL_GUIDE = "https://docs.docker.com/engine/install/"
START_SECONDS = 60


@dataclass(frozen=True)
class Facts:
    """What was found on this machine."""

    answers: bool
    client: bool
    daemon: bool
    root: bool
    apt: bool
    systemd: bool
    socket_exists: bool
    docker_host: str | None


class Step(Enum):
    USE = auto()
    INSTALL = auto()
    START_SERVICE = auto()
    START_DAEMON = auto()


def ensure() -> None:
    """Raises SetupError with one sentence that says what is missing."""
    steps: dict[Step, Callable[[], None]] = {
        Step.INSTALL: install,
        Step.START_SERVICE: start_service,
        Step.START_DAEMON: start_daemon,
    }
    done: set[Step] = set()
    while (step := next_step(observe())) is not Step.USE:
        if step in done:
            raise SetupError(f"the Docker daemon does not answer; its log: {TOOLS}/dockerd.log")
        steps[step]()
        done.add(step)


def observe() -> Facts:
    return Facts(
        answers=answer(["docker", "version", "--format", "{{.Server.Version}}"]) is not None,
        client=shutil.which("docker") is not None,
        daemon=_find_dockerd() is not None,
        root=os.geteuid() == 0,
        apt=shutil.which("apt-get") is not None,
        systemd=Path("/run/systemd/system").is_dir(),
        socket_exists=Path("/var/run/docker.sock").exists(),
        docker_host=os.environ.get("DOCKER_HOST"),
    )


def next_step(facts: Facts) -> Step:
    """Raises SetupError when the rest is the user's to do."""
    if facts.answers:
        return Step.USE
    if facts.docker_host:
        raise SetupError(
            f"no Docker daemon answers at DOCKER_HOST={facts.docker_host}; "
            "start it, or unset DOCKER_HOST to use this machine's own"
        )
    if not facts.root and facts.client and facts.socket_exists:
        raise SetupError(
            "the Docker daemon does not answer this user; start it, or let the user in "
            "(sudo usermod -aG docker $USER, then log in again)"
        )
    if not facts.root or not (facts.apt or (facts.client and facts.daemon)):
        raise SetupError(
            f"install Docker Engine and start it, then run this again: {INSTALL_GUIDE}"
        )
    if not (facts.client and facts.daemon):
        return Step.INSTALL
    return Step.START_SERVICE if facts.systemd else Step.START_DAEMON


def install() -> None:
    watch = Stopwatch()
    say(f"installing Docker Engine ({' '.join(PACKAGES)}) ...")
    apt_install(PACKAGES)
    say(f"Docker Engine is installed ({watch})")


def start_service() -> None:
    say("starting the docker service ...")
    run(["systemctl", "start", "docker"], timeout=120)
    _wait_for_answer()


def start_daemon() -> None:
    """Start dockerd in a session of its own; it goes on when this program and its shell end."""
    dockerd = _find_dockerd() or "dockerd"
    TOOLS.mkdir(exist_ok=True)
    log_path = TOOLS / "dockerd.log"
    say(f"starting dockerd, which stays when set-up ends (log: {log_path}) ...")
    with log_path.open("ab") as log:
        subprocess.Popen(
            [dockerd],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            cwd="/",
        )
    _wait_for_answer()


def _find_dockerd() -> str | None:
    return shutil.which("dockerd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")


def _wait_for_answer() -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if answer(["docker", "version"]) is not None:
            return
        time.sleep(0.3)
    raise SetupError(
        f"the Docker daemon did not answer within {START_SECONDS} s; its log: {TOOLS}/dockerd.log"
    )
