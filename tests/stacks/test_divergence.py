"""Ledger, Pulumi's state and the clock part company: the ledger decides, and no data is lost."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.failing import Failing
from tests.stacks.harness import OFFICIAL, ROOT, Project, docker, notes_project, pulumi
from tests.stacks.waiting import until

pytestmark = pytest.mark.timeout(900)

SLEEP = "import select, time\ntime.sleep = lambda s: select.select((), (), (), s) and None\n"
"""libfaketime spoils the absolute times to which Python sleeps."""
FAKETIME = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1")


@pytest.fixture(
    scope="module",
    params=[
        "embedded",
        pytest.param(
            "pulumi",
            marks=pytest.mark.skipif(
                OFFICIAL is None, reason="PATH has no official pulumi: not run on it"
            ),
        ),
    ],
)
def stack(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Project]:
    """prod-001 and then prod-002 were made live, each with a note of its own; every test leaves
    prod-002 live with both notes."""
    project = notes_project(tmp_path_factory.mktemp("divergence") / "notes")
    project.env["LOCKSTEP_ENGINE"] = request.param
    try:
        project.init()
        project.release("one")
        project.note("a")
        shutil.copytree(project.folder / "releases", project.folder / "yesterday")
        shutil.copy(state_of(project), project.folder / "yesterday.json")
        project.compose_file(v='VERSION: "1"=>VERSION: "2"')
        project.release("two")
        project.note("b")
        yield project
    finally:
        project.remove()


def state_of(project: Project) -> Path:
    return project.folder / ".pulumi" / "stacks" / project.name / "prod.json"


def ledger_of(project: Project) -> Path:
    return project.folder / "releases" / "ledger-prod.jsonl"


def journal_of(project: Project) -> Path:
    return project.folder / "releases" / "journal-prod.json"


def what_is_there(project: Project) -> tuple[object, ...]:
    return project.containers(), project.containers(running=False), project.volumes()


def insist_on_two(project: Project) -> None:
    """prod-002 is live with its data, and nothing is to be done."""
    assert project.live() == "prod-002"
    assert (project.get("/version"), project.notes()) == ("2", ["a", "b"])
    project.nothing_to_do()


def test_fault_48_89_the_state_is_of_yesterday_cut_or_lost(stack: Project) -> None:
    """Yesterday's state, half a state, no state: the next up converges, no container, volume or
    release goes, and the one after it plans nothing."""
    before = what_is_there(stack)
    state = state_of(stack)
    newest = state.read_bytes()
    state.write_bytes((stack.folder / "yesterday.json").read_bytes())
    stack.up()
    assert what_is_there(stack) == before
    insist_on_two(stack)

    state.write_bytes(newest[: len(newest) // 2])
    assert "cannot be read" in stack.up().err
    assert what_is_there(stack) == before
    insist_on_two(stack)
    (aside,) = state.parent.glob("*.damaged.*")
    assert aside.read_bytes() == newest[: len(newest) // 2]
    aside.unlink()


@pytest.mark.chaos
def test_attack_habits_rm_rf_of_pulumis_folder(stack: Project) -> None:
    """rm -rf .pulumi: the next up registers everything anew, nothing is stopped, a rollback has its
    data."""
    before = what_is_there(stack)
    shutil.rmtree(stack.folder / ".pulumi")
    stack.up()
    assert what_is_there(stack) == before
    insist_on_two(stack)
    stack.run("rollback", "--yes")
    assert (stack.live(), stack.notes()) == ("prod-001", ["a"])
    stack.run("undo", "--yes")
    insist_on_two(stack)


@pytest.mark.chaos
def test_fault_89_the_ledger_is_newer_than_the_state(stack: Project, tmp_path: Path) -> None:
    """The command dies after its switch began, so that Pulumi's state knows nothing of the release
    that is live: the next up does not switch again, and removes nothing that is needed."""
    points = Failing(tmp_path, "switch.started wait 2")
    stack.declare("prod-001")
    up = stack.start("up", "--yes", env=points.env)
    until(lambda: points.hits["switch.started"] > 0)
    os.killpg(up.pid, signal.SIGKILL)
    up.communicate()
    stack.run("cancel", "--yes")
    told = stack.run("recover", "--json").json()
    assert (told["live"], told["world"]) == ("prod-001", f"{stack.name}-prod-001")
    switches = len(stack.entries())
    running = stack.containers()
    stack.up()
    assert stack.containers() == running
    assert len(stack.entries()) == switches
    assert (stack.live(), stack.notes()) == ("prod-001", ["a"])
    stack.run("undo", "--yes")
    insist_on_two(stack)


@pytest.mark.chaos
def test_fault_89_the_state_is_newer_than_the_ledger(stack: Project) -> None:
    """An older copy of the ledger is put back: up refuses, names what it does not know, the guard
    starts nothing that was live then, and both leave every container and volume; with the newest
    ledger all is as before."""
    before = what_is_there(stack)
    ledger = ledger_of(stack)
    newest = ledger.read_bytes()
    lines = newest.decode().splitlines(keepends=True)
    commit = max(i for i, line in enumerate(lines) if json.loads(line)["kind"] == "committed")
    ledger.write_text("".join(lines[:commit]))
    try:
        refused = stack.up(code=3)
        assert f"{stack.name}-prod-002-app-1" in refused.text
        assert "newest" in refused.text
        assert "older copy" in stack.run("guard", "--once", code=3).out
        assert what_is_there(stack) == before
    finally:
        ledger.write_bytes(newest)
    insist_on_two(stack)


@pytest.mark.chaos
def test_fault_49_destroy_refresh_and_target_lose_no_data(stack: Project) -> None:
    """pulumi destroy, destroy --run-program, refresh, and up --target of one resource: the live
    world runs on, every volume stays, nothing is pruned, and the next up converges."""
    before = what_is_there(stack)
    refused = pulumi(stack, "destroy", "--yes", "--skip-preview")
    assert refused.returncode != 0
    assert what_is_there(stack) == before
    refused = pulumi(stack, "destroy", "--yes", "--skip-preview", "--run-program")
    assert refused.returncode != 0
    assert f"{stack.name}-prod-002" in refused.stdout + refused.stderr
    assert what_is_there(stack) == before
    assert pulumi(stack, "refresh", "--yes", "--skip-preview").returncode == 0
    assert what_is_there(stack) == before

    stack.up()

    stack.run("config", "set", "window", "1")
    stack.declare("prod-001")
    try:
        kept = f"urn:pulumi:prod::{stack.name}::pulumi-python:dynamic/lockstep:Kept::kept"
        done = pulumi(stack, "up", "--yes", "--skip-preview", "--target", kept)
        assert "nothing is pruned" in done.stdout + done.stderr
        assert what_is_there(stack) == before
    finally:
        stack.declare("prod-002")
        stack.run("config", "set", "window", "3")
    stack.up()
    assert what_is_there(stack) == before
    insist_on_two(stack)


@pytest.mark.skipif(not FAKETIME.exists(), reason="libfaketime is not installed")
@pytest.mark.chaos
def test_fault_51_the_clock_jumps(stack: Project, tmp_path: Path) -> None:
    """Rolled back in last year, undone in ten years, then today again: order, data and window are
    as without the jumps, and nothing is pruned for its age."""
    stack.run("config", "rm", "window")
    stack.run("config", "set", "window.last", "1", "--path")
    stack.run("config", "set", "window.days", "2", "--path")
    (tmp_path / "sitecustomize.py").write_text(SLEEP)
    for words, jump in (("rollback", "-1y"), ("up", "+10y"), ("undo", "+10y"), ("up", "-1y")):
        faked = {
            "LD_PRELOAD": str(FAKETIME),
            "FAKETIME": jump,
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "PYTHONPATH": f"{tmp_path}:{ROOT}",
        }
        ran = stack.run(words, "--yes", env=faked)
        assert stack.notes() == (["a"] if stack.get("/version") == "1" else ["a", "b"]), ran.text
    stack.run("config", "rm", "window")
    stack.up()
    insist_on_two(stack)
    assert [(e["move"], e["to"]) for e in stack.entries()[:2]] == [
        ("back", "prod-002"),
        ("back", "prod-001"),
    ]
    assert {"prod-001", "prod-002"} <= set(stack.status())


# attacks on ledger and journal --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("how", "why"),
    [
        ("edited", "was altered"),
        pytest.param("removed", "missing", marks=pytest.mark.chaos),
        pytest.param("binary", "not text", marks=pytest.mark.chaos),
        pytest.param("list", "read", marks=pytest.mark.chaos),
    ],
)
def test_attack_ledger_line_changed(stack: Project, how: str, why: str) -> None:
    """A line of the ledger is edited, removed, made binary or of another form: every command that
    would act refuses and names the line or the file; nothing is touched."""
    before = what_is_there(stack)
    ledger = ledger_of(stack)
    newest = ledger.read_bytes()
    lines = newest.splitlines(keepends=True)
    lines[1] = {
        "edited": lines[1].replace(b"prod-001", b"prod-002"),
        "removed": b"",
        "binary": b"\xff\xfe" + lines[1],
        "list": b"[1, 2]\n",
    }[how]
    ledger.write_bytes(b"".join(lines))
    try:
        for words in (("up", "--yes"), ("rollback", "--yes"), ("guard", "--once")):
            refused = stack.run(*words, code=1)
            assert why in refused.text
            assert str(ledger) in refused.text
        assert what_is_there(stack) == before
    finally:
        ledger.write_bytes(newest)
    insist_on_two(stack)


@pytest.mark.chaos
def test_attack_ledger_damaged_before_an_emergency_stop(stack: Project) -> None:
    """A line of the ledger is edited, then everything has to stop: it stops, and that it could not
    be recorded is said; with a copy of the ledger all comes back."""
    ledger = ledger_of(stack)
    newest = ledger.read_bytes()
    ledger.write_bytes(newest.replace(b"prod-001", b"prod-009", 1))
    try:
        refused = stack.run("stop", "--yes", code=1)
        assert "1 containers are stopped, but that could not be recorded" in refused.err
        assert stack.containers() == {}
    finally:
        ledger.write_bytes(newest)
    stack.up()
    insist_on_two(stack)


@pytest.mark.chaos
def test_attack_ledger_yesterdays_folder_put_back(stack: Project) -> None:
    """The whole releases/ folder of yesterday is put back over today's: up refuses, because the
    host runs a world that it does not know, and the guard because Pulumi's state knows more events;
    data and containers stay."""
    before = what_is_there(stack)
    releases = stack.folder / "releases"
    releases.rename(stack.folder / "today")
    shutil.copytree(stack.folder / "yesterday", releases)
    try:
        assert stack.run("up", "--yes", code=None).code in (2, 3)  # prod-002 has no record now
        assert what_is_there(stack) == before
        stack.declare("prod-001")
        assert "of a world that the ledger does not know" in stack.up(code=3).text
        assert "ends with event" in stack.run("guard", "--once", code=3).out
        assert what_is_there(stack) == before
    finally:
        shutil.rmtree(releases)
        (stack.folder / "today").rename(releases)
    stack.declare("prod-002")
    insist_on_two(stack)


@pytest.mark.chaos
def test_attack_ledger_journal_edited_replayed_or_of_another_ledger(
    stack: Project, tmp_path: Path
) -> None:
    """The journal of a killed switch is edited: recover refuses; put back as it was, it is
    reverted. Put back once more when all is over: recognised as past, nothing is touched."""
    interrupt(stack, tmp_path)
    journal = journal_of(stack)
    written = journal.read_bytes()
    journal.write_bytes(written.replace(b'"step": "start"', b'"step": "prepare"'))
    assert journal.read_bytes() != written
    refused = stack.run("recover", code=1)
    assert "was altered" in refused.err
    journal.write_bytes(written)

    newest = ledger_of(stack).read_bytes()
    ledger_of(stack).write_bytes(b"".join(newest.splitlines(keepends=True)[:-1]))
    assert "of another ledger" in stack.run("recover", code=1).err
    ledger_of(stack).write_bytes(newest)

    told = stack.run("recover", "--json").json()
    assert told["unfinished"].startswith(f"{stack.name}-prod-")
    assert (told["followed"], told["live"]) == (False, "prod-002")
    assert "is live again" in "".join(told["done"])
    stack.declare("prod-002")
    stack.up()
    insist_on_two(stack)

    stack.run("rollback", "--yes")
    stack.run("undo", "--yes")
    journal.write_bytes(written)
    said = stack.run("recover").out
    assert "is past" in said
    assert stack.entries()[0]["reason"] == said.strip()
    insist_on_two(stack)


@pytest.mark.chaos
def test_attack_ledger_journal_removed_in_a_switch(stack: Project, tmp_path: Path) -> None:
    """The journal is removed while a switch runs that then dies: the next up still brings back the
    live world of the ledger, alone, with its data."""
    interrupt(stack, tmp_path)
    journal_of(stack).unlink()
    stack.declare("prod-002")
    stack.up()
    assert len(stack.containers()) == 1
    insist_on_two(stack)


def interrupt(stack: Project, folder: Path) -> None:
    """Kill an `up` to prod-001 and its switch, after the old world was stopped."""
    points = Failing(folder / "points", "switch.sealed stop")
    stack.declare("prod-001")
    up = stack.start("up", "--yes", env=points.env)
    until(lambda: points.happened)
    switching = json.loads(journal_of(stack).read_bytes())["intent"]["pid"]
    os.killpg(up.pid, signal.SIGKILL)
    os.kill(switching, signal.SIGKILL)
    up.communicate()
    stack.run("cancel", "--yes")


def test_fault_90_a_failed_release_stays_declared(stack: Project) -> None:
    """Cron runs up, and the guard, again and again for a release that failed its proof: refused
    each time, and the live containers are never touched."""
    stack.compose_file(b='VERSION: "2"=>VERSION: "3"\n      BROKEN: "always"')
    stack.run("config", "set", "deadline", "3")
    failed = stack.new("broken")
    (before,) = stack.containers()
    stack.up(code=4)
    switches = len(stack.entries())
    (after,) = stack.containers()
    assert after == before
    started = docker("inspect", "--format", "{{.State.StartedAt}}", after)
    for _ in range(3):
        assert failed in stack.up(code=3).text
        assert stack.run("guard", "--once").out == ""
    assert docker("inspect", "--format", "{{.State.StartedAt}}", after) == started
    assert len(stack.entries()) == switches
    assert stack.status()[failed] == "failed"
    stack.declare("prod-002")
    stack.up()
    insist_on_two(stack)
