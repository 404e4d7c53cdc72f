"""How the story is told: a heading, a few words, the command as typed, its real output, a check."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

ROOT = Path(__file__).resolve().parent.parent
COMMAND_SECONDS = 180


class StoryFailed(Exception):
    """What the story says did not happen; the message says what did."""


class Stage:
    """Prints for a reader; with a terminal in colour, without one as plain text."""

    def __init__(self) -> None:
        self._console = Console(highlight=False)
        self._width = min(self._console.width, 110)
        self._started = time.monotonic()
        self._scenes = 0

    def scene(self, title: str, text: str = "") -> None:
        self._scenes += 1
        at = f"{time.monotonic() - self._started:.0f} s"
        self._console.print()
        self._console.rule(f"[bold]{self._scenes}. {escape(title)}[/] ({at})", align="left")
        if text:
            self.say(text)

    def say(self, text: str) -> None:
        for paragraph in textwrap.dedent(text).strip().split("\n\n"):
            self._console.print(textwrap.fill(" ".join(paragraph.split()), self._width))

    def run(
        self, command: str, *, cwd: Path = ROOT, fails: bool = False, quiet: bool = False
    ) -> str:
        """Run a shell command where a user would type it, and show it with its output.

        Returns the output. Raises StoryFailed when it ends otherwise than `fails` says.
        """
        place = "" if cwd == ROOT else f"{cwd.relative_to(ROOT)} "
        self._console.print(f"[bold cyan]{place}$ {escape(command)}[/]", soft_wrap=True)
        started = time.monotonic()
        lines = []
        with subprocess.Popen(
            ["/bin/sh", "-c", command],
            cwd=cwd,
            env=self._environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        ) as process:
            assert process.stdout is not None
            for line in process.stdout:
                lines.append(line)
                if not quiet:
                    self._console.out(f"  {line.rstrip()}", highlight=False)
            code = process.wait(timeout=COMMAND_SECONDS)
        took = time.monotonic() - started
        self._console.print(f"[dim]  ({took:.1f} s{f', exit code {code}' if code else ''})[/]")
        if (code != 0) != fails:
            expected = "to fail" if fails else "to succeed"
            hidden = "".join(lines[-20:]) if quiet else ""
            raise StoryFailed(f"`{command}` was expected {expected}; exit code {code}\n{hidden}")
        return "".join(lines)

    def unseen(self, *argv: str) -> None:
        """Run a command that is not part of the story. Raises StoryFailed when it fails."""
        done = subprocess.run(
            argv,
            cwd=ROOT,
            env=self._environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=COMMAND_SECONDS,
        )
        if done.returncode != 0:
            raise StoryFailed(f"`{' '.join(argv)}` failed: {done.stderr.strip()}")

    def check(self, what: str, holds: bool, found: object = None) -> None:
        """Say that something is so. Raises StoryFailed when it is not."""
        if not holds:
            raise StoryFailed(f"not so: {what}{f' (found {found})' if found is not None else ''}")
        self._console.print(f"  [green]✓[/] {escape(what)}", soft_wrap=True)

    def table(self, title: str, rows: Sequence[Mapping[str, object]]) -> None:
        """Rows of equal keys; the first column is text, the others are numbers."""
        table = Table(title=title, title_justify="left")
        for position, column in enumerate(rows[0]):
            table.add_column(column, justify="right" if position else "left")
        for row in rows:
            table.add_row(*(escape(str(value)) for value in row.values()))
        self._console.print()
        self._console.print(table)

    def fail(self, text: str) -> None:
        sys.stdout.flush()
        print(f"demo: {text}", file=sys.stderr)

    def _environment(self) -> dict[str, str]:
        scripts = str(ROOT / ".venv" / "bin")
        return {
            **os.environ,
            "PATH": f"{scripts}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
            "COLUMNS": str(self._width - 2),
            "PYTHONUNBUFFERED": "1",
        }
