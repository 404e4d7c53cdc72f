"""How the story is told: a heading, a few words, the command as typed, its real output, a check."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from demo.excerpt import Keep, excerpt, whole

ROOT = Path(__file__).resolve().parent.parent
COMMAND_SECONDS = 180
WIDTH = 100
INDENT = "  "
NOTEWORTHY_SECONDS = 1.0


class StoryFailed(Exception):
    """What the story says did not happen; the message says what did."""


class Stage:
    """Prints for a reader; with a terminal in colour, without one as plain text."""

    def __init__(self) -> None:
        found = Console(highlight=False)
        self._colour = found.is_terminal
        self._width = min(found.width, WIDTH) if found.is_terminal else WIDTH
        self._room = self._width - len(INDENT) if found.is_terminal else WIDTH
        """Columns for the output of commands, which is indented."""
        self._console = Console(highlight=False, width=self._width)
        self._started = time.monotonic()
        self._scenes = 0

    def scene(self, title: str, text: str = "") -> None:
        self._scenes += 1
        seconds = round(time.monotonic() - self._started)
        at = f"{seconds // 60}:{seconds % 60:02}"
        heading = f"[bold]{self._scenes}. {escape(title)}[/] [dim]({at})[/]"
        self._console.print()
        self._console.print()
        self._console.rule(heading, align="left")
        if text:
            self.say(text, apart=False)

    def say(self, text: str, *, apart: bool = True) -> None:
        if apart:
            self._console.print()
        for paragraph in textwrap.dedent(text).strip().split("\n\n"):
            self._console.print(textwrap.fill(" ".join(paragraph.split()), self._width))

    def items(self, lines: Iterable[str]) -> None:
        """Things that belong to what was said before, one in a line."""
        for line in lines:
            self._console.print(f"    {escape(line)}", soft_wrap=True)

    def run(self, command: str, keep: Keep = whole, *, cwd: Path = ROOT, fails: int = 0) -> str:
        """Run a shell command where a user would type it, and show what `keep` keeps of its output.

        Returns the whole output. Raises StoryFailed unless it ends with exit code `fails`.
        """
        place = "" if cwd == ROOT else f"{cwd.relative_to(ROOT)} "
        self._console.print()
        self._console.print(f"[dim]{place}[/][bold cyan]$ {escape(command)}[/]", soft_wrap=True)
        started = time.monotonic()
        lines: list[str] = []
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
            for line in excerpt(_read(process, lines), keep):
                self._show(Text.from_ansi(line))
            code = process.wait(timeout=COMMAND_SECONDS)
        took = time.monotonic() - started
        if took >= NOTEWORTHY_SECONDS or code:
            ended = f", exit code {code}" if code else ""
            self._console.print(f"[dim]{INDENT}({took:.1f} s{ended})[/]")
        if code != fails:
            raise StoryFailed(
                f"`{command}` ended with exit code {code}, not {fails}; its last words:\n"
                + "\n".join(lines[-20:])
            )
        return "\n".join(lines)

    def _show(self, line: Text) -> None:
        """A line of output; what is too long goes on below its beginning."""
        indent = len(line.plain) - len(line.plain.lstrip())
        room = self._room - indent
        pieces = (
            [line[indent:]]
            if len(line) <= self._room
            else [*line[indent:].wrap(self._console, room - len(INDENT))]
        )
        for number, piece in enumerate(pieces):
            margin = INDENT + " " * indent + (INDENT if number else "")
            piece.rstrip()
            self._console.print(Text(margin).append(piece), soft_wrap=True)

    def ask(self, *argv: str) -> str:
        """The output of a command that is not part of the story. Raises StoryFailed."""
        done = subprocess.run(
            argv,
            cwd=ROOT,
            env={**self._environment(), "FORCE_COLOR": ""},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=COMMAND_SECONDS,
        )
        if done.returncode != 0:
            raise StoryFailed(f"`{' '.join(argv)}` failed: {done.stderr.strip()}")
        return done.stdout

    def check(self, what: str, holds: bool, found: object = None) -> None:
        """Say that something is so. Raises StoryFailed when it is not."""
        if not holds:
            raise StoryFailed(f"not so: {what}{f' (found {found})' if found is not None else ''}")
        mark = "[green]✓[/]"
        for number, line in enumerate(textwrap.wrap(what, self._width - 4)):
            self._console.print(f"  {'  ' if number else mark + ' '}{escape(line)}")

    def table(self, rows: Sequence[Mapping[str, object]]) -> None:
        """Rows of equal keys; the first column is text, the others are numbers."""
        table = Table(box=SIMPLE_HEAD, pad_edge=False)
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
            "COLUMNS": str(self._room),
            "FORCE_COLOR": "1" if self._colour else "",
            "PYTHONUNBUFFERED": "1",
        }


def _read(process: subprocess.Popen[str], lines: list[str]) -> Iterator[str]:
    """The lines of a command as they come, which are also kept; a command that hangs is ended."""
    overdue = threading.Timer(COMMAND_SECONDS, process.kill)
    overdue.start()
    try:
        for line in process.stdout or ():
            lines.append(line.rstrip())
            yield line.rstrip()
    finally:
        overdue.cancel()
