"""Reboots: all our processes, all containers and the daemon die at once, and the host starts anew.
On a Docker daemon of the test's own."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.failing import Failing
from tests.owndaemon import OwnDaemon, own_daemon
from tests.stacks.harness import Project, notes_project, python_image
from tests.stacks.waiting import until

pytestmark = pytest.mark.timeout(900)

STEPS = [
    "worlds.filled",
    "worlds.containers",
    "switch.prepare",
    "switch.prepared",
    "switch.stop",
    "switch.seal",
    "switch.sealed",
    "switch.ready",
    "switch.started",
    "switch.proved",
    "switch.policies",
    "switch.committed",
    "switch.left",
    "switch.after-commit",
    "debts.captured",
    "ledger.fsync 3",  # the command's own third line: what was captured after the commit
]
COMMITTED = STEPS[STEPS.index("switch.committed") :]


class Host:
    """A host with one stack, that can be switched off and on."""

    def __init__(self, project: Project, daemon: OwnDaemon) -> None:
        self.project = project
        self.daemon = daemon
        project.env.update(daemon.env)

    def running(self) -> list[str]:
        """Names of what runs, without the project's."""
        names = self.daemon.docker("ps", "--format", "{{.Names}}").split()
        return sorted(n.removeprefix(f"{self.project.name}-") for n in names)

    def in_app(self, *words: str) -> str:
        (container,) = self.daemon.docker("ps", "-q").split()
        return self.daemon.docker("exec", container, *words)

    def note(self, text: str) -> None:
        self.in_app("sh", "-c", f"echo {text} >> /notes/notes.txt && sync")

    def notes(self) -> list[str]:
        return self.in_app("cat", "/notes/notes.txt").split()

    def declare_next(self) -> str:
        number = len(self.project.releases()) + 1
        self.project.compose_file(v=f'VERSION: "{number - 1}"=>VERSION: "{number}"')
        return self.project.new(str(number))

    def up_until(self, step: str, folder: Path) -> None:
        """Start an `up` and switch the host off when it is at the step."""
        name, _, nth = step.partition(" ")
        points = Failing(folder / "points", f"{name} stop {nth}".strip())
        up = self.project.start("up", "--yes", env=points.env)
        until(lambda: points.happened, 60)
        journal = self.project.folder / "releases" / "journal-prod.json"
        if journal.exists():
            os.kill(json.loads(journal.read_bytes())["intent"]["pid"], signal.SIGKILL)
        os.killpg(up.pid, signal.SIGKILL)
        up.communicate()
        self.daemon.power_off()

    def boot(self) -> None:
        """As the unit of the guard does it: Docker first, then one look."""
        self.daemon.start()
        # A kernel that really started anew has another boot id, and the guard starts anew with it.
        (self.project.folder / "releases" / "guard-prod.json").unlink(missing_ok=True)
        self.project.run("guard", "--once")


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    folder = tmp_path_factory.mktemp("reboot")
    with own_daemon(folder / "daemon", images=(python_image(),)) as daemon:
        project = notes_project(folder / "notes")
        made = Host(project, daemon)
        project.init()
        project.release("one")
        made.note("a")
        yield made


def insist_on(host: Host, release: str) -> None:
    assert host.project.live() == release
    (running,) = host.running()
    assert re.fullmatch(rf"{release}(_\d+)?-app-1", running)
    assert host.notes() == ["a"]


def reboot_at(host: Host, step: str, folder: Path) -> None:
    before = str(host.project.live())
    release = host.declare_next()
    host.up_until(step, folder)
    host.boot()
    insist_on(host, release if step in COMMITTED else before)
    host.project.run("cancel", "--yes")
    host.project.up()
    insist_on(host, release)


@pytest.mark.chaos
def test_fault_87_a_reboot_in_a_switch_and_long_after(host: Host, tmp_path: Path) -> None:
    """Everything dies while the new world is proved: after the boot the old one runs, alone, and
    the next up converges. A reboot long after brings exactly the live world, by Docker alone."""
    reboot_at(host, "switch.started", tmp_path)
    host.daemon.power_off()
    host.daemon.start()
    until(lambda: len(host.running()) > 0)
    insist_on(host, str(host.project.live()))
    assert host.project.run("guard", "--once").out == ""
    host.project.nothing_to_do()


@pytest.mark.chaos
@pytest.mark.parametrize("step", STEPS)
def test_fault_87_a_reboot_at_each_step(host: Host, tmp_path: Path, step: str) -> None:
    """Everything dies at this step: after the boot exactly the old world runs, or exactly the new
    one from the commit on; the next up converges."""
    reboot_at(host, step, tmp_path)
