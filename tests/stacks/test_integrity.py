"""A store in which bits flip, under a real stack: found before anything stops, mended where the
content still is, refused where it is not; and drills, which tell beforehand what comes back."""

from __future__ import annotations

import json
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from snapshots.pack import read_index
from tests.stacks.harness import Project, base_image, docker, notes_project

ROWS = 2000


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """Notes in a volume, uploads in a bind directory, orders in a Postgres; prod-002 is live."""
    project = notes_project(tmp_path_factory.mktemp("integrity") / "notes", warm=False)
    (project.folder / "uploads").mkdir()
    project.compose_file(
        a="- notes:/notes=>- notes:/notes\n      - ./uploads:/uploads",
        b="volumes:\n  notes:\n=>"
        f"""  db:
    image: {base_image("postgres:15")}
    environment: {{POSTGRES_PASSWORD: "${{DB_PASSWORD}}"}}
    volumes: [db-data:/var/lib/postgresql/data]
    ports: ["127.0.0.1::5432"]
    healthcheck:
      test: ["CMD", "pg_isready", "--host=127.0.0.1", "--username=postgres"]
volumes:
  notes:
  db-data:
""",
    )
    (project.folder / ".env").write_text("DB_PASSWORD=a-secret\n")
    try:
        project.init()
        project.release("one")
        sql(project, f"CREATE TABLE orders AS SELECT g FROM generate_series(1, {ROWS}) g")
        project.note("by one")
        (project.folder / "uploads" / "photo").write_bytes(b"the first photo" * 1000)
        project.release("two")
        rewrite(project, "by two")
        (project.folder / "uploads" / "photo").write_bytes(b"another photo" * 1000)
        yield project
    finally:
        project.remove()


def rewrite(project: Project, text: str) -> None:
    """Other notes altogether, so that no part of the old ones is in the new."""
    (name,) = [n for n in project.containers().values() if "-app-" in n]
    docker("exec", name, "sh", "-c", f"echo {text} > /notes/notes.txt")


def sql(project: Project, query: str) -> str:
    (name,) = [n for n in project.containers().values() if "-db-" in n]
    return docker("exec", name, "psql", "-U", "postgres", "-XqtAc", query).strip()


def standing(project: Project) -> dict[str, str]:
    """Container -> when it was started, of all that run."""
    shown = "{{.State.StartedAt}}"
    return {c: docker("inspect", "--format", shown, c) for c in project.containers()}


def snapshot_of(project: Project, release: str, dataset: str) -> str:
    departures = project.run("info", release, "--json").json()["departures"]
    return str(departures[-1]["snapshots"][dataset])


