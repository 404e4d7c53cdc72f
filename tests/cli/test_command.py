"""The command itself: help for everything, options anywhere, every failure's code and text."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.main import get_command

from cli import failures, main
from cli.failures import exit_code, report
from engine.errors import EngineError, StackLocked
from reconciler import errors
from snapshots.errors import SnapshotError, StoreBusy
from tests.stacks import warm

ROOT = Path(__file__).resolve().parent.parent.parent
ENVIRONMENT = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT), "LOCKSTEP_ENGINE": "embedded"}


def lockstep(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "cli.main", *arguments],
        cwd=cwd,
        env=ENVIRONMENT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )


def every_command() -> list[tuple[str, ...]]:
    """The words of every command and group, found in the application itself."""
    found: list[tuple[str, ...]] = []

    def walk(command: object, words: tuple[str, ...]) -> None:
        children = getattr(command, "commands", {})
        found.append(words)
        for name, child in children.items():
            walk(child, (*words, name))

    walk(get_command(main.app), ())
    return found


@pytest.mark.parametrize("words", [("version",), ("--help",), ("lits",), ("list", "--json")])
def test_a_forked_command_is_as_a_started_one(words: tuple[str, ...], tmp_path: Path) -> None:
    """What most tests of stacks fork does and says what a person's command does."""
    started = lockstep(*words, cwd=tmp_path)
    forked = warm.run(words, tmp_path, ENVIRONMENT, 60)
    for seen in ("returncode", "stdout", "stderr"):
        assert getattr(forked, seen) == getattr(started, seen)


def test_the_commands_are_those_that_are_promised() -> None:
    assert {words[0] for words in every_command() if words} >= {
        "init", "new", "up", "preview", "list", "info", "log", "diff", "rollback", "undo",
        "snapshot", "verify", "repair", "drill", "encrypt", "rekey", "stop", "recover", "guard",
        "doctor", "compose", "config", "stack", "cancel", "version", "pin", "unpin", "prune",
        "rehearse",
        "metrics", "report", "serve",
        "export", "import",
        "notify", "incident",
    }  # fmt: skip
    assert {words[1] for words in every_command() if len(words) > 1} == {
        "get", "set", "rm", "history", "output", "ls", "live", "create", "list", "restore",
        "show", "export", "note", "test", "log",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        (["list", "-s", "prod"], ["-s", "prod", "list"]),
        (["list", "--stack=prod", "--json"], ["--stack=prod", "list", "--json"]),
        (["up", "-q", "-C", "/x", "--yes"], ["-q", "-C", "/x", "up", "--yes"]),
        (["compose", "logs", "-q"], ["compose", "logs", "-q"]),
        (["-C", "/x", "compose", "ps", "-q"], ["-C", "/x", "compose", "ps", "-q"]),
        (["config", "set", "k", "--", "-s"], ["config", "set", "k", "--", "-s"]),
        (["config", "get", "compose", "-q"], ["-q", "config", "get", "compose"]),
        (["list", "-s"], ["list", "-s"]),
        ([], []),
    ],
)
def test_shared_options_may_stand_anywhere(given: list[str], wanted: list[str]) -> None:
    assert main.common_first(given) == wanted


def test_every_error_of_ours_has_a_documented_code() -> None:
    documented = (ROOT / "docs" / "exit-codes.md").read_text()
    for code in errors.Exit:
        assert f"\n| {int(code)} |" in documented
    assert f"\n| {failures.INTERRUPTED} |" in documented


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.BadInput("x"), 2),
        (errors.Refused("x"), 3),
        (errors.Reverted("x"), 4),
        (errors.DebtsUnpaid("x"), 5),
        (errors.Busy("x"), 6),
        (errors.WorldChanged("x"), 6),
        (errors.Unavailable("x"), 8),
        (errors.DockerFailed("x"), 1),
        (errors.CatalogDamaged("x"), 1),
        (failures.Declined("x"), 1),
        (SnapshotError("x"), 1),
        (StoreBusy("x"), 6),
        (EngineError("x"), 1),
        (StackLocked("x"), 6),
        (PermissionError(13, "Permission denied", "/x"), 1),
        (OSError(28, "No space left on device", "/x"), 1),
        (ValueError("x"), None),
        (OSError("x"), None),
    ],
)
def test_foreseen_errors_have_their_codes(error: Exception, code: int | None) -> None:
    assert exit_code(error) == code


def test_a_foreseen_error_shows_its_text_and_no_traceback(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert report(errors.Refused("it would break", next_step="do this instead")) == 3
    shown = capsys.readouterr()
    assert shown.err == "error: it would break\n  do this instead\n"
    assert shown.out == ""


def test_an_unexpected_error_is_one_line_and_a_file(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ZeroDivisionError) as caught:
        raise ZeroDivisionError("first line\nsecond line")
    assert report(caught.value) == 1
    shown = capsys.readouterr().err
    assert "unexpected ZeroDivisionError: first line\n" in shown
    assert "Traceback" not in shown
    path = Path(shown.split("its traceback is in ")[1].strip())
    try:
        assert "second line" in path.read_text()
        assert "test_command.py" in path.read_text()
        assert path.stat().st_mode & 0o777 == 0o600
    finally:
        path.unlink()


@pytest.mark.parametrize(
    ("error", "code"), [(KeyboardInterrupt(), 130), (typer.Abort(), 130), (typer.Exit(5), 5)]
)
def test_interrupts_and_exits(error: BaseException, code: int) -> None:
    assert report(error) == code


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["nope"], "No such command 'nope'"),
        (["list", "--nope"], "No such option: --nope"),
        (["new"], "Missing argument"),
        (["log", "-n", "0"], "Invalid value"),
    ],
)
def test_a_wrong_command_line_is_bad_input(words: list[str], text: str) -> None:
    ran = lockstep(*words)
    assert ran.returncode == 2
    assert text in ran.stderr
    assert "--help" in ran.stderr
    assert "Traceback" not in ran.stderr


def test_without_arguments_the_help_is_shown() -> None:
    ran = lockstep()
    assert "rollback" in ran.stdout
    assert ran.stderr == ""


def test_version_names_the_engine() -> None:
    ran = lockstep("version")
    assert ran.returncode == 0
    assert ran.stdout.startswith("lockstep")
    assert "embedded engine" in ran.stdout


def test_a_reader_that_goes_away_is_told_of_by_the_code_alone() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    ran = subprocess.run(
        [sys.executable, "-m", "cli.main", "version"],
        cwd=ROOT,
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
    )
    os.close(writing)
    assert ran.returncode == 1
    assert ran.stderr == ""


def test_what_is_slow_to_import_is_not_imported_for_help() -> None:
    """A command that only reads must answer at once."""
    heavy = ("pulumi", "docker", "deepdiff", "grpc", "pydantic", "engine")
    program = f"import sys, cli.main; print([m for m in {heavy!r} if m in sys.modules])"
    ran = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert ran.stdout.strip() == "[]", ran.stderr
