"""kill -9 of the command and of the switch at every step: the host ends in exactly the old or
exactly the new release, and running it again is always safe."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from tests.failing import Failing
from tests.stacks.harness import Project

FORWARD = [
    "prepare",
    "prepared",
    "stop",
    "seal",
    "sealed",
    "ready",
    "started",
    "proved",
    "policies",
    "committed",
    "left",
    "after-commit",
]
"""The crash points that a forward switch passes, in order."""


@pytest.mark.parametrize("place", FORWARD)
def test_a_switch_killed_anywhere_ends_in_old_or_new(
    notes: Project, place: str, tmp_path: Path
) -> None:
    notes.release("one")
    notes.note("a")
    notes.compose_file(v='VERSION: "1"=>VERSION: "2"')
    notes.new("two")
    killed = notes.run(
        "up", "--yes", code=None, env=Failing(tmp_path / "points", f"switch.{place} kill").env
    )
    assert "was killed" in killed.text
    assert notes.live() == ("prod-001" if killed.code else "prod-002"), killed.text
    notes.up()
    assert notes.live() == "prod-002", killed.text
    assert notes.get("/version") == "2"
    assert notes.notes() == ["a"]
    assert len(notes.containers()) == 1
    assert not list((notes.folder / "releases").glob("journal-*"))
    notes.nothing_to_do()


@pytest.mark.parametrize("seconds", [0.4, 0.9, 1.4, 2.0, 3.0])
def test_the_command_killed_at_any_time(notes: Project, seconds: float) -> None:
    notes.release("one")
    notes.note("a")
    notes.compose_file(v='VERSION: "1"=>VERSION: "2"')
    notes.new("two")
    command = notes.start("up", "--yes")
    time.sleep(seconds)
    os.killpg(command.pid, signal.SIGKILL)
    command.wait()
    notes.run("cancel", "--yes", code=None)
    deadline = time.monotonic() + 30
    while True:
        ran = notes.run("up", "--yes", code=None)
        if ran.code == 0:
            break
        # The switch goes on without its caller; until it ends the host is locked.
        assert ran.code == 6, ran.text
        assert time.monotonic() < deadline
        time.sleep(0.5)
    assert (notes.live(), notes.get("/version"), notes.notes()) == ("prod-002", "2", ["a"])
    notes.nothing_to_do()
