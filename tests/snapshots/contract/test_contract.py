"""What every driver keeps to, on its real engine."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from reconciler.docker import Docker, connect
from reconciler.reaching.inside import Inside
from snapshots.capture import capture
from snapshots.compare import tree_equal
from snapshots.drivers import Ask, Driver, Exec, ExecResult, driver_for
from snapshots.errors import EngineFailed
from snapshots.fork import Fork
from snapshots.livecapture import capture_live
from snapshots.restore import restore
from snapshots.store import Store
from tests.snapshots.contract.cases import CASES, Case
from tests.snapshots.engines import Container, docker, insist, insist_on_images

WRITTEN = 500


@dataclass
class Served:
    """A case's engine as it runs."""

    case: Case
    driver: Driver
    container: Container
    data: Path
    docker: Docker

    @property
    def run(self) -> Inside:
        return inside(self.docker, self.container)

    def probe(self) -> dict[str, int]:
        return probe(self.driver, self.run, self.data)

    def goes_on(self) -> None:
        """It takes writes, and nothing of a live point is left."""
        state = docker("inspect", "-f", "{{.State.Status}}", self.container.name).stdout.strip()
        assert state == "running"
        before = self.probe()
        with writing(self.case, self.container):
            deadline = time.monotonic() + 30
            while self.probe() == before:
                assert time.monotonic() < deadline, "it takes no writes"
        self.case.left(self.container, self.data)
        ours = [name for name in os.listdir(self.data) if "lockstep" in name or "backup" in name]
        assert ours == []


def inside(daemon: Docker, container: Container) -> Inside:
    full = docker("inspect", "-f", "{{.Id}}", container.name).stdout.strip()
    return Inside(daemon, full)


def probe(driver: Driver, run: Inside, data: Path) -> dict[str, int]:
    return driver.probe(run) or driver.probe_path(data)


@contextmanager
def writing(case: Case, container: Container) -> Iterator[None]:
    """Somebody in the container writes, again and again."""
    insist(container(["rm", "-f", "/tmp/stop"]))
    loop = f"while [ ! -e /tmp/stop ]; do {case.one_more}; sleep 0.02; done >/dev/null 2>&1"
    shell = "bash" if "/dev/tcp" in case.one_more else "sh"
    thread = threading.Thread(target=lambda: container([shell, "-c", loop], timeout=120))
    thread.start()
    try:
        yield
    finally:
        insist(container(["touch", "/tmp/stop"]))
        thread.join()


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    if os.geteuid() != 0:
        pytest.skip("only root can read and copy what an engine in a container wrote")
    found = CASES[request.param]
    insist_on_images(found.engine.image)
    return found


@pytest.mark.timeout(600)
def test_the_contract(case: Case, store: Store, tmp_path: Path) -> None:
    """In one container, because some engines take seconds to start."""
    driver = driver_for(case.engine.driver, case.options)
    with case.engine.running(tmp_path / "data") as container:
        served = Served(case, driver, container, tmp_path / "data", connect())
        it_counts_what_was_written(served)
        a_capture_that_fails_leaves_nothing_behind(served)
        a_capture_that_is_killed_hinders_nobody(served)
        live_points_of_a_busy_engine_are_usable(served, store, tmp_path / "live")
        a_fork_of_the_stopped_folder_is_the_same(served, store, tmp_path / "fork")
    if case.damage is not None:
        what_is_damaged_is_found(served, tmp_path / "fork")


def it_counts_what_was_written(served: Served) -> None:
    served.case.engine.write(served.container, 10)
    served.case.engine.write(served.container, WRITTEN)
    expected = served.case.engine.expected(WRITTEN)
    counts = served.probe()
    if expected:
        assert counts == expected
    else:
        assert counts["files"] == WRITTEN
    assert served.driver.check(served.run) == []


def a_capture_that_fails_leaves_nothing_behind(served: Served) -> None:
    class Failed(Exception):
        pass

    with pytest.raises(Failed), served.driver.live(served.run, served.data):
        raise Failed
    served.goes_on()


_DIES = """
import sys, time
from pathlib import Path
from reconciler.docker import connect
from reconciler.reaching.inside import Inside
from snapshots.drivers import driver_for
name, container, data, *options = sys.argv[1:]
driver = driver_for(name, dict(zip(options[::2], options[1::2])))
with driver.live(Inside(connect(), container), Path(data)):
    print("captured", flush=True)
    time.sleep(60)
"""


