"""The guard: the live world comes back by itself, and nothing else ever does."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.failing import Failing
from tests.reconciler.receivers import refusing
from tests.stacks.harness import ROOT, Project, docker
from tests.stacks.waiting import until


@pytest.fixture
def live(notes: Project) -> Project:
    notes.release("one")
    notes.note("a")
    return notes


def journal(project: Project) -> Path:
    return project.folder / "releases" / "journal-prod.json"


def pace_of(project: Project) -> Path:
    return project.folder / "releases" / "guard-prod.json"


def forget_pace(project: Project) -> None:
    """As if the time to wait between two attempts had passed."""
    pace_of(project).unlink(missing_ok=True)


def as_after_many_attempts(project: Project) -> None:
    """The time to wait is ten minutes: longer than this test takes anywhere."""
    pace = json.loads(pace_of(project).read_text())
    pace_of(project).write_text(json.dumps({**pace, "attempts": 9}))


def test_the_guard_brings_back_what_nobody_asked_to_stop(live: Project) -> None:
    """Stopped, removed, or interrupted in a switch: it runs again. Stopped by `lockstep stop`, it
    stays down. Of a disk that is nearly full it tells whoever wants to know, and goes on."""
    url = f"json://127.0.0.1:{refusing()}/"
    live.run("config", "set", "--secret", "notify[0].url", url)
    live.run("config", "set", "diskLow", "900TiB")
    assert live.run("guard", "--once").out == ""
    assert live.run("guard", "--once", "--json").json()["event"] == "well"
    told = live.run("notify", "log", "--json").json()["entries"]
    assert [entry["event"] for entry in told] == ["disk-low"]
    live.run("config", "rm", "notify")
    docker("stop", *live.containers())
    said = live.run("guard", "--once").out
    assert said.count("\n") == 1
    assert f"app of {live.name}-prod-001 stood still or were missing: app of" in said
    live.wait_until_it_answers()
    assert live.entries()[0]["result"] == "recovered"

    as_after_many_attempts(live)
    docker("rm", "--force", *live.containers())
    waits = live.run("guard", "--once", "--json", code=1).json()
    assert (waits["event"], waits["exit_code"], waits["done"]) == ("waiting", 1, [])
    assert "did not last" in waits["says"]
    assert live.containers() == {}
    forget_pace(live)
    told = live.run("guard", "--once", "--json").json()
    assert (told["event"], told["stack"]) == ("repaired", f"{live.name}/prod")
    assert "stood still or were missing" in told["found"]
    assert "run again" in told["done"][0]
    assert live.notes() == ["a"]

    live.run("stop", "--yes")
    forget_pace(live)
    assert live.run("guard", "--once").out == ""
    assert live.containers() == {}
    live.up()
    live.nothing_to_do()


@pytest.mark.chaos
def test_the_guard_as_a_service(live: Project, tmp_path: Path) -> None:
    """It reverts a switch that died with its caller, says one line, and ends when asked to."""
    live.compose_file(v='VERSION: "1"=>VERSION: "2"')
    live.new("two")
    points = Failing(tmp_path / "points", "switch.started wait 2", "switch.proved kill")
    up = live.start("up", "--yes", env=points.env)
    until(journal(live).exists)
    os.killpg(up.pid, signal.SIGKILL)
    up.communicate()
    guard = live.start("guard", "--interval", "1")
    try:
        until(lambda: points.happened and not journal(live).exists(), 60)
        live.wait_until_it_answers()
        docker("stop", *live.containers())
        forget_pace(live)
        until(lambda: bool(live.containers()), 30)
    finally:
        guard.send_signal(signal.SIGTERM)
        said, _ = guard.communicate(timeout=60)
    assert guard.returncode == 0, said
    # It may have looked between the stop and the end of its pace.
    lines = [line for line in said.splitlines() if "not before" not in line]
    assert lines[0].endswith("watching, every 1 s")
    assert "was interrupted: the switch to" in lines[1]
    assert "run again" in lines[2]
    assert lines[3].endswith("ended")
    assert live.live() == "prod-001"
    assert (live.get("/version"), live.notes()) == ("1", ["a"])
    assert live.entries()[1]["reason"].startswith("interrupted at prove")


@pytest.mark.chaos
def test_the_unit_for_systemd_runs_the_guard(live: Project, tmp_path: Path) -> None:
    """What systemd would start works as it stands there, without the caller's environment."""
    unit = tmp_path / "lockstep-guard.service"
    unit.write_text(live.run("guard", "--print-unit").out)
    lines = dict(line.split("=", 1) for line in unit.read_text().splitlines() if "=" in line)
    assert lines["KillMode"] == "process"
    words = shlex.split(unit.read_text().split("ExecStart=")[1].splitlines()[0])
    environment = [
        shlex.split(line.split("=", 1)[1])[0]
        for line in unit.read_text().splitlines()
        if line.startswith("Environment=")
    ]
    docker("stop", *live.containers())
    done = subprocess.run(
        ["env", "-i", *environment, *words, "--once"],
        cwd="/",
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "run again" in done.stdout
    live.wait_until_it_answers()
    if shutil.which("systemd-analyze"):
        verified = subprocess.run(
            ["systemd-analyze", "verify", "--man=no", str(unit)],
            capture_output=True,
            text=True,
            timeout=60,
        )
        wrong = [line for line in verified.stderr.splitlines() if unit.name in line]
        assert wrong == [], verified.stderr


@pytest.mark.chaos
def test_the_guard_in_a_container(live: Project) -> None:
    """The image is built from our base image; with the compose file that the command prints, it
    brings back stopped, and removed, containers of the live world."""
    subprocess.run([sys.executable, "-m", "setup.guard_image"], cwd=ROOT, check=True, timeout=280)
    form = live.folder / "guard.yaml"
    form.write_text(live.run("guard", "--print-container").out)
    guard = ("compose", "-f", str(form))
    docker(*guard, "up", "-d")
    try:
        docker("stop", *live.containers())
        until(lambda: len(live.containers()) == 1, 60)
        live.wait_until_it_answers()
        forget_pace(live)
        docker("rm", "--force", *live.containers())
        until(lambda: len(live.containers()) == 1, 90)
        live.wait_until_it_answers()
        assert live.notes() == ["a"]
        until(lambda: docker(*guard, "logs").count("run again") == 2, 60)
    finally:
        docker(*guard, "down", "--timeout", "30", check=False)
