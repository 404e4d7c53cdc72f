"""Pages whose commands are typed by a test, and whose outputs are what was printed then.

A page types what stands behind `$ ` in its ```console blocks, and in comments of the form
`<!-- $ command -->` (what happened meanwhile, and need not be shown). All of a page is typed in
one shell, in a folder with a small project. Figures, ids and times may differ from the page;
Pulumi's own lines of an update are left out of it.

    python -m tests.docs.typed --write     types every page and writes what was printed into it
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from markdown_it import MarkdownIt

from demo.excerpt import of_engine
from tests.stacks.harness import ROOT, Project, notes_project

PAGES = (ROOT / "docs" / "rollback.md",)
_PROMPT = "$ "
_HIDDEN = re.compile(r"<!-- \$ (.*?) -->", re.DOTALL)
_PULUMI = re.compile(r"Updating \(| [ +~-]{2} \S+:\S+ |Pulumi: the embedded engine")
_SECONDS = 300
_NAME, _PORT = "notes", "127.0.0.1:8000"


@dataclass(frozen=True)
class Typed:
    """One command of a page, and the lines that it printed."""

    command: str
    output: tuple[str, ...]
    shown: bool = True


@dataclass(frozen=True)
class Block:
    """A ```console block or a hidden command; `lines`: its place in the page, fences included."""

    lines: tuple[int, int]
    typed: tuple[Typed, ...]


def blocks(page: str) -> list[Block]:
    """What a page types, in order."""
    found = []
    for token in MarkdownIt().parse(page):
        if token.map is None:
            continue
        start, end = token.map
        if token.type == "fence" and token.info == "console":
            found.append(Block((start, end), tuple(_session(token.content.splitlines()))))
        elif token.type == "html_block":
            hidden = [Typed(c, (), shown=False) for c in _HIDDEN.findall(token.content)]
            found += [Block((start, end), tuple(hidden))] if hidden else []
    return found


def _session(lines: Iterable[str]) -> list[Typed]:
    typed: list[Typed] = []
    for line in lines:
        if line.startswith(_PROMPT):
            typed.append(Typed(line.removeprefix(_PROMPT), ()))
        elif typed:
            typed[-1] = replace(typed[-1], output=(*typed[-1].output, line))
        else:
            raise ValueError(f"a console block begins with {line!r}, not with a command")
    return typed


def type_all(page: list[Block], project: Project) -> list[Block]:
    """The same blocks with what is printed now. Raises AssertionError when the shell ends early."""
    mark = f"--{uuid.uuid4().hex}--"
    commands = [t.command for block in page for t in block.typed]
    script = "".join(f"{c}\nprintf '\\n{mark}'\n" for c in commands)
    done = subprocess.run(
        ["bash"],
        input=script.replace(_PORT, f"127.0.0.1:{project.port}"),
        cwd=project.folder,
        env=_environment(project),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=_SECONDS,
    )
    parts = done.stdout.split(f"\n{mark}")[:-1]
    assert len(parts) == len(commands), done.stdout
    printed = iter(_as_on_the_page(part, project) for part in parts)
    return [
        replace(b, typed=tuple(replace(t, output=tuple(next(printed))) for t in b.typed))
        for b in page
    ]


def _environment(project: Project) -> dict[str, str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {**project.environment(), "PATH": path, "COLUMNS": "100", "NO_COLOR": "1"}


def _as_on_the_page(text: str, project: Project) -> list[str]:
    text = text.replace(f"127.0.0.1:{project.port}", _PORT).replace(project.name, _NAME)
    text = text.replace(str(project.folder), "/srv/notes")
    keep = of_engine()
    lines = [line.rstrip() for line in text.splitlines() if keep(line)]
    lines = [line for line in lines if not _PULUMI.match(line)]
    while lines and not lines[-1]:
        lines.pop()
    return lines


def alike(line: str) -> str:
    """A line without what differs from run to run: figures but those of releases, and widths."""
    line = re.sub(r"\b(\d{8}T\d{6}|[0-9a-f]{8,64})\b", "#", line)
    line = re.sub(r"(?<!prod-)\b\d[\d.,:]*(\s?(KiB|MiB|GiB|B|bytes|ms|s|min|h)\b)?", "#", line)
    return re.sub(r"─+", "─", re.sub(r"\s+", " ", line)).strip()


def written(page: str, now: list[Block]) -> str:
    """The page with its console blocks as they were printed now."""
    lines = page.splitlines()
    for block in reversed(now):
        if all(t.shown for t in block.typed):
            start, end = block.lines
            shown = [row for t in block.typed for row in (_PROMPT + t.command, *t.output)]
            lines[start + 1 : end - 1] = shown
    return "\n".join(lines) + "\n"


def project_of_the_pages(folder: Path) -> Project:
    """A small project, to be live with two releases: what the pages begin with."""
    project = notes_project(folder)
    project.init()
    project.release("first release")
    project.note("milk")
    project.compose_file(version='VERSION: "1"=>VERSION: "2"')
    project.release("new layout")
    project.note("bread")
    return project


def _write() -> None:
    for path in PAGES:
        with tempfile.TemporaryDirectory() as folder:
            project = project_of_the_pages(Path(folder) / "project")
            try:
                text = path.read_text()
                path.write_text(written(text, type_all(blocks(text), project)))
            finally:
                project.remove()


if __name__ == "__main__":
    if sys.argv[1:] != ["--write"]:
        sys.exit(__doc__)
    _write()
