"""Chapter `ingress`: what clients notice of a switch when the stack's ingress holds them.

python -m bench.ingress [--scale 0.1]   measures one round and prints it

Clients ask a web service 500 times a second, each over a connection of its own, while a PostgreSQL
of 1 GiB goes forward on a fork and back again. Nobody is to wait longer than connections were
held; so of those who came since then the longest wait is looked for, and whether the service has
the head-room (one that can do no more than what comes in could never work off a queue).

Then a release comes that acknowledges every order and never gets healthy; what was acknowledged
meanwhile is looked for in the database afterwards.
"""

from __future__ import annotations

import argparse
import math
import re
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from bench import prober
from bench.daemons import Daemon
from bench.errors import BenchError
from bench.grounds import disk
from bench.images import mark
from bench.peers import OURS, ROOT
from bench.prober import Attempt
from bench.project import Project, free_port
from bench.results import Results, Series
from bench.shares import Share
from bench.subjects import GIB, Subject, postgres, rows_in

CHAPTER = "ingress"
RATE, ORDERS_RATE = 500.0, 50.0
MOVES = ("forward", "back")
ASKED, FAILED, LONGEST, HELD = "requests", "failed requests", "seconds longest wait", "seconds held"
BEYOND, AT_REST = "seconds waited beyond the hold", "seconds longest wait before the move"
HEAD_ROOM = "answers in the second after the hold"
ACKNOWLEDGED, LOST = "orders acknowledged", "acknowledged orders lost"
FAILING = "failing release"
SIZE = GIB
_BEFORE, _AFTER = 2.0, 2.0
_LATE = 0.25
"""By so much what is said can be heard later than it was so."""
_DEADLINE = "6"


Move = Callable[[Callable[[str], None]], None]


@dataclass
class Ingress:
    """Measures one PostgreSQL behind a HAProxy."""

    subject: Subject
    size: int
    results: Results
    work: Path
    owner: str
    say: Callable[[str], None]

    def carry_out(self, rounds: int, share: Share) -> None:
        """All rounds that are not there yet."""
        missing = [
            n for n in range(1, rounds + 1) if not self.results.has(CHAPTER, self.subject.name, n)
        ]
        if not missing:
            return
        self.subject.state(1)
        share.start()
        with disk(self.work / "stop") as ground, self._project(ground.path) as project:
            for number in missing:
                if number > 1 and not share.lasts():
                    return
                self.say(f"behind the ingress, round {number}")
                with self.results.round(CHAPTER, self.subject.name, number):
                    self._round(project)

    @contextmanager
    def _project(self, ground: Path) -> Iterator[Project]:
        """Under Lockstep, adopted, with its port in the ingress's hands."""
        folder, daemon = ground / "ingress", Daemon(self.owner)
        log = self.work / "lockstep.log"
        # Not by loopback: those clients go through Docker's userland proxy, which needs several
        # open files for each and has its own limit.
        project = Project(
            folder,
            daemon,
            self.size,
            rows_in(self.size),
            free_port(),
            log,
            address=own_address(),
        )
        try:
            project.make(self.subject.state(1))
            project.init()
            project.lockstep("config", "set", "ingress", "haproxy")
            project.new()
            project.lockstep("up", "--yes")
            yield project
        finally:
            project.remove()

    def _round(self, project: Project) -> None:
        project.new()
        self._move(project, "forward", partial(_typed, project, "up"))
        self._move(project, "back", partial(_typed, project, "rollback"))
        self._failing(project)

    def _move(self, project: Project, name: str, move: Move) -> None:
        answers, hold = self.work / "answers.txt", Hold()
        with clients(project, RATE, answers):
            began = time.monotonic()
            time.sleep(_BEFORE)
            moved = time.monotonic()
            move(hold.hear)
            time.sleep(_AFTER)
        attempts = prober.read(answers)
        longest = longest_wait(attempts, hold.begun, math.inf)
        self._add(name, ASKED, len(attempts))
        self._add(name, FAILED, sum(not a.good for a in attempts))
        self._add(name, AT_REST, longest_wait(attempts, began, moved))
        self._add(name, HELD, hold.seconds)
        self._add(name, LONGEST, longest)
        self._add(name, BEYOND, max(0.0, longest - hold.seconds))
        answered = [a for a in attempts if a.good and 0 <= a.ended - hold.ended < 1]
        self._add(name, HEAD_ROOM, len(answered))

    def _failing(self, project: Project) -> None:
        answers, orders = self.work / "answers.txt", self.work / "orders.txt"
        project.lockstep("config", "set", "deadline", _DEADLINE)
        project.new(broken=True)
        with clients(project, ORDERS_RATE, answers, orders):
            time.sleep(_BEFORE)
            try:
                project.lockstep("up", "--yes")
            except BenchError as error:
                if "ended with 4" not in str(error):
                    raise
            else:
                raise BenchError("a release that never gets healthy went live")
            time.sleep(_AFTER)
        project.lockstep("config", "rm", "deadline")
        acknowledged = orders.read_text().split()
        with urllib.request.urlopen(f"{project.url}orders", timeout=30) as answer:
            there = set(answer.read().decode().split())
        self._add(FAILING, ACKNOWLEDGED, len(acknowledged))
        self._add(FAILING, LOST, len(set(acknowledged) - there))
        self._add(FAILING, FAILED, sum(not a.good for a in prober.read(answers)))

    def _add(self, move: str, what: str, value: float) -> None:
        series = Series(CHAPTER, self.subject.name, OURS.name, f"{move}: {what}")
        self.results.add(series, value)
        self.say(
            f"  {move}: {what} {value:g}"
            if value == int(value)
            else f"  {move}: {what} {value:.2f}"
        )


