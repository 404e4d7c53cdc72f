"""Every command, found in the application itself: help with examples that can be typed, bad input
without a traceback, and the pages that are made from them."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cli import main
from cli.examples import EXAMPLES
from tests import reference
from tests.documents import insist

ROOT = Path(__file__).resolve().parent.parent.parent
COMMANDS = {" ".join(words): command for words, command in reference.every_command() if words}
PASSED_ON = "compose"
"""Its options are Docker Compose's."""
ANYWHERE = {"completion", "schema", "version"}
"""What needs no project, and can be asked in any folder."""
NAMES = [name for name in COMMANDS if name != PASSED_ON]


def words_of(example: str) -> list[str]:
    """The command line of an example, without what a shell does with it."""
    return shlex.split(re.split(r" [|<>] ", example)[0])[1:]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_two_examples_that_can_be_typed(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    examples = EXAMPLES.get(name, ())
    assert len(examples) >= 2, f"cli/examples.py has too few for lockstep {name}"
    for example in examples:
        assert example.startswith(f"lockstep {name.split()[0]}")
        found = words_of(example)
        command: Any = None
        while found and " ".join([*(command or []), found[0]]) in COMMANDS:
            command = [*(command or []), found.pop(0)]
        parsed = COMMANDS[" ".join(command)]
        if " ".join(command) != PASSED_ON and not hasattr(parsed, "commands"):
            parsed.make_context(name, found)
    assert COMMANDS[name].help
    if name != PASSED_ON:
        assert main.main([*name.split(), "--help"]) == 0
        shown = " ".join(capsys.readouterr().out.split())
        for example in examples:
            assert " ".join(example.split())[:40] in shown


def test_no_example_is_of_a_command_that_is_gone() -> None:
    assert EXAMPLES.keys() - COMMANDS.keys() == set()


def test_every_command_prints_json_but_the_one_that_is_docker_composes() -> None:
    """`docker compose` has formats of its own."""
    silent = {
        name
        for name, command in COMMANDS.items()
        if "--json" not in reference.options(command) and not hasattr(command, "commands")
    }
    assert silent == {PASSED_ON}


@pytest.mark.parametrize("more", [(), ("--json",)], ids=["", "json"])
@pytest.mark.parametrize("name", NAMES)
def test_a_wrong_option_is_bad_input(
    name: str, more: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.main([*name.split(), "--no-such-option", *more]) == 2
    said = capsys.readouterr()
    assert "--no-such-option" in said.err
    assert "Traceback" not in said.err
    assert said.out == ""


@pytest.mark.parametrize("as_json", [False, True], ids=["", "json"])
@pytest.mark.parametrize("name", COMMANDS)
def test_what_is_typed_in_a_wrong_folder_ends_with_a_code_and_a_sentence(
    name: str,
    as_json: bool,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Neither a project nor Docker is there, and nobody to answer a question. What a program reads
    is a document, or nothing."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/nowhere.sock")
    monkeypatch.setattr("sys.stdin", open(os.devnull))  # noqa: SIM115
    typed = words_of(EXAMPLES[name][0])
    more = ["--json"] if as_json and name != PASSED_ON and "--json" not in typed else []
    code = main.main([*typed, *more])
    said = capsys.readouterr()
    assert code in ((0,) if name in ANYWHERE else (1, 2, 8)), said
    assert said.err or said.out
    if as_json and said.out:
        insist(typed, json.loads(said.out))
    assert "unexpected" not in said.err
    assert "Traceback" not in said.err + said.out
    assert not list(tmp_path.iterdir())


def test_the_pages_are_what_the_code_says() -> None:
    for path, page in reference.PAGES.items():
        assert path.read_text() == page() + "\n", "run `python -m tests.reference --write`"


def test_every_setting_says_what_it_is_for() -> None:
    from reconciler.config import Settings

    schema = Settings.model_json_schema()
    bare = [key for key, _, _, text in reference.keys(schema, schema, "") if not text]
    assert bare == [], "give its Field in reconciler/config.py a description"


def test_readme_knows_every_command() -> None:
    readme = (ROOT / "README.md").read_text()
    coded = " ".join(re.findall(r"`([^`\n]+)`", readme) + re.findall(r"```\w*\n(.*?)```", readme))
    missing = [n for n in COMMANDS if " " not in n and not re.search(rf"\b{n}\b", coded)]
    assert missing == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_is_told_how_to_complete(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["completion", shell]) == 0
    assert "_LOCKSTEP_COMPLETE" in capsys.readouterr().out
    assert main.main(["completion", "dos"]) == 2
    assert main.main(["completion", shell, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    insist(["completion"], document)
    assert (document["shell"], "_LOCKSTEP_COMPLETE" in document["script"]) == (shell, True)


def test_names_of_commands_and_releases_are_completed(tmp_path: Path) -> None:
    (tmp_path / "Pulumi.yaml").touch()
    for name in ("prod-001", "prod-002", "test-001"):
        (tmp_path / "releases" / name).mkdir(parents=True)
        (tmp_path / "releases" / name / "release-info.json").touch()
    (tmp_path / "below").mkdir()

    def asked(line: str) -> list[str]:
        words = line.split(" ")
        ran = subprocess.run(
            [sys.executable, "-m", "cli.main"],
            cwd=tmp_path / "below",
            env={
                "PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT),
                "_LOCKSTEP_COMPLETE": "complete_bash",
                "COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1),
            },
            capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        return ran.stdout.split()

    assert asked("lockstep rehe") == ["rehearse"]
    assert asked("lockstep info prod") == ["prod-002", "prod-001"]
    assert asked("lockstep pin x") == []


def test_no_colour_when_asked_or_piped() -> None:
    def shown(*words: str, **env: str) -> str:
        ran = subprocess.run(
            ["script", "--quiet", "--return", "--command",
             shlex.join([sys.executable, "-m", "cli.main", *words]), "/dev/null"],
            cwd=ROOT, env={**os.environ, "TERM": "xterm-256color", **env},
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert "Usage" in ran.stdout
        return ran.stdout

    # Bold and dim are no colours, and stay.
    colour = re.compile(r"\x1b\[[0-9;]*3[0-9][;m]")
    assert colour.search(shown("prune", "--help"))
    assert not colour.search(shown("prune", "--help", "--no-color"))
    assert not colour.search(shown("prune", "--help", NO_COLOR="1"))
    piped = subprocess.run(
        [sys.executable, "-m", "cli.main", "prune", "--help"], cwd=ROOT, capture_output=True
    )
    assert b"\x1b" not in piped.stdout
