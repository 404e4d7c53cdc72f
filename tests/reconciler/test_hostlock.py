"""The host lock: one holder, named, freed by death, handed down to a child."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from reconciler.errors import Busy, LockstepError
from reconciler.host import hostlock
from reconciler.host.hostlock import HostLock

HOLD = """
import sys, time
from reconciler.host.hostlock import HostLock
lock = HostLock.acquire("up", "shop/prod")
print("held", flush=True)
{then}
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(hostlock.DIRECTORY, str(tmp_path / "lock"))
    return tmp_path / "lock"


def another(then: str = "time.sleep(60)") -> subprocess.Popen[str]:
    """Another process that holds the lock, and then does something."""
    root = Path(__file__).parent.parent.parent
    made = subprocess.Popen(
        [sys.executable, "-c", HOLD.format(then=then)],
        env={**os.environ, "PYTHONPATH": str(root)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert made.stdout is not None
    assert made.stdout.readline() == "held\n"
    return made


def end(process: subprocess.Popen[str]) -> None:
    """Kill it, without waiting for children of its own that still have its output open."""
    process.kill()
    process.wait()
    assert process.stdout is not None
    process.stdout.close()


def test_a_second_holder_is_told_who_the_first_is() -> None:
    first = another()
    try:
        with pytest.raises(Busy, match=rf"up of stack shop/prod \(process {first.pid}, since 20"):
            HostLock.acquire("up", "other/prod")
    finally:
        end(first)


def test_attack_lock_holder_killed() -> None:
    """kill -9 of who holds the host lock: it is free at once, whatever its file says."""
    first = another()
    os.kill(first.pid, signal.SIGKILL)
    first.communicate()
    assert hostlock.holder() is None
    with HostLock.acquire("up", "shop/prod"):
        found = hostlock.holder()
        assert found is not None
        assert found.pid == os.getpid()
    assert hostlock.holder() is None


def test_it_can_be_waited_for() -> None:
    first = another("time.sleep(0.5)")
    began = time.monotonic()
    with HostLock.acquire("up", "shop/prod", wait=10):
        assert time.monotonic() - began < 9
    first.communicate()


def test_the_same_process_gets_it_again() -> None:
    with HostLock.acquire("up", "shop/prod") as outer:
        with HostLock.acquire("switch", "shop/prod") as inner:
            assert inner is outer
        assert HostLock.current() is outer
        assert hostlock.holder() is not None
    assert HostLock.current() is None
    assert hostlock.holder() is None


def test_a_child_inherits_it_and_its_parent_may_die() -> None:
    then = (
        "import subprocess\n"
        "child = subprocess.Popen(['sleep', '30'], pass_fds=[lock.fileno()])\n"
        "print(child.pid, flush=True)\n"
        "time.sleep(60)"
    )
    parent = another(then)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    try:
        end(parent)
        with pytest.raises(Busy):
            HostLock.acquire("up", "shop/prod")
    finally:
        os.kill(child, signal.SIGKILL)
    with HostLock.acquire("up", "shop/prod", wait=5):
        pass


def test_threads_of_a_process_share_it() -> None:
    def hold() -> None:
        with HostLock.acquire("up", "shop/prod"):
            time.sleep(0.01)

    with HostLock.acquire("up", "shop/prod"):
        threads = [threading.Thread(target=hold) for _ in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert hostlock.holder() is not None
    assert hostlock.holder() is None


def test_a_strange_file_is_no_obstacle_but_a_link_is_not_followed(folder: Path) -> None:
    folder.mkdir()
    (folder / "lockstep.lock").write_text("[]{")
    with HostLock.acquire("up", "shop/prod"):
        assert (folder / "lockstep.lock").stat().st_nlink == 1
    (folder / "lockstep.lock").unlink()
    (folder / "lockstep.lock").symlink_to(folder / "victim")
    with pytest.raises(LockstepError, match="cannot be opened"):
        HostLock.acquire("up", "shop/prod")
    assert not (folder / "victim").exists()
