"""The commands on a stack that lives: real Docker, one project for the whole module."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest

from reconciler.host.hostlock import HostLock
from reconciler.records.journal import Intent, JournalFile
from tests.stacks.harness import Project, docker, notes_project, on_a_terminal


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """prod-002 is live, prod-001 previous, prod-003 failed its proof."""
    project = notes_project(tmp_path_factory.mktemp("live") / "notes", warm=False)
    try:
        project.init()
        project.release("one")
        project.note("by one")
        project.compose_file(v='VERSION: "1"=>VERSION: "2"')
        project.release("two")
        project.note("by two")
        project.compose_file(b='VERSION: "2"=>VERSION: "3"\n      BROKEN: "always"')
        project.run("config", "set", "deadline", "3")
        project.new("three")
        project.up(code=4)
        yield project
    finally:
        project.remove()


@pytest.fixture
def live(shop: Project) -> Iterator[Project]:
    """The same; the test leaves prod-002 live, as it was."""
    settings = shop.folder / "Pulumi.prod.yaml"
    before = settings.read_bytes()
    yield shop
    settings.write_bytes(before)
    assert shop.live() == "prod-002"


def config_file(project: Project) -> bytes:
    return (project.folder / "Pulumi.prod.yaml").read_bytes()


def test_list_info_log_and_diff(live: Project) -> None:
    assert live.status() == {"prod-001": "previous", "prod-002": "live", "prod-003": "failed"}
    table = live.run("list").out
    assert "attach" in table
    assert "two" in table
    info = live.run("info", "--json").json()
    assert (info["release"]["name"], info["status"]) == ("prod-002", "live")
    assert info["worlds"][0]["state"] == "live"
    assert "app.py" in live.run("info", "prod-001").out
    failed = live.run("info", "prod-003").out
    assert "failed" in failed
    entries = live.entries()
    assert [(e["from"], e["to"], e["result"]) for e in entries] == [
        ("prod-002", "prod-003", "reverted"),
        ("prod-001", "prod-002", "committed"),
        (None, "prod-001", "committed"),
    ]
    assert entries[1]["datasets"] == {"notes": {"action": "fork"}}
    assert len(live.run("log", "-n", "1", "--json").json()["entries"]) == 1
    assert "reverted" in live.run("log").out
    differences = live.run("diff", "--json").json()
    assert (differences["from"], differences["to"]) == ("prod-002", "prod-003")
    assert any("BROKEN" in line for line in differences["differences"])
    assert "the same definition" in live.run("diff", "prod-001", "prod-001").out


def test_preview_of_going_back(live: Project) -> None:
    live.declare("prod-001")
    document = live.preview()
    assert (document["move"], document["from"], document["to"]) == ("back", "prod-002", "prod-001")
    notes = document["datasets"]["notes"]
    assert notes["action"] == "attach"
    assert notes["age_seconds"] >= 0
    assert notes["set_aside"]
    screen = live.run("preview", "--impact-only").out
    assert "lockstep undo" in screen
    assert "Previewing update" not in screen
    assert "Previewing update" in live.run("preview").out
    assert live.live() == "prod-002"


def test_a_refused_preview_has_the_refusals_and_their_code(live: Project) -> None:
    document = live.preview(code=3)
    assert "quarantined" in document["refusals"][0]["message"]
    assert "quarantined" in live.run("preview", code=3).out


def test_a_refused_rollback_leaves_the_config_alone(live: Project) -> None:
    before = config_file(live)
    ran = live.run("rollback", "prod-003", "--yes", code=3)
    assert "quarantined" in ran.out
    assert "prod-003 was not declared" in ran.err
    assert config_file(live) == before


def test_a_rollback_without_a_terminal_shows_the_impact_and_refuses(live: Project) -> None:
    before = config_file(live)
    ran = live.run("rollback", code=2)
    assert "the data prod-001 left" in ran.out
    assert "--yes" in ran.err
    assert config_file(live) == before


@pytest.mark.parametrize("words", [("rollback",), ("undo",), ("stop",), ("cancel",)])
def test_a_no_changes_nothing(live: Project, words: tuple[str, ...]) -> None:
    before = (config_file(live), live.containers(), live.run("log", "--json").out)
    code, shown = on_a_terminal(live, *words, answer="n\n")
    assert code == 1, shown
    assert "nothing was changed" in shown
    assert (config_file(live), live.containers(), live.run("log", "--json").out) == before


def test_an_up_that_is_declined(live: Project) -> None:
    live.declare("prod-001")
    running = live.containers()
    code, shown = on_a_terminal(live, "up", answer="n\n")
    assert code == 1, shown
    assert "perform this update" in shown
    assert live.containers() == running


def test_a_rollback_that_a_locked_stack_stops_puts_the_config_back(live: Project) -> None:
    before = config_file(live)
    lock = live.folder / ".pulumi" / "locks" / "organization" / live.name / "prod" / "x.json"
    lock.parent.mkdir(parents=True, exist_ok=True)
    lock.write_text('{"pid": 1, "username": "x", "hostname": "y", "timestamp": "z"}')
    try:
        ran = live.run("rollback", "--yes", code=6)
        assert "locked" in ran.err
        assert "the config is as it was before" in ran.err
        assert config_file(live) == before
        assert live.run("cancel", "--yes").code == 0
    finally:
        lock.unlink(missing_ok=True)


def test_a_switch_under_way_or_interrupted_comes_first(
    live: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is agreed to must be what is done."""
    world = f"{live.name}-prod-001"
    intent = Intent(
        head=0, move="back", from_world=None, to_world=world, started="", log="x", pid=0
    )
    journal = live.folder / "releases" / "journal-prod.json"
    JournalFile(journal).write(intent)
    before = config_file(live)
    try:
        for words in (("rollback", "--yes"), ("undo", "--yes")):
            ran = live.run(*words, code=3)
            assert f"a switch to {world} was interrupted" in ran.err
            assert "lockstep recover" in ran.err
        assert "was interrupted" in live.run("doctor", code=1).out
        monkeypatch.setenv("LOCKSTEP_LOCK_DIR", live.environment()["LOCKSTEP_LOCK_DIR"])
        with HostLock.acquire("up", "another/stack"):
            assert "is under way" in live.run("rollback", "--yes", code=6).err
            assert "another operation" in live.run("recover", code=6).err
    finally:
        journal.unlink()
    assert config_file(live) == before


