"""A failure happens where, when and as often as it is wanted, and in no other case."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.failing import Failing

PASSES = """
import sys
from failpoints import failpoint
for name in sys.argv[1:]:
    try:
        failpoint(name)
    except OSError as error:
        print(name, error)
print("end")
"""


def passing(points: Failing | None, *names: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, **(points.env if points else {})}
    return subprocess.run(
        [sys.executable, "-c", PASSES, *names],
        cwd=Path(__file__).parents[1],
        env=env,
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )


def test_nothing_happens_when_nothing_is_wanted(tmp_path: Path) -> None:
    assert passing(None, "a.b").stdout == "end\n"
    points = Failing(tmp_path)
    assert passing(points, "a.b", "a.c", "a.b").stdout == "end\n"
    assert (points.hits, points.happened) == ({"a.b": 2, "a.c": 1}, False)


@pytest.mark.parametrize(
    ("action", "said"),
    [("full", "[Errno 28] No space left on device"), ("error", "[Errno 5] Input/output error")],
)
def test_an_error_happens_once_at_its_place(tmp_path: Path, action: str, said: str) -> None:
    points = Failing(tmp_path, f"a.b {action} 2")
    out = passing(points, "a.b", "a.c", "a.b", "a.b").stdout
    assert out.splitlines() == [f"a.b {said}: 'failpoint a.b'", "end"]
    assert passing(points, "a.b", "a.b", "a.b").stdout == "end\n"


def test_a_kill_is_met_by_one_process_only(tmp_path: Path) -> None:
    points = Failing(tmp_path, "* kill 3")
    assert passing(points, "a.b", "a.c", "a.d").returncode == -signal.SIGKILL
    assert points.happened
    assert passing(points, "a.b", "a.c", "a.d").stdout == "end\n"


def test_a_line_that_means_nothing_is_an_error(tmp_path: Path) -> None:
    assert "a.b explode" in passing(Failing(tmp_path, "a.b explode"), "a.b").stderr
