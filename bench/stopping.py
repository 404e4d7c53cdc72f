"""Chapter `stopping`: how long a service is away, as one who uses it sees it.

A prober asks the web service every 20 ms over fresh connections; pgbench keeps the database busy.
Between the last good answer before a move and the first one after it, the service is stopped.

The floor is `docker stop` and `docker start` of the two containers and nothing else. A peer's
script stops, captures the volume and starts (forward), or stops, puts the volume back and starts
(back). Ours is `lockstep up` and `lockstep rollback --yes`, as typed.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench import grounds, load, peers, prober
from bench.daemons import Daemon, second
from bench.errors import BenchError
from bench.grounds import Ground
from bench.load import Load
from bench.machine import ask, filesystem
from bench.measure import run
from bench.peers import OURS, Peer
from bench.project import Project, free_port, wait_until
from bench.results import Results, Series
from bench.shares import PEER_STOPPING, Share, takes_part
from bench.subjects import GIB, Subject, rows_in

CHAPTER = "stopping"
FLOOR = "stop + start alone"
FORWARD, BACK, BACK_RESTORE = "seconds forward", "seconds back", "seconds back restored"
REST, PREPARING = "p99 at rest", "p99 preparing"
REST_SECONDS = 5.0
STEADY_SECONDS = 2.0
LOG = "lockstep.log"
GROUNDS = ("disk", *grounds.LOOPED)


@dataclass
class Watched:
    """A running project that is asked and loaded; the answers are in `answers`."""

    project: Project
    load: Load
    answers: Path

    def stopped_by(self, move: Callable[[], None]) -> float:
        """Seconds without service around a move."""
        self.settle()
        began = time.monotonic()
        move()
        self.settle()
        return prober.stopped(prober.read(self.answers), began - 0.5, time.monotonic())

    def settle(self) -> None:
        """Wait until the service answers steadily, then until the load works.

        In this order, and looking seldom: until it answers, nothing may hold up the machine.
        """
        wait_until("the service does not come back", self._steady)
        self.load.aim(self.project.live().address)
        since = time.time()
        wait_until("the load does not come back", lambda: self.load.answers(since))

    def _steady(self) -> bool:
        after = time.monotonic() - STEADY_SECONDS
        recent = [a for a in prober.read_last(self.answers) if a.sent > after]
        return len(recent) >= 10 and all(a.good for a in recent)


@contextmanager
def watched(project: Project, work: Path) -> Iterator[Watched]:
    """A prober and a load for the time of a `with` block."""
    answers = work / "answers.txt"
    answers.unlink(missing_ok=True)
    argv = [sys.executable, "-m", "bench.prober", project.url, str(answers)]
    with load.running(project.daemon, work / "load", project.live().address) as running:
        process = subprocess.Popen(
            [*project.daemon.inside, *argv],
            cwd=peers.ROOT,
            stdin=subprocess.PIPE,
            start_new_session=True,
        )
        try:
            yield Watched(project, running, answers)
        finally:
            process.communicate(timeout=30)


@dataclass
class Stopping:
    """Measures one PostgreSQL on all grounds."""

    subject: Subject
    size: int
    results: Results
    work: Path
    owner: str
    say: Callable[[str], None]

    @property
    def log(self) -> Path:
        return self.work / LOG

    def carry_out(self, kind: str, rounds: int, share: Share) -> None:
        """All rounds on one ground that are not there yet."""
        missing = [r for r in range(1, rounds + 1) if not self.results.has(CHAPTER, kind, r)]
        if not missing:
            return
        self.subject.state(1)
        share.start()
        if kind == "disk":
            self._on_disk(missing, share)
        else:
            self._on_image(kind, missing, share)

    # grounds --------------------------------------------------------------------------------------

    def _on_disk(self, rounds: list[int], share: Share) -> None:
        """Two projects take turns: one for the peers, one that is Lockstep's."""
        daemon = Daemon(self.owner)
        root = Path(daemon.docker("info", "--format", "{{.DockerRootDir}}"))
        name = filesystem(root)
        with (
            grounds.disk(self.work / "stop") as ground,
            self._project(ground, daemon, "plain") as plain,
        ):
            with plain.turn():
                self._prepare_peers(plain, ground)
            with self._project(ground, daemon, "ours") as ours:
                with ours.turn():
                    self._adopt(ours)
                for number in rounds:
                    if number > 1 and not share.lasts():
                        return
                    self.say(f"stopping on {name}, round {number}")
                    with self.results.round(CHAPTER, "disk", number):
                        with plain.turn(), watched(plain, ground.path) as seen:
                            self._peers(seen, ground, number, PEER_STOPPING * share.seconds)
                        with ours.turn(), watched(ours, ground.path) as seen:
                            self._ours(seen, "disk")

    def _peers(self, seen: Watched, ground: Ground, number: int, allowed: float) -> None:
        """The floor, and every peer that has not used up its time."""
        self._floor(seen, "disk")
        for tool in peers.PEERS:
            spent = self.results.spent(CHAPTER, "disk", tool.name)
            if takes_part(number, spent, allowed):
                self._peer(seen, tool, ground, number)

    def _on_image(self, kind: str, rounds: list[int], share: Share) -> None:
        size = 8 * self.size + 4 * GIB
        with (
            grounds.looped(kind, self.work / grounds.IMAGE, size) as ground,
            second(ground, self.owner) as daemon,
            self._project(ground, daemon, "ours") as ours,
        ):
            self._adopt(ours)
            for number in rounds:
                if number > 1 and not share.lasts():
                    return
                self.say(f"stopping on {kind}, round {number}")
                with self.results.round(CHAPTER, kind, number), watched(ours, ground.path) as seen:
                    self._floor(seen, kind)
                    self._ours(seen, kind)

    @contextmanager
    def _project(self, ground: Ground, daemon: Daemon, name: str) -> Iterator[Project]:
        folder = ground.path / name
        project = Project(folder, daemon, self.size, rows_in(self.size), free_port(), self.log)
        try:
            project.make(self.subject.state(1))
            yield project
        finally:
            project.remove()

    def _adopt(self, ours: Project) -> None:
        """Under Lockstep, with two releases behind it of which one is only in the store."""
        ours.init()
        for _ in range(3):
            ours.new()
            ours.lockstep("up", "--yes")

    def _prepare_peers(self, plain: Project, ground: Ground) -> None:
        """The peers with what they need, and one earlier release of this folder."""
        there = plain.live()
        plain.daemon.docker("stop", there.web, there.db)
        for tool in peers.PEERS:
            kept = _kept(ground, tool)
            kept.mkdir()
            if (command := tool.prepare(kept)) is not None:
                run(command)
            if tool.preparing:
                run(tool.capture(kept, there.data, 0))
        plain.daemon.docker("start", there.db, there.web)

    # moves ----------------------------------------------------------------------------------------

    def _floor(self, seen: Watched, kind: str) -> None:
        there = seen.project.live()
        script = f"docker stop {there.web}; docker stop {there.db}; " + _start(there.db, there.web)
        self._measure(seen, kind, FLOOR, FORWARD, lambda: _shell(seen, script))

    def _peer(self, seen: Watched, tool: Peer, ground: Ground, number: int) -> None:
        there, kept = seen.project.live(), _kept(ground, tool)
        stop = f"docker stop {there.web}; docker stop {there.db}"
        start = _start(there.db, there.web)

        def forward() -> None:
            _shell(seen, stop)
            run(tool.capture(kept, there.data, number))
            _shell(seen, start)

        def back() -> None:
            _shell(seen, stop)
            run(tool.replace(kept, number, there.data))
            _shell(seen, start)

        self._measure(seen, "disk", tool.name, FORWARD, forward)
        self._measure(seen, "disk", tool.name, BACK, back)
        if not tool.preparing:
            grounds.clear(kept)
            kept.mkdir()

    def _ours(self, seen: Watched, kind: str) -> None:
        project = seen.project
        project.new()
        seen.settle()
        rest = time.time()
        time.sleep(REST_SECONDS)
        rested = time.time()
        copying: list[float] = []

        def heard(line: str) -> None:
            wanted = "forking data" if not copying else "stopping"
            if len(copying) < 2 and wanted in line:
                copying.append(time.time())

        def up() -> None:
            project.lockstep("up", "--yes", heard=heard)

        self._measure(seen, kind, OURS.name, FORWARD, up)
        self._latency(seen, kind, REST, rest, rested)
        if len(copying) == 2:
            self._latency(seen, kind, PREPARING, *copying)
        self._measure(seen, kind, OURS.name, BACK, lambda: project.lockstep("rollback", "--yes"))
        if (older := self._only_in_store(project)) is None:
            raise BenchError("no release is left that has only a snapshot: nothing to restore")
        self._measure(
            seen,
            kind,
            OURS.name,
            BACK_RESTORE,
            lambda: project.lockstep("rollback", older, "--yes"),
        )

    def _only_in_store(self, project: Project) -> str | None:
        """The newest release whose containers are gone."""
        heard: list[str] = []
        project.lockstep("list", "--json", heard=heard.append)
        releases = [r["release"] for r in json.loads("\n".join(heard))["releases"]]
        form = '{{.Label "com.docker.compose.project"}}'
        worlds = project.daemon.docker("ps", "--all", "--format", form).split()
        gone = [
            r
            for r in sorted(releases)
            if not r.endswith("-000")
            and not any(w.split("_")[0] == f"{project.name}-{r}" for w in worlds)
        ]
        return gone[-1] if gone else None

    def _measure(
        self, seen: Watched, kind: str, who: str, what: str, move: Callable[[], None]
    ) -> None:
        seconds = seen.stopped_by(move)
        self.results.add(Series(CHAPTER, kind, who, what), seconds)
        self.say(f"  {who}: {what.removeprefix('seconds ')} {seconds:.2f} s stopped")

    def _latency(self, seen: Watched, kind: str, what: str, since: float, until: float) -> None:
        found = load.p99(seen.load.transactions(), since, until)
        if found is None:
            self.say(f"  {what}: too few transactions in {until - since:.1f} s")
            return
        self.results.add(Series(CHAPTER, kind, OURS.name, what), found)
        self.say(f"  {what}: {found * 1000:.1f} ms over {until - since:.1f} s")


def _kept(ground: Ground, tool: Peer) -> Path:
    return ground.path / f"kept-{tool.name.replace(' ', '-')}"


def _start(db: str, web: str) -> str:
    return f"docker start {db} {web}"


def _shell(seen: Watched, script: str) -> None:
    ask("sh", "-euc", script, env=dict(seen.project.daemon.env), seconds=300)
