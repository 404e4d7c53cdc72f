"""A switch that is killed, at every step, leads to the old or the new world, never between."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from reconciler import switch
from reconciler.errors import Busy, Reverted
from reconciler.host import hostlock
from reconciler.host.hostlock import HostLock
from reconciler.records.journal import Intent, JournalFile
from tests.failing import failing
from tests.reconciler.trial import Trial, cache, web
from tests.reconciler.unreliable import UnreliableDocker

NEEDS_CACHE = {"cache": {"condition": "service_healthy"}}

BEFORE_COMMIT = [
    "prepare",
    "prepared",
    "stop",
    "seal",
    "safety",
    "in-place",
    "sealed",
    "ready",
    "started",
    "proved",
    "policies",
]
AFTER_COMMIT = ["committed", "repointed", "left", "after-commit"]
WHILE_REVERTING = ["revert", "revert-stopped", "reverted", "revert-written"]


@pytest.fixture
def shop(trial: Trial) -> Trial:
    """prod-001 is live: forked data, data in place, a worker for after the commit."""
    (trial.folder / "files").mkdir()
    worker = web(
        ports=None,
        healthcheck=None,
        environment={"MODE": "ok"},
        volumes=["work:/data", "./app.py:/app.py:ro"],
        **{"x-lockstep": {"start": "after-commit"}},
    )
    mounts = ["notes:/data", "./files:/files", "./app.py:/app.py:ro"]
    trial.write(
        {
            "web": web(depends_on=NEEDS_CACHE, volumes=mounts),
            "cache": cache(),
            "worker": worker,
        }
    )
    trial.new()
    trial.up()
    trial.note("one")
    (trial.folder / "files" / "here").write_text("precious")
    return trial


def insist_on_live(trial: Trial, world: str, version: str) -> None:
    trial.insist_on_one_world(world)
    assert trial.running(world) == {"web", "cache", "worker"}
    assert trial.ask() == {"version": version, "notes": ["one"]}
    assert (trial.folder / "files" / "here").read_text() == "precious"
    with HostLock.acquire("look", "nobody"):
        pass


def test_fault_1_killed_at_every_step(shop: Trial) -> None:
    """The switch is killed at each of its steps: whoever follows it puts the old world right at
    once, the next up then goes all the way."""
    for number, step in enumerate(BEFORE_COMMIT, start=2):
        shop.new(VERSION=str(number))
        with pytest.raises(Reverted, match="was killed; the switch to"):
            shop.up(crash_at=step)
        insist_on_live(shop, shop.world(1), "1")
    plan = shop.up()
    assert plan.to_world is not None
    insist_on_live(shop, plan.to_world, str(number))
    assert not shop.state.quarantined


def test_fault_1_killed_after_the_commit(shop: Trial) -> None:
    """The switch is killed at each step after its commit: the new world is live and complete."""
    for number, step in enumerate(AFTER_COMMIT, start=2):
        shop.new(VERSION=str(number))
        shop.up(crash_at=step)
        insist_on_live(shop, shop.world(number), str(number))
        assert shop.committed().to_world == shop.world(number)


def test_fault_16_an_error_when_the_commit_is_written(shop: Trial) -> None:
    """The commit's line is on the disk and its writer is told of an error: the new world is live,
    and nothing takes it back."""
    shop.new(VERSION="2")
    shop.up(crash_at="committed", how="error")
    insist_on_live(shop, shop.world(2), "2")
    assert shop.committed().to_world == shop.world(2)


def test_fault_9_killed_while_it_reverts(shop: Trial) -> None:
    """A release is never healthy, and the way back is killed at each of its steps: the old world
    runs with its own data, in place too."""
    shop.settings["deadline"] = 3
    for number, step in enumerate(WHILE_REVERTING, start=2):
        shop.new(VERSION=str(number), MODE="sick")
        with pytest.raises(Reverted):
            shop.up(crash_at=step)
        insist_on_live(shop, shop.world(1), "1")
        assert shop.reverted().to_world == shop.world(number)


def test_fault_9_what_the_old_world_writes_after_its_return_is_not_put_back_again(
    shop: Trial,
) -> None:
    """The way back is killed when the old world runs again and has written in place: whoever
    takes it up again does not put the content before the switch there a second time."""
    files = shop.folder / "files"
    shop.settings["deadline"] = 3
    shop.new(VERSION="2", MODE="sick")
    with shop.locked():
        shop.make(shop.plan())
    with failing("switch.reverted stop") as points:
        caller = follower(shop)
        until(lambda: points.happened)
        assert (files / "here").read_text() == "precious"
        (files / "acknowledged").write_text("since")
        intent = JournalFile(shop.catalog.journal).read()
        assert intent is not None
        os.kill(intent.pid, signal.SIGKILL)
        caller.wait()
    until(lambda: hostlock.holder() is None)
    shop.recover()
    insist_on_live(shop, shop.world(1), "1")
    assert (files / "acknowledged").read_text() == "since"
    assert shop.reverted().snapshots, "what the failed release wrote is kept"


def test_fault_1_killed_early(trial: Trial) -> None:
    """A switch back is killed before its stop, within it and after it: the live world stays."""
    trial.write({"web": web(depends_on=NEEDS_CACHE), "cache": cache()})
    trial.new()
    trial.up()
    trial.new(VERSION="2")
    trial.up()
    for step in ("early", "stop", "started"):
        with pytest.raises(Reverted, match="killed"):
            trial.up("prod-001", crash_at=step)
        trial.insist_on_one_world(trial.world(2))
        assert trial.ask()["version"] == "2"


def test_fault_1_a_crash_that_takes_the_caller_along(shop: Trial) -> None:
    """Switch and caller are killed together: the next operation finds the journal, and reverts."""
    shop.new(VERSION="2")
    with shop.locked():
        plan = shop.plan()
        shop.make(plan)
    intent = killed_with_its_caller(shop, "started")
    assert intent.step == "start"
    assert shop.running(shop.world(2)) == {"web", "cache"}
    assert shop.recover() == [
        f"the switch to {shop.world(2)} was interrupted at start; {shop.world(1)} is live again"
    ]
    insist_on_live(shop, shop.world(1), "1")
    assert shop.recover() == []
    assert shop.reverted().reason == "interrupted at start"


def test_fault_3_4_the_switch_outlives_its_caller(shop: Trial) -> None:
    """Ctrl-C, a hang-up and the death of its caller do not stop a switch; it keeps the host's lock
    until it has ended, and whoever comes back follows it."""
    shop.new(VERSION="2")
    with shop.locked():
        shop.make(shop.plan())
    caller = follower(shop)
    journal = JournalFile(shop.catalog.journal)
    until(journal.path.exists)
    os.killpg(caller.pid, signal.SIGINT)
    caller.kill()
    caller.wait()
    switching = journal.read()
    assert switching is not None
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(switching.pid, number)
    holder = hostlock.holder()
    assert holder is not None
    assert holder.pid == switching.pid
    with pytest.raises(Busy, match=f"switch of stack {shop.project}/prod"):
        HostLock.acquire("up", "other")
    said: list[str] = []
    assert switch.follow_running(shop.catalog, said.append)
    assert f"{shop.world(2)} is live" in said
    until(lambda: hostlock.holder() is None)
    insist_on_live(shop, shop.world(2), "2")


def killed_with_its_caller(trial: Trial, step: str) -> Intent:
    """What the journal holds after switch and caller were both killed."""
    with failing(f"switch.{step} kill"):
        caller = follower(trial)
        journal = JournalFile(trial.catalog.journal)
        until(journal.path.exists)
        os.kill(caller.pid, signal.SIGKILL)
        caller.wait()
        until(lambda: hostlock.holder() is None)
    intent = journal.read()
    assert intent is not None
    return intent


def follower(trial: Trial) -> subprocess.Popen[bytes]:
    """A process that begins the switch of the current plan and follows it."""
    code = f"""
        from pathlib import Path
        from tests.reconciler.trial import Trial
        from reconciler import switch
        trial = Trial(Path({str(trial.folder)!r}))
        trial.project, trial.settings = {trial.project!r}, {trial.settings!r}
        trial.environment = {trial.environment!r}
        with trial.locked() as lock:
            switch.carry_out(trial.stack, trial.catalog, trial.plan(), lock, print)
    """
    root = Path(__file__).parent.parent.parent
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)],
        env={**os.environ, "PYTHONPATH": str(root)},
        start_new_session=True,
        stdout=subprocess.DEVNULL,
    )


def until(condition: Callable[[], bool]) -> None:
    for _ in range(600):
        if condition():
            return
        time.sleep(0.02)
    raise AssertionError("did not happen within 12 s")


@pytest.mark.parametrize("moment", ["stopping", "cache is ready"])
def test_fault_29_docker_goes_away_and_comes_back(
    trial: Trial, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """Docker stops answering within a switch: the old world is brought back, and the release, which
    is not to blame, is not quarantined."""
    trial.write({"web": web(depends_on=NEEDS_CACHE), "cache": cache()})
    trial.new()
    trial.up()
    trial.note("one")
    trial.new(VERSION="2")
    daemon = UnreliableDocker(trial.folder / "docker.sock")

    cuts: list[str] = []

    def cut_at(text: str) -> None:
        if text.startswith(moment) and not cuts:
            cuts.append(text)
            daemon.cut()
            threading.Timer(3, daemon.join).start()

    with trial.locked() as lock:
        plan = trial.plan()
        trial.make(plan)
        monkeypatch.setenv("DOCKER_HOST", daemon.host)
        with pytest.raises(Reverted) as raised:
            switch.carry_out(trial.stack, trial.catalog, plan, lock, cut_at)
    assert "could not be made live: Docker does not answer" in str(raised.value)
    assert trial.reverted().quarantine is False
    trial.insist_on_one_world(trial.world(1))
    assert trial.ask() == {"version": "1", "notes": ["one"]}
