"""The virtual environment .venv, made from the lock file with its hashes."""

from __future__ import annotations

import hashlib
import shutil
import sys
import tomllib
from pathlib import Path

from setup.steps import ROOT, SetupError, Stopwatch, answer, run, say

VENV = ROOT / ".venv"
LOCK = ROOT / "requirements.lock"
PROJECT = ROOT / "pyproject.toml"
PACKAGES = [str(ROOT / name) for name in ("cli", "engine", "failpoints", "reconciler", "snapshots")]


def ensure() -> None:
    """Raises SetupError when the environment cannot be made."""
    stamp = VENV / "lockstep-stamp"
    wanted = fingerprint(LOCK.read_text(), PROJECT.read_text(), sys.version)
    if stamp.is_file() and stamp.read_text() == wanted:
        return
    watch = Stopwatch()
    say("making the virtual environment .venv from requirements.lock ...")
    make()
    stamp.write_text(wanted)
    say(f".venv is ready ({watch})")


def fingerprint(lock: str, project: str, python: str) -> str:
    """Changes whenever .venv must be made anew: other pins, other entry points, other Python."""
    tables = tomllib.loads(project)
    ours = [tables["project"], tables["tool"]["setuptools"]]
    return hashlib.sha256(repr([lock, ours, python]).encode()).hexdigest()


def make() -> None:
    python = _outside()
    if answer([python, "-c", "import ensurepip, venv"]) is None:
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        raise SetupError(
            f"this Python cannot make virtual environments; "
            f"install its venv module (Debian: apt-get install python{version}-venv)"
        )
    shutil.rmtree(VENV, ignore_errors=True)
    run([python, "-m", "venv", str(VENV)], timeout=120)
    pip_install("--require-hashes", "--requirement", str(LOCK))
    # A path to the clone, not a copy: an edit takes effect at once.
    pip_install(
        "--no-deps",
        "--no-build-isolation",
        "--config-settings=editable_mode=compat",
        f"--editable={ROOT}",
    )


def _outside() -> str:
    """A Python that stays when .venv is removed: whoever has activated it runs us by its own."""
    if Path(sys.prefix).resolve() != VENV.resolve():
        return sys.executable
    return f"{sys.base_prefix}/bin/python{sys.version_info.major}.{sys.version_info.minor}"


def compile_ours() -> None:
    """Bytecode of what an edit or a pull changed. Python would write it at first use, but not
    where it may not, or was told not to; reading the sources takes every command 0.2 s."""
    run([str(VENV / "bin" / "python"), "-m", "compileall", "-q", *PACKAGES], timeout=120)


def pip_install(*arguments: str) -> None:
    """Run .venv's pip. Raises SetupError with the end of its output."""
    pip = [str(VENV / "bin" / "pip"), "--disable-pip-version-check", "install", "--quiet"]
    run([*pip, *arguments], timeout=900)


def python(program: str) -> str:
    """What a short program prints in the environment. Raises SetupError if it fails."""
    printed = answer([str(VENV / "bin" / "python"), "-c", program])
    if printed is None:
        raise SetupError(f"Python in {VENV} does not work; `make clean` removes it, then run again")
    return printed
