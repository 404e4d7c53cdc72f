"""A user without root, in the docker group, does by the same commands what root does."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from reconciler.docker import HELPER
from snapshots.compare import tree_equal
from tests.failing import Failing
from tests.snapshots.trees import everything
from tests.stacks.harness import Project, docker, notes_project
from tests.stacks.person import Person, person

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="makes a user, and compares as root")


@pytest.fixture(scope="module")
def somebody() -> Iterator[Person]:
    with person("docker") as found:
        yield found


@pytest.fixture
def theirs(somebody: Person, tmp_path: Path) -> Iterator[Project]:
    """The small project in their home, initialised by them."""
    folder = somebody.home / tmp_path.name / "notes"
    project = notes_project(folder, inside=somebody.words)
    (folder.parent / "locks").mkdir()
    somebody.give(folder.parent)
    try:
        project.init()
        yield project
    finally:
        project.remove()


def volume(name: str) -> Path:
    return Path("/var/lib/docker/volumes") / name / "_data"


def helpers_of(project: Project) -> list[str]:
    """Helper containers that have one of the project's volumes."""
    listed = docker(
        "ps", "--all", "--filter", f"label={HELPER}", "--format", "{{.Names}} {{.Mounts}}",
        "--no-trunc",
    )  # fmt: skip
    return [line for line in listed.splitlines() if project.name in line]


def await_no_helper(project: Project) -> None:
    deadline = time.monotonic() + 20
    while found := helpers_of(project):
        assert time.monotonic() < deadline, found
        time.sleep(0.1)


def test_forward_back_restore_and_undo_by_a_user_without_root(
    theirs: Project, somebody: Person
) -> None:
    generations = [volume(f"{theirs.name}-prod_notes_g{n}") for n in range(1, 5)]
    said = theirs.run("doctor", code=None).text
    assert "read through helper containers" in said.replace("\n", " ")
    theirs.release("one")
    theirs.note("a")
    (generations[0] / "kept").mkdir()
    everything(generations[0] / "kept")  # what no user without root could read, or give away
    theirs.release("two")
    assert tree_equal(generations[0] / "kept", generations[1] / "kept") == [], "forked"
    theirs.note("b")
    (generations[1] / "kept" / "empty").unlink()

    theirs.run("rollback", "--yes")
    assert (theirs.live(), theirs.notes()) == ("prod-001", ["a"]), "attached"
    theirs.run("undo", "--yes")
    assert (theirs.live(), theirs.notes()) == ("prod-002", ["a", "b"])
    assert not (generations[1] / "kept" / "empty").exists()
    theirs.nothing_to_do()

    taken = theirs.run("snapshot", "--json").json()["datasets"]["notes"]
    theirs.note("c")
    theirs.run("config", "set", "--path", "restore.release", "prod-002")
    theirs.run("config", "set", "--path", "restore.at", taken["snapshot"])
    theirs.up()
    assert theirs.notes() == ["a", "b"], "restored from the store"
    assert tree_equal(generations[1] / "kept", generations[2] / "kept") == []
    assert "nothing is damaged" in theirs.run("verify", "--read-data").text
    assert "everything came back" in theirs.run("drill").text
    written = list(theirs.folder.rglob("*"))
    assert [path for path in written if path.lstat().st_uid != somebody.uid] == []
    stored = [path for path in written if "store" in path.parts]
    assert [path for path in stored if path.stat().st_mode & 0o077] == []
    await_no_helper(theirs)


@pytest.mark.chaos
@pytest.mark.parametrize("place", ["switch.seal", "helper.call"])
def test_the_command_of_a_user_without_root_killed_in_the_middle(
    theirs: Project, somebody: Person, place: str
) -> None:
    theirs.release("one")
    theirs.note("a")
    theirs.compose_file(v='VERSION: "1"=>VERSION: "2"')
    theirs.new("two")
    points = Failing(theirs.folder.parent / "points", f"{place} kill")
    somebody.give(points.folder)
    theirs.run("up", "--yes", code=None, env=points.env)
    assert points.happened
    await_no_helper(theirs)
    theirs.up()
    assert (theirs.live(), theirs.get("/version"), theirs.notes()) == ("prod-002", "2", ["a"])
    theirs.nothing_to_do()
    await_no_helper(theirs)


