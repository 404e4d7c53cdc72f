"""The Docker daemon dies, or is restarted, under a stack: a second daemon, which may be killed."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.failing import Failing
from tests.owndaemon import OwnDaemon, own_daemon
from tests.stacks.harness import Project, notes_project, python_image

STEPS = [
    "prepare", "prepared", "stop", "seal", "sealed", "ready", "started", "proved", "policies",
    "committed", "left", "after-commit",
]  # fmt: skip
SHORT = ("stop",)
"""What is tried in every run of the tests."""


def on(daemon: OwnDaemon, folder: Path) -> Project:
    project = notes_project(folder, env=dict(daemon.env), inside=tuple(daemon.inside))
    project.init()
    return project


@pytest.fixture
def stack(daemon: OwnDaemon, tmp_path: Path) -> Iterator[Project]:
    project = on(daemon, tmp_path / "notes")
    try:
        yield project
    finally:
        project.remove()


def await_hit(points: Failing, name: str, process: subprocess.Popen[str]) -> None:
    give_up = time.monotonic() + 120
    while not points.happened:
        assert process.poll() is None, (name, process.communicate()[0])
        assert time.monotonic() < give_up, name
        time.sleep(0.05)


@pytest.mark.parametrize(
    "step", [pytest.param(s, marks=() if s in SHORT else pytest.mark.chaos) for s in STEPS]
)
def test_fault_29_dockerd_is_killed_at_a_step_of_a_switch(
    stack: Project, daemon: OwnDaemon, step: str, tmp_path: Path
) -> None:
    """kill -9 of dockerd, and with it of all containers, at each step; it is started again a moment
    later: exactly the old or the new release is live, no note is lost, the next up converges."""
    stack.release("one")
    stack.note("a")
    stack.compose_file(v='VERSION: "1"=>VERSION: "2"')
    stack.new("two")
    points = Failing(tmp_path / "points", f"switch.{step} wait 1")
    going = stack.start("up", "--yes", env=points.env)
    await_hit(points, step, going)
    daemon.kill()
    time.sleep(1)
    daemon.start()
    out, _ = going.communicate(timeout=400)
    assert "Traceback" not in out
    assert stack.live() in ("prod-001", "prod-002"), out
    assert stack.live() == "prod-002" or going.returncode, out
    stack.run("up", "--yes", code=None)
    if stack.live() != "prod-002":  # what failed because of the daemon is no failed release
        stack.up()
    assert (stack.live(), stack.get("/version"), stack.notes()) == ("prod-002", "2", ["a"])
    assert len(stack.containers()) == 1
    assert not list((stack.folder / "releases").glob("journal-*"))
    stack.nothing_to_do()


@pytest.mark.chaos
def test_fault_30_live_restore_then_the_live_volume_is_removed(tmp_path: Path) -> None:
    """The daemon is killed and comes back with --live-restore: the world goes on. Then
    the live volume is removed under it, where Docker lets anybody: preview and `up` say so, and no
    empty one is made."""
    with own_daemon(tmp_path / "docker", "--live-restore", images=(python_image(),)) as daemon:
        stack = on(daemon, tmp_path / "notes")
        stack.release("one")
        stack.note("a")
        before = stack.containers()
        daemon.kill()
        daemon.start()
        assert stack.containers() == before
        stack.wait_until_it_answers()  # what publishes its port died with the daemon
        assert stack.notes() == ["a"]
        stack.nothing_to_do()
        volume = f"{stack.name}-prod_notes_g1"
        stack.docker("volume", "rm", volume, check=False)
        if volume in stack.volumes():  # this Docker still knows who mounts it
            stack.docker("rm", "--force", *before)
            stack.docker("volume", "rm", volume)
        text = " ".join(stack.run("preview", code=None).text.split())
        assert f"volume {volume} does not exist" in text
        stack.run("up", "--yes", code=None)
        assert volume not in stack.volumes()