def a_capture_that_is_killed_hinders_nobody(served: Served) -> None:
    options = [text for pair in served.case.options.items() for text in pair]
    name, container = served.case.engine.driver, served.run.container_id
    with subprocess.Popen(
        [sys.executable, "-c", _DIES, name, container, str(served.data), *options],
        stdout=subprocess.PIPE,
        text=True,
    ) as dying:
        assert dying.stdout is not None
        assert dying.stdout.readline() == "captured\n"
        dying.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 30
    while docker("inspect", "-f", "{{.State.Status}}", served.container.name).stdout != "running\n":
        assert time.monotonic() < deadline, "it stands still for good"
        time.sleep(0.1)
    with served.driver.live(served.run, served.data):
        pass
    served.goes_on()


def live_points_of_a_busy_engine_are_usable(served: Served, store: Store, copy: Path) -> None:
    with writing(served.case, served.container):
        first = capture_live(served.driver, served.run, served.data, store, dataset="d")
        before = served.probe()
        second = capture_live(
            served.driver, served.run, served.data, store, dataset="d", parent=first.id
        )
    after = served.probe()
    served.goes_on()
    restore(store, second.id, copy)
    with served.case.engine.running(copy) as container:
        run = inside(served.docker, container)
        served.driver.load(run, copy)
        served.driver.align(run)
        found = probe(served.driver, run, copy)
        assert served.driver.check(run) == []
        if served.case.engine.expected(1):
            assert found.keys() == before.keys()
            assert all(before[what] <= found[what] <= after[what] for what in found)
        with writing(served.case, container):
            time.sleep(0.5)
        assert sum(probe(served.driver, run, copy).values()) > sum(found.values())


def a_fork_of_the_stopped_folder_is_the_same(served: Served, store: Store, copy: Path) -> None:
    case, driver, restored = served.case, served.driver, copy.with_name("restored")
    copy.mkdir()
    fork = Fork(served.data, copy, index=copy.with_name("index"))
    fork.first_pass()
    with writing(case, served.container):
        driver.before_stop(served.run)
    before = served.probe()
    served.container.stop()
    code = docker("inspect", "-f", "{{.State.ExitCode}}", served.container.name).stdout.strip()
    assert int(code) in (case.stops_with, 143), "the stop was not clean"
    fork.final_pass()
    assert tree_equal(served.data, copy) == []
    assert driver.check_path(copy) == []
    assert (driver.version(copy) is not None) == case.versioned
    assert driver.unfit(copy, _in_image(case)) == []
    record = capture(served.data, store, dataset="d")
    restore(store, record.id, restored)
    assert tree_equal(served.data, restored) == []
    with case.engine.running(copy, dict(case.changed)) as container:
        run = inside(served.docker, container)
        if case.password is not None:
            assert case.password(container) == (True, False)
        driver.load(run, copy)
        driver.align(run)
        driver.align(run)
        if case.password is not None:
            assert case.password(container) == (False, True)
            assert "$(id)" not in container.logs()
        assert probe(driver, run, copy) == before
        assert driver.check(run) == []
        with writing(case, container):
            time.sleep(0.5)
        assert probe(driver, run, copy) != before
        container.stop()
    assert tree_equal(served.data, restored) == []


def what_is_damaged_is_found(served: Served, folder: Path) -> None:
    """Without the engine, or with it."""
    assert served.case.damage is not None
    served.case.damage(folder)
    if served.driver.check_path(folder):
        return
    with served.case.engine.running(folder) as container:
        run = inside(served.docker, container)
        try:
            problems = served.driver.check(run) + served.driver.examine(run)
        except EngineFailed as error:
            problems = [str(error)]
        assert problems != []


def _in_image(case: Case) -> Ask:
    def ask(argv: Sequence[str]) -> ExecResult:
        return docker("run", "--rm", "--network", "none", "--entrypoint", argv[0],
                      case.engine.image, *argv[1:])  # fmt: skip

    return ask


def test_an_engine_that_does_not_answer_is_an_error_of_ours(case: Case, tmp_path: Path) -> None:
    driver = driver_for(case.engine.driver, case.options)
    (tmp_path / "db").mkdir()
    gone = Container("lockstep-test-no-such-container")

    def live(run: Exec) -> None:
        with driver.live(run, tmp_path):
            pass

    asks = [driver.probe, driver.check, driver.before_stop, driver.align, live]
    failed = 0
    for ask in asks:
        try:
            ask(gone)
        except EngineFailed as error:
            assert "no such container" in str(error).lower()  # noqa: PT017
            failed += 1
    assert failed >= (0 if case.engine.driver in ("directory", "sqlite") else 2)


def test_files_whose_blocks_never_recur_are_named(case: Case) -> None:
    driver = driver_for(case.engine.driver, case.options)
    for path, stream in case.streams.items():
        assert driver.is_stream(path) is stream
