"""What drivers do inside a container: conversations and standstill, on the real daemon."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable

import pytest

from reconciler.docker import PROJECT
from reconciler.errors import DockerFailed
from reconciler.reaching.inside import Inside
from snapshots.errors import EngineFailed
from tests.reconciler.trial import POSTGRES, PYTHON, Trial, docker_cli

SLEEP = ("python3", "-c", "import time; time.sleep(600)")


@pytest.fixture
def run(trial: Trial) -> Inside:
    label = f"{PROJECT}={trial.project}"
    return Inside(
        trial.docker, docker_cli("run", "-d", "--init", "--label", label, PYTHON, *SLEEP).strip()
    )


def eventually(true: Callable[[], bool], seconds: float = 30) -> bool:
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def state(run: Inside) -> str:
    return run.docker.inspect(run.container_id).state


def commands(run: Inside) -> str:
    """The command lines of all processes in the container."""
    return docker_cli("top", run.container_id, "-o", "pid,args")


# sessions


def test_a_session_answers_line_by_line(run: Inside) -> None:
    with run.session(["sh"]) as talk:
        talk.send("echo one; echo two; echo; echo MARK\n")
        assert talk.read_until("MARK", 20) == "one\ntwo\n\n"
        talk.send("echo MARK; echo ' MARK'; printf 'not MARK'; echo; echo MARK; echo left over\n")
        assert talk.read_until("MARK", 20) == ""
        assert talk.read_until("MARK", 20) == " MARK\nnot MARK\n"
        talk.send("head -c 300000 /dev/zero | tr '\\0' x; echo; echo MARK\n")
        assert len(talk.read_until("MARK", 20)) == len("left over\n") + 300_001


def test_a_session_that_ends_or_does_not_answer_says_why(run: Inside) -> None:
    with run.session(["sh", "-c", "echo no such thing >&2; exit 3"]) as talk:  # noqa: SIM117
        with pytest.raises(EngineFailed, match="it ended: no such thing"):
            talk.read_until("MARK", 20)
    with run.session(["sh"]) as talk:
        talk.send("echo still at it; sleep 30\n")
        with pytest.raises(EngineFailed, match=r"no answer in 0.5 s: still at it"):
            talk.read_until("MARK", 0.5)


def test_nothing_goes_on_when_a_session_is_left(run: Inside) -> None:
    with run.session(["sh", "-c", "trap '' HUP PIPE; exec sleep 4321"]):
        assert eventually(lambda: "sleep 4321" in commands(run))
    assert eventually(lambda: "sleep 4321" not in commands(run))


def test_a_session_loses_its_input_when_its_holder_is_killed(run: Inside) -> None:
    held = holder(run, 'run.session(["cat", "--show-ends", "-"])')
    assert "--show-ends" in commands(run)
    held.kill()
    held.wait()
    assert eventually(lambda: "--show-ends" not in commands(run))


def test_a_killed_snapshot_leaves_nothing_in_the_database(trial: Trial) -> None:
    data = trial.folder / "data"
    made = docker_cli(
        "run", "-d", "--label", f"{PROJECT}={trial.project}", "--network", "none",
        "--env", "POSTGRES_PASSWORD=hush", "--volume", f"{data}:/var/lib/postgresql/data", POSTGRES,
    )  # fmt: skip
    run = Inside(trial.docker, made.strip())
    assert eventually(lambda: run(["pg_isready", "-h", "127.0.0.1"]).code == 0)

    def slots() -> str:
        query = "SELECT count(*) FROM pg_replication_slots"
        return run(["psql", "-U", "postgres", "-tAc", query]).stdout.strip()

    held = holder(run, f"driver_for('postgres').live(run, Path({str(data)!r}))")
    assert slots() == "1"
    held.kill()
    held.wait()
    assert eventually(lambda: slots() == "0")


# standstill


def test_a_frozen_container_stands_still_and_goes_on(run: Inside) -> None:
    with run.frozen(30):
        assert state(run) == "paused"
        with pytest.raises(DockerFailed, match="paused"):
            run(["true"])
    assert state(run) == "running"
    assert run(["true"]).code == 0


def test_a_failure_inside_thaws_as_well(run: Inside) -> None:
    with pytest.raises(ZeroDivisionError), run.frozen(30):
        _ = 1 // 0
    assert state(run) == "running"


def test_it_is_not_frozen_for_longer_than_is_allowed(run: Inside) -> None:
    with pytest.raises(EngineFailed, match=r"more than 0\.3 s"), run.frozen(0.3):
        assert eventually(lambda: state(run) == "running")
    assert state(run) == "running"


def test_who_freezes_and_is_killed_leaves_nothing_frozen(run: Inside) -> None:
    held = holder(run, "run.frozen(300)")
    assert state(run) == "paused"
    os.killpg(held.pid, signal.SIGKILL)
    held.wait()
    assert eventually(lambda: state(run) == "running")


def test_what_somebody_left_frozen_is_started_by_thawing_it(run: Inside) -> None:
    run.docker.pause(run.container_id)
    run.docker.start(run.container_id)
    assert state(run) == "running"
    run.docker.unpause(run.container_id)
    assert run(["true"]).code == 0


def test_what_does_not_run_cannot_be_frozen_and_the_others_go_on(trial: Trial, run: Inside) -> None:
    label = f"{PROJECT}={trial.project}"
    stopped = docker_cli("create", "--label", label, PYTHON, *SLEEP).strip()
    with (
        pytest.raises(DockerFailed, match="freeze container"),
        trial.docker.frozen([run.container_id, stopped], 30),
    ):
        pytest.fail("entered")
    assert state(run) == "running"


def holder(run: Inside, context: str) -> subprocess.Popen[str]:
    """A process of its own session that has entered a context of `run` and stays in it."""
    script = (
        "import sys, time\n"
        "from reconciler.docker import connect\n"
        "from pathlib import Path\n"
        "from reconciler.reaching.inside import Inside\n"
        "from snapshots.drivers import driver_for\n"
        "run = Inside(connect(), sys.argv[1])\n"
        f"with {context}:\n"
        "    time.sleep(1)\n"
        "    print('entered', flush=True)\n"
        "    time.sleep(600)\n"
    )
    held = subprocess.Popen(
        [sys.executable, "-c", script, run.container_id],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert held.stdout is not None
    assert held.stdout.readline() == "entered\n"
    return held
