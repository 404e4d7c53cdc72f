"""What tests on real Docker share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.reconciler.trial import Trial
from tests.snapshots.reads import read

__all__ = ["read", "trial"]


@pytest.fixture
def trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Trial]:
    """A stack of its own, with a host lock of its own, removed afterwards."""
    monkeypatch.setenv("LOCKSTEP_LOCK_DIR", str(tmp_path / "lock"))
    folder = tmp_path / "shop"
    folder.mkdir()
    made = Trial(folder)
    try:
        yield made
    finally:
        made.clear()