def test_rollback_and_undo_on_a_terminal(live: Project) -> None:
    code, shown = on_a_terminal(live, "rollback", answer="y\ntoo slow\n")
    assert code == 0, shown
    assert live.live() == "prod-001"
    assert live.notes() == ["by one"]
    assert live.run("config", "get", "release").out == "prod-001\n"
    messages = [e["message"] for e in live.run("stack", "history", "--json").json()["entries"]]
    assert messages[0] == "rollback from prod-002 to prod-001: too slow"
    code, shown = on_a_terminal(live, "undo", answer="y\n\n")
    assert code == 0, shown
    assert live.notes() == ["by one", "by two"]
    live.nothing_to_do()


def test_a_snapshot_stops_nothing_and_is_in_the_store(live: Project) -> None:
    running = live.containers()
    taken = live.run("snapshot", "--json").json()
    assert (taken["schema"], taken["release"]) == (1, "prod-002")
    snapshot = taken["datasets"]["notes"]["snapshot"]
    assert (live.folder / "releases" / "store" / "snapshots" / f"{snapshot}.json").exists()
    assert taken["datasets"]["notes"]["bytes"] == len("by one\nby two\n")
    assert live.containers() == running
    assert snapshot not in live.run("snapshot", "notes").out
    unknown = live.run("snapshot", "nots", code=2)
    assert "do you mean notes?" in unknown.err


def test_compose_commands_reach_the_live_world(live: Project) -> None:
    assert "app" in live.run("compose", "ps", "--services").out
    assert live.run("compose", "exec", "-T", "app", "cat", "/notes/notes.txt").out == (
        "by one\nby two\n"
    )
    live.run("compose", "exec", "-T", "app", "sh", "-c", "exit 7", code=7)
    live.run("compose", "down", code=2)
    assert live.notes() == ["by one", "by two"]


def test_stop_recover_and_up(live: Project) -> None:
    live.declare("prod-002")
    ran = live.run("stop", "--yes", "-m", "the disk smells")
    assert "1 container stopped" in ran.out
    assert "lockstep up" in ran.out
    assert live.containers() == {}
    assert "was stopped by hand" in live.run("list").err
    found = live.run("doctor").out
    assert "was stopped by hand" in found
    assert live.run("recover").out == "nothing was unfinished\n"
    live.up()
    assert live.notes() == ["by one", "by two"]


