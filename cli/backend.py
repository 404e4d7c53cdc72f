"""Pulumi as the commands need it: the official CLI and the embedded engine behind one interface.

This is the only place that knows which of the two runs.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TextIO, cast

from cli import ask, engines, failures
from reconciler.errors import EXIT_CODE_FILE, Exit, LockstepError

if TYPE_CHECKING:
    from engine.operations import Result
    from engine.project import Project
    from engine.steps import Display

QUICK = 120
"""Seconds for what neither asks nor changes the host."""


class PulumiFailed(LockstepError):
    """The official CLI reported a failure; its own words are the message."""


class ProgramEnded(LockstepError):
    """What ended the program, which the official CLI has shown: only its exit code is known."""

    def __init__(self, code: int) -> None:
        super().__init__("the program ended with an error")
        self.exit_code = Exit(code)


class Backend(Protocol):
    """One stack in Pulumi. Config keys are given without the project's prefix."""

    says: str
    """The line that tells which engine runs."""

    def config(self) -> dict[str, Any]:
        """Every value by its full key (`shop:release`), secrets in plain text."""
        ...

    def secret_keys(self) -> frozenset[str]:
        """Full keys whose values are secret or hold a secret."""
        ...

    def config_get(self, key: str, *, path: bool) -> Any:
        """One value. Raises EngineError or PulumiFailed when it is not set."""
        ...

    def config_set(self, key: str, value: str, *, secret: bool, path: bool) -> None: ...

    def config_rm(self, key: str, *, path: bool) -> None: ...

    def begin(self) -> None:
        """Start what `preview` and `up` will wait for, beside what the caller does next."""
        ...

    def preview(self, *, diff: bool = False) -> int:
        """Show what `up` would do to the stack's resources; returns 0 when it can be shown."""
        ...

    def up(self, message: str, *, yes: bool, skip_preview: bool = False) -> int:
        """Carry the program out; returns 0 for success."""
        ...

    def error(self) -> Exception | None:
        """What stopped the last `up` or `preview`, where this engine knows it."""
        ...

    def history(self) -> list[dict[str, Any]]:
        """The updates, newest first, as `pulumi stack history --json` has them."""
        ...

    def outputs(self, *, show_secrets: bool) -> dict[str, Any]: ...

    def exists(self) -> bool:
        """Whether the stack has a state."""
        ...

    def init(self) -> None:
        """Make the stack's state."""
        ...

    def cancel(self) -> None:
        """Remove the stack's lock, whoever holds it."""
        ...


def open_backend(project: Project, stack: str) -> Backend:
    """The engine that runs this stack. Raises BadInput or Unavailable as engines.choose."""
    choice = engines.choose(os.environ, project.root)
    if choice.official is not None:
        return Official(choice.official, project.root, stack, choice.says)
    return Embedded(project, stack, choice.says)


class Embedded:
    """The stack in the embedded engine: the program runs in this process."""

    def __init__(self, project: Project, stack: str, says: str) -> None:
        from engine.stack import Stack

        self.says = says
        self._name = project.name
        self._stack = Stack(project, stack)

    def config(self) -> dict[str, Any]:
        return self._stack.config()

    def secret_keys(self) -> frozenset[str]:
        return frozenset(self._stack.secret_keys())

    def config_get(self, key: str, *, path: bool) -> Any:
        from cli import stackconfig

        return stackconfig.get(self._stack, key, path=path)

    def config_set(self, key: str, value: str, *, secret: bool, path: bool) -> None:
        from cli import stackconfig

        stackconfig.put(self._stack, key, value, secret=secret, path=path)

    def config_rm(self, key: str, *, path: bool) -> None:
        from cli import stackconfig

        stackconfig.remove(self._stack, key, path=path)

    def begin(self) -> None:
        self._stack.begin()

    def preview(self, *, diff: bool = False) -> int:
        self.begin()
        from engine import operations
        from engine.options import Options

        return operations.preview(self._stack, _display(), Options(diff=diff)).exit_code

    def up(self, message: str, *, yes: bool, skip_preview: bool = False) -> int:
        self.begin()
        from engine import operations
        from engine.options import Options

        options = Options(
            message=message, skip_preview=skip_preview, confirm=None if yes else _confirm
        )
        return operations.up(self._stack, _display(), options).exit_code

    def error(self) -> Exception | None:
        from reconciler import program

        return program.last_error()

    def history(self) -> list[dict[str, Any]]:
        from cli import stackstate

        return stackstate.history(self._stack)

    def outputs(self, *, show_secrets: bool) -> dict[str, Any]:
        return self._stack.outputs(show_secrets=show_secrets)

    def exists(self) -> bool:
        return self._stack.exists()

    def init(self) -> None:
        from cli import stackstate

        stackstate.make(self._stack)

    def cancel(self) -> None:
        self._stack.backend.unlock_all()


