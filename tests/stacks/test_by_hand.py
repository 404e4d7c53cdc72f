"""What people do beside Lockstep, by hand or from habit: no data is lost by it."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path

from tests.stacks.harness import Project, docker, notes_project, python_image

SIDE = """  side:
    image: {image}
    command: ["sh", "-c", "echo side >> /notes/notes.txt; sleep 1000"]
    init: true
    stop_grace_period: 1s
    volumes: ["notes:/notes"]
volumes:
  notes:"""


def with_side(notes: Project) -> None:
    """A second service that mounts the same dataset, and writes when it starts."""
    path = notes.folder / "compose.yaml"
    text = path.read_text()
    path.write_text(text.replace("volumes:\n  notes:", SIDE.format(image=python_image())))


def test_attack_ledger_older_copy_put_back(notes: Project) -> None:
    """An older copy of the ledger is put back: up refuses while the world that it does not know
    runs, and puts nothing into its volume when that was stopped, too."""
    # Without a published port nothing else would be in the way.
    notes.compose_file(p=f'    ports: ["127.0.0.1:{notes.port}:8000"]\n=>')
    notes.release("one")
    notes.compose_file(v='VERSION: "1"=>VERSION: "2"')
    notes.release("two")
    (container,) = notes.containers()
    docker("exec", container, "sh", "-c", "echo precious >> /notes/notes.txt")

    ledger = notes.folder / "releases" / "ledger-prod.jsonl"
    newest = ledger.read_text()
    lines = newest.splitlines()
    commit = max(i for i, line in enumerate(lines) if json.loads(line)["kind"] == "committed")
    ledger.write_text("\n".join(lines[:commit]) + "\n")

    refused = notes.up(code=3)
    assert f"{notes.name}-prod-002-app-1" in refused.text
    assert "newest" in refused.text
    assert docker("exec", container, "cat", "/notes/notes.txt") == "precious\n"

    # Stopped, it is no more known to the ledger: a fork must not go into its volume.
    docker("stop", container)
    notes.trust(refused)
    notes.run("up", "--yes", code=None)
    volume = f"{notes.name}-prod_notes_g2"
    read = docker("run", "--rm", "-v", f"{volume}:/n", python_image(), "cat", "/n/notes.txt")
    assert read == "precious\n"


def test_a_container_of_the_previous_world_is_removed_by_hand(notes: Project) -> None:
    with_side(notes)
    notes.release("one")
    notes.note("a")
    notes.compose_file(v='VERSION: "1"=>VERSION: "2"')
    notes.release("two")
    docker("rm", f"{notes.name}-prod-001-side-1")
    notes.run("rollback", "--yes")
    assert (notes.live(), notes.get("/version")) == ("prod-001", "1")
    assert len(notes.containers()) == 2
    notes.nothing_to_do()


def test_fault_92_compose_up_from_habit_writes_into_no_data_that_is_gone_back_to(
    tmp_path: Path,
) -> None:
    """`docker compose start` in the folder of the adopted project: said, and going back takes
    what was sealed from the store, not what was written since."""
    notes = notes_project(tmp_path / "notes")
    with_side(notes)
    plain = ("compose", "-p", notes.name, "--project-directory", str(notes.folder))
    try:
        docker(*plain, "up", "-d")
        notes.wait_until_it_answers()
        notes.note("plain")
        notes.init()
        notes.release("one")
        time.sleep(1.1)  # the log's times are to the second
        docker(*plain, "start", "side")
        docker(*plain, "stop", "side")
        assert "was used since" in notes.run("rollback", "--yes").text
        assert (notes.live(), notes.notes()[:2]) == ("prod-000", ["side", "plain"])
        assert notes.notes().count("side") == 2, "once before it was left, once now"
    finally:
        notes.remove()


def test_a_record_that_somebody_deleted_is_named_and_its_images_stay(notes: Project) -> None:
    notes.release("one")
    notes.compose_file(v='VERSION: "1"=>VERSION: "2"')
    notes.release("two")
    folder = notes.folder / "releases" / "prod-001"
    shutil.move(folder, notes.folder / "saved")
    warned = notes.up()
    assert "the record of prod-001 is missing" in warned.text
    assert f"{notes.name}-app:prod-001" in notes.images()
    listed = {r["release"]: r for r in notes.releases()}
    assert "missing" in listed["prod-001"]["unusable"]
    shutil.move(notes.folder / "saved", folder)
    notes.run("rollback", "--yes")
    assert notes.live() == "prod-001"


def test_a_service_of_no_replicas_and_containers_of_compose_run_are_no_drift(
    notes: Project,
) -> None:
    with_side(notes)
    notes.compose_file(s="    stop_grace_period: 1s\n=>    stop_grace_period: 1s\n    scale: 0\n")
    notes.release("one")
    world = f"{notes.name}-prod-001"
    labels = {
        "com.docker.compose.project": world,
        "com.docker.compose.service": "app",
        "com.docker.compose.oneoff": "True",
        "lockstep.project": notes.name,
        "lockstep.stack": "prod",
        "lockstep.world": world,
    }
    named = [word for key, value in labels.items() for word in ("--label", f"{key}={value}")]
    docker("run", *named, python_image(), "false", check=False)
    notes.nothing_to_do()


def test_a_replica_that_is_gone_is_made_again(notes: Project) -> None:
    with_side(notes)
    notes.compose_file(s="    stop_grace_period: 1s\n=>    stop_grace_period: 1s\n    scale: 2\n")
    notes.release("one")
    docker("rm", "--force", f"{notes.name}-prod-001-side-2")
    notes.up()
    assert len(notes.containers()) == 3
    notes.nothing_to_do()


def test_fault_92_containers_that_compose_made_anew_are_not_the_adopted_ones(
    tmp_path: Path,
) -> None:
    """`docker compose up -d` with a changed file in the adopted project's folder: going back
    runs the release as it was adopted, not what compose made."""
    notes = notes_project(tmp_path / "notes")
    plain = ("compose", "-p", notes.name, "--project-directory", str(notes.folder))
    try:
        docker(*plain, "up", "-d")
        notes.wait_until_it_answers()
        notes.note("plain")
        notes.init()
        notes.release("one")
        time.sleep(1.1)
        notes.compose_file(v='VERSION: "1"=>VERSION: "9"')
        docker(*plain, "up", "-d", check=False)  # the port is taken: made, and not started
        docker(*plain, "stop")
        notes.run("rollback", "--yes")
        assert (notes.live(), notes.get("/version"), notes.notes()) == ("prod-000", "1", ["plain"])
    finally:
        notes.remove()


def test_attack_ledger_removed_with_all_containers(notes: Project) -> None:
    """The ledger, all containers and a volume are removed: up refuses because Pulumi's state knows
    one, and where that is waived because of the volumes that are left; it starts no empty release,
    and goes on with a copy of the ledger."""
    notes.release("one")
    notes.release("two")
    notes.note("precious")
    ledger = notes.folder / "releases" / "ledger-prod.jsonl"
    newest = ledger.read_bytes()
    docker("stop", *notes.containers())
    ledger.unlink()
    docker("rm", *notes.containers(running=False))
    docker("volume", "rm", f"{notes.name}-prod_notes_g1")
    notes.trust(notes.up(code=3))
    assert f"{notes.name}-prod_notes_g2" in notes.up(code=3).text
    ledger.write_bytes(newest)
    notes.up()
    assert notes.notes() == ["precious"]
