"""`lockstep init --from-container`: a compose file for a container that was started by hand."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from cli import ask
from cli.envfile import LOOKS_SECRET, read_env
from reconciler.docker import Docker
from reconciler.errors import BadInput, Refused
from reconciler.project import handmade

FILE = "compose.yaml"


@dataclass(frozen=True)
class Written:
    """What was made of a container, and how its compose project takes its place, in lines."""

    files: tuple[str, ...]
    left_out: tuple[str, ...]
    next: tuple[str, ...]


def write_compose_file(
    root: Path, name: str, docker: Docker, show: Callable[[str], None], *, yes: bool
) -> Written:
    """Write compose.yaml (and secret values into .env), after showing it and asking. Raises
    BadInput without such a container, Refused where a compose file is there."""
    found = docker.as_made(name)
    if found is None:
        raise BadInput(
            f"there is no container {name}", next_step="docker ps --all   lists those there are"
        )
    container, image = found
    called = str(container["Name"]).lstrip("/")
    project = (container["Config"].get("Labels") or {}).get("com.docker.compose.project")
    if project:
        raise Refused(
            f"container {called} is of compose project {project}: it has a compose file",
            next_step="lockstep init   in that file's folder",
        )
    made = handmade.model_of(container, image, LOOKS_SECRET)
    text = _head(called) + _yaml(made.model)
    missing = _missing(root / ".env", made.secrets)
    show("to be made:")
    show(f"  {FILE}:")
    for line in text.splitlines():
        show(f"    {line}")
    if missing:
        show(f"  .env: {', '.join(missing)} (what looks like a secret; readable by you alone)")
    for line in made.left_out:
        show(f"  left out: {line}")
    ask.confirm(f"Write {FILE}?", yes=yes)
    (root / FILE).write_text(text)
    if missing:
        _add(root / ".env", missing)
    return Written(
        (FILE, *([".env"] if missing else [])),
        tuple(made.left_out),
        tuple(_next(called, running=container["State"]["Status"] == "running")),
    )


def _next(name: str, *, running: bool) -> Iterator[str]:
    """How the compose project takes the container's place. Only the person stops anything."""
    yield f"then, to let the compose project take the place of container {name}:"
    if running:
        yield f"  docker update --restart no {name}     no reboot brings it back"
        yield f"  docker stop {name}"
    yield f"  docker rename {name} {name}-by-hand   nobody starts it by habit; docker rm it later"
    yield "  docker compose up -d"
    yield "  lockstep init                       offers the fence, for the project runs then"


def _head(name: str) -> str:
    return f"# Made by `lockstep init --from-container {name}`: what was chosen beside its image.\n"


def _yaml(model: Mapping[str, object]) -> str:
    import yaml

    return yaml.safe_dump(model, sort_keys=False, allow_unicode=True, width=100)


def _missing(path: Path, secrets: Mapping[str, str]) -> dict[str, str]:
    """Those that the .env file does not give already. Raises Refused when it says otherwise."""
    known = read_env(path)
    for name, value in secrets.items():
        if known.get(name, value) != value:
            raise Refused(
                f"{path} has another value of {name} than the container",
                next_step="make both the same, or start in a folder without a .env",
            )
    return {name: value for name, value in secrets.items() if name not in known}


def _add(path: Path, secrets: Mapping[str, str]) -> None:
    before = path.read_text() if path.is_file() else ""
    gap = "" if before.endswith("\n") or not before else "\n"
    lines = "".join(f"{name}={_quoted(value)}\n" for name, value in secrets.items())
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        os.fchmod(file.fileno(), 0o600)
        file.write(f"{before}{gap}{lines}")


def _quoted(value: str) -> str:
    """As both Compose and `read_env` read it, where that can be had; else as Compose does."""
    if "'" not in value and "\n" not in value:
        return f"'{value}'"
    for special in ("\\", '"', "$"):
        value = value.replace(special, f"\\{special}")
    return f'"{value}"'
