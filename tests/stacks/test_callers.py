"""Whoever calls dies, comes back, calls twice or cancels: one switch at a time, to its end."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from reconciler.errors import Busy
from reconciler.host import hostlock, process
from reconciler.host.hostlock import HostLock
from tests.failing import Failing
from tests.stacks.harness import Project, live_notes, notes_project
from tests.stacks.waiting import until

pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """A small stack that is live; every test leaves it so, on whatever release."""
    with live_notes(tmp_path_factory.mktemp("callers") / "notes") as project:
        yield project


@pytest.fixture(autouse=True)
def same_lock(stack: Project, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """This process looks at the lock that the stack's commands take; who still has it when a test
    has failed goes on."""
    monkeypatch.setenv(hostlock.DIRECTORY, stack.environment()[hostlock.DIRECTORY])
    yield
    holder = hostlock.holder()
    if holder is not None:
        os.kill(holder.pid, signal.SIGCONT)
        until(lambda: hostlock.holder() is None, 60)


def declare_next(stack: Project) -> tuple[str, str]:
    """A new release, declared: its name, and the version that it answers."""
    made = (stack.folder / "releases").glob("prod-*/release-info.json")
    number = max(int(path.parent.name.removeprefix("prod-")) for path in made) + 1
    path = stack.folder / "compose.yaml"
    path.write_text(re.sub(r'VERSION: "\d+"', f'VERSION: "{number}"', path.read_text()))
    stack.run("new", str(number))
    return f"prod-{number:03d}", str(number)


def journal(stack: Project) -> Path:
    return stack.folder / "releases" / "journal-prod.json"


def insist_on(stack: Project, release: str, version: str) -> None:
    """Exactly this release runs, once, with its data; nothing is left to do."""
    assert stack.live() == release
    assert (stack.get("/version"), stack.notes()) == (version, ["a"])
    assert len(stack.containers()) == 1
    assert not journal(stack).exists()
    stack.nothing_to_do()


@dataclass
class Held:
    """An `up` whose switch has stopped the old world, and stands still until it may go on."""

    up: subprocess.Popen[str]
    switch: int

    def go_on(self) -> None:
        os.kill(self.switch, signal.SIGCONT)

    def end(self) -> str:
        """Let it go on to its end; what the command said."""
        self.go_on()
        said, _ = self.up.communicate(timeout=90)
        until(lambda: hostlock.holder() is None)
        return said


def held_in_switch(stack: Project, folder: Path) -> Held:
    points = Failing(folder / "points", "switch.started stop")
    up = stack.start("up", "--yes", env=points.env)
    until(lambda: points.happened, 60)
    switch = json.loads(journal(stack).read_bytes())["intent"]["pid"]
    until(lambda: process.is_stopped(switch))
    return Held(up, switch)


def insist_on_busy(told: str) -> None:
    """Nobody else gets the lock, and is told this."""
    with pytest.raises(Busy, match=told), HostLock.acquire("up", "another/stack"):
        pass


@pytest.mark.parametrize("times", [pytest.param(1, marks=pytest.mark.chaos), 2])
def test_fault_03_ctrl_c_in_a_switch(stack: Project, tmp_path: Path, times: int) -> None:
    """SIGINT, once and twice, to the command in its switch: the switch goes on, the new release is
    live, and the next up has nothing to do."""
    release, version = declare_next(stack)
    held = held_in_switch(stack, tmp_path)
    for _ in range(times):
        os.killpg(held.up.pid, signal.SIGINT)
        time.sleep(0.5)
    assert "Traceback" not in held.end()
    stack.up()
    insist_on(stack, release, version)


def test_fault_04_47_the_command_dies_and_cancel_frees_no_host(
    stack: Project, tmp_path: Path
) -> None:
    """kill -9 of the command in its switch, then `cancel`: the host lock names the switch and
    holds, and whoever comes back follows it to the end."""
    release, version = declare_next(stack)
    held = held_in_switch(stack, tmp_path)
    os.killpg(held.up.pid, signal.SIGKILL)
    held.up.communicate()
    cancelled = stack.run("cancel", "--yes", "--json").json()
    assert f"switch of stack {stack.name}/prod" in cancelled["host_held_by"]
    insist_on_busy("switch of stack")
    follower = stack.start("recover")
    assert follower.stdout is not None
    assert "following" in follower.stdout.readline()
    held.go_on()
    said, _ = follower.communicate(timeout=60)
    assert follower.returncode == 0
    assert f"{release} is live" in said
    stack.up()  # debts and tags are left
    insist_on(stack, release, version)


@pytest.mark.chaos
def test_attack_lock_left_by_a_killed_command(stack: Project, tmp_path: Path) -> None:
    """kill -9 of the command: the next one says that the process which locked the stack is gone,
    and which command removes its lock."""
    release, version = declare_next(stack)
    points = Failing(tmp_path / "points", "worlds.noted kill")
    stack.run("up", "--yes", code=-signal.SIGKILL, env=points.env)
    refused = stack.run("up", "--yes", code=6)
    assert "which is gone" in refused.err
    assert "lockstep cancel" in refused.err
    stack.run("cancel", "--yes")
    stack.up()
    insist_on(stack, release, version)


def test_attack_lock_file_removed_forged_and_its_holder_stopped(
    stack: Project, tmp_path: Path
) -> None:
    """While a switch is stopped by kill -STOP, the lock's file is removed, and then rewritten with
    another holder and mode 000: nobody else gets the lock, and the way on is named."""
    release, version = declare_next(stack)
    held = held_in_switch(stack, tmp_path)
    insist_on_busy(f"kill -CONT {held.switch}")
    file = Path(os.environ[hostlock.DIRECTORY]) / "lockstep.lock"
    said = file.read_text()
    file.unlink()
    insist_on_busy(r"process \d+")
    file.write_text(said.replace(str(stack.name), "mallory"))
    file.chmod(0)
    insist_on_busy("mallory")
    held.end()
    assert held.up.returncode == 0
    insist_on(stack, release, version)


@pytest.mark.chaos
@pytest.mark.parametrize("place", ["worlds.containers", "engine.renamed"])
def test_fault_05_50_the_engine_dies_while_it_makes_a_world(
    stack: Project, tmp_path: Path, place: str
) -> None:
    """kill -9 of the engine after the containers were made, and between two writes of its state:
    the state has pending operations, and the next up makes no container twice."""
    official = stack.environment()["LOCKSTEP_ENGINE"] == "pulumi"
    if official and place == "engine.renamed":
        pytest.skip("a place in the embedded engine")
    release, version = declare_next(stack)
    points = Failing(tmp_path, f"{place} kill")
    ended = stack.run("up", "--yes", code=None, env=points.env)
    # There the program is a process of its own, and the command is told that it died.
    assert points.happened
    assert ended.code == (1 if official else -signal.SIGKILL), ended.text
    stack.run("cancel", "--yes")
    state = stack.folder / ".pulumi" / "stacks" / stack.name / "prod.json"
    if place == "worlds.containers" and not official:
        assert b'"pending_operations":[{' in state.read_bytes()
    stack.up()
    insist_on(stack, release, version)
    names = sorted(stack.containers(running=False).values())
    assert len(names) == len(set(names))
    assert [n for n in names if f"-{release}-" in n] == [f"{stack.name}-{release}-app-1"]


def two_at_once(stack: Project, cancel: bool) -> None:
    release, version = declare_next(stack)
    ups = [stack.start("up", "--yes") for _ in range(2)]
    if cancel:
        stack.run("cancel", "--yes")
    said = [up.communicate(timeout=120)[0] for up in ups]
    codes = {up.returncode for up in ups}
    assert codes <= {0, 6}, "\n".join(said)
    if codes == {6}:  # each saw the other's lock, or one was cancelled
        stack.run("cancel", "--yes")
        stack.up()
    assert (stack.live(), stack.get("/version"), stack.notes()) == (release, version, ["a"])
    assert len(stack.containers()) == 1


@pytest.mark.chaos
def test_fault_45_two_ups_at_once(stack: Project) -> None:
    """Two ups of one stack at the same moment, once with a `cancel` between them: one carries the
    release out, the other finds nothing to do or is told who is at work."""
    for cancel in (False, True):
        two_at_once(stack, cancel)
    stack.nothing_to_do()


@pytest.mark.chaos
@pytest.mark.timeout(1800)
def test_fault_45_two_ups_at_once_fifty_times(stack: Project) -> None:
    """The same fifty times in a row."""
    for number in range(50):
        two_at_once(stack, cancel=number % 2 == 1)
    stack.nothing_to_do()


@pytest.mark.chaos
def test_fault_46_two_stacks_on_one_host(stack: Project, tmp_path: Path) -> None:
    """While the switch of one stack runs, an up of another is told whose it is and changes nothing;
    after it, it works."""
    other = notes_project(stack.folder.parent / "other")
    try:
        other.init()
        other.new("one")
        release, version = declare_next(stack)
        held = held_in_switch(stack, tmp_path)
        refused = other.up(code=6)
        assert f"of stack {stack.name}/prod" in refused.text
        assert other.containers() == {}
        held.end()
        other.up()
        assert other.live() == "prod-001"
        insist_on(stack, release, version)
    finally:
        other.remove()
