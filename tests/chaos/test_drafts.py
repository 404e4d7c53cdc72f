"""What a killed process had begun to write is gone after the next operation."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from engine import project, stack
from reconciler.catalog import Catalog
from reconciler.config import Stack, read
from snapshots.store import Store
from tests.failing import Failing

CAPTURES = """
import sys
from pathlib import Path
from snapshots.capture import capture
from snapshots.store import Store
capture(Path(sys.argv[1]) / "data", Store.open(Path(sys.argv[1]) / "store"), dataset="data")
"""

NOTES = """
import sys
from pathlib import Path
from reconciler.catalog import Catalog
from reconciler.config import read
catalog = Catalog(read("shop", "prod", Path(sys.argv[1]), {}))
catalog.write_manifest()
"""

SAVES = """
import sys
from pathlib import Path
from cli import stackstate
from engine.project import Project
from engine.stack import Stack
stack = Stack(Project.find(Path(sys.argv[1])), "prod")
stackstate.make(stack)
with stack.backend.lock():
    stack.backend.backup()
"""


def dies_at(points: Path, place: str, code: str, folder: Path, nth: int = 1) -> None:
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder)],
        cwd=Path(__file__).parents[2],
        env={**os.environ, **Failing(points, f"{place} kill {nth}").env},
        check=False,
        timeout=60,
    )
    assert done.returncode == -signal.SIGKILL


def drafts(folder: Path) -> list[Path]:
    return [p for p in folder.rglob(".*") if p.suffix in (".tmp", ".new")]


@pytest.mark.parametrize("place", ["pack-rename", "tree-rename", "rename", "fsync"])
def test_a_store_is_rid_of_drafts(tmp_path: Path, place: str) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "file").write_text("content")
    store = Store.open(tmp_path / "store")
    dies_at(tmp_path / "points", f"store.{place}", CAPTURES, tmp_path)
    assert drafts(tmp_path / "store") != []
    with store.reading():
        store.clear_drafts()
        assert drafts(tmp_path / "store") != [], "somebody uses the store"
    store.clear_drafts()
    assert drafts(tmp_path / "store") == []


def test_a_catalog_is_rid_of_drafts(tmp_path: Path) -> None:
    dies_at(tmp_path / "points", "catalog.rename", NOTES, tmp_path)
    assert len(drafts(tmp_path)) == 1
    stack: Stack = read("shop", "prod", tmp_path, {})
    Catalog(stack).clear_drafts()
    assert drafts(tmp_path) == []


@pytest.mark.parametrize("nth", [2, 4, 6])
def test_an_engine_is_rid_of_drafts(
    tmp_path: Path, nth: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = f"file://{tmp_path}"
    (tmp_path / "Pulumi.yaml").write_text(
        f"name: p\nruntime: python\nbackend: {{url: '{backend}'}}"
    )
    monkeypatch.setenv("PULUMI_CONFIG_PASSPHRASE", "correct horse")
    dies_at(tmp_path / "points", "engine.rename", SAVES, tmp_path, nth)
    assert len(drafts(tmp_path / ".pulumi")) == 1
    found = stack.Stack(project.Project.find(tmp_path), "prod")
    found.backend.unlock_all()
    with found.backend.lock():
        assert drafts(tmp_path / ".pulumi") == []
