"""With the official CLI on PATH: what either engine made, the other continues without a change."""

from __future__ import annotations

import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import pytest

from bench.engine.__main__ import without_official
from cli import engines
from tests.engine.conftest import PASSPHRASE, REPOSITORY, Ground
from tests.stacks.harness import python_image
from tests.stacks.registry import registry

PATH = os.environ.get("PATH", "")
OFFICIAL = engines.find(PATH, REPOSITORY)
EMBEDDED = [sys.executable, "-m", "cli.pulumi"]
PROGRAM = """
a = Thing('a', value='1', force='1')
b = Thing('b', value=pulumi.Output.secret(a.made.apply(str)), opts=O(protect=True))
pulumi.export('b', b.value)
"""
# `z` goes before its successor comes, and `y` with it; `kid` is below `a`.
GRAPH = """
force, pw = '{force}', pulumi.Config().require_secret('pw')
a = Thing('a', value=pw, force=force)
kid = Thing('kid', value='k', opts=O(parent=a))
z = Thing('z', value='z', force=force, opts=O(delete_before_replace=True))
y = Thing('y', force=z.made.apply(lambda _: force), opts=O(depends_on=[kid]))
pulumi.export('pw', pw)
"""

pytestmark = pytest.mark.skipif(OFFICIAL is None, reason="PATH has no official pulumi")
# Where in its own files the official CLI places what no line of the program declares.
TRACES = {"stackTrace", "sourcePosition"}
ENGINES = {"embedded": EMBEDDED, "official": [str(OFFICIAL)]}
# On this the embedded engine has its own docker provider.
OWN_PATH = {"embedded": without_official(PATH), "official": PATH}


def environment(ground: Ground, **env: str) -> dict[str, str]:
    return {
        **os.environ,
        "LOCKSTEP_ENGINE": "embedded",
        "PYTHONPATH": str(REPOSITORY),
        "PULUMI_CONFIG_PASSPHRASE": PASSPHRASE,
        "PULUMI_HOME": str(ground.root / "home"),
        "WORLD": str(ground.world),
        **env,
    }


def run(
    ground: Ground, engine: str, *arguments: str, **env: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*ENGINES[engine], *arguments, "--stack", "dev", "--non-interactive"],
        cwd=ground.root,
        env=environment(ground, **env),
        capture_output=True,
        text=True,
        timeout=120,
    )


def done(ground: Ground, engine: str, *arguments: str, **env: str) -> str:
    result = run(ground, engine, *arguments, **env)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def up(ground: Ground, engine: str, *more: str, **env: str) -> int:
    return run(ground, engine, "up", "--yes", "--skip-preview", *more, **env).returncode


@pytest.fixture
def both(ground: Ground) -> Ground:
    """A project that the official CLI runs with this Python."""
    (ground.root / "Pulumi.yaml").write_text(
        "name: shop\nruntime:\n  name: python\n  options:\n"
        f"    virtualenv: {sys.prefix}\nbackend:\n  url: file://./state\n"
    )
    return ground


def graph(ground: Ground, engine: str) -> None:
    """The graph as the engine made it."""
    done(ground, engine, "config", "set", "pw", "h1dden", "--secret")
    ground.program(GRAPH.replace("{force}", "1"))
    assert up(ground, engine) == 0


in_both_directions = pytest.mark.parametrize(
    ("first", "other"), [("embedded", "official"), ("official", "embedded")]
)


@in_both_directions
def test_the_other_engine_plans_no_change(first: str, other: str, both: Ground) -> None:
    both.program(PROGRAM)
    assert up(both, first) == 0
    for more in ([], ["--refresh"]):
        done(both, other, "preview", "--expect-no-changes", *more)
    done(both, other, "refresh", "--yes", "--skip-preview", "--expect-no-changes")
    assert up(both, first, "--expect-no-changes") == 0


@in_both_directions
def test_the_other_engine_ends_a_replacement_that_failed(
    first: str, other: str, both: Ground
) -> None:
    graph(both, first)
    both.program(GRAPH.replace("{force}", "2"))
    assert up(both, first, FAIL="z") == 1
    for more in ([], ["--refresh"]):
        steps = [json.loads(done(both, e, "preview", "--json", *more))["steps"] for e in ENGINES]
        mine, theirs = (
            sorted(
                (s["op"], s["urn"], sorted(s.get("newState", {}).keys() - TRACES)) for s in found
            )
            for found in steps
        )
        assert mine == theirs
    assert up(both, other) == 0
    done(both, first, "preview", "--expect-no-changes")


