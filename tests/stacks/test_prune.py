"""Somebody tidies the host up: what releases need survives, and what does not is said."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.owndaemon import OwnDaemon
from tests.stacks.harness import Project, notes_project, python_image

HOLDERS = "label=lockstep.holds"


@pytest.fixture
def built(daemon: OwnDaemon, tmp_path: Path) -> Iterator[Project]:
    """The small project on that daemon, with an image that is built anew for each release."""
    project = notes_project(tmp_path / "notes", env=dict(daemon.env), inside=tuple(daemon.inside))
    project.compose_file(i=f"image: {python_image()}=>build: .")
    number(project, 1)
    try:
        project.init()
        yield project
    finally:
        project.remove()


def number(project: Project, release: int) -> None:
    (project.folder / "Dockerfile").write_text(
        f"FROM {python_image()}\nRUN echo {release} > /release\nVOLUME /scratch\n"
    )


def two_releases(project: Project) -> None:
    for release in (1, 2):
        number(project, release)
        project.release(f"number {release}")
        project.note(f"in {release}")


def test_fault_31_32_prune_takes_nothing_and_a_removed_image_is_said(
    built: Project, tmp_path: Path
) -> None:
    """`docker volume prune` and `docker system prune -a --volumes`, typed twice: live, sealed and
    kept content survives with its images, and a rollback goes back. Then `docker rm -f` of what
    holds an image and `docker rmi -f` of the image: list, doctor and preview call the release
    unusable, undo is refused with the way back, which then works."""
    built.run("config", "set", "--path", "datasets.scratch.service", "app")
    built.run("config", "set", "--path", "datasets.scratch.target", "/scratch")
    built.run("config", "set", "--path", "datasets.scratch.kind", "anonymous")
    two_releases(built)
    built.docker("volume", "create", "nobodys")
    built.docker("tag", python_image(), "nobodys:image")
    volumes = built.volumes()
    assert len(volumes) == 4, volumes  # two datasets, two generations each
    pruned = ""
    for _ in range(2):
        pruned += built.docker("volume", "prune", "--force")
        pruned += built.docker("system", "prune", "--all", "--volumes", "--force")
    assert "nobodys" in pruned
    assert built.volumes() == volumes
    built.run("rollback", "--yes")
    assert (built.live(), built.notes()) == ("prod-001", ["in 1"])
    built.nothing_to_do()

    tag, saved = f"{built.name}-app:prod-002", str(tmp_path / "saved.tar")
    built.docker("save", "--output", saved, tag)
    built.docker("rm", "--force", *built.docker("ps", "-q", "--filter", HOLDERS).split())
    built.docker("rmi", "--force", tag)
    assert tag not in built.images()
    listed = {r["release"]: r for r in built.releases()}
    assert "removed" in listed["prod-002"]["unusable"]
    assert f"image {tag} was removed" in " ".join(built.run("doctor").out.split())
    assert any(tag in warning for warning in built.preview()["warnings"])
    refused = " ".join(built.run("undo", "--yes", code=3).text.split())
    assert "docker load" in refused
    built.docker("load", "--input", saved)
    built.run("undo", "--yes")
    assert (built.live(), built.notes()) == ("prod-002", ["in 1", "in 2"])
