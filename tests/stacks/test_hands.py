"""Attacks by an operator's hands on one stack whose second release is live: each is noticed, and no
data is lost by it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.stacks.harness import Project, docker, notes_project, python_image

pytestmark = pytest.mark.xdist_group("hands")

SIDE = """  side:
    image: {image}
    command: ["sleep", "1000"]
    init: true
    stop_grace_period: 1s
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
    name = f"{project.name}-prod_notes_g{number}"
    return Path(docker("volume", "inspect", "--format", "{{.Mountpoint}}", name).strip())


def back_and_forth(project: Project) -> None:
    """A rollback brings what prod-001 left, undo what prod-002 had."""
    project.run("rollback", "--yes")
    assert (project.live(), project.get("/version"), project.notes()) == ("prod-001", "1", ["one"])
    project.run("undo", "--yes")
    assert (project.live(), project.notes()) == ("prod-002", ["one", "two"])


def test_attack_data_files_in_a_sealed_volume_are_edited(pair: Project) -> None:
    """As root, edit a file in the volume that prod-001 left: the rollback to it is refused before
    anything stops, and names the snapshot of what was sealed, with the command that takes it."""
    file = volume(pair, 1) / "notes.txt"
    before, stamp = file.read_text(), file.stat()
    file.write_text("forged\n")
    running = pair.containers()
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
