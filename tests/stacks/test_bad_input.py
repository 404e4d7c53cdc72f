"""Every bad input: a clear error, its exit code, and nothing changed."""

from __future__ import annotations

import json
import os
import shutil
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.stacks.harness import (
    Project,
    base_image,
    docker,
    live_notes,
    notes_project,
    python_image,
)


@pytest.fixture
def live(notes: Project) -> Project:
    """The small project with one live release that holds one note."""
    notes.release("one")
    notes.note("a")
    return notes


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    with live_notes(tmp_path_factory.mktemp("calm") / "notes") as project:
        yield project


@pytest.fixture
def calm(shared: Project) -> Iterator[Project]:
    """Such a project, for input by which nothing may be changed, which is looked at after the test;
    what the test edited is put back."""
    files = [shared.folder / "compose.yaml", shared.folder / "Pulumi.prod.yaml"]
    before, running = [file.read_bytes() for file in files], shared.containers()
    yield shared
    for file, content in zip(files, before, strict=True):
        file.write_bytes(content)
    untouched(shared, running)


def untouched(project: Project, before: dict[str, str]) -> None:
    assert project.containers() == before
    assert project.notes() == ["a"]


def test_no_pulumi_yaml(tmp_path: Path) -> None:
    project = Project(tmp_path)
    ran = project.run("up", "--yes", code=2)
    assert "no Pulumi.yaml" in ran.err
    assert "lockstep init" in ran.err


def test_an_unknown_release_names_the_nearest(calm: Project) -> None:
    ran = calm.run("config", "set", "release", "prod-011", code=None)
    if ran.code == 0:
        ran = calm.up(code=2)
    assert "prod-011" in ran.text
    assert "prod-001" in ran.text


@pytest.mark.parametrize(
    "name", ["prod-1", "../../etc", "-rf", "prod-" + "9" * 10_000, "prod-\u202e001"]
)
def test_fault_66_a_name_that_is_no_release(calm: Project, name: str) -> None:
    """A release called .., -rf, with 10 000 characters or a right-to-left mark is declared by the
    command: refused, named, and nothing is changed."""
    ran = calm.run("config", "set", "release", "--", name, code=None)
    if ran.code == 0:
        ran = calm.up(code=2)
    assert "release" in ran.text


def test_a_compose_file_with_an_error(calm: Project) -> None:
    calm.compose_file(v="healthcheck:=>healthchek:")
    releases = calm.releases()
    ran = calm.run("new", "broken", code=2)
    assert "healthchek" in ran.err
    assert "compose.yaml" in ran.err
    assert calm.releases() == releases


def test_an_image_that_is_missing(live: Project) -> None:
    (live.folder / "Dockerfile").write_text(f"FROM {python_image()}\nLABEL of={live.name}\n")
    live.compose_file(v='VERSION: "1"=>VERSION: "2"', i=f"image: {python_image()}=>build: .")
    tag = f"{live.name}-app:{live.new('two')}"
    before = live.containers()
    docker("rmi", "--force", docker("image", "inspect", "--format", "{{.Id}}", tag).strip())
    ran = live.up(code=3)
    assert tag in ran.text
    assert "is missing" in ran.text
    untouched(live, before)


def test_fault_32_a_tag_that_somebody_removed_is_put_back(live: Project) -> None:
    """The tag of a release's image is removed, the image itself is still there: `preview` says
    so, `up` puts it back and goes on."""
    live.compose_file(v='VERSION: "1"=>VERSION: "2"')
    name = live.new("two")
    docker("rmi", f"{live.name}-app:{name}")
    assert any("puts it back" in warning for warning in live.preview()["warnings"])
    live.up()
    assert (live.live(), live.notes()) == (name, ["a"])
    assert f"{live.name}-app:{name}" in live.images()


def test_fault_60_67_an_image_whose_tag_was_moved(live: Project) -> None:
    """The tag of a release's image is given to another image, with programs of somebody else in
    it: its digest is not the recorded one, `up` refuses, and what runs goes on."""
    name = live.new("two")
    before = live.containers()
    docker("tag", base_image("redis:7"), f"{live.name}-app:{name}")
    assert "was moved" in live.up(code=3).text
    untouched(live, before)


def test_fault_40_a_dataset_that_vanished(live: Project) -> None:
    """A volume renamed in the compose file: `new` refuses and names the line that says what
    became of it; with that line the data goes along, and no empty volume goes live."""
    live.compose_file(a="notes:/notes=>other:/notes", b="volumes:\n  notes:=>volumes:\n  other:")
    ran = live.run("new", "renamed by mistake", code=3)
    assert "notes" in ran.err
    assert "was: notes" in ran.err
    live.compose_file(b="\n  other:=>\n  other: {x-lockstep: {was: notes}}")
    live.new("renamed on purpose")
    live.up()
    assert live.notes() == ["a"]


def test_docker_cannot_be_reached(calm: Project) -> None:
    ran = calm.run("up", "--yes", code=8, env={"DOCKER_HOST": "unix:///nowhere/docker.sock"})
    assert "Docker" in ran.text


def test_the_compose_plugin_is_missing(calm: Project, tmp_path: Path) -> None:
    """A docker command line that knows no `compose`."""
    fake = tmp_path / "bin"
    fake.mkdir()
    (fake / "docker").write_text(
        "#!/bin/sh\necho \"docker: 'compose' is not a docker command.\" >&2\nexit 1\n"
    )
    (fake / "docker").chmod(0o755)
    env = {"PATH": f"{fake}:/usr/bin:/bin", "DOCKER_CONFIG": str(tmp_path)}
    ran = calm.run("new", "no compose", code=8, env=env)
    assert "Compose" in ran.err


