"""Stores that earlier versions wrote are restored whole."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from snapshots.restore import restore
from snapshots.store import Store
from snapshots.verify import verify
from tests.snapshots.golden.make import manifest

GOLDEN = Path(__file__).parent / "golden"
VERSIONS = sorted(path.name for path in GOLDEN.glob("v*"))


@pytest.mark.parametrize("version", VERSIONS)
def test_a_golden_store_is_restored(version: str, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can restore owners and attributes of others")
    shutil.copytree(GOLDEN / version / "store", tmp_path / "store")
    store = Store.open(tmp_path / "store", create=False)
    expected = json.loads((GOLDEN / version / "manifest.json").read_text())
    assert store.ids() == sorted(expected)
    for snapshot, entries in expected.items():
        assert verify(store, snapshot, read_data=True) == []
        restore(store, snapshot, tmp_path / snapshot)
        assert manifest(tmp_path / snapshot) == entries
