"""The container that Compose makes from a hand-made one equals it, field by field."""

from __future__ import annotations

import json
import os
import re
import secrets
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cli.envfile import LOOKS_SECRET
from reconciler.docker import connect
from reconciler.project import handmade
from tests.conformance import inspected
from tests.conformance.inspected import Names, Pair, Seen
from tests.reconciler.trial import docker_cli

PYTHON = "lockstep-base/python:3"
REDIS = "lockstep-base/redis:7"
OWN = re.compile(
    r"Id|Name|Created|LogPath|(Resolv|Hosts?)\w*Path|GraphDriver/.*|State/.*|Config/Hostname"
    r"|NetworkSettings/Sandbox(ID|Key)|Config/Labels/com\.docker\.compose\..*"
    r"|Config/Attach(Stdout|Stderr|Stdin)|Config/StdinOnce"
    r"|NetworkSettings/Networks/.*/Aliases/.*|HostConfig/ConsoleSize/.*|Mounts/.*/Mode"
    r"|HostConfig/Binds/.*|HostConfig/Mounts/.*/(ReadOnly|Source|Target|Type)"
)
"""What two containers never share, and how they were asked for what `Mounts` says they have."""

BY_HAND = {
    "a vault with a folder, a port and a health check": [
        "-v", "{folder}/data:/data", "-p", "127.0.0.1:{port}:80", "--restart", "unless-stopped",
        "-e", "DOMAIN=https://v.example.org/$x", "-e", "ADMIN_TOKEN=it's $5 \"quoted\"",
        "--health-cmd", "true", "--health-interval", "7s", "--health-retries", "2",
        PYTHON, "python3", "-m", "http.server", "80",
    ],
    "limits, rights and devices": [
        "--memory", "128m", "--memory-swap", "256m", "--cpus", "0.5", "--pids-limit", "50",
        "--cap-add", "NET_ADMIN", "--cap-drop", "MKNOD", "--security-opt", "no-new-privileges",
        "--device", "/dev/null:/dev/x:r", "--ulimit", "nofile=1000:2000", "--shm-size", "96m",
        "--user", "1000:1000", "--group-add", "audio", "-w", "/srv", "--init", "-t", "-i",
        "--sysctl", "net.core.somaxconn=512", "--log-opt", "max-size=1m", "--read-only",
        "--tmpfs", "/tmp:size=8m", "--add-host", "a:10.0.0.1", "--dns", "9.9.9.9",
        "--stop-timeout", "3", "--stop-signal", "SIGINT", "--hostname", "named",
        "--oom-score-adj", "-5", "--restart", "on-failure:4", "--label", "a.b=c$d",
        "--entrypoint", "/bin/sleep", PYTHON, "60",
    ],
    "a network of its own, named and nameless volumes": [
        "--network", "{name}-net", "--network-alias", "cache", "-v", "{name}-vol:/data",
        "-v", "/scratch", "--mount", "type=tmpfs,target=/t,tmpfs-size=1048576",
        "--mount", "type=bind,source={folder}/data,target=/ro,readonly",
        "-p", "6379", "--expose", "7000", "--no-healthcheck", REDIS,
    ],
    "the host's network": ["--network", "host", "--pid", "host", "--ipc", "host", REDIS],
}  # fmt: skip


@pytest.fixture
def name() -> Iterator[str]:
    """What everything of the test is called; it is removed afterwards."""
    made = f"lshand{secrets.token_hex(4)}"
    docker_cli("network", "create", f"{made}-net")
    try:
        yield made
    finally:
        ids = docker_cli("ps", "--all", "-q", "--filter", f"name={made}").split()
        if ids:
            docker_cli("rm", "--force", "--volumes", *ids)
        for kind in ("network", "volume"):
            found = docker_cli(kind, "ls", "-q", "--filter", f"name={made}").split()
            if found:
                docker_cli(kind, "rm", *found)


@pytest.mark.parametrize("words", BY_HAND.values(), ids=BY_HAND)
def test_compose_makes_the_same_container_again(
    words: list[str], name: str, tmp_path: Path
) -> None:
    (tmp_path / "data").mkdir()
    port = str(20000 + int(name[-4:], 16) % 10000)
    given = [w.format(name=name, folder=tmp_path, port=port) if "{" in w else w for w in words]
    docker_cli("create", "--name", name, *given)

    found = connect().as_made(name)
    assert found is not None
    made = handmade.model_of(*found, LOOKS_SECRET)
    assert made.left_out == []
    by_compose(made, name, tmp_path)

    by_hand = _seen(name, name)
    again = _seen(f"{name}-project-{name}-1", name)
    found_out = inspected.pairs(by_hand, again, Names(""))
    different = [_shown(p) for p in found_out if not OWN.fullmatch(p.path) and not _same(p)]
    assert "\n".join(different) == ""


def test_a_value_that_looks_like_a_secret_is_not_in_the_file(name: str) -> None:
    docker_cli("create", "--name", name, "-e", "ADMIN_TOKEN=t0ken", "-e", "PLAIN=x", REDIS)
    found = connect().as_made(name)
    assert found is not None
    made = handmade.model_of(*found, LOOKS_SECRET)
    environment = made.model["services"][name]["environment"]
    assert environment == {"ADMIN_TOKEN": "${ADMIN_TOKEN}", "PLAIN": "x"}
    assert made.secrets == {"ADMIN_TOKEN": "t0ken"}


def by_compose(made: handmade.Handmade, name: str, folder: Path) -> None:
    done = subprocess.run(
        ["docker", "compose", "-p", f"{name}-project", "-f", "-", "create"],
        cwd=folder,
        input=json.dumps(made.model),
        env={**os.environ, **made.secrets},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, f"{made.model}\n{done.stderr}"


def _seen(container: str, service: str) -> Seen:
    (body,) = json.loads(docker_cli("container", "inspect", container))
    return Seen("by hand", {f"{service} 1": body}, {}, {})


def _same(pair: Pair) -> bool:
    """Two words of Docker for one thing."""
    said = {None if v in ("no", "default", "bridge") else v for v in (pair.plain, pair.world)}
    return len(said) == 1


def _shown(pair: Pair) -> Any:
    return f"{pair.path}: {pair.plain!r} -> {pair.world!r}"