def test_doctor_is_content_with_a_sound_host(live: Project) -> None:
    found = live.run("doctor", "--json").json()
    assert found["schema"] == 1
    assert found["sound"] is True
    assert {c["check"] for c in found["checks"]} >= {
        "pulumi", "config", "docker", "compose", "compose file", "catalog", "store", "ledger",
        "records", "journal", "data", "live world", "restart policies", "clock",
    }  # fmt: skip
    # Whether anything keeps the clock right is the host's own.
    assert [c for c in found["checks"] if c["level"] != "ok" and c["check"] != "clock"] == []


def test_doctor_finds_what_is_wrong(live: Project) -> None:
    record = live.folder / "releases" / "prod-001" / "release-info.json"
    whole = record.read_bytes()
    (container,) = live.containers()
    try:
        record.write_bytes(whole[:100])
        docker("update", "--restart", "no", container)
        found = live.run("doctor", "--json", code=1).json()
    finally:
        record.write_bytes(whole)
        docker("update", "--restart", "unless-stopped", container)
    wrong = {c["check"]: c for c in found["checks"] if c["level"] != "ok"}
    assert "prod-001" in wrong["records"]["text"]
    assert wrong["records"]["level"] == "failed"
    assert "docker update --restart unless-stopped" in wrong["restart policies"]["remedy"]
    strange = {"PULUMI_CONFIG_PASSPHRASE": "another"}
    live.run("config", "set", "secrets.TOKEN", "t0ken")
    found = live.run("doctor", "--json", code=1, env=strange).json()
    (wrong_passphrase,) = [c for c in found["checks"] if "incorrect passphrase" in c["text"]]
    assert wrong_passphrase["check"] == "config"
    live.run("config", "rm", "secrets")
    (live.folder / "file").write_text("")
    live.run("config", "set", "store", "file")
    found = live.run("doctor", "--json", code=1).json()
    (unusable,) = [c for c in found["checks"] if c["check"] == "data" and c["level"] == "failed"]
    assert unusable["level"] == "failed"
    live.run("config", "set", "store", "releases/store")
    away = {"DOCKER_HOST": "unix:///nowhere/docker.sock"}
    found = live.run("doctor", "--json", code=1, env=away).json()
    unreachable = [c for c in found["checks"] if "nowhere" in c["text"]]
    assert len(unreachable) == 1, "one reason is said once"


def test_doctor_sees_a_damaged_ledger_and_nothing_is_changed(live: Project) -> None:
    ledger = live.folder / "releases" / "ledger-prod.jsonl"
    whole = ledger.read_bytes()
    lines = whole.splitlines(keepends=True)
    try:
        ledger.write_bytes(b"".join(lines[:2] + lines[3:]))
        ran = live.run("doctor", code=1)
        assert "ledger" in ran.out
        assert "damaged" in ran.out
        assert "damaged" in live.run("list", code=1).err
        assert "damaged" in live.up(code=1).text
    finally:
        ledger.write_bytes(whole)


def test_a_reader_that_goes_away_does_not_end_an_update(live: Project) -> None:
    live.declare("prod-001")
    shell = f"{sys.executable} -m cli.main up --yes | head -n 1; exit ${{PIPESTATUS[0]}}"
    ran = subprocess.run(
        ["bash", "-c", shell],
        cwd=live.folder,
        env=live.environment(),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert live.live() == "prod-001", ran.stderr
    assert ran.returncode == 0, ran.stderr
    live.run("undo", "--yes")


def test_new_takes_an_image_and_says_what_it_recorded(live: Project) -> None:
    image = (live.folder / "compose.yaml").read_text().split("image: ")[1].split("\n")[0]
    ran = live.run("new", "four", "--image", f"app={image}", "--json")
    document = ran.json()
    assert (document["schema"], document["name"]) == (1, "prod-004")
    assert document["images"]["app"]["source"] == image
    assert live.run("config", "get", "release").out == "prod-004\n"
    wrong = live.run("new", "five", "--image", "ap=x", code=2)
    assert "there is no service ap" in wrong.err


def test_outputs_and_history(live: Project) -> None:
    assert live.run("stack", "output", "release").out == "prod-002\n"
    outputs = live.run("stack", "output", "--json").json()["outputs"]
    assert outputs["world"] == f"{live.name}-prod-002"
    entries = live.run("stack", "history", "-n", "1", "--json").json()["entries"]
    assert len(entries) == 1
    assert "update" in live.run("stack", "history").out
