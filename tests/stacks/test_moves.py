"""Every move, on real Docker, by the commands that a user types."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.stacks.harness import Project, docker, notes_project


def test_the_first_release_creates_record_tags_and_data(notes: Project) -> None:
    name = notes.release("the very first")
    assert name == "prod-001"
    record = notes.folder / "releases" / name / "release-info.json"
    assert record.stat().st_mode & 0o777 == 0o600
    assert f"{notes.name}-app:{name}" in notes.images()
    assert notes.volumes() == {f"{notes.name}-prod_notes_g1"}
    notes.note("one")
    assert notes.notes() == ["one"]
    assert [e["move"] for e in notes.entries()] == ["first"]
    notes.nothing_to_do()


def test_of_four_releases_the_last_three_stay(notes: Project) -> None:
    for number in range(1, 5):
        notes.release(f"release {number}")
        notes.note(f"note {number}")
    status = notes.status()
    assert status == {
        "prod-001": "pruned",
        "prod-002": "kept",
        "prod-003": "previous",
        "prod-004": "live",
    }
    assert not (notes.folder / "releases" / "prod-001").exists()
    kept = notes.folder / "releases" / "logs" / "worlds" / f"{notes.name}-prod-001.json"
    (seen,) = json.loads(kept.read_text())["containers"]
    assert (seen["service"], seen["state"]) == ("app", "exited")
    assert kept.with_name(seen["log"]).exists()
    assert {i for i in notes.images() if i.endswith(":prod-001")} == set()
    assert {i.rpartition(":")[2] for i in notes.images()} == {
        "prod-002",
        "prod-003",
        "prod-004",
        "latest",
    }
    assert notes.volumes() == {f"{notes.name}-prod_notes_g{n}" for n in (3, 4)}
    manifest = (notes.folder / "releases" / "manifest.json").read_text()
    assert '"version": "prod-001"' not in manifest
    table = notes.run("list").out
    assert all(f"prod-00{n}" in table for n in (2, 3, 4))
    refused = notes.run("config", "set", "release", "prod-001", code=None)
    if refused.code == 0:
        assert "was pruned" in notes.up(code=2).text
    notes.declare("prod-002")
    notes.up()
    assert notes.notes() == ["note 1", "note 2"], "its data comes from the store"


def test_fault_53_the_sequence_1_2_3_rollback_rollback_undo_new(notes: Project) -> None:
    """Three releases, twice back, undo, a new one: each has its own data, and the new one's
    parent is what was live, not the number before."""
    for number in (1, 2, 3):
        notes.compose_file(v=f'VERSION: "{number - 1 or 1}"=>VERSION: "{number}"')
        notes.release(f"version {number}")
        notes.note(f"note {number}")
    assert notes.get("/version") == "3"

    ran = notes.run("rollback", "--yes", "--json", "--reason", "too slow")
    assert "forking" not in ran.err
    assert "notes" in ran.err, "the screen, for whoever looks on"
    told = ran.json()
    assert (told["result"], told["move"], told["exit_code"]) == ("committed", "back", 0)
    assert (told["from"], told["to"], told["live"]) == ("prod-003", "prod-002", "prod-002")
    dataset = told["datasets"]["notes"]
    assert (dataset["action"], dataset["brought_back_by"]) == ("attach", "lockstep undo")
    assert dataset["set_aside"]["bytes"] == len("note 3\n")
    assert (dataset["generation"], dataset["sealed"]) == tuple(
        f"{notes.name}-prod_notes_g{n}" for n in (2, 3)
    )
    assert len(dataset["snapshot"]) == 32
    assert told["downtime_seconds"] > 0
    assert told["operator_reason"] == "too slow"
    assert (notes.folder / told["logs"][0]).is_file()
    assert (notes.live(), notes.get("/version")) == ("prod-002", "2")
    assert notes.notes() == ["note 1", "note 2"]
    notes.nothing_to_do()

    notes.run("rollback", "--yes")
    assert (notes.live(), notes.get("/version")) == ("prod-001", "1")
    assert notes.notes() == ["note 1"]
    notes.nothing_to_do()

    undone = notes.run("undo", "--yes", "--json").json()
    assert (undone["result"], undone["from"], undone["to"]) == ("committed", "prod-001", "prod-002")
    assert (notes.live(), notes.get("/version")) == ("prod-002", "2")
    assert notes.notes() == ["note 1", "note 2"]
    notes.note("after undo")
    notes.nothing_to_do()

    assert notes.release("version 4") == "prod-004"
    assert notes.notes() == ["note 1", "note 2", "after undo"]
    info = notes.run("info", "prod-004", "--json").json()
    assert info["release"]["parent"] == "prod-002"
    moves = [e["move"] for e in notes.entries()]
    assert moves == ["forward", "back", "back", "back", "forward", "forward", "first"]
    assert all(e["downtime_seconds"] is not None for e in notes.entries() if e["move"] != "first")
    back = notes.run("metrics", "--json").json()["moves"]["back"]
    assert back["switches"] == back["missed_estimate_seconds"]["count"] == 3
    assert back["set_aside"]["notes"]["bytes"] > 0


def test_a_release_that_fails_its_proof_comes_back_with_data(notes: Project) -> None:
    notes.release("good")
    notes.note("before")
    running = notes.containers()
    notes.compose_file(b='VERSION: "1"=>VERSION: "2"\n      BROKEN: "always"')
    notes.run("config", "set", "deadline", "4")
    failed = notes.new("bad")
    ran = notes.up(code=4)
    assert failed in ran.text
    assert "live again" in ran.text
    assert notes.live() == "prod-001"
    assert notes.containers() == running
    assert notes.notes() == ["before"]
    assert notes.status()[failed] == "failed"
    entry = notes.entries()[0]
    assert entry["result"] == "reverted"
    assert "app" in entry["reason"]
    (gate,) = entry["gates"]
    assert (gate["service"], gate["kind"], gate["means"]) == ("app", "ready", "fail")
    for told in (ran.text, notes.run("log").out, notes.run("info", failed).out):
        assert f"{failed} did not pass its proof" in told
        assert "prod-001 is live again" in told
        assert f"lockstep config set retry {notes.name}-{failed}" in told
    assert notes.run("info", failed, "--json").json()["story"]["parts"]["what failed"]
    assert "quarantined: " in notes.run("list").out

    again = notes.run("up", "--yes", "--json", code=3)
    told = again.json()
    assert (told["result"], told["live"], told["to"]) == ("refused", "prod-001", failed)
    assert "quarantined" in told["refusals"][0]["message"]
    assert "quarantined" in told["error"]
    quiet = notes.run("up", "--yes", "--quiet", code=3)
    assert (quiet.out, quiet.err.startswith(f"error: {failed} is quarantined")) == ("", True)
    assert notes.containers() == running

    notes.compose_file(b='\n      BROKEN: "always"=>')
    assert notes.release("mended") == "prod-003"
    assert notes.notes() == ["before"]
    assert f"{notes.name}-{failed}" not in " ".join(notes.containers(running=False).values())


def test_retry_answers_a_failure(notes: Project) -> None:
    notes.release("good")
    # Healthy only when its volume holds the word: the failure lies outside the release.
    notes.compose_file(
        t="http://127.0.0.1:8000/health=>http://127.0.0.1:8000/notes').read().index(b'ready",
        v='VERSION: "1"=>VERSION: "2"',
    )
    notes.run("config", "set", "deadline", "4")
    failed = notes.new("waits for the word")
    told = notes.run("up", "--yes", "--json", code=4).json()
    world = f"{notes.name}-{failed}"
    assert (told["result"], told["exit_code"], told["live"]) == ("reverted", 4, "prod-001")
    assert (told["from"], told["to"], told["incident"] is not None) == ("prod-001", failed, True)
    assert told["datasets"]["notes"]["set_aside"] == {}
    assert [gate["means"] for gate in told["gates"]] == ["fail"]
    assert any(world in line for line in told["story"]["parts"]["next"])
    notes.note("ready")
    assert f"retry {world}" in notes.up(code=3).text
    notes.run("config", "set", "retry", world)
    notes.up()
    assert (notes.live(), notes.notes()) == (failed, ["ready"])
    notes.nothing_to_do()


def test_a_plain_project_is_adopted_and_gone_back_to(tmp_path: Path) -> None:
    notes = notes_project(tmp_path / "notes")
    try:
        docker("compose", "-p", notes.name, "--project-directory", str(notes.folder), "up", "-d")
        notes.wait_until_it_answers()
        notes.note("from before")
        plain = notes.containers()
        notes.init()
        notes.compose_file(v='VERSION: "1"=>VERSION: "2"')
        notes.new("the first under Lockstep")
        preview = notes.preview()
        assert (preview["move"], preview["datasets"]["notes"]["action"]) == ("adopt", "fork")
        notes.up()
        assert notes.get("/version") == "2"
        assert notes.notes() == ["from before"]
        notes.note("from the first")
        notes.nothing_to_do()

        notes.run("rollback", "--yes")
        assert notes.live() == "prod-000"
        assert notes.containers() == plain, "the very containers from before run again"
        assert notes.notes() == ["from before"]
        notes.nothing_to_do()

        notes.run("undo", "--yes")
        assert notes.live() == "prod-001"
        assert notes.notes() == ["from before", "from the first"]
    finally:
        notes.remove()


def test_a_restore_that_was_wished_for_happens_once(notes: Project) -> None:
    notes.release("one")
    notes.note("left by one")
    notes.release("two")
    notes.note("spoilt by two")
    notes.run("config", "set", "--path", "restore.release", "prod-002")
    notes.run("config", "set", "--path", "restore.at", "arrival")
    assert notes.preview()["move"] == "refresh"
    notes.up()
    assert notes.notes() == ["left by one"]
    ran = notes.up()
    assert "was fulfilled" in ran.text
    notes.nothing_to_do()
    notes.run("undo", "--yes")
    assert notes.notes() == ["left by one", "spoilt by two"]


def test_data_keep_goes_back_without_the_data(notes: Project) -> None:
    notes.release("one")
    notes.note("a")
    notes.release("two")
    notes.note("b")
    notes.run("config", "set", "data", "keep")
    notes.declare("prod-001")
    notes.up()
    assert notes.live() == "prod-001"
    assert notes.notes() == ["a", "b"]
    notes.note("c")
    notes.run("undo", "--yes")
    assert notes.live() == "prod-002"
    assert notes.notes() == ["a", "b"], "an undo brings back what was left, whatever `data` says"
    notes.nothing_to_do()


@pytest.mark.parametrize("how", ["stop", "remove"])
def test_drift_is_seen_and_put_right(notes: Project, how: str) -> None:
    notes.release("one")
    notes.note("a")
    (container,) = notes.containers()
    docker("rm", "--force", container) if how == "remove" else docker("stop", container)
    assert notes.preview()["move"] == "repair"
    notes.up()
    assert notes.notes() == ["a"]
    assert notes.entries()[0]["result"] == "recovered"
    notes.nothing_to_do()


def test_stop_stops_everything_and_up_brings_it_back(notes: Project) -> None:
    notes.release("one")
    notes.note("a")
    stopped = notes.run("stop", "--yes", "--json", "-m", "a fire").json()
    assert (stopped["containers"], stopped["live"]) == (1, "prod-001")
    assert notes.containers() == {}
    told = notes.run("up", "--yes", "--json").json()
    assert (told["result"], told["move"]) == ("recovered", "repair")
    assert notes.run("up", "--yes", "--json").json()["result"] == "nothing-to-do"
    assert "no release to go back to" in notes.run("rollback", "--json", code=2).json()["error"]
    assert notes.notes() == ["a"]
    notes.nothing_to_do()


def test_a_config_file_belongs_to_its_release(notes: Project) -> None:
    settings = notes.folder / "settings.toml"
    settings.write_text("colour = 'red'\n")
    notes.compose_file(
        v="./app.py:/app.py:ro=>./app.py:/app.py:ro\n      - ./settings.toml:/settings.toml:ro"
    )
    notes.release("red")
    settings.write_text("colour = 'blue'\n")
    assert notes.get("/settings") == "colour = 'red'\n", "a world never changes"
    notes.release("blue")
    assert notes.get("/settings") == "colour = 'blue'\n"
    difference = notes.run("diff", "prod-001", "prod-002").out
    assert "settings.toml" in difference
    notes.run("rollback", "--yes")
    assert notes.get("/settings") == "colour = 'red'\n"
