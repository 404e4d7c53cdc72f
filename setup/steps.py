"""Where set-up keeps its things, and how it runs other programs."""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TOOLS = ROOT / ".tools"
LOG = TOOLS / "setup.log"


class SetupError(Exception):
    """A step that cannot be done; the message says what the user can do about it."""


def say(text: str) -> None:
    print(f"set-up: {text}", flush=True)


def answer(
    argv: Sequence[str], *, timeout: float = 20, env: Mapping[str, str] | None = None
) -> str | None:
    """What a program prints; None if it is missing, fails, or takes longer than `timeout` s."""
    try:
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            env=env,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def run(argv: Sequence[str], *, timeout: float, env: Mapping[str, str] | None = None) -> None:
    """Run a program whose output goes to the log. `timeout` in seconds.

    Raises SetupError with the last lines of the output when it fails.
    """
    TOOLS.mkdir(exist_ok=True)
    # Steps run beside each other: a program's output goes to the log when it has ended, in one.
    with tempfile.TemporaryFile() as output:
        reason = "failed"
        try:
            done = subprocess.run(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                timeout=timeout,
                env={**os.environ, **(env or {})},
            )
            if done.returncode == 0:
                return
        except FileNotFoundError:
            reason = "is not installed"
        except subprocess.TimeoutExpired:
            reason = f"took longer than {timeout:.0f} s"
        finally:
            output.seek(0)
            said = output.read()
            with LOG.open("ab") as log:
                log.write(f"\n$ {' '.join(argv)}\n".encode() + said)
        tail = said.decode(errors="replace").splitlines()[-8:]
    raise SetupError(f"`{argv[0]}` {reason}:\n  " + "\n  ".join(tail) + f"\nAll of it: {LOG}")


def apt_install(packages: Sequence[str]) -> None:
    """Install Debian packages, without questions and without recommended extras.

    Raises SetupError when apt-get fails.
    """
    quiet = {"DEBIAN_FRONTEND": "noninteractive"}
    run(["apt-get", "update"], timeout=300, env=quiet)
    run(
        ["apt-get", "install", "--yes", "--no-install-recommends", *packages],
        timeout=900,
        env=quiet,
    )


class Stopwatch:
    """Seconds since it was made, for the lines that tell how long a step took."""

    def __init__(self) -> None:
        self._start = time.monotonic()

    def __str__(self) -> str:
        return f"{time.monotonic() - self._start:.0f} s"
