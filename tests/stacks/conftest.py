"""Projects that are removed after the test, whatever happened in it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.stacks.harness import Project, notes_project


@pytest.fixture
def notes(tmp_path: Path) -> Iterator[Project]:
    """The small project, initialised, with nothing released yet."""
    project = notes_project(tmp_path / "notes")
    try:
        project.init()
        yield project
    finally:
        project.remove()
