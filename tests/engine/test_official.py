"""With the official CLI on PATH: what either engine made, the other continues without a change."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cli import engines
from tests.engine.conftest import PASSPHRASE, REPOSITORY, Ground

OFFICIAL = engines.find(os.environ.get("PATH", ""), REPOSITORY)
EMBEDDED = [sys.executable, "-m", "cli.pulumi"]
PROGRAM = """
a = Thing('a', value='1', force='1')
b = Thing('b', value=pulumi.Output.secret(a.made.apply(str)), opts=O(protect=True))
pulumi.export('b', b.value)
"""

pytestmark = pytest.mark.skipif(OFFICIAL is None, reason="PATH has no official pulumi")


def run(ground: Ground, engine: list[str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*engine, *arguments, "--stack", "dev", "--non-interactive"],
        cwd=ground.root,
        env={
            **os.environ,
            "LOCKSTEP_ENGINE": "embedded",
            "PYTHONPATH": str(REPOSITORY),
            "PULUMI_CONFIG_PASSPHRASE": PASSPHRASE,
            "PULUMI_HOME": str(ground.root / "home"),
            "WORLD": str(ground.world),
        },
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.parametrize("first", ["embedded", "official"])
def test_the_other_engine_plans_no_change(first: str, ground: Ground) -> None:
    both = {"embedded": EMBEDDED, "official": [str(OFFICIAL)]}
    other = both["official" if first == "embedded" else "embedded"]
    Path(ground.root / "Pulumi.yaml").write_text(
        "name: shop\nruntime:\n  name: python\n  options:\n"
        f"    virtualenv: {sys.prefix}\nbackend:\n  url: file://./state\n"
    )
    ground.program(PROGRAM)
    made = run(ground, both[first], "up", "--yes", "--skip-preview")
    assert made.returncode == 0, made.stderr
    for more in ([], ["--refresh"]):
        done = run(ground, other, "preview", "--expect-no-changes", *more)
        assert done.returncode == 0, done.stdout + done.stderr
    read = run(ground, other, "refresh", "--yes", "--skip-preview", "--expect-no-changes")
    assert read.returncode == 0, read.stdout + read.stderr
    again = run(ground, both[first], "up", "--yes", "--skip-preview", "--expect-no-changes")
    assert again.returncode == 0, again.stdout + again.stderr
