"""Whole-process time of preview and of an up that changes nothing, against a Python that only
imports the SDK (the floor) and, where PATH has it, against the official CLI.

`python -m bench.engine [RUNS]`: the candidates take turns, and the median of RUNS (10) is told in
seconds of wall and of processor time. The embedded engine runs as on a host without the official
CLI and its plugins: folders of PATH that hold one of them are left out. Where PATH has the
official docker plugin, which the embedded engine would drive, a further row tells what that takes.
"""

from __future__ import annotations

import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cli import engines

REPOSITORY = Path(__file__).parents[2]
PLUGIN = "pulumi-resource-docker"
PLUGGED = "embedded with the official docker plugin"
UNASKED = ["--yes", "--skip-preview"]
MANY = 400
# The shape of the demo's stack: images and tags, components, dynamic resources with hooks.
DEMO = """
import pulumi, pulumi_docker as docker
from pulumi import ResourceHook as H, ResourceHookBinding as B, ResourceOptions as O
from things import Thing

class Release(pulumi.ComponentResource):
    def __init__(self, name):
        super().__init__("bench:index:Release", name)

before = H("before", lambda args: None)
for number in (1, 2):
    release = Release(f"prod-00{number}")
    image = docker.RemoteImage(
        f"image-{number}", name="lockstep-base/python:3", keep_locally=True, opts=O(parent=release)
    )
    world = Thing(
        f"world-{number}", value=image.image_id,
        opts=O(parent=release, hooks=B(before_create=[before], before_delete=[before])),
    )
live = Thing("live", value=world.id, opts=O(hooks=B(before_update=[before])))
kept = Thing("kept", value=live.id)
pulumi.export("live", live.value)
"""
LARGE = f"""
from things import Thing

for number in range({MANY}):
    Thing(f"thing-{{number}}", value=str(number))
"""
THINGS = """
from pulumi.dynamic import CreateResult, Resource, ResourceProvider

class Provider(ResourceProvider):
    def create(self, props):
        return CreateResult(props["value"] or "none", props)

class Thing(Resource):
    def __init__(self, name, value, opts=None):
        super().__init__(Provider(), name, {"value": value}, opts)
"""


@dataclass
class Candidate:
    """One command, and the seconds that its runs took."""

    name: str
    argv: Sequence[str]
    folder: Path
    env: dict[str, str]
    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    def run(self) -> None:
        before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
        subprocess.run(
            self.argv, cwd=self.folder, env=self.env, check=True, stdout=subprocess.DEVNULL
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        self.wall.append(time.monotonic() - begun)
        spent = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
        self.cpu.append(spent)


def project(root: Path, name: str, program: str) -> Path:
    """A project's folder."""
    folder = root / name
    folder.mkdir()
    (folder / "Pulumi.yaml").write_text(
        f"name: {name}\nruntime:\n  name: python\n  options:\n    virtualenv: {sys.prefix}\n"
    )
    (folder / "things.py").write_text(THINGS)
    (folder / "__main__.py").write_text(program)
    return folder


def measure(runs: int, root: Path) -> list[Candidate]:
    """The candidates with their times."""
    path = os.environ.get("PATH", "")
    official = engines.find(path, Path.cwd())
    everything = {
        **os.environ,
        "LOCKSTEP_ENGINE": "embedded",
        "PYTHONPATH": str(REPOSITORY),
        "PULUMI_CONFIG_PASSPHRASE": "bench",
        "PULUMI_BACKEND_URL": f"file://{root}",
        "PULUMI_HOME": str(root / "home"),
        "PULUMI_SKIP_UPDATE_CHECK": "true",
    }
    alone = {**everything, "PATH": without_official(path)}
    embedded = [sys.executable, "-m", "cli.pulumi"]
    hosts = {"embedded": (embedded, alone)}
    if official:
        hosts["official"] = ([str(official)], everything)
    plugin = {PLUGGED: (embedded, everything)} if shutil.which(PLUGIN) else {}
    floor = [sys.executable, "-c", "import pulumi, pulumi_docker"]
    found = [Candidate("import pulumi, pulumi_docker", floor, root, alone)]
    for name, program, calls, on in (
        ("demo", DEMO, ("preview", "up"), {**hosts, **plugin}),
        ("large", LARGE, ("preview",), hosts),
    ):
        folder = project(root, name, program)
        for words in (["stack", "init", "dev"], ["up", *UNASKED, "--stack", "dev"]):
            Candidate("", [*embedded, *words], folder, alone).run()
        for call in calls:
            flags = ["--stack", "dev", *(UNASKED if call == "up" else [])]
            for host, (command, env) in on.items():
                argv = [*command, call, *flags]
                found.append(Candidate(f"{name}: {call}, {host}", argv, folder, env))
    for _ in range(runs):
        for candidate in found:
            candidate.run()
    return found


def without_official(path: str) -> str:
    """PATH without the folders that hold the CLI or its docker plugin."""
    folders = path.split(os.pathsep)
    return os.pathsep.join(
        f for f in folders if not any((Path(f) / name).exists() for name in ("pulumi", PLUGIN))
    )


def main() -> int:
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 10
    with tempfile.TemporaryDirectory(prefix="lockstep-bench-engine-") as root:
        found = measure(runs, Path(root))
    floor = found[0]
    print(f"| medians of {runs} | wall s | processor s | wall, times the floor |")
    print("| --- | --- | --- | --- |")
    for candidate in found:
        wall, cpu = statistics.median(candidate.wall), statistics.median(candidate.cpu)
        ratio = wall / statistics.median(floor.wall)
        print(f"| {candidate.name} | {wall:.2f} | {cpu:.2f} | {ratio:.2f} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
