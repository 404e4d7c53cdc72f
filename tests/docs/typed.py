"""Pages whose commands are typed by a test, and whose outputs are what was printed then.

A page types what stands behind `$ ` in its ```console blocks, and in comments of the form
`<!-- $ command -->` (what happened meanwhile, and need not be shown). All of a page is typed in
one shell, in the folder of the page's project; a command whose output ends a line in a question
(`[y/N]: y`) is typed on a terminal, with what stands behind the question. Figures, ids and times
may differ from the page, and what it says of the host's disks; Pulumi's own lines of an update are
left out of it.

    python -m tests.docs.typed --write [NAME]     types every page (or that of the project NAME),
                                                  and writes what was printed into it
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby
from pathlib import Path

from markdown_it import MarkdownIt

from demo.excerpt import of_engine
from tests.stacks.harness import ROOT, Project, base_image, notes_project

_PROMPT = "$ "
_QUESTION = re.compile(r"\[[^\]\n]*\]:(?: (.*))?$")
_HOSTS_OWN = re.compile(r"disk: |  files c|  \S+ \S+ free for snapshots|disk  |      disk: ")
_READY = re.compile(r" is ready after |^gate .* passed")
_HIDDEN = re.compile(r"<!-- \$ (.*?) -->", re.DOTALL)
_PULUMI = re.compile(
    r" +bringing the fork of |Updating \(| [ +~-]{2} \S+:\S+ |Pulumi: the embedded engine"
)
_SECONDS = 300
_JOBS = Path(__file__).with_name("jobs")
_PORT = "127.0.0.1:8000"
_START = ROOT / "docs" / "getting-started.md"
_BY_HAND = "## A container that was started by hand"
_WHO = {f"GIT_{who}_{what}": "docs@example.org" if what == "EMAIL" else "docs"
        for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}  # fmt: skip


@dataclass(frozen=True)
class Page:
    """A page, or a part of one, and the project that it is typed in: its name there, and how it
    is made in a folder.

    `begins`, `ends`: the headings from which and before which it is typed in this project.
    `short`: the heading before which `make test` ends; all of it is typed by `make chaos`.
    `called`: its name stands in commands, too.
    """

    path: Path
    name: str
    make: Callable[[Path], Project]
    begins: str = ""
    ends: str = ""
    short: str = ""
    called: bool = False

    @property
    def text(self) -> str:
        return self.path.read_text()

    def said(self, *, short: bool = False) -> list[Block]:
        """What is typed in this project, in order."""
        end = (short and self.short) or self.ends
        text = self.text.partition(end)[0] if end else self.text
        first = text.partition(self.begins)[0].count("\n") if self.begins else 0
        return [block for block in blocks(text) if block.lines[0] >= first]


@dataclass(frozen=True)
class Typed:
    """One command of a page, and the lines that it printed."""

    command: str
    output: tuple[str, ...]
    shown: bool = True

    @property
    def line(self) -> str:
        """What the shell is given."""
        answers = [match[1] or "" for row in self.output if (match := _QUESTION.search(row))]
        if not answers:
            return self.command
        return f"python -m tests.docs.terminal {shlex.quote(json.dumps(answers))} {self.command}"


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


def type_all(said: list[Block], page: Page, project: Project) -> list[Block]:
    """The same blocks with what is printed now. Raises AssertionError when the shell ends early."""
    mark = f"--{uuid.uuid4().hex}--"
    commands = [t.line for block in said for t in block.typed]
    script = "".join(f"{c}\nprintf '\\n{mark}'\n" for c in commands)
    script = script.replace(f"/srv/{page.name}", str(project.folder))
    script = re.sub(rf"\b{page.name}\b", project.name, script) if page.called else script
    file = project.folder.parent / "script"
    file.write_text(script.replace(_PORT, f"127.0.0.1:{project.port}"))
    done = subprocess.run(
        ["bash", file],
        cwd=project.folder,
        env=_environment(project),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=_SECONDS,
    )
    parts = done.stdout.split(f"\n{mark}")[:-1]
    assert len(parts) == len(commands), done.stdout
    printed = iter(_as_on_the_page(part, page, project) for part in parts)
    return [
        replace(b, typed=tuple(replace(t, output=tuple(next(printed))) for t in b.typed))
        for b in said
    ]


def _environment(project: Project) -> dict[str, str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {**project.environment(), **_WHO, "PATH": path, "COLUMNS": "100", "NO_COLOR": "1"}


def _as_on_the_page(text: str, page: Page, project: Project) -> list[str]:
    text = text.replace(f"127.0.0.1:{project.port}", _PORT)
    text = text.replace(str(project.folder), f"/srv/{page.name}").replace(project.name, page.name)
    for official in ("redis:7", "python:3.11-slim"):
        text = text.replace(base_image(official), official)
    keep = of_engine()
    lines = [line.rstrip() for line in text.splitlines() if keep(line)]
    lines = [line for line in lines if not _PULUMI.match(line)]
    while lines and not lines[-1]:
        lines.pop()
    return lines


def comparable(lines: Iterable[str]) -> list[str]:
    """Lines without what differs from run to run, and without those of the host alone; of services
    that become ready, and gates that pass, beside each other in one order; of a table its words,
    for the width of a figure may wrap them elsewhere."""
    found = [alike(line) for line in lines if not _HOSTS_OWN.match(line)]
    if any("─" in line for line in found):
        return sorted(" ".join(found).split())
    return [
        line
        for ready, several in groupby(found, lambda line: bool(_READY.search(line)))
        for line in (sorted(several) if ready else several)
    ]


def alike(line: str) -> str:
    """A line without what differs from run to run: figures but those of releases, and widths."""
    line = re.sub(r"\((\d+ tries, )?", "(", line)
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


def _two_releases(folder: Path) -> Project:
    """The small project, live with two releases."""
    project = notes_project(folder / "project")
    project.init()
    project.release("first release")
    project.note("milk")
    project.compose_file(version='VERSION: "1"=>VERSION: "2"')
    project.release("new layout")
    project.note("bread")
    return project


def _queue_that_runs(folder: Path) -> Project:
    """A queue (tests/docs/jobs) in a git repository, up by `docker compose`, with one job done."""
    name = f"t{uuid.uuid4().hex[:8]}"
    project = Project(folder / name, name)
    shutil.copytree(_JOBS, project.folder, ignore=shutil.ignore_patterns("*.py*"))
    (project.folder / "app").mkdir()
    shutil.copy(_JOBS / "jobs.py", project.folder / "app")
    text = (_JOBS / "compose.yaml").read_text().replace(_PORT, f"127.0.0.1:{project.port}")
    for official in ("redis:7", "python:3.11-slim"):
        text = text.replace(official, base_image(official))
    (project.folder / "compose.yaml").write_text(text)
    (project.folder / ".env").write_text("REDIS_PASSWORD=hush-5521\n")
    (project.folder / ".gitignore").write_text(".env\nresults/\n")
    (project.folder / "results").mkdir()
    run = partial(subprocess.run, cwd=project.folder, check=True, capture_output=True, timeout=60)
    for words in ("git init -q", "git add -A", "git commit -qm jobs", "docker compose up -d"):
        run(words.split(), env={**project.environment(), **_WHO})
    deadline = time.monotonic() + 30
    while "1 jobs done" not in _asked(project):
        assert time.monotonic() < deadline, "the queue does no job"
        time.sleep(0.2)
    return project


@dataclass
class ByHand(Project):
    """A service that a `docker run` of long ago started."""

    def remove(self) -> None:
        self.docker("rm", "--force", self.name, f"{self.name}-by-hand", check=False)
        super().remove()


def _container_by_hand(folder: Path) -> Project:
    """It serves the files of a folder, and runs."""
    name = f"t{uuid.uuid4().hex[:8]}"
    project = ByHand(folder / name, name)
    (project.folder / "data").mkdir(parents=True)
    (project.folder / "data" / "note").write_text("kept since long ago\n")
    project.docker(
        "run", "--detach", "--name", name, "--init", "--restart", "unless-stopped",
        "--publish", f"127.0.0.1:{project.port}:8000", "--memory", "128m",
        "--volume", f"{project.folder}/data:/data", "--env", "ADMIN_TOKEN=hush-5521",
        base_image("python:3.11-slim"), "python3", "-m", "http.server", "-d", "/data", "8000",
    )  # fmt: skip
    return project


def _asked(project: Project) -> str:
    try:
        said = project.get("/")
        if " 0 jobs" in said:
            project.note("one")  # which is posted to any path
            time.sleep(0.3)
        return said
    except OSError:
        return ""


PAGES = (
    Page(ROOT / "docs" / "rollback.md", "notes", _two_releases),
    Page(_START, "jobs", _queue_that_runs, ends=_BY_HAND, short="## 3. "),
    Page(_START, "vault", _container_by_hand, begins=_BY_HAND, called=True),
)


def _write(only: list[str]) -> None:
    for page in [p for p in PAGES if not only or p.name in only]:
        with tempfile.TemporaryDirectory() as folder:
            project = page.make(Path(folder))
            try:
                page.path.write_text(written(page.text, type_all(page.said(), page, project)))
            finally:
                project.remove()


if __name__ == "__main__":
    if sys.argv[1:2] != ["--write"]:
        sys.exit(__doc__)
    _write(sys.argv[2:])
