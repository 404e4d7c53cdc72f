"""What commands show and do on one stack that lives: exports, pins, what the window lets go."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.stacks.harness import Project, notes_project, python_image

IMAGE, OWN = python_image(), f"own-{uuid.uuid4().hex[:8]}:1"


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """prod-001, prod-002 and prod-003 were live one after another; each wrote a note. What
    prod-001 runs is an image of its own."""
    project = notes_project(tmp_path_factory.mktemp("commands") / "notes", warm=False)
    try:
        project.init()
        made = project.docker("create", "--label", f"lockstep.project={project.name}", IMAGE)
        project.docker("commit", "--change", f"LABEL of={project.name}", made.strip(), OWN)
        project.docker("rm", made.strip())
        for number in (1, 2, 3):
            project.compose_file(v=f'VERSION: "{max(number - 1, 1)}"=>VERSION: "{number}"')
            project.new(f"number {number}", *(["--image", f"app={OWN}"] if number == 1 else []))
            project.up()
            project.note(f"by {number}")
            if number == 1:
                project.run("snapshot")
        project.docker("rmi", OWN)
        yield project
    finally:
        project.docker("rmi", "--force", OWN, check=False)
        project.remove()


def test_a_saved_plan_is_carried_out_as_it_is_or_not_at_all(stack: Project, tmp_path: Path) -> None:
    """Neither after a change of the config nor after another switch; and not without a yes."""
    plan = str(tmp_path / "plan.json")
    stack.declare("prod-002")
    stack.run("preview", "--json", "--save-plan", plan)
    stack.run("config", "set", "deadline", "60")
    assert "the config was changed" in stack.run("up", "--plan", plan, "--yes", code=6).err
    stack.run("config", "rm", "deadline")
    assert "no terminal" in stack.run("up", "--plan", plan, code=2).err
    assert "holds no plan" in stack.run("up", "--plan", "compose.yaml", "--yes", code=2).err
    assert stack.live() == "prod-003"
    stack.run("up", "--plan", plan, "--yes")
    assert (stack.live(), stack.notes()) == ("prod-002", ["by 1", "by 2"])
    assert "something was done" in stack.run("up", "--plan", plan, "--yes", code=6).err
    said = stack.run("undo", "--yes", "--quiet")
    assert re.fullmatch(r"prod-003 is live \(committed, [\d.]+ s down\)\n", said.out)
    assert said.err == ""
    assert (stack.live(), stack.notes()) == ("prod-003", ["by 1", "by 2", "by 3"])
    assert stack.run("up", "--yes", "--quiet").out == "prod-003 is live; nothing to do\n"


def test_what_commands_print_for_programs_fits_its_schema(stack: Project) -> None:
    """The harness holds each document of any stack's test against its schema; these are of the
    commands that no other test asks for one. Who wants quiet is told nothing beside it."""
    for words in (
        "recover", "incident list", "notify log", "config", "config get window",
        "stack ls", "version", "report", "repair",
    ):  # fmt: skip
        ran = stack.run(*words.split(), "--json", "--quiet")
        assert (ran.json()["schema"], ran.err) == (1, "")
    idle = stack.run("recover", "--json").json()
    assert (idle["unfinished"], idle["done"], idle["live"]) == (None, [], "prod-003")


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[Project]:
    """Another project, with nothing released yet, whose store will be encrypted."""
    project = notes_project(tmp_path / "elsewhere")
    try:
        project.init()
        said = project.run("encrypt", "--yes", "--json").json()
        assert (said["was_there"], said["passphrase"]) == (False, "new")
        yield project
    finally:
        project.remove()


def test_a_release_goes_to_another_project_in_one_file(
    stack: Project, elsewhere: Project, tmp_path: Path
) -> None:
    """The live release and the one before it are exported and imported elsewhere, under the next
    free numbers: their data comes back there, and is what a rehearsal starts from. A file that
    was altered, and one that is none, change nothing; the stack that exported is as it was."""
    live, left = tmp_path / "live.lockstep", tmp_path / "left.lockstep"
    before = stack.containers()
    said = stack.run("export", "prod-003", str(live), "--images", "--json").json()
    assert (said["departure"].keys(), said["left_out"]) == ({"notes"}, {})
    assert live.stat().st_mode & 0o777 == 0o600
    assert "exists already" in stack.run("export", "prod-003", str(live), code=2).err
    stack.run("export", "prod-002", str(left))
    assert stack.containers() == before

    whole = live.read_bytes()
    live.write_bytes(
        whole[: len(whole) // 2]
        + bytes([whole[len(whole) // 2] ^ 1])
        + whole[len(whole) // 2 + 1 :]
    )
    assert "altered or damaged" in elsewhere.run("import", str(live), code=7).err
    assert "no export" in elsewhere.run("import", "compose.yaml", code=2).err
    assert elsewhere.releases() == []
    assert not (elsewhere.folder / "releases" / "store").exists()
    live.write_bytes(whole)

    shown = elsewhere.run("import", str(left)).text
    assert f"{stack.name}/prod prod-002 is prod-001 here" in shown
    assert f"project {stack.name} is {elsewhere.name} here" in shown
    taken = elsewhere.run("import", str(live), "--json").json()
    assert (taken["release"], taken["departure"]) == ("prod-002", said["departure"])
    assert elsewhere.images() == {f"{elsewhere.name}-app:prod-00{n}" for n in (1, 2)}
    drilled = elsewhere.run("drill", "prod-001", "--json").json()
    assert drilled["datasets"]["notes"]["counts"]["bytes"] == len("by 1\nby 2\n")
    elsewhere.declare("prod-002")
    elsewhere.run("config", "set", "--path", "restore.release", "prod-002")
    rehearsed = elsewhere.run("rehearse", "--json").json()
    assert (rehearsed["passed"], rehearsed["datasets"]["notes"]["action"]) == (True, "restore")
    assert rehearsed["datasets"]["notes"]["after"]["bytes"] == len("by 1\nby 2\nby 3\n")
    # Its port is held by the stack that it comes from, which is another matter.
    assert elsewhere.preview(code=3)["datasets"]["notes"]["action"] == "restore"


def test_a_release_comes_with_images_that_the_host_has_no_more(
    stack: Project, elsewhere: Project, tmp_path: Path
) -> None:
    """Exported with its images, which are then removed from the host: imported into another
    project, which goes live with it and its data. The import says how long it is kept."""
    file = tmp_path / "whole.lockstep"
    (image,) = stack.run("export", "prod-001", str(file), "--images", "--json").json()["images"]
    for container in stack.docker("ps", "-aq", "--filter", f"ancestor={image}").split():
        stack.docker("rm", "--force", container)  # its holder, and what is left of its world
    stack.docker("rmi", "--force", f"{stack.name}-app:prod-001")
    assert not stack.docker("image", "inspect", image, check=False).startswith("[{")
    assert "was removed" in next(r for r in stack.releases() if r["unusable"])["unusable"]

    told = elsewhere.run("import", str(file))
    assert "lockstep pin prod-001" in told.err
    elsewhere.declare("prod-001")
    elsewhere.run("config", "set", "--path", "restore.release", "prod-001")
    stack.run("stop", "--yes")  # who has its port
    try:
        went = elsewhere.run("up", "--yes", "--json").json()
        assert (went["result"], went["datasets"]["notes"]["action"]) == ("committed", "restore")
        assert stack.notes() == ["by 1"], "on the port that the release publishes"
        assert image in elsewhere.docker("inspect", "-f", "{{.Image}}", *elsewhere.containers())
    finally:
        elsewhere.run("stop", "--yes")
        stack.docker("tag", image, f"{stack.name}-app:prod-001", check=False)
        stack.up()
    assert stack.notes() == ["by 1", "by 2", "by 3"]


def going(project: Project) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for thing in project.run("prune", "--json").json()["things"]:
        assert thing["why"]
        if thing["goes"]:
            found.setdefault(thing["kind"], set()).add(thing["name"])
    return found


def settings(project: Project) -> Path:
    return project.folder / "Pulumi.prod.yaml"


def test_prune_shows_what_up_would_do_and_does_it(stack: Project) -> None:
    """A pin holds a release that left the window, the screen says why each thing stays, and what
    it says goes is what is gone afterwards; a second one has nothing to do."""
    settings(stack).write_text(f"# the shop's own words\n{settings(stack).read_text()}")
    said = stack.run("pin", "prod-001").out
    assert "prod-001 is pinned: its record, images and data stay" in said
    assert "already" in stack.run("pin", "prod-001").out
    assert "prod-00" in stack.run("pin", "prod-00", code=2).err
    assert stack.run("config", "get", "window.last").out == "3\n"
    assert settings(stack).read_text().startswith("# the shop's own words\n")
    stack.run("config", "set", "--path", "window.last", "1")
    assert going(stack) == {}
    shown = stack.run("prune").out
    assert "pinned" in shown
    assert "nothing goes" in shown
    assert " 0 B " not in shown, "what is not measured has no size"

    assert "the next up prunes it" in stack.run("unpin", "prod-001").out
    assert "pinned are: none" in stack.run("unpin", "prod-001", code=2).err
    wanted = going(stack)
    assert wanted["release"] == {"prod-001"}
    assert wanted["image"] == {f"{stack.name}-app:prod-001"}
    assert len(wanted["snapshot"]) == 1
    assert "would go" in stack.run("prune", "--dry-run").out
    assert "no terminal" in stack.run("prune", code=2).err
    assert stack.status()["prod-001"] == "kept"
    stack.declare("prod-002")
    assert "once it has moved" in stack.run("prune", "--yes", code=3).err
    stack.declare("prod-003")

    stack.run("prune", "--yes")
    assert stack.status()["prod-001"] == "pruned"
    assert not wanted["image"] & stack.images()
    left = {s["snapshot"] for s in stack.run("snapshot", "list", "--json").json()["snapshots"]}
    assert not wanted["snapshot"] & left
    assert left
    assert going(stack) == {}
    stack.nothing_to_do()
    assert stack.notes() == ["by 1", "by 2", "by 3"]
    assert "was pruned" in stack.run("pin", "prod-001", code=2).err


def test_a_stack_is_removed_for_good_and_its_snapshots_stay(stack: Project, tmp_path: Path) -> None:
    """The last of this file: refused while it runs, and without a yes; then nothing of it is in
    Docker, its snapshots can be restored, and what is not its own is there."""
    taken = stack.run("snapshot", "--json").json()["datasets"]["notes"]["snapshot"]
    assert "lockstep stop" in stack.run("remove", "--yes", code=3).err
    stack.run("stop", "--yes")
    foreign = f"{stack.name}-prod_foreign_g9"
    stack.docker("volume", "create", foreign)
    try:
        assert "no terminal" in stack.run("remove", code=2).err
        live = stack.volumes()
        gone = stack.run("remove", "--yes", "--json").json()
        assert set(gone["volumes"]) == live
        assert gone["unsaved"]
        assert foreign in stack.docker("volume", "ls", "-q").split()
    finally:
        stack.docker("volume", "rm", foreign)
    assert (stack.containers(running=False), stack.volumes(), stack.images()) == ({}, set(), set())
    assert not [n for n in stack.docker("network", "ls", "--format", "{{.Name}}").split()
                if n.startswith(stack.name)]  # fmt: skip
    stack.run("snapshot", "restore", taken, str(tmp_path / "back"))
    assert (tmp_path / "back" / "notes.txt").read_text().splitlines()[-1] == "by 3"
    assert "Docker has nothing" in stack.run("remove", "--yes").out

    listed = stack.run("list", "--json").json()
    assert (listed["live"], stack.status()["prod-003"]) == (None, "removed")
    assert "until `lockstep remove`" in stack.run("list").text
    assert stack.run("info", "prod-003", "--json").json()["status"] == "removed"
    assert "which was live" in stack.run("snapshot", code=2).err
    page = tmp_path / "page.html"
    stack.run("report", "--output", str(page))
    assert "prod-003 was removed" in page.read_text()
    refused = stack.run("preview", "--json", code=3).json()
    assert "until `lockstep remove`" in refused["says"]
    assert f"restore.at {taken}   takes the backup of" in str(refused["refusals"])

    for key, value in (("release", "prod-003"), ("at", taken)):
        stack.run("config", "set", "--path", f"restore.{key}", value)
    stack.up()
    assert (stack.live(), stack.notes()) == ("prod-003", ["by 1", "by 2", "by 3"])
    stack.nothing_to_do()
