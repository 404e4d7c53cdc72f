"""The targets a person types, on this machine as it is."""

from __future__ import annotations

import subprocess
import time

from setup.steps import ROOT


def make(target: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["make", "--no-print-directory", target],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=600,
    )


def test_set_up_does_nothing_twice() -> None:
    assert make("setup").returncode == 0
    before = time.monotonic()
    second = make("setup")
    assert time.monotonic() - before < 2
    assert second.returncode == 0
    [line] = second.stdout.splitlines()
    assert line.startswith("set-up: Pulumi: ")


def test_make_alone_lists_the_targets() -> None:
    shown = make("help").stdout
    for target in ("demo", "test", "lint", "setup", "clean"):
        assert f"make {target} " in shown


def test_layers() -> None:
    done = subprocess.run(
        [ROOT / ".venv" / "bin" / "lint-imports", "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
