"""Attacks by an operator's hands on one stack whose second release is live: each is noticed, and no
data is lost by it."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.stacks.harness import Project, docker, notes_project, pulumi, python_image
from tests.stacks.waiting import until

SIDE = """  side:
    image: {image}
    command: ["sleep", "1000"]
    init: true
    stop_grace_period: 1s
    healthcheck: {{test: [CMD-SHELL, "! test -e /tmp/ill"], interval: 1s, retries: 1}}
    volumes: ["notes:/notes"]
volumes:
  notes:"""


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """prod-001 left `one`; prod-002 is live with `one`, `two`. Every test leaves it so."""
    project = notes_project(tmp_path_factory.mktemp("hands") / "notes")
    path = project.folder / "compose.yaml"
    text = path.read_text().replace("volumes:\n  notes:", SIDE.format(image=python_image()))
    path.write_text(text)
    try:
        project.init()
        project.release("one")
        project.note("one")
        project.compose_file(v='VERSION: "1"=>VERSION: "2"')
        project.release("two")
        project.note("two")
        yield project
    finally:
        project.remove()


def volume(project: Project, number: int) -> Path:
    return mountpoint(f"{project.name}-prod_notes_g{number}")


def mountpoint(name: str) -> Path:
    return Path(docker("volume", "inspect", "--format", "{{.Mountpoint}}", name).strip())


def container(project: Project, release: str, service: str) -> str:
    """The container of a service in the newest world of a release."""
    words = [
        "ps",
        "--all",
        "--format",
        "{{.Names}}",
        "--filter",
        f"label=lockstep.project={project.name}",
    ]
    service_of = f"label=com.docker.compose.service={service}"
    names = docker(*words, "--filter", service_of).split()
    return max(n for n in names if n.startswith(f"{project.name}-{release}"))


def back_and_forth(project: Project) -> None:
    """A rollback brings what prod-001 left, undo what prod-002 had."""
    project.run("rollback", "--yes")
    assert (project.live(), project.get("/version"), project.notes()) == ("prod-001", "1", ["one"])
    project.run("undo", "--yes")
    assert (project.live(), project.notes()) == ("prod-002", ["one", "two"])


def test_doctor_names_a_container_that_is_unhealthy(pair: Project) -> None:
    side = container(pair, "prod-002", "side")
    docker("exec", side, "touch", "/tmp/ill")
    try:
        until(lambda: health(side) == "unhealthy")
        said = " ".join(pair.run("doctor", code=1).out.split())
        assert f"Docker calls {side} unhealthy" in said
        assert "lockstep compose logs side" in said
    finally:
        docker("exec", side, "rm", "/tmp/ill")
    until(lambda: health(side) == "healthy")


def health(name: str) -> str:
    return docker("inspect", "--format", "{{.State.Health.Status}}", name).strip()


def test_attack_data_files_in_a_sealed_volume_are_edited(pair: Project) -> None:
    """As root, edit a file in the volume that prod-001 left: the rollback to it is refused before
    anything stops, and names the snapshot of what was sealed, with the command that takes it."""
    file = volume(pair, 1) / "notes.txt"
    before, stamp = file.read_text(), file.stat()
    file.write_text("forged\n")
    running = pair.containers()
    checks = pair.run("doctor", "--json", code=None).json()["checks"]
    assert [c["text"] for c in checks if c["check"] == "data" and c["level"] == "warning"] == [
        f"somebody changed files in volume {pair.name}-prod_notes_g1 since prod-001 was left: "
        "notes.txt"
    ]
    pair.declare("prod-001")
    (told,) = pair.preview(code=3)["refusals"]
    assert f"{pair.name}-prod_notes_g1 since prod-001 was left: notes.txt" in told["message"]
    assert f"lockstep snapshot create {pair.name}-prod_notes_g1 --name notes" in told["remedy"]
    by_pulumi = pulumi(pair, "preview")
    assert by_pulumi.returncode != 0
    assert told["message"] in by_pulumi.stdout + by_pulumi.stderr
    assert told["message"] in pair.up(code=3).text
    pair.declare("prod-002")
    refused = pair.run("rollback", "--yes", code=3)
    assert f"{pair.name}-prod_notes_g1" in refused.text
    assert "restore.at" in refused.text
    assert pair.containers() == running
    assert pair.notes() == ["one", "two"]
    said = refused.text.split("restore.at ")[1].split()[0]
    pair.run("config", "set", "--path", "restore.release", "prod-001")
    pair.run("config", "set", "--path", "restore.at", said)
    pair.run("rollback", "--yes")
    assert pair.notes() == [before.strip()] == ["one"]
    pair.run("config", "rm", "restore")
    pair.run("undo", "--yes")
    assert pair.notes() == ["one", "two"]
    assert stamp.st_size == len("one\n")


def test_attack_data_a_sealed_volume_is_edited_and_its_times_are_put_back(pair: Project) -> None:
    """As root, change a byte in the volume that prod-001 left and give the file its old size and
    modification time: the preview says that somebody touched it, and a rollback reads it and
    refuses before anything stops."""
    pair.declare("prod-001")
    left = pair.run("info", "prod-001", "--json").json()["departures"][-1]
    generation = left["generations"]["notes"]
    file = mountpoint(generation) / "notes.txt"
    stamp = file.stat()
    file.write_text("ONE\n")
    os.utime(file, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert any(f"touched files in volume {generation}" in w for w in pair.preview()["warnings"])
    pair.declare("prod-002")
    running = pair.containers()
    refused = pair.run("rollback", "--yes", code=3)
    assert f"somebody changed files in volume {generation}" in refused.text
    assert pair.containers() == running
    file.write_text("one\n")
    os.utime(file, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))


def test_attack_data_a_config_file_of_the_previous_world_is_edited(pair: Project) -> None:
    """Edit a config file that containers of prod-001 mount, below releases/files: the preview says
    so, and the rollback to it runs with the file as it was recorded. Of the live world, preview and
    doctor say so."""
    world = container(pair, "prod-001", "app").removesuffix("-app-1")
    (file,) = (pair.folder / "releases" / "files" / world).rglob("app.py")
    recorded = file.read_text()
    file.write_text(recorded.replace('broken or "ok"', 'broken or "forged"'))
    pair.declare("prod-001")
    assert any(f"{file} is not as prod-001" in w for w in pair.preview()["warnings"])
    pair.declare("prod-002")
    pair.run("rollback", "--yes")
    assert (pair.get("/health"), file.read_text()) == ("ok", recorded)
    assert pair.notes() == ["one"]
    file.write_text(f"{recorded}\n# edited\n")
    assert "`lockstep stop`, then `lockstep up`" in " ".join(pair.preview()["warnings"])
    checks = pair.run("doctor", "--json", code=None).json()["checks"]
    assert [c["level"] for c in checks if c["check"] == "config files"] == ["warning"]
    pair.run("undo", "--yes")
    assert pair.notes() == ["one", "two"]


def test_attack_data_the_live_volume_is_removed_while_stopped(pair: Project) -> None:
    """`docker rm` and `docker volume rm` of the live data: preview and `up` refuse, name the volume
    and the newest snapshot with the command that takes it, and make no empty one in its place."""
    live, name = volume(pair, 2), f"{pair.name}-prod_notes_g2"
    saved = pair.folder.parent / "saved"
    docker("rm", "--force", *pair.containers())
    shutil.copytree(live, saved)
    docker("volume", "rm", name)
    for ran in (pair.run("preview", code=3), pair.up(code=3)):
        assert f"volume {name} does not exist" in " ".join(ran.text.split())
        assert "restore.at" in ran.text
    assert name not in pair.volumes()
    labels = {"project": pair.name, "stack": "prod", "dataset": "notes", "generation": "2"}
    words = [w for k, v in labels.items() for w in ("--label", f"lockstep.{k}={v}")]
    docker("volume", "create", *words, name)
    shutil.copytree(saved, live, dirs_exist_ok=True)
    pair.up()
    assert pair.notes() == ["one", "two"]
    pair.nothing_to_do()


def test_fault_92_compose_down_v_of_both_worlds(pair: Project) -> None:
    """`docker compose -p WORLD down -v`, of the previous and of the live world: doctor says what is
    missing, no generation goes, `up` brings the live world back and a rollback the other."""
    volumes = pair.volumes()
    for release in ("prod-001", "prod-002"):
        world = container(pair, release, "app").removesuffix("-app-1")
        docker("compose", "-p", world, "down", "--volumes")
    assert pair.containers(running=False) == {}
    assert pair.volumes() == volumes
    assert "has no containers" in pair.run("doctor", code=1).out
    pair.up()
    assert pair.notes() == ["one", "two"]
    pair.nothing_to_do()
    back_and_forth(pair)


def test_attack_habits_the_previous_world_is_started_by_hand(pair: Project) -> None:
    """`docker start` of a container of the previous world beside the live one: preview refuses the
    next move and names it; stopped, what it may have written is not taken for what was left."""
    name = container(pair, "prod-001", "side")
    docker("start", name)
    warned = pair.preview()["warnings"]
    assert any(name in warning for warning in warned), warned
    docker("exec", name, "sh", "-c", "echo forged >> /notes/notes.txt")
    refused = pair.run("rollback", "--yes", code=3)
    assert name in refused.text
    docker("stop", name)
    back_and_forth(pair)


@pytest.mark.chaos
def test_attack_habits_containers_are_renamed_and_their_policies_changed(pair: Project) -> None:
    """`docker rename` of a live container, `docker update --restart always` of the previous world:
    worlds go by labels, doctor names the policy with its remedy, and nothing is moved."""
    live, previous = (container(pair, r, "app") for r in ("prod-002", "prod-001"))
    docker("rename", live, f"{pair.name}-mine")
    docker("update", "--restart", "always", previous)
    found = pair.run("doctor", "--json").json()["checks"]
    (policy,) = [c for c in found if c["check"] == "restart policies"]
    assert previous in policy["text"]
    assert policy["remedy"] == f"docker update --restart no {previous}"
    pair.nothing_to_do()
    back_and_forth(pair)
    policies = "{{.HostConfig.RestartPolicy.Name}}"
    assert docker("inspect", "--format", policies, previous).strip() == "no"
    docker("rename", f"{pair.name}-mine", live)


def test_attack_habits_the_project_folder_is_moved(pair: Project) -> None:
    """`mv` of the whole project folder, to which containers have mounts: the live world goes on, a
    rollback is refused before anything stops, and names the link with which it then works."""
    old, moved = pair.folder, pair.folder.with_name("elsewhere")
    shutil.move(old, moved)
    pair.folder, running = moved, pair.containers()
    try:
        assert (pair.live(), pair.notes()) == ("prod-002", ["one", "two"])
        refused = pair.run("rollback", "--yes", code=3)
        assert pair.containers() == running
        link = refused.text.split("ln -s ")[1].split()[:2]
        assert link == [str(moved.resolve()), str(old.resolve())]
        old.symlink_to(moved)
        back_and_forth(pair)
    finally:
        old.unlink(missing_ok=True)
        shutil.move(moved, old)
        pair.folder = old
    pair.nothing_to_do()


def test_fault_43_the_stack_or_the_project_is_renamed(pair: Project) -> None:
    """Another stack's settings file, then another project name in Pulumi.yaml, with the same
    compose file: nothing is started beside what runs, and no empty data goes live."""
    before, volumes = pair.containers(), pair.volumes()
    settings = pair.folder / "Pulumi.prod.yaml"
    other = pair.folder / "Pulumi.live.yaml"
    shutil.copy(settings, other)
    refused = pair.run("--stack", "live", "up", "--yes", code=None)
    assert refused.code in (2, 3), refused.text
    other.unlink()
    project = pair.folder / "Pulumi.yaml"
    text = project.read_text()
    project.write_text(text.replace(f"name: {pair.name}", f"name: {pair.name}x"))
    refused = pair.run("up", "--yes", code=None)
    project.write_text(text)
    assert refused.code in (2, 3), refused.text
    assert (pair.containers(), pair.volumes()) == (before, volumes)
    assert not [v for v in docker("volume", "ls", "-q").split() if v.startswith(f"{pair.name}x")]
    pair.nothing_to_do()


def test_fault_52_a_releases_name_with_other_content(pair: Project) -> None:
    """The record of prod-001 is exchanged for that of prod-002 under its name: it is refused as
    altered before anything stops, and the live release goes on."""
    records = [pair.folder / "releases" / f"prod-00{n}" / "release-info.json" for n in (1, 2)]
    before, running = records[0].read_bytes(), pair.containers()
    forged = json.loads(records[1].read_text())
    records[0].write_text(json.dumps({**forged, "name": "prod-001"}))
    try:
        refused = pair.run("rollback", "prod-001", "--yes", code=None)
        assert refused.code in (2, 3), refused.text
        assert pair.containers() == running
    finally:
        records[0].write_bytes(before)
    pair.nothing_to_do()


def test_fault_32_an_image_of_the_window_is_removed(pair: Project) -> None:
    """`docker rmi -f` of the previous release's tag: preview says so, and `up` puts it back."""
    tag = f"{pair.name}-app:prod-001"
    docker("rmi", "--force", tag)
    assert any(tag in w and "puts it back" in w for w in pair.preview()["warnings"])
    back_and_forth(pair)
    assert tag in pair.images()