def flip_bits(project: Project) -> dict[Path, bytes]:
    """One bit of every block in every pack; what the packs were before."""
    before = {}
    for pack in (project.folder / "releases" / "store" / "packs").glob("*.pack"):
        before[pack] = pack.read_bytes()
        damaged = bytearray(before[pack])
        for placed in read_index(pack, pack.stem):
            damaged[placed.offset + placed.stored // 2] ^= 0x10
        pack.write_bytes(damaged)
    return before


def put_back(before: dict[Path, bytes]) -> None:
    """The packs are whole again; a repair may have written them anew, or put them aside."""
    for pack, content in before.items():
        pack.write_bytes(content)


def verified(project: Project) -> list[dict[str, Any]]:
    """What `verify --read-data` finds."""
    ran = project.run("verify", "--read-data", "--json", code=None)
    assert (ran.code, ran.json()["sound"]) in ((0, True), (7, False))
    return list(ran.json()["damages"])


def drills(project: Project) -> list[str]:
    label = f"label=lockstep.drill={project.name}/prod"
    found = docker("ps", "-aq", "--filter", label).split()
    return found + docker("volume", "ls", "-q", "--filter", label).split()


def test_a_drill_brings_everything_back_beside_the_live_world(stack: Project) -> None:
    before = standing(stack)
    drilled = stack.run("drill", "--json").json()
    assert (drilled["release"], drilled["at"], drilled["passed"]) == ("prod-001", "departure", True)
    db = drilled["datasets"]["db-data"]
    assert (db["engine"], db["counts"]["postgres.public.orders"]) == ("db", ROWS)
    assert db["recorded"] == db["counts"]
    assert set(db["seconds"]) == {"restore", "start", "ready", "probe"}
    assert drilled["datasets"]["notes"]["counts"]["bytes"] == len("by one\n")
    assert drilled["datasets"]["uploads"]["engine"] is None
    assert standing(stack) == before
    assert drills(stack) == []
    assert stack.run("info", "prod-001", "--json").json()["drill"]["passed"] is True


def test_what_a_killed_drill_leaves_is_shown_and_removed_by_the_next(stack: Project) -> None:
    label = f"label=lockstep.drill={stack.name}/prod"
    drill = stack.start("drill")
    deadline = time.monotonic() + 60
    while not docker("ps", "-q", "--filter", label):
        assert drill.poll() is None, drill.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.05)
    shown = "{{.HostConfig.NetworkMode}} {{.HostConfig.PortBindings}}"
    for container in docker("ps", "-q", "--filter", label).split():
        assert docker("inspect", "--format", shown, container) == "none map[]\n"
    drill.send_signal(signal.SIGKILL)
    drill.communicate()
    left = drills(stack)
    assert left
    checks = stack.run("doctor", "--json").json()["checks"]
    assert [c["level"] for c in checks if c["check"] == "drill"] == ["warning"]
    notes = snapshot_of(stack, "prod-001", "notes")
    again = stack.run("drill", "prod-001", "--at", notes[:10])
    assert "which a drill left" in again.err
    assert "1 files" in again.out
    assert drills(stack) == []


def rehearsals(project: Project) -> list[str]:
    """Everything of a rehearsal that is on the host, networks and snapshots included."""
    label = f"label=lockstep.rehearsal={project.name}/prod"
    found = docker("ps", "-aq", "--filter", label).split()
    found += docker("volume", "ls", "-q", "--filter", label).split()
    networks = docker("network", "ls", "--format", "{{.Name}}").split()
    found += [name for name in networks if name.startswith(f"{project.name}-prod-rehearsal")]
    found += [path.name for path in (project.folder / "releases/files").glob("*rehearsal*")]
    snapshots = project.run("snapshot", "list", "--json").json()["snapshots"]
    return found + [s["snapshot"] for s in snapshots if s["tags"].get("kind") == "rehearsal"]


@contextmanager
def asked(project: Project) -> Iterator[list[str]]:
    """Somebody uses the live world all the time; what went wrong for them."""
    wrong: list[str] = []
    done = threading.Event()

    def ask() -> None:
        while not done.wait(0.02):
            try:
                project.get("/notes")
            except OSError as error:
                wrong.append(str(error))

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield wrong
    finally:
        done.set()
        thread.join()


IN_ITS_WORLD = {
    "column": {
        "at": "pre-start",
        "moves": ["forward"],
        "run": {"command": ["sh", "-c", "echo column >> /notes/notes.txt; cat; echo; echo added"]},
    },
    "check": {"at": "post-start", "exec": {"command": ["grep", "column", "/notes/notes.txt"]}},
    "undo": {"at": "pre-start", "moves": ["back"], "run": {"command": ["touch", "/notes/undone"]}},
}
OUTSIDE = {
    "drain": {"at": "pre-stop", "exec": {"command": ["touch", "/notes/drained"], "service": "app"}},
    "tell": {"at": "pre-start", "command": ["touch", "told"]},
    "ask": {"at": "post-prove", "command": ["sh", "-c", "cat >> asked; exit 6"], "rehearse": True,
            "on_failure": "warn", "moves": ["forward"]},
    "page": {"at": ["pre-start", "post-commit"], "http": {"url": "http://127.0.0.1:9/"}},
}  # fmt: skip


