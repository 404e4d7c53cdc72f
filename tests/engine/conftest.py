"""A project in a folder of its own, with its state beside it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from cli import stackstate
from engine.project import Project
from engine.stack import Stack

REPOSITORY = Path(__file__).parents[2]
PASSPHRASE = "correct horse"

# A dynamic provider over one JSON file, which is the world that the programs of these tests change.
THINGS = """
import json, os, pathlib, threading, time
import pulumi
from pulumi.dynamic import (
    CreateResult, DiffResult, ReadResult, Resource, ResourceProvider, UpdateResult,
)

WORLD = pathlib.Path(os.environ["WORLD"])

ONE_AT_A_TIME = threading.Lock()

def world():
    return json.loads(WORLD.read_text()) if WORLD.exists() else {}

def change(name, *value):
    with ONE_AT_A_TIME:
        now = world()
        now.pop(name, None)
        now.update({name: v for v in value})
        WORLD.write_text(json.dumps(now))

class P(ResourceProvider):
    def diff(self, id, olds, news):
        changed = [k for k in ("value", "force") if olds.get(k) != news.get(k)]
        return DiffResult(bool(changed), [k for k in changed if k == "force"])
    def create(self, props):
        wait = os.environ.get("SLOW_" + props["name"])
        if wait:
            pathlib.Path(os.environ["WORLD"] + ".begun").touch()
            time.sleep(float(wait))
        if os.environ.get("FAIL") == props["name"]:
            raise Exception(props["name"] + " refused")
        change(props["name"], props.get("value"))
        return CreateResult(props["name"] + "-1", {**props, "made": True})
    def update(self, id, olds, news):
        change(news["name"], news.get("value"))
        return UpdateResult({**news, "made": True})
    def read(self, id, props):
        return ReadResult("" if id in world().get("gone", []) else id, props)
    def delete(self, id, props):
        change(props["name"])

class Thing(Resource):
    value: pulumi.Output
    made: pulumi.Output
    def __init__(self, name, opts=None, **props):
        super().__init__(P(), name, {"name": name, "made": None, **props}, opts)
"""

RUN = """
import sys, pathlib
from cli.display import PlainDisplay
from engine import operations, project, stack
from engine.options import Options
found = stack.Stack(project.Project.find(pathlib.Path.cwd()), "dev")
result = operations.up(found, PlainDisplay(), Options(skip_preview=True))
sys.exit(result.exit_code)
"""


class Ground:
    """One project; `program` is its __main__.py."""

    def __init__(self, root: Path) -> None:
        self.root, self.world = root, root / "world.json"
        (root / "Pulumi.yaml").write_text(
            "name: shop\nruntime: python\nbackend:\n  url: file://./state\n"
        )
        (root / "things.py").write_text(THINGS)

    def program(self, text: str) -> None:
        # Compiled code is told from new text by its second and size only; tests are faster.
        shutil.rmtree(self.root / "__pycache__", ignore_errors=True)
        (self.root / "__main__.py").write_text(
            "import pulumi\nfrom pulumi import ResourceOptions as O, ResourceHook as H\n"
            "from pulumi import ResourceHookBinding as B\nfrom things import Thing, world\n" + text
        )

    def stack(self, passphrase: str = PASSPHRASE) -> Stack:
        return Stack(Project.find(self.root), "dev", passphrase)

    def state_text(self) -> str:
        return "".join(p.read_text() for p in (self.root / "state").rglob("*") if p.is_file())

    def start(self, command: Sequence[str] = (), **env: str) -> subprocess.Popen[str]:
        """A command in a process of its own, or an update."""
        return subprocess.Popen(
            command or [sys.executable, "-c", RUN],
            cwd=self.root,
            env={
                **os.environ,
                "PYTHONPATH": str(REPOSITORY),
                "PULUMI_CONFIG_PASSPHRASE": PASSPHRASE,
                "WORLD": str(self.world),
                **env,
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )


@pytest.fixture
def ground(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ground:
    found = Ground(tmp_path)
    monkeypatch.setenv("WORLD", str(found.world))
    for name in ("PULUMI_BACKEND_URL", "PULUMI_CONFIG_PASSPHRASE_FILE"):
        monkeypatch.delenv(name, raising=False)
    # Modules of the programs are cached by name; each project has its own.
    sys.modules.pop("things", None)
    stackstate.make(found.stack())
    return found
