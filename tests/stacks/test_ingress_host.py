"""The host of a stack behind its ingress: no addresses left, prune, reboots, destroy.

On a Docker daemon of the test's own, with room for a few networks."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.failing import Failing
from tests.owndaemon import OwnDaemon, own_daemon
from tests.stacks.harness import Project, notes_project, pulumi, python_image
from tests.stacks.waiting import until

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(900)]

HAPROXY = "lockstep-base/haproxy:2"
POOL = "--default-address-pool=base=10.213.0.0/24,size=27"  # eight networks, one is Docker's own


class Host:
    """A host with one stack behind its ingress."""

    def __init__(self, stack: Project, daemon: OwnDaemon) -> None:
        self.stack = stack
        self.daemon = daemon

    def next_version(self) -> str:
        """A release that says another version; only declared."""
        path = self.stack.folder / "compose.yaml"
        before, _, rest = path.read_text().partition('VERSION: "')
        number, _, after = rest.partition('"')
        path.write_text(f'{before}VERSION: "{int(number) + 1}"{after}')
        self.stack.new("another version")
        return str(int(number) + 1)

    def version(self) -> str:
        return self.stack.get("/version", timeout=60)

    def answer(self) -> str | None:
        try:
            return self.stack.get("/version")
        except OSError:
            return None

    def ingress(self) -> list[str]:
        """Its containers and its network."""
        label = f"label=lockstep.ingress={self.stack.name}/prod"
        listed = self.daemon.docker(
            "ps", "--all", "--filter", label, "--format", "{{.Names}}"
        ).split()
        networks = self.daemon.docker("network", "ls", "--format", "{{.Name}}").split()
        return listed + [name for name in networks if name.startswith(f"0-{self.stack.name}")]

    def fill_pools(self) -> list[str]:
        """Networks of somebody else, until Docker makes no more."""
        made: list[str] = []
        while self.daemon.docker("network", "create", f"other{len(made)}", check=False):
            made.append(f"other{len(made)}")
        return made

    def remove(self, networks: list[str]) -> None:
        if networks:
            self.daemon.docker("network", "rm", *networks)


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    folder = tmp_path_factory.mktemp("host")
    with own_daemon(folder / "daemon", POOL, images=(python_image(), HAPROXY)) as daemon:
        stack = notes_project(folder / "notes", env=dict(daemon.env), inside=tuple(daemon.inside))
        (stack.folder / "uploads").mkdir()
        stack.compose_file(a="notes:/notes=>./uploads:/notes", b="volumes:\n  notes:\n=>")
        stack.init()
        stack.release("one")
        stack.note("a")
        yield Host(stack, daemon)


def test_without_addresses_for_another_network_nothing_is_stopped(host: Host) -> None:
    """Neither for the ingress's own network nor for a world's: what is missing is said, with what
    to do, the live world serves on, and the next up goes all the way."""
    others = host.fill_pools()
    host.stack.run("config", "set", "ingress", "haproxy")
    said = host.stack.up(code=1).text
    assert "could not be created: Docker's address pools are used up" in said
    assert "docker network ls" in said
    assert "Traceback" not in said
    assert host.answer() == "1"

    host.remove([others.pop()])  # one for the world, none for the ingress
    said = host.stack.up(code=1).text
    assert f"network 0-{host.stack.name}-prod-ingress: Docker's address pools are used up" in said
    assert "Traceback" not in said
    assert host.answer() == "1"

    host.remove(others)
    host.stack.up()
    assert host.version() == "1"
    assert len(host.ingress()) == 2
    host.stack.nothing_to_do()


def test_prune_takes_neither_the_ingress_nor_its_image(host: Host) -> None:
    """Also while it stands still, after `lockstep stop`."""
    before = host.ingress()
    host.daemon.docker("system", "prune", "--all", "--volumes", "--force")
    assert host.ingress() == before
    assert host.version() == "1"

    host.stack.run("stop", "--yes")
    host.daemon.docker("image", "prune", "--all", "--force")
    host.daemon.docker("volume", "prune", "--force")
    host.stack.up()
    assert host.version() == "1"
    assert host.stack.notes() == ["a"]
    host.stack.nothing_to_do()


def test_data_in_place_goes_forward_and_comes_back(host: Host) -> None:
    """Forward, a release that fails and writes, and back to the release before."""
    after = host.next_version()
    assert host.stack.preview()["datasets"]["uploads"]["action"] == "in-place"
    host.stack.up()
    assert host.version() == after
    host.stack.note("b")

    path = host.stack.folder / "compose.yaml"
    sound = path.read_text()
    writes = "echo late >> /notes/notes.txt; exec python3 /app.py"
    path.write_text(
        sound.replace('["python3", "/app.py"]', f'["sh", "-c", "{writes}"]').replace(
            'VERSION: "', 'BROKEN: "not ready"\n      VERSION: "9'
        )
    )
    live = host.stack.live()
    host.stack.new("writes, and is never healthy")
    host.stack.run("config", "set", "deadline", "4")
    host.stack.up(code=4)
    assert host.version() == after
    assert host.stack.notes() == ["a", "b"]
    path.write_text(sound)
    host.stack.run("config", "rm", "deadline")
    host.stack.declare(str(live))

    host.stack.run("rollback", "--yes")
    assert host.version() == "1"
    assert host.stack.notes() == ["a"]
    host.stack.run("undo", "--yes")
    assert host.version() == after
    assert host.stack.notes() == ["a", "b"]
    host.stack.nothing_to_do()


@pytest.mark.parametrize("how", ["restart of Docker", "power cut"])
def test_a_reboot_brings_the_ingress_back_to_the_live_world(host: Host, how: str) -> None:
    live = host.version()
    if how == "power cut":
        host.daemon.power_off()
    else:
        host.daemon.stop()
    host.daemon.start()
    until(lambda: host.answer() == live, 60)
    assert host.stack.run("guard", "--once").code == 0
    host.stack.nothing_to_do()


@pytest.mark.parametrize("step", ["switch.started", "switch.committed", "ingress.written"])
def test_a_power_cut_in_a_switch_ends_with_one_world_behind_the_port(
    host: Host, tmp_path: Path, step: str
) -> None:
    before, after = host.version(), host.next_version()
    live = host.stack.live()
    points = Failing(tmp_path / "points", f"{step} stop")
    up = host.stack.start("up", "--yes", env=points.env)
    until(lambda: points.happened, 60)
    journal = json.loads((host.stack.folder / "releases" / "journal-prod.json").read_bytes())
    os.kill(journal["intent"]["pid"], 9)
    os.killpg(up.pid, 9)
    up.communicate()
    host.daemon.power_off()
    host.daemon.start()
    host.stack.run("guard", "--once")
    served = before if step == "switch.started" else after
    assert host.version() == served
    if served == before:
        host.stack.declare(str(live))
    host.stack.run("cancel", "--yes")
    host.stack.up()
    assert host.version() == served
    host.stack.nothing_to_do()


def test_destroy_is_refused_and_taking_the_ingress_away_leaves_nothing(host: Host) -> None:
    """pulumi destroy, also with its program, leaves the ingress as it is; `direct` removes its
    containers, its network and its files."""
    before, live = host.ingress(), host.version()
    for more in ((), ("--run-program",)):
        refused = pulumi(host.stack, "destroy", "--yes", "--skip-preview", *more)
        assert refused.returncode != 0
        assert host.ingress() == before
        assert host.version() == live
    host.stack.run("config", "set", "ingress", "direct")
    host.stack.up()
    assert host.ingress() == []
    assert host.version() == live
    assert not list((host.stack.folder / "releases" / "ingress").rglob("haproxy.cfg"))