def insist_on_hooks_of_a_rehearsal(stack: Project, found: dict[str, Any]) -> None:
    """What works in its world was run on the copy; what reaches further only where it says so."""
    hooks = {f"{hook['name']} {hook['at']}": hook for hook in found["hooks"]}
    held = {key: hook["why"] for key, hook in hooks.items() if hook["result"] == "held-back"}
    assert held == {
        "drain pre-stop": "it works in the world that is left, which a rehearsal leaves alone",
        "undo pre-start": "it is not meant for this move (forward)",
        "tell pre-start": "it runs on the host; with `rehearse: true` it is run",
        "page pre-start": "it calls an address outside; with `rehearse: true` it is run",
        "page post-commit": "a rehearsal comes to no commit",
    }
    column, check, ask = (
        hooks[key] for key in ("column pre-start", "check post-start", "ask post-prove")
    )
    assert (column["result"], check["result"], check["output"]) == ("passed", "passed", "column")
    said, word = column["output"].splitlines()
    facts = json.loads((stack.folder / "asked").read_text())
    assert word == "added"
    assert said.endswith("}"), "the end of what it printed is kept"
    assert (ask["result"], ask["why"]) == ("failed", "ended with exit code 6")
    assert (facts["rehearsal"], facts["release"]) == (True, found["release"])
    assert facts["world"] == f"{stack.name}-prod-rehearsal"
    assert facts["generations"]["notes"] == f"{stack.name}-prod-rehearsal_notes"
    assert found["datasets"]["notes"]["differences"]["bytes"] == [7, 14]
    assert not (stack.folder / "told").exists()
    (stack.folder / "asked").unlink()
    live = [name for name in stack.containers().values() if "-app-" in name]
    assert docker("exec", live[0], "ls", "/notes").split() == ["notes.txt"]


def test_a_rehearsal_proves_a_new_release_and_the_live_world_notices_nothing(
    stack: Project,
) -> None:
    """The rehearsed release migrates its copy of the live data and reads what was noted; the live
    world keeps its containers, their starts, each of its answers and its rows. One that was live
    before gets the data that it left, one that fails says why; nothing is left of any."""
    before, volumes = standing(stack), stack.volumes()
    plain = (stack.folder / "compose.yaml").read_text()
    migrate = "psql postgresql://postgres:$$POSTGRES_PASSWORD@db -c 'INSERT INTO orders VALUES (0)'"
    job = f"""  migrate:
    image: {base_image("postgres:15")}
    environment: {{POSTGRES_PASSWORD: "${{DB_PASSWORD}}"}}
    command: ["sh", "-c", "echo no ERROR here; {migrate}"]
    depends_on: {{db: {{condition: service_healthy}}}}
  mailer:
    image: {base_image("python:3.11-slim")}
    command: ["sleep", "1000"]
    x-lockstep: {{start: after-commit}}
volumes:
  notes:
"""
    stack.compose_file(
        a="volumes:\n  notes:\n=>" + job,
        b='python3", "/app.py"]=>python3", "/app.py"]\n    depends_on: '
        "{migrate: {condition: service_completed_successfully}}\n    x-lockstep: {hooks: "
        + json.dumps(IN_ITS_WORLD)
        + "}",
    )
    settings = stack.folder / "Pulumi.prod.yaml"
    hooks = f"config:\n  {stack.name}:hooks: {json.dumps(OUTSIDE)}\n"
    settings.write_text(settings.read_text().replace("config:\n", hooks))
    newest = stack.new("migrates")
    with asked(stack) as wrong:
        found = stack.run("rehearse", "--json").json()
        old = stack.run("rehearse", "prod-001", "--json").json()
        stack.compose_file(v='VERSION: "1"=>VERSION: "2"\n      BROKEN: "always"')
        stack.run("config", "set", "deadline", "4")
        broken = stack.new("broken")
        failed = stack.run("rehearse", "--json", code=1)
        failed_hooks = failed.json()["hooks"]
    stack.run("config", "rm", "hooks")
    assert wrong == []
    assert standing(stack) == before
    assert stack.volumes() == volumes
    assert rehearsals(stack) == []
    assert (found["release"], found["live"], found["passed"]) == (newest, "prod-002", True)
    assert found["held_back"] == {"mailer": "start: after-commit"}
    assert found["services"].keys() == {"app", "db", "migrate"}
    db = found["datasets"]["db-data"]
    assert (db["action"], db["how"]) == ("fork", "a live snapshot by its engine")
    assert db["differences"] == {"postgres.public.orders": [ROWS, ROWS + 1]}
    assert found["datasets"]["uploads"]["how"] == "copied file by file"
    assert found["log_errors"]["migrate"]["last"] == ["no ERROR here"]
    insist_on_hooks_of_a_rehearsal(stack, found)
    results = {hook["name"]: hook["result"] for hook in failed_hooks}
    assert (results["column"], results["check"]) == ("passed", "not-reached")
    assert old["datasets"]["notes"]["action"] == "attach"
    assert old["datasets"]["notes"]["after"]["bytes"] == len("by one\n")
    assert "the health check of app" in failed.err
    assert sql(stack, "SELECT count(*) FROM orders") == str(ROWS)
    (stack.folder / "compose.yaml").write_text(plain)
    stack.run("config", "rm", "deadline")
    stack.declare("prod-002")
    assert stack.status()[broken] == "kept"


