"""Projects that are removed after the test, whatever happened in it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.owndaemon import OwnDaemon, own_daemon
from tests.stacks.harness import Project, notes_project, python_image


@pytest.fixture(scope="session")
def one_daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OwnDaemon]:
    with own_daemon(tmp_path_factory.mktemp("own") / "docker") as daemon:
        yield daemon


@pytest.fixture
def daemon(one_daemon: OwnDaemon) -> OwnDaemon:
    """A Docker daemon that may be killed and pruned, with the image of the small project; tests
    that use it are in the xdist group `own-daemon`, so that there is one."""
    if not one_daemon.docker("images", "--quiet", python_image()):
        one_daemon.load(python_image())
    return one_daemon


@pytest.fixture
def notes(tmp_path: Path) -> Iterator[Project]:
    """The small project, initialised, with nothing released yet."""
    project = notes_project(tmp_path / "notes")
    try:
        project.init()
        yield project
    finally:
        project.remove()
