"""Work on a store that a memory limit ends, as the kernel does it."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from snapshots.compare import tree_equal
from tests.memorylimit import memory_limit
from tests.snapshots.storework import (
    WORKS,
    Promised,
    insist_on_going_on,
    insist_on_promises,
    prepared,
)

LIMITED = """
import os, sys
from pathlib import Path
from tests.snapshots.storework import WORKS, Place, Promised
what, group, *paths = sys.argv[1:]
kept, other = paths[3:]
place = Place(*map(Path, paths[:3]), kept, other)
(Path(group) / "cgroup.procs").write_text(str(os.getpid()))
WORKS[what](place, Promised())
"""
LATER = ("sweep", "repair", "restore", "fork")
LIMITS = [64 << 10, 256 << 10, 1 << 20, 2 << 20, 3 << 20, 5 << 20, 8 << 20, 128 << 20]


SHORT = [LIMITS[0], LIMITS[3], LIMITS[-1]]


@pytest.mark.parametrize(
    "limits", [pytest.param(LIMITS, marks=pytest.mark.chaos), SHORT], ids=["long", "short"]
)
@pytest.mark.parametrize(
    "what",
    ["capture", *(pytest.param(w, marks=pytest.mark.chaos) for w in WORKS if w in LATER)],
)
def test_fault_7_a_memory_limit_ends_the_work(what: str, limits: list[int], tmp_path: Path) -> None:
    """Capture, sweep, repair, restore and fork run under memory limits from 64 KiB to 128 MiB; the
    kernel kills those that need more: the store is whole, and the work runs again."""
    place = prepared(tmp_path, what)
    ended = {}
    for limit in limits:
        with memory_limit(limit) as group:
            paths = [place.disk, place.old, place.new, place.kept, place.other]
            done = subprocess.run(
                [sys.executable, "-c", LIMITED, what, str(group), *map(str, paths)],
                timeout=120,
                capture_output=True,
                text=True,
                cwd=Path(__file__).parents[2],
            )
        assert done.returncode in (0, -signal.SIGKILL), done.stderr
        ended[limit] = done.returncode
        insist_on_promises(place, what, Promised())
        if done.returncode == 0:
            break
        if what in ("restore", "fork"):
            insist_on_going_on(place, what, tmp_path / "again")
            (tmp_path / str(limit)).mkdir()
            place = prepared(tmp_path / str(limit), what)
    assert ended[LIMITS[0]] == -signal.SIGKILL
    assert 0 in ended.values(), ended
    if what in ("restore", "fork"):
        assert tree_equal(place.old, place.target) == []
    else:
        insist_on_going_on(place, what, tmp_path / "again")