@pytest.mark.chaos
def test_what_a_killed_rehearsal_leaves_is_shown_and_removed_by_the_next(stack: Project) -> None:
    label = f"label=lockstep.rehearsal={stack.name}/prod"
    rehearsal = stack.start("rehearse", "prod-002")
    deadline = time.monotonic() + 60
    while not docker("ps", "-q", "--filter", label):
        assert rehearsal.poll() is None, rehearsal.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.05)
    shown = "{{.HostConfig.PortBindings}} {{.HostConfig.OomScoreAdj}}"
    for container in docker("ps", "-q", "--filter", label).split():
        assert docker("inspect", "--format", shown, container) == "map[] 1000\n"
    rehearsal.send_signal(signal.SIGKILL)
    rehearsal.communicate()
    assert rehearsals(stack)
    checks = stack.run("doctor", "--json").json()["checks"]
    assert [c["level"] for c in checks if c["check"] == "rehearsal"] == ["warning"]
    before = standing(stack)
    stack.up()
    assert standing(stack) == before
    again = stack.run("rehearse", "prod-002")
    assert "which a rehearsal left" in again.err
    assert "passed its proof" in again.out
    assert rehearsals(stack) == []


def test_fault_21_a_flipped_bit_in_each_block_is_named_and_mended(stack: Project) -> None:
    """A bit turns over in every block of the store: verify names files and releases, repair takes
    what sealed volumes still have, and names what nobody has any more."""
    before = flip_bits(stack)
    found = stack.run("verify", "prod-001", "--read-data", "--json", code=7).json()
    damages = {damage["dataset"]: damage for damage in found["damages"]}
    assert set(damages) == {"notes", "uploads", "db-data"}
    notes = damages["notes"]
    assert notes["files"] == ["notes.txt"]
    assert notes["releases"] == {"prod-001": ["left"], "prod-002": ["started from"]}
    assert notes["still_in_volume"] == [f"{stack.name}-prod_notes_g1"]
    assert damages["uploads"]["still_in_volume"] == []
    repaired = stack.run("repair", "--json", code=7).json()
    assert repaired["blocks"] >= 2
    (lost,) = repaired["unmended"]
    assert (lost["dataset"], lost["files"]) == ("uploads", ["photo"])
    assert set(lost["releases"]) == {"prod-001", "prod-002"}
    put_back(before)
    assert verified(stack) == []


