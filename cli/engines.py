"""Which Pulumi runs the stack: the official CLI on PATH, or the embedded engine."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from reconciler.errors import BadInput, Unavailable

FIRST_WITH_HOOKS = (3, 182, 0)
INSTALL = "curl -fsSL https://get.pulumi.com | sh"
Version = tuple[int, int, int]


@dataclass(frozen=True)
class Choice:
    """The engine that runs the stack, and the line that says so."""

    official: Path | None
    says: str


def choose(environ: Mapping[str, str], root: Path) -> Choice:
    """The official CLI if PATH has one that knows resource hooks, else the embedded engine.

    LOCKSTEP_ENGINE=embedded or =pulumi overrides. Raises Unavailable when `pulumi` is demanded
    and not usable, BadInput for another value.
    """
    wanted = environ.get("LOCKSTEP_ENGINE", "")
    if wanted not in ("", "embedded", "pulumi"):
        raise BadInput(f"LOCKSTEP_ENGINE={wanted!r} is not known: use embedded or pulumi")
    if wanted == "embedded":
        return Choice(None, "Pulumi: the embedded engine (LOCKSTEP_ENGINE=embedded)")
    path = find(environ.get("PATH", ""), root)
    choice = verdict(path, version_of(path) if path else None)
    if wanted == "pulumi" and choice.official is None:
        raise Unavailable(
            f"LOCKSTEP_ENGINE=pulumi, but the official CLI cannot be used ({choice.says})",
            next_step=f"{INSTALL}   installs it",
        )
    return choice


def find(path: str, root: Path) -> Path | None:
    """The first `pulumi` on PATH that does not belong to a virtual environment of ours."""
    ours = {(Path(sys.prefix) / "bin").resolve(), (root / ".venv" / "bin").resolve()}
    for folder in _folders(path):
        candidate = folder / "pulumi"
        if folder.resolve() in ours or not os.access(candidate, os.X_OK):
            continue
        if candidate.is_file() and not _is_embedded(candidate):
            return candidate
    return None


def _is_embedded(pulumi: Path) -> bool:
    """Whether it is the command that set-up puts into an environment, here of another clone."""
    try:
        with pulumi.open("rb") as file:
            return b"from cli.pulumi import" in file.read(400)
    except OSError:
        return False


def version_of(pulumi: Path) -> Version | None:
    """What `pulumi version` says; None when it does not say it."""
    try:
        done = subprocess.run(
            [pulumi, "version"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=20,
            env={**os.environ, "PULUMI_SKIP_UPDATE_CHECK": "true"},
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return parse(done.stdout) if done.returncode == 0 else None


def parse(text: str) -> Version | None:
    """(3, 260, 0) from `v3.260.0` or `v3.261.0-alpha.1+dirty`."""
    match = re.match(r"v?(\d+)\.(\d+)\.(\d+)", text.strip())
    return (int(match[1]), int(match[2]), int(match[3])) if match else None


def verdict(path: Path | None, version: Version | None) -> Choice:
    """What to use, given what was found on PATH."""
    if path is None:
        return Choice(None, "Pulumi: the embedded engine (no official pulumi CLI on PATH)")
    if version is None:
        return Choice(None, f"Pulumi: the embedded engine ({path} does not tell its version)")
    if version < FIRST_WITH_HOOKS:
        return Choice(
            None,
            f"Pulumi: the embedded engine ({path} is {_text(version)} and has no resource hooks; "
            f"{_text(FIRST_WITH_HOOKS)} or newer has them: {INSTALL})",
        )
    return Choice(path, f"Pulumi: the official CLI {_text(version)} ({path})")


def _text(version: Version) -> str:
    return ".".join(map(str, version))


def _folders(path: str) -> Iterator[Path]:
    return (Path(part) for part in path.split(os.pathsep) if part)
