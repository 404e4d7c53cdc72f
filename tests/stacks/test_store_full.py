"""A store without space for what a switch sealed."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.stacks.harness import Project, docker


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MiB."""
    point = tmp_path / "small"
    point.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "none", str(point)], check=True)
    yield point
    subprocess.run(["umount", "--lazy", str(point)], check=True)


def test_fault_91_a_store_that_is_full_is_a_debt_and_no_failure(
    notes: Project, small: Path
) -> None:
    """The sealed generation does not fit into the store: the switch stands, exit code 5, also the
    next time, and nothing is pruned or removed; with space again, `up` pays, and a way back is
    there."""
    notes.run("config", "set", "store", str(small / "store"))
    notes.run("config", "set", "window", "1")
    notes.release("one")
    notes.note("a")
    (container,) = notes.containers()
    random = "dd if=/dev/urandom of=/notes/ballast bs=1M count=16 status=none"
    docker("exec", container, "sh", "-c", random)
    notes.compose_file(v='VERSION: "1"=>VERSION: "2"')
    notes.new("two")
    assert "not in the store yet" in notes.up(code=5).text
    assert (notes.live(), notes.notes()) == ("prod-002", ["a"])
    notes.up(code=5)
    assert "not in the store yet" in notes.run("doctor", code=None).out
    assert notes.status() == {"prod-001": "previous", "prod-002": "live"}
    assert f"{notes.name}-prod_notes_g1" in notes.volumes()
    subprocess.run(["mount", "-o", "remount,size=64m", str(small)], check=True)
    notes.up()
    notes.nothing_to_do()
    departures = notes.run("info", "prod-001", "--json").json()["departures"]
    assert departures[-1]["snapshots"]["notes"]
    notes.run("rollback", "--yes")
    assert notes.notes() == ["a"]
