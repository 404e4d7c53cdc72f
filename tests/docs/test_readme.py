"""The commands of the README, typed on a project that runs, as a new user would."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

from tests.stacks.harness import ROOT, docker, notes_project, on_a_terminal

ANSWERS = {"init": "\ny\n", "new": "", "up": "y\n", "rollback": "y\n\n"}
"""What a person types when asked: the name as proposed; yes; no reason for going back."""


def commands(heading: str) -> list[str]:
    """The lines of the first ```sh block below a heading of the README, without comments."""
    text = (ROOT / "README.md").read_text().split(f"## {heading}\n", 1)[1]
    block = re.search(r"```sh\n(.*?)```", text, re.DOTALL)
    assert block is not None, heading
    return [line.partition("  #")[0].strip() for line in block[1].splitlines() if line.strip()]


def git(folder: Path, *words: str) -> None:
    who = ("-c", "user.name=test", "-c", "user.email=test@example.org")
    subprocess.run(["git", *who, *words], cwd=folder, check=True, capture_output=True, timeout=60)


def test_your_own_compose_project(tmp_path: Path) -> None:
    notes = notes_project(tmp_path / "notes")
    plain = ("compose", "-p", notes.name, "--project-directory", str(notes.folder))
    try:
        # The README's reader stands in the folder of the project that runs.
        compose_file = notes.folder / "compose.yaml"
        compose_file.write_text(f"name: {notes.name}\n{compose_file.read_text()}")
        docker(*plain, "up", "-d")
        notes.wait_until_it_answers()
        notes.note("before")
        git(notes.folder, "init", "-q")
        git(notes.folder, "add", "-A")
        git(notes.folder, "commit", "-q", "-m", "a project")
        for command in commands("Your own compose project"):
            words = shlex.split(command)
            if words[0] == "lockstep":
                code, shown = on_a_terminal(notes, *words[1:], answer=ANSWERS[words[1]])
                assert code == 0, shown
                assert "Traceback" not in shown
            else:
                for part in command.split(" && "):
                    git(notes.folder, *shlex.split(part)[1:])
        assert notes.live() == "prod-000", "back to what ran before"
        assert [entry["move"] for entry in notes.entries()] == ["back", "adopt"]
        assert notes.notes() == ["before"]
    finally:
        notes.remove()
