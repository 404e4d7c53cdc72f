"""Data whose engine no image tells: by commands of the user's own, and by what a volume holds."""

from __future__ import annotations

import json

from tests.stacks.harness import Project, docker

WRITE = """
import sqlite3
with sqlite3.connect("/db/any name") as shop:
    shop.execute("PRAGMA journal_mode = wal")
    shop.execute("CREATE TABLE IF NOT EXISTS orders (id INTEGER PRIMARY KEY)")
    shop.execute("INSERT INTO orders VALUES (NULL)")
    print(shop.execute("SELECT count(*) FROM orders").fetchone()[0])
"""
COMMANDS = {
    "dump": "cat /notes/notes.txt",
    "restore": "cat > /notes/notes.txt",
    "probe": "cat /notes/notes.txt | wc -l | sed 's/^/notes /'",
    "check": "test -w /notes",
}


def drivers(project: Project, release: str) -> dict[str, str]:
    record = json.loads((project.folder / "releases" / release / "release-info.json").read_text())
    return {name: dataset["driver"] for name, dataset in record["datasets"].items()}


def in_app(project: Project, *argv: str) -> str:
    (app,) = project.containers()
    return docker("exec", app, *argv).strip()


def test_a_dump_and_a_database_are_captured_live_and_come_back(notes: Project) -> None:
    notes.compose_file(
        a="- notes:/notes=>- notes:/notes\n      - db:/db",
        b="volumes:\n  notes:\n=>volumes:\n  notes:\n  db:\n",
    )
    notes.run("config", "set", "--path", "datasets.notes.commands.dump", COMMANDS["dump"])
    assert "no command restore" in notes.run("new", "half of it", code=None).err
    for name, command in COMMANDS.items():
        notes.run("config", "set", "--path", f"datasets.notes.commands.{name}", command)
    notes.release("one")
    assert drivers(notes, "prod-001") == {"notes": "command", "db": "directory"}
    assert in_app(notes, "python3", "-c", WRITE) == "1"
    notes.release("two")
    assert drivers(notes, "prod-002") == {"notes": "command", "db": "sqlite"}
    notes.note("a")
    assert in_app(notes, "python3", "-c", WRITE) == "2"
    taken = notes.run("snapshot", "--json").json()["datasets"]
    notes.note("b")
    assert in_app(notes, "python3", "-c", WRITE) == "3"
    notes.run("config", "set", "--path", "restore.release", "prod-002")
    notes.run("config", "set", "--path", "restore.at", taken["notes"]["snapshot"])
    notes.up()
    assert notes.notes() == ["a"], "the dump was loaded"
    assert in_app(notes, "ls", "-A", "/notes") == "notes.txt"
