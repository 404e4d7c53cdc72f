"""The forms in which `lockstep guard` is run for good: a systemd unit, or a container."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from cli.context import PASSPHRASE
from reconciler.config import Stack
from reconciler.errors import BadInput
from reconciler.host import hostlock

IMAGE = "lockstep-guard"
_PASSPHRASE_FILE = "PULUMI_CONFIG_PASSPHRASE_FILE"
_HOST_ONLY = ("PATH", "DOCKER_CONFIG", "PULUMI_HOME")
_PASSED_ON = (
    "PATH",
    "DOCKER_HOST",
    "DOCKER_CONFIG",
    "LOCKSTEP_ENGINE",
    hostlock.DIRECTORY,
    "PULUMI_HOME",
    "PULUMI_BACKEND_URL",
    _PASSPHRASE_FILE,
)
"""Variables that say where things are; none holds a secret."""

_UNIT = """\
# lockstep --cwd {folder} --stack {stack} guard --print-unit
[Unit]
Description=Lockstep guard of {project}/{stack}
After=docker.service network-online.target
Wants=docker.service network-online.target

[Service]
ExecStart={command}
WorkingDirectory={folder}
{environment}
UMask=0077
Restart=always
RestartSec=5
# A switch that runs is a process of its own and goes on when the guard is restarted.
KillMode=process
TimeoutStopSec=300

[Install]
WantedBy=multi-user.target
"""

_CONTAINER = """\
# lockstep --cwd {folder} --stack {stack} guard --print-container
name: lockstep-guard-{project}-{stack}
services:
  guard:
    image: {image}
    command: {command}
    restart: always
    init: true
    # The lock names processes by their numbers, and gates ask at the host's ports.
    pid: host
    network_mode: host
    # What it has begun is done to its end before it stops.
    stop_grace_period: 5m
    environment:
{environment}
    volumes:
{volumes}
"""


def unit(root: Path, stack: str, project: str) -> str:
    """A systemd unit with the paths of this host."""
    insist_on_passphrase(root)
    argv = [sys.executable, "-P", "-m", "cli.main", "--cwd", str(root), "--stack", stack, "guard"]
    code = Path(__file__).resolve().parent.parent
    environment = {"PYTHONPATH": str(code), **_passed_on()}
    return _UNIT.format(
        project=project,
        stack=stack,
        folder=_escaped(str(root)),
        command=" ".join(_quoted(word).replace("$", "$$") for word in argv),
        environment="\n".join(
            f"Environment={_quoted(f'{name}={value}')}" for name, value in environment.items()
        ),
    )


def container(root: Path, stack: Stack, docker_root: Path) -> str:
    """A compose file that runs the guard in a container, with the paths of this host.

    Everything has the same path inside, because the ledger and Docker speak of them.
    """
    insist_on_passphrase(root)
    environment = {k: v for k, v in _passed_on().items() if k not in _HOST_ONLY}
    environment["LOCKSTEP_ENGINE"] = "embedded"
    folders = [str(root), str(docker_root / "volumes"), environment[hostlock.DIRECTORY]]
    if not stack.store.is_relative_to(root):
        folders.append(str(stack.store))
    passphrase = Path(environment.get(_PASSPHRASE_FILE, root)).resolve()
    if not passphrase.is_relative_to(root):
        folders.append(str(passphrase))
    host = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")
    if not host.startswith("unix://"):
        raise BadInput(f"DOCKER_HOST={host}: the guard's container needs the socket of its host")
    mounts = [f"{host.removeprefix('unix://')}:/var/run/docker.sock"]
    mounts += [f"{folder}:{folder}" for folder in folders]
    environment["DOCKER_HOST"] = "unix:///var/run/docker.sock"
    return _CONTAINER.format(
        project=stack.project,
        stack=stack.name,
        folder=root,
        image=IMAGE,
        command=_flow(["--cwd", str(root), "--stack", stack.name, "guard"]),
        environment="\n".join(
            f"      {name}: {_flow(value)}" for name, value in environment.items()
        ),
        volumes="\n".join(f"      - {_flow(mount)}" for mount in mounts),
    )


def insist_on_passphrase(root: Path) -> None:
    """Nobody is there to type it. Raises BadInput."""
    if _PASSPHRASE_FILE in os.environ or (root / PASSPHRASE).is_file():
        return
    raise BadInput(
        "the guard has to read the stack's config without anybody typing its passphrase",
        next_step=f"put it into {root / PASSPHRASE} (mode 0600), or export {_PASSPHRASE_FILE}=FILE",
    )


def _passed_on() -> dict[str, str]:
    found = {name: os.environ[name] for name in _PASSED_ON if os.environ.get(name)}
    if _PASSPHRASE_FILE in found:
        found[_PASSPHRASE_FILE] = str(Path(found[_PASSPHRASE_FILE]).resolve())
    return {hostlock.DIRECTORY: "/run/lock", **found}


def _escaped(text: str) -> str:
    """For systemd, to which % is special."""
    return text.replace("%", "%%")


def _quoted(word: str) -> str:
    """One word of systemd's command lines and lists."""
    inside = _escaped(word).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{inside}"'


def _flow(value: object) -> str:
    """A value of a compose file, in which nothing is a variable."""
    return json.dumps(value).replace("$", "$$")
