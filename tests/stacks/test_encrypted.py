"""`lockstep encrypt` on the store of a live stack, and what its commands do with it then."""

from __future__ import annotations

import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from tests.stacks.canary import Watch, holding
from tests.stacks.harness import TIMEOUT_SECONDS, Project, live_notes

PASSPHRASE = f"key-{uuid.uuid4().hex}"
CANARY = f"note-{uuid.uuid4().hex}"

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(900)]


def give(project: Project, passphrase: str) -> None:
    """Typed as a person does it: by standard input."""
    done = subprocess.run(
        [sys.executable, "-m", "cli.main", "config", "set", "--secret", "encryption"],
        cwd=project.folder,
        env=project.environment(),
        input=passphrase + "\n",
        capture_output=True,
        text=True,
        timeout=TIMEOUT_SECONDS,
    )
    assert done.returncode == 0, done.stderr


def snapshots(project: Project) -> set[str]:
    return {s["snapshot"] for s in project.run("snapshot", "list", "--json").json()["snapshots"]}


def test_attack_secrets_the_store_of_a_live_stack_is_read(tmp_path: Path) -> None:
    """`lockstep encrypt` while a release is live, then its store is searched: nothing of it is
    readable, snapshots keep their ids, restore and rollback work, a wrong passphrase is told apart
    from damage before anything stops, and no process has the right one in its arguments."""
    with live_notes(tmp_path / "notes") as project, Watch(PASSPHRASE) as watch:
        project.warm = False
        project.note(CANARY)
        project.compose_file(v='VERSION: "1"=>VERSION: "2"')
        project.release("two")
        before, store = snapshots(project), project.folder / "releases" / "store"
        assert before
        give(project, PASSPHRASE)
        project.run("encrypt", "--yes")
        assert snapshots(project) == before
        for text in (CANARY, PASSPHRASE, "notes.txt", "prod-001"):
            assert [*holding(store, text)] == []

        project.note("lost")
        project.run("config", "set", "--path", "restore.release", "prod-002")
        project.run("config", "set", "--path", "restore.at", "arrival")
        project.up()
        assert project.notes() == ["a", CANARY]
        project.run("verify", "--read-data")
        running = project.containers()

        give(project, "mistyped-1234567")
        project.declare("prod-001")
        for words in (("preview",), ("up", "--yes"), ("verify",)):
            wrong = project.run(*words, code=None)
            assert wrong.code not in (0, 7), wrong.text
            assert "another passphrase than the one given" in wrong.text
            assert "not damaged" in wrong.text
        project.run("config", "rm", "encryption")
        assert "no passphrase was given" in project.run("up", "--yes", code=None).text
        give(project, PASSPHRASE)

        pack = max((store / "packs").glob("*.pack"), key=lambda path: path.stat().st_size)
        whole = pack.read_bytes()
        pack.write_bytes(whole[: len(whole) // 2])
        damaged = project.run("verify", "--read-data", code=7).text
        assert "passphrase" not in damaged
        pack.write_bytes(whole)
        assert project.containers() == running

        project.up()
        assert (project.live(), project.notes()) == ("prod-001", ["a", CANARY])
        project.run("verify", "--read-data")
    assert watch.seen == set()
