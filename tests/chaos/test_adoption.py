"""A project that plain compose made, killed while it is adopted."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.failing import Failing
from tests.stacks.harness import docker, notes_project


@pytest.mark.chaos
@pytest.mark.parametrize("place", ["adopt-tagged", "adopt-recorded", "filled", "recorded"])
def test_fault_1_killed_while_a_project_is_adopted(tmp_path: Path, place: str) -> None:
    """kill -9 while a running project becomes the first world: it runs on untouched, the next up
    adopts it once and goes forward with its data, and going back starts its very containers."""
    notes = notes_project(tmp_path / "notes")
    try:
        docker("compose", "-p", notes.name, "--project-directory", str(notes.folder), "up", "-d")
        notes.wait_until_it_answers()
        notes.note("from before")
        plain = notes.containers()
        notes.init()
        notes.compose_file(v='VERSION: "1"=>VERSION: "2"')
        notes.new("the first under Lockstep")
        points = Failing(tmp_path / "points", f"worlds.{place} kill")
        notes.run("up", "--yes", code=-9, env=points.env)
        assert notes.containers() == plain
        assert notes.notes() == ["from before"]

        notes.run("cancel", "--yes", code=None)
        notes.up()
        assert (notes.get("/version"), notes.notes()) == ("2", ["from before"])
        assert [r["release"] for r in notes.releases()] == ["prod-000", "prod-001"]
        notes.nothing_to_do()
        notes.run("rollback", "--yes")
        assert notes.containers() == plain
    finally:
        notes.remove()