def test_fault_39_a_port_taken_by_a_process(calm: Project) -> None:
    """A process of the host listens on a port that the release publishes: refused before
    anything stops, the port named."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        taken = holder.getsockname()[1]
        calm.compose_file(p=f"{calm.port}:8000=>{taken}:8000")
        calm.new("another port")
        ran = calm.up(code=3)
        assert f"port {taken}/tcp" in ran.text


def test_fault_39_a_port_taken_by_a_foreign_container(calm: Project, tmp_path: Path) -> None:
    """Another project's container publishes the port: refused before anything stops, the
    container named."""
    foreign = notes_project(tmp_path / "foreign")
    try:
        folder = str(foreign.folder)
        docker("compose", "-p", foreign.name, "--project-directory", folder, "up", "-d")
        calm.compose_file(p=f"{calm.port}:8000=>{foreign.port}:8000")
        calm.new("another port")
        ran = calm.up(code=3)
        assert f"port {foreign.port}/tcp" in ran.text
        assert f"{foreign.name}-app-1" in ran.text
    finally:
        foreign.remove()


def test_a_store_that_cannot_be_written(live: Project) -> None:
    """The path is a file, which not even root can make a folder of."""
    (live.folder / "file").write_text("")
    live.run("config", "set", "store", "file/store")
    live.new("two")
    before = live.containers()
    ran = live.up(code=2)
    assert "store" in ran.text
    untouched(live, before)
    live.run("config", "set", "store", "releases/store")
    live.up()
    assert live.live() == "prod-002"
    live.nothing_to_do()


def test_a_damaged_manifest_is_made_anew(calm: Project) -> None:
    manifest = calm.folder / "releases" / "manifest.json"
    manifest.write_text('{"schema_version": 1, "rele')
    ran = calm.up()
    assert "made anew" in ran.text
    assert json.loads(manifest.read_text())["current_release"] == "prod-001"


def test_a_damaged_record_is_named_and_the_others_go_on(live: Project) -> None:
    live.release("two")
    record = live.folder / "releases" / "prod-001" / "release-info.json"
    record.write_text(record.read_text()[:200])
    ran = live.up()
    assert "prod-001" in ran.text
    assert "damaged" in ran.text
    live.declare("prod-001")
    assert "damaged" in live.up(code=3).text
    live.declare("prod-002")
    live.release("three")
    assert live.notes() == ["a"]


def test_fault_45_a_second_up_while_the_first_proves(live: Project) -> None:
    """A second up while the first waits for a release that is never healthy: it waits for its end,
    or is told who is at work; the first reverts, and the data is as it was."""
    live.compose_file(b='VERSION: "1"=>VERSION: "2"\n      BROKEN: "always"')
    live.run("config", "set", "deadline", "8")
    live.new("takes its time")
    first = live.start("up", "--yes")
    deadline = time.monotonic() + 30
    journal = next(live.folder.glob("releases"), live.folder)
    while not list(journal.glob("journal-*")) and time.monotonic() < deadline:
        time.sleep(0.05)
    second = live.run("up", "--yes", code=None)
    assert second.code in (4, 6), second.text
    if second.code == 6:
        assert "up" in second.text
    out, _ = first.communicate(timeout=60)
    assert first.returncode == 4, out
    assert live.notes() == ["a"]


def test_fault_36_nothing_that_could_prove_a_release(tmp_path: Path) -> None:
    """No health check and no gate on any service: `new` refuses with the lines to add, and no
    release is made."""
    project = notes_project(tmp_path / "notes")
    try:
        text = (project.folder / "compose.yaml").read_text()
        start, end = text.index("    healthcheck:"), text.index("    restart:")
        (project.folder / "compose.yaml").write_text(text[:start] + text[end:])
        project.init()
        project.run("config", "rm", "gates")  # which init proposes, for the published port
        ran = project.run("new", "unproved", code=3)
        assert "could not be proved" in ran.err
        assert "healthcheck" in ran.err or "gate" in ran.err
        assert project.releases() == []
    finally:
        project.remove()


def test_a_job_service_that_fails(live: Project) -> None:
    job = f"""
  migrate:
    image: {python_image()}
    command: ["sh", "-c", "echo no such table; exit 3"]
    restart: "no"
volumes:
  notes:
"""
    text = (live.folder / "compose.yaml").read_text()
    text = text.replace("\nvolumes:\n  notes:\n", job)
    text = text.replace(
        "    restart: unless-stopped",
        "    restart: unless-stopped\n"
        "    depends_on: {migrate: {condition: service_completed_successfully}}",
    )
    (live.folder / "compose.yaml").write_text(text)
    before = live.containers()
    name = live.new("with a job")
    ran = live.up(code=4)
    assert "migrate" in ran.text
    assert "no such table" in ran.text
    assert name in ran.text
    untouched(live, before)


def test_not_enough_disk_for_a_fork(calm: Project) -> None:
    """A note file with more claimed space than the disk has; sparse, so that it costs nothing."""
    volume = docker(
        "volume", "inspect", "--format", "{{.Mountpoint}}", f"{calm.name}-prod_notes_g1"
    ).strip()
    free = shutil.disk_usage(volume).free
    balloon = Path(volume) / "balloon"
    with balloon.open("wb") as file:
        # fallocate claims the blocks without writing them.
        os.posix_fallocate(file.fileno(), 0, max(free * 3 // 5, 1))
    try:
        calm.new("two")
        ran = calm.up(code=3)
        assert "not enough disk" in ran.text
        assert "MiB" in ran.text
    finally:
        balloon.unlink()