class Official:
    """The stack in the official CLI, which is started for each question."""

    def __init__(self, pulumi: Path, root: Path, stack: str, says: str) -> None:
        self.says = says
        self._pulumi = pulumi
        self._root = root
        self._stack = stack
        self._values: dict[str, Any] | None = None
        self._error: ProgramEnded | None = None

    def config(self) -> dict[str, Any]:
        return {key: value_of(entry) for key, entry in self._config().items()}

    def secret_keys(self) -> frozenset[str]:
        return frozenset(key for key, entry in self._config().items() if entry.get("secret"))

    def config_get(self, key: str, *, path: bool) -> Any:
        return value_of(json.loads(self._ask("config", "get", "--json", *_path(path), "--", key)))

    def config_set(self, key: str, value: str, *, secret: bool, path: bool) -> None:
        # Through standard input: an argument can be read by every process of the host.
        kind = "--secret" if secret else "--plaintext"
        self._ask("config", "set", kind, *_path(path), "--", key, stdin=value)
        self._values = None

    def config_rm(self, key: str, *, path: bool) -> None:
        self._ask("config", "rm", *_path(path), "--", key)
        self._values = None

    def begin(self) -> None:
        pass

    def preview(self, *, diff: bool = False) -> int:
        return self._show("preview", *(["--diff"] if diff else []))

    def up(self, message: str, *, yes: bool, skip_preview: bool = False) -> int:
        flags = ["--message", message]
        flags += ["--yes"] if yes else []
        flags += ["--skip-preview"] if skip_preview else []
        return self._show("up", *flags)

    def error(self) -> Exception | None:
        return self._error

    def history(self) -> list[dict[str, Any]]:
        asked = ["stack", "history", "--json", "--page-size", "1000000"]
        found: list[dict[str, Any]] = json.loads(self._ask(*asked) or "[]")
        return found

    def outputs(self, *, show_secrets: bool) -> dict[str, Any]:
        flags = ["--show-secrets"] if show_secrets else []
        found: dict[str, Any] = json.loads(self._ask("stack", "output", "--json", *flags))
        return found

    def exists(self) -> bool:
        listed: list[dict[str, Any]] = json.loads(
            self._run("stack", "ls", "--json", "--cwd", str(self._root)) or "[]"
        )
        return any(entry["name"].rpartition("/")[2] == self._stack for entry in listed)

    def init(self) -> None:
        self._ask("stack", "init", "--no-select")

    def cancel(self) -> None:
        self._ask("cancel", "--yes")

    def _config(self) -> dict[str, Any]:
        if self._values is None:
            text = self._ask("config", "--json", "--show-secrets")
            self._values = dict(json.loads(text or "{}"))
        return self._values

    def _ask(self, *arguments: str, stdin: str | None = None) -> str:
        where = ["--stack", self._stack, "--cwd", str(self._root), "--non-interactive"]
        # What follows `--` is not read as options: these must stand before the arguments.
        return self._run(*options_first(arguments, where), stdin=stdin)

    def _run(self, *arguments: str, stdin: str | None = None) -> str:
        try:
            done = subprocess.run(
                [self._pulumi, *arguments],
                input=stdin or "",
                capture_output=True,
                text=True,
                timeout=QUICK,
                env=_environment(),
            )
        except subprocess.TimeoutExpired:
            raise PulumiFailed(
                f"pulumi {arguments[0]} gave no answer for {QUICK} s",
                next_step="LOCKSTEP_ENGINE=embedded   uses the embedded engine instead",
            ) from None
        if done.returncode != 0:
            raise PulumiFailed(done.stderr.strip() or f"pulumi {arguments[0]} failed")
        return done.stdout

    def _show(self, *arguments: str) -> int:
        """With the person's own terminal, and without a time limit: a switch has its own."""
        where = ["--stack", self._stack, "--cwd", str(self._root)]
        where += [] if sys.stdin.isatty() else ["--non-interactive"]
        sys.stdout.flush()
        self._error = None
        # The CLI tells success from failure and nothing more: the program says which it was.
        with tempfile.TemporaryDirectory(prefix="lockstep-") as folder:
            told = Path(folder) / "exit-code"
            done = subprocess.run(
                [self._pulumi, *options_first(arguments, where)],
                env={**_environment(), EXIT_CODE_FILE: str(told)},
            )
            said = told.read_text() if told.exists() else ""
        self._error = ProgramEnded(int(said)) if said.isdigit() else None
        return done.returncode


def exit_code(code: int, known: int | None) -> int:
    """The command's exit code where Pulumi ended with `code` (docs/exit-codes.md).

    `known` is the code of what stopped the program, where that is known. Pulumi's own codes other
    than 0 mean something else here, so that they become 1.
    """
    if code == Exit.OK:
        return Exit.OK
    return Exit.FAILED if known is None else known


def options_first(arguments: tuple[str, ...], options: list[str]) -> list[str]:
    given = list(arguments)
    at = given.index("--") if "--" in given else len(given)
    return [*given[:at], *options, *given[at:]]


def _path(path: bool) -> list[str]:
    return ["--path"] if path else []


def value_of(entry: Mapping[str, Any]) -> Any:
    return entry["objectValue"] if "objectValue" in entry else entry.get("value", "")


def _environment() -> dict[str, str]:
    return {**os.environ, "PULUMI_SKIP_UPDATE_CHECK": "true"}


def _display() -> Display:
    from cli import display

    if sys.stdout.isatty():
        return display.make_display()
    return display.PlainDisplay(cast("TextIO", Steadfast(sys.stdout)))


class Steadfast(io.TextIOBase):
    """A stream whose reader may go away (`| head`) without ending the update in its middle."""

    def __init__(self, stream: TextIO) -> None:
        self._stream: TextIO | None = stream

    def write(self, text: str) -> int:
        if self._stream is not None:
            try:
                self._stream.write(text)
                self._stream.flush()
            except BrokenPipeError:
                self._stream = None
        return len(text)


def _confirm(planned: Result) -> bool:
    """Asked after the preview; `details` shows it with all values. Raises Declined for a no."""
    from cli import display

    question = "Do you want to perform this update?"
    ask.need_terminal(question)
    while True:
        said = ask.text(f"{question} [y/N/details]", "n", yes=False).strip().lower()
        if not "details".startswith(said):
            break
        print(display.details(planned))
    if said not in ("y", "yes"):
        raise failures.Declined("declined: nothing was changed")
    return True
