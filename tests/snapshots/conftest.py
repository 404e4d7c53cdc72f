from __future__ import annotations

import os
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from snapshots.store import Store
from tests.snapshots.reads import read
from tests.snapshots.trees import everything

__all__ = ["read"]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "store")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A folder with every kind of entry and metadata."""
    if os.geteuid() != 0:
        pytest.skip("only root can make and restore owners, capabilities and ACLs of others")
    folder = tmp_path / "source"
    folder.mkdir()
    everything(folder)
    return folder


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A folder with a few files that anybody may make."""
    folder = tmp_path / "small"
    (folder / "d").mkdir(parents=True)
    (folder / "d" / "one").write_bytes(os.urandom(200_000))
    (folder / "two").write_bytes(b"two")
    return folder


def mounted(tmp_path: Path, *options: str) -> Iterator[Path]:
    """A mount for one test; skips with the reason where it cannot be had."""
    point = tmp_path / f"mount-{uuid.uuid4().hex[:8]}"
    point.mkdir()
    done = subprocess.run(
        ["mount", *options, str(point)], capture_output=True, text=True, timeout=30, check=False
    )
    if done.returncode != 0:
        pytest.skip(f"cannot mount here: {done.stderr.strip()}")
    try:
        yield point
    finally:
        subprocess.run(["umount", "-l", str(point)], timeout=30, check=True)