@pytest.mark.chaos
def test_a_helper_killed_during_a_fork_stops_nothing(theirs: Project) -> None:
    theirs.release("one")
    theirs.note("a")
    with open(volume(f"{theirs.name}-prod_notes_g1") / "large", "wb") as large:
        for _ in range(64):
            large.write(os.urandom(1 << 20))
    theirs.run("config", "set", "--path", "copyRate.floor", "1MiB")
    theirs.run("config", "set", "--path", "copyRate.cap", "8MiB")
    theirs.new("two")
    running = theirs.start("up", "--yes")
    name = _await_forking(theirs)
    docker("kill", name)
    said, _ = running.communicate(timeout=60)
    assert running.returncode == 1, said
    assert "ended before its work was done" in said.replace("\n", " ")
    assert (theirs.live(), theirs.notes()) == ("prod-001", ["a"])
    await_no_helper(theirs)
    theirs.run("config", "rm", "copyRate")
    theirs.up()
    assert (theirs.live(), theirs.notes()) == ("prod-002", ["a"])


def _await_forking(project: Project) -> str:
    """The name of a helper that has the new generation."""
    deadline = time.monotonic() + 60
    while True:
        for line in helpers_of(project):
            name, mounts = line.split(" ", 1)
            if (
                "_g2" in mounts
                and volume(f"{project.name}-prod_notes_g2").joinpath("large").exists()
            ):
                return name
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.chaos
def test_snapshots_of_any_volume_by_a_user_without_root(theirs: Project) -> None:
    theirs.release("one")
    theirs.note("a")
    generation = f"{theirs.name}-prod_notes_g1"
    made = theirs.run("snapshot", "create", generation, "--live", "--json").json()
    other = f"{theirs.name}-again"
    snapshot = str(made["snapshot"])
    try:
        theirs.run("snapshot", "restore", snapshot, other)
        assert tree_equal(volume(generation), volume(other)) == []
    finally:
        docker("volume", "rm", other, check=False)
    await_no_helper(theirs)


@pytest.mark.chaos
def test_who_is_not_in_the_docker_group_is_told_so(tmp_path: Path) -> None:
    with person() as nobody:
        folder = nobody.home / tmp_path.name / "notes"
        project = notes_project(folder, inside=nobody.words)
        (folder.parent / "locks").mkdir()
        nobody.give(folder.parent)
        ran = project.run("init", "--yes", "--name", project.name, code=None)
        ran = project.run("new", "one", code=None) if ran.code == 0 else ran
        assert ran.code != 0
        assert "ermission denied" in ran.text
        assert "docker" in ran.text


@pytest.mark.chaos
def test_behind_an_ingress_of_a_user_without_root(theirs: Project, somebody: Person) -> None:
    """Forward, back and undo; HAProxy runs as that user, who alone may read its files, and who
    puts it right after a kill."""
    theirs.run("config", "set", "ingress", "haproxy")
    theirs.release("one")
    theirs.note("a")
    theirs.release("two")
    theirs.note("b")
    theirs.run("rollback", "--yes")
    assert theirs.notes() == ["a"]
    theirs.run("undo", "--yes")
    assert theirs.notes() == ["a", "b"]
    label = f"label=lockstep.ingress={theirs.name}/prod"
    (unit,) = docker("ps", "--quiet", "--filter", label).split()
    user = docker("inspect", "--format", "{{.Config.User}}", unit).strip()
    assert user == f"{somebody.uid}:{somebody.gid}"
    written = list((theirs.folder / "releases" / "ingress").rglob("*"))
    assert [path for path in written if path.lstat().st_uid != somebody.uid] == []
    assert [path for path in written if path.lstat().st_mode & 0o077] == []
    docker("kill", unit)
    assert "put right" in theirs.run("guard", "--once").text
    assert theirs.notes() == ["a", "b"]
    theirs.nothing_to_do()