def test_fault_21_a_move_that_needs_damaged_content_stops_nothing(stack: Project) -> None:
    """Each block of the store has a flipped bit, and what a rollback needs is nowhere but there:
    it is refused with the file's name, and no container was stopped."""
    before, running = flip_bits(stack), standing(stack)
    refused = stack.run("rollback", "--yes", code=3)
    assert "photo" in refused.text
    assert "uploads" in refused.text
    assert standing(stack) == running
    assert stack.live() == "prod-002"
    put_back(before)
    kinds = {
        s["tags"].get("kind") for s in stack.run("snapshot", "list", "--json").json()["snapshots"]
    }
    assert kinds == {None}, "what was read in advance of the move is not kept"


def test_attack_data_the_store_is_taken_away_and_an_older_copy_put_in_its_place(
    stack: Project,
) -> None:
    """The store's folder is moved away, then replaced by a copy without its newest snapshots, as a
    backup of yesterday is: a rollback that needs them is refused by name and stops nothing, verify
    names the releases, and with the right store all is whole."""
    store, running = stack.folder / "releases" / "store", standing(stack)
    away = store.with_name("away")
    needed = snapshot_of(stack, "prod-001", "uploads")
    store.rename(away)
    gone = stack.run("rollback", "--yes", code=None)
    assert gone.code in (1, 3, 7)
    assert "uploads" in gone.text
    assert standing(stack) == running
    shutil.rmtree(store, ignore_errors=True)
    shutil.copytree(away, store)
    (store / "snapshots" / f"{needed}.json").unlink()
    refused = stack.run("rollback", "--yes", code=None)
    assert refused.code in (1, 3, 7)
    assert "uploads" in refused.text
    assert standing(stack) == running
    found = stack.run("verify", "--json", code=None)
    assert (found.code, found.json()["missing"]) == (7, [needed])
    assert "prod-001" in found.err
    shutil.rmtree(store)
    away.rename(store)
    assert verified(stack) == []
    assert stack.live() == "prod-002"


def test_fault_21_23_a_restore_that_finds_damage_is_mended_on_its_way_or_stops_nothing(
    stack: Project,
) -> None:
    """Blocks that a restore needs are damaged: what a sealed volume still has is taken from there,
    else it is refused with the file's name, and no container was stopped. Where blocks are missing,
    the preview says so."""
    before = flip_bits(stack)
    uploads = [d["reason"] for d in verified(stack) if d["dataset"] == "uploads"]
    put_back({p: b for p, b in before.items() if any(p.stem[:12] in why for why in uploads)})
    stack.run("config", "set", "--path", "restore.release", "prod-002")
    stack.run("config", "set", "--path", "restore.at", "arrival")
    said = stack.up()
    assert "mended" in said.text
    assert stack.notes() == ["by one"]
    assert sql(stack, "SELECT count(*) FROM orders") == str(ROWS)
    assert (stack.folder / "uploads" / "photo").read_bytes() == b"the first photo" * 1000

    # The volume that prod-001 left went with its world: its notes are nowhere but in the store.
    assert f"{stack.name}-prod_notes_g1" not in stack.volumes()
    packs = [*(stack.folder / "releases" / "store" / "packs").glob("*.pack")]
    for pack in packs:
        pack.rename(pack.with_suffix(".away"))
    stack.declare("prod-001")
    warnings = stack.preview(code=None)["warnings"]
    assert any("notes.txt" in w and "`lockstep repair`" in w for w in warnings), warnings
    stack.declare("prod-002")
    for pack in packs:
        pack.with_suffix(".away").rename(pack)
    flip_bits(stack)
    running = standing(stack)
    refused = stack.run("rollback", "--yes", code=3)
    assert "notes.txt" in refused.text
    assert standing(stack) == running
    assert stack.notes() == ["by one"]