@contextmanager
def clients(project: Project, rate: float, *notes: Path) -> Iterator[None]:
    """Clients for the time of a `with` block; each gets its answer before it ends."""
    for note in notes:
        note.unlink(missing_ok=True)
    address = f"{project.address}:{project.port}"
    process = subprocess.Popen(
        [
            *project.daemon.inside,
            sys.executable,
            "-m",
            "bench.fresh",
            address,
            str(rate),
            *map(str, notes),
        ],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        yield
    finally:
        process.communicate(timeout=90)


def own_address() -> str:
    """An address of this host that others reach it by."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))  # sends nothing
        return str(probe.getsockname()[0])


def _typed(project: Project, word: str, heard: Callable[[str], None]) -> None:
    project.lockstep(word, "--yes", heard=heard)


@dataclass
class Hold:
    """For how long connections were held, as `lockstep` says it, and until when, by this machine's
    monotonic clock."""

    seconds: float = 0.0
    ended: float = math.inf

    def hear(self, line: str) -> None:
        if found := re.search(r"connections were held for ([0-9.]+) s", line):
            self.seconds, self.ended = float(found[1]), time.monotonic()

    @property
    def begun(self) -> float:
        return self.ended - self.seconds - _LATE


def longest_wait(attempts: Iterable[Attempt], since: float, until: float) -> float:
    """Of those who asked in this time; 0.0 for nobody."""
    return max((a.ended - a.sent for a in attempts if since <= a.sent < until), default=0.0)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.ingress", description=__doc__)
    parser.add_argument("--scale", type=float, default=1.0, help="share of 1 GiB (1.0)")
    parser.add_argument("--folder", type=Path, default=ROOT / ".bench", help="where it works")
    options = parser.parse_args(argv)
    folder = options.folder.resolve()
    owner, size = mark(folder), round(SIZE * options.scale)
    results = Results.begin(folder / "ingress.jsonl", {"scale": options.scale})
    subject = postgres(folder / "cache", size, owner)
    Ingress(subject, size, results, folder, owner, print).carry_out(1, Share(600))
    return 0


if __name__ == "__main__":
    sys.exit(main())