@in_both_directions
def test_the_other_engine_goes_on_after_a_kill(first: str, other: str, both: Ground) -> None:
    graph(both, first)
    both.program(GRAPH.replace("{force}", "2"))
    process = subprocess.Popen(
        [*ENGINES[first], "up", "--yes", "--skip-preview", "--stack", "dev", "--non-interactive"],
        cwd=both.root,
        env=environment(both, SLOW_z="60"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    deadline = time.monotonic() + 60
    while not Path(f"{both.world}.begun").exists():
        assert time.monotonic() < deadline
        time.sleep(0.1)
    kill_session(process.pid)
    process.wait()
    done(both, other, "cancel", "--yes")
    warned = run(both, other, "up", "--yes", "--skip-preview")
    assert warned.returncode == 0, warned.stdout + warned.stderr
    assert "pending operations" in warned.stdout
    assert "interrupted while creating" in warned.stdout
    done(both, other, "refresh", "--yes", "--skip-preview", "--clear-pending-creates")
    assert (
        "pending_operations" not in json.loads(done(both, first, "stack", "export"))["deployment"]
    )
    done(both, first, "preview", "--expect-no-changes")


@in_both_directions
def test_the_other_engine_reads_a_state_that_lost_a_parent(
    first: str, other: str, both: Ground
) -> None:
    graph(both, first)
    world = json.loads(both.world.read_text())
    both.world.write_text(json.dumps({**world, "gone": ["a-1"]}))
    done(both, first, "refresh", "--yes", "--skip-preview")
    parents = [
        {r["urn"]: r.get("parent") for r in json.loads(text)["deployment"]["resources"]}
        for text in (done(both, e, "stack", "export") for e in (first, other))
    ]
    assert parents[0] == parents[1]
    both.world.write_text(json.dumps(world))
    assert up(both, other) == 0
    done(both, first, "preview", "--expect-no-changes")


@in_both_directions
def test_the_other_engine_has_the_secrets_and_the_history(
    first: str, other: str, both: Ground
) -> None:
    graph(both, first)
    assert up(both, first, "--message", "the second") == 0
    assert done(both, other, "stack", "output", "pw").strip() == "[secret]"
    assert done(both, other, "stack", "output", "pw", "--show-secrets").strip() == "h1dden"
    assert done(both, other, "config", "get", "pw").strip() == "h1dden"
    both.program(GRAPH.replace("{force}", "2"))
    done(both, other, "config", "set", "pw", "n3wer", "--secret")
    assert up(both, other, "--message", "the third") == 0
    told = []
    for engine in (first, other):
        entries = json.loads(done(both, engine, "stack", "history", "--json"))
        told.append(
            [(e["kind"], e["message"], e["result"], e.get("resourceChanges")) for e in entries]
        )
    assert told[0] == told[1]
    assert [message for _, message, _, _ in told[0]][:2] == ["the third", "the second"]
    assert done(both, first, "stack", "output", "pw", "--show-secrets").strip() == "n3wer"


@in_both_directions
def test_the_other_engine_goes_on_after_targets(first: str, other: str, both: Ground) -> None:
    graph(both, first)
    both.program("Thing('new', value='1')\n")
    thing = "urn:pulumi:dev::shop::pulumi-python:dynamic:Resource::"
    assert up(both, first, "--target", f"{thing}new") == 0
    assert up(both, first, "--target", f"{thing}z") == 1  # `y` stands on it
    assert up(both, other) == 0
    done(both, first, "preview", "--expect-no-changes")
    done(both, other, "destroy", "--yes", "--skip-preview")
    assert "new" not in json.loads(both.world.read_text())


IMAGE = "import pulumi_docker as docker\ndocker.RemoteImage('i', name='{name}')\n"
TAG = "import pulumi_docker as docker\ndocker.Tag('i', source_image='{name}', target_image='a:b')\n"


def failure(ground: Ground, engine: str, **env: str) -> tuple[int, set[str], str]:
    """Exit code, which resources named `i` failed, and what is said of them."""
    log = ground.root / f"{engine}.log"
    log.unlink(missing_ok=True)
    env |= {"PATH": OWN_PATH[engine], "PULUMI_DEBUG_COMMANDS": "true"}
    code = up(ground, engine, "--event-log", str(log), **env)
    events = [json.loads(line) for line in log.read_text().splitlines()]
    told = [e["diagnosticEvent"] for e in events if "diagnosticEvent" in e]
    errors = [t for t in told if t["severity"] == "error" and t.get("urn", "").endswith("::i")]
    return code, {t["urn"] for t in errors}, "".join(t["message"] for t in errors)


def test_a_failing_registry_or_daemon_is_told_by_either_engine(both: Ground) -> None:
    def insist(program: str, *said: str, **env: str) -> None:
        both.program(program)
        mine, theirs = (failure(both, engine, **env) for engine in ENGINES)
        assert mine[:2] == theirs[:2]
        assert (mine[0], len(mine[1])) == (1, 1)
        for one in said:
            assert one in mine[2], mine
            assert one in theirs[2], theirs
        assert mine[2].count("\n") == 1, mine

    with registry() as there:
        image = IMAGE.format(name=there.image)
        for there.answer, cause in (
            (404, "manifest unknown"),
            (429, "toomanyrequests"),
            (401, "denied"),
            (403, "denied"),
            (500, "500 Internal Server Error"),
        ):
            insist(image, there.image, cause)
    insist(image, there.image, "connection refused")
    insist(image, "daemon", DOCKER_HOST="unix:///nowhere.sock")
    insist(IMAGE.format(name="Not/../lower"), "invalid reference format")
    insist(TAG.format(name="lockstep-test-none:1"), "lockstep-test-none:1")


def tree(place: Path, env: Mapping[str, str], engine: str, *arguments: str) -> set[tuple[str, ...]]:
    """What a terminal shows of the resources at last: sign, parent, type, name, state, changed
    keys; without times and without warnings about where the plugin was found."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (60, 200))
    process = subprocess.Popen(
        [*ENGINES[engine], *arguments, "--stack", "dev"],
        cwd=place,
        env=env,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    shown = b""
    with suppress(OSError):  # the end of a terminal is an error
        while piece := os.read(ours, 65536):
            shown += piece
    os.close(ours)
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\r", "", shown.decode())
    assert process.wait(timeout=60) == 0, text
    rows, above = set(), [""]
    for line in text.rpartition("     Type ")[2].splitlines()[1:]:
        if not line.strip():
            break
        sign, branch, rest = re.findall(r"^ (..)  ([│├└─ ]*)(.*)", line)[0]
        kind, name, *told = re.split(r"\s{2,}", re.sub(r" \([\d.]+s\)", "", rest.strip()))
        del above[len(branch) // 3 + 1 :]
        told = [cell for cell in told if not cell.endswith(" warnings")]
        rows.add((sign.strip(), above[-1], kind, name, *told))
        above.append(name)
    return rows


# The shape of a stack of ours, and what is replaced in both ways.
TREE = """
import pulumi_docker as docker

class Release(pulumi.ComponentResource):
    def __init__(self, name):
        super().__init__("shop:index:Release", name)

before = H('before', lambda args: None)
for number in ({releases}):
    release = Release(f"prod-00{{number}}")
    image = docker.RemoteImage(
        f"image-{{number}}", name="{image}", keep_locally=True, opts=O(parent=release)
    )
    world = Thing(
        f"world-{{number}}", value=image.image_id, opts=O(parent=release, hooks=B({hooks}))
    )
live = Thing('live', value=world.id, {more})
Thing('later', force='{force}', opts=O(parent=live))
Thing('first', force='{force}', opts=O(delete_before_replace=True))
pulumi.export('live', live.value)
"""


def test_a_terminal_shows_the_same_tree_on_either_engine(
    both: Ground, tmp_path_factory: pytest.TempPathFactory
) -> None:
    places = {engine: tmp_path_factory.mktemp(engine) for engine in ENGINES}
    for place in places.values():
        shutil.copytree(both.root, place, dirs_exist_ok=True)
    hooks = "before_create=[before], before_delete=[before]"
    one = {"releases": "1, 2", "hooks": hooks, "force": "1", "more": "a='1', b='1', c='1'"}
    two = {"releases": "1, 3", "hooks": hooks, "force": "2", "more": "b='2', c='2', d='2', e='2'"}
    quickly = ("--yes", "--skip-preview")
    for fields, *calls in (
        (one, ["preview"], ["up", *quickly], ["up", *quickly]),
        (two, ["preview"], ["up", *quickly], ["refresh", *quickly]),
        ({**two, "hooks": ""}, ["up", *quickly], ["destroy", "--preview-only"]),
        ({**two, "hooks": ""}, ["destroy", *quickly]),
    ):
        both.program(TREE.format(**fields, image=python_image()))
        for call in calls:
            found = []
            for engine, place in places.items():
                shutil.copy(both.root / "__main__.py", place)
                own = {"PATH": OWN_PATH[engine], "WORLD": str(place / "world.json")}
                rows = tree(place, environment(both, TERM="xterm", **own), engine, *call)
                if call[0] == "destroy":  # the official CLI then has two rows for the stack
                    rows = {row for row in rows if row[2] != "pulumi:pulumi:Stack"}
                found.append(rows)
            assert found[0] == found[1] != set(), call


def kill_session(session: int) -> None:
    """A command that leads a session, with its plugins, which have process groups of their own."""
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(ProcessLookupError):
            if os.getsid(int(entry.name)) == session:
                os.kill(int(entry.name), signal.SIGKILL)
