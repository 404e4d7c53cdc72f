"""Commands that are killed: at a failpoint, or at a random time."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime

from tests import hits
from tests.chaos.stage import marked_processes
from tests.failing import Failing
from tests.stacks.harness import Project

VICTIMS = ("command", "switch", "both")
USUAL = 5.0
"""Seconds that a command takes to its first failpoint, and after it, when no more is known."""

MOST_IN_VAIN = 8

Kill = Callable[..., "Ended"]
"""(kind of command, its words) -> how it ended."""


@dataclass
class Tally(hits.Hits):
    """What was killed so far, and where; what is wanted, and what the moves are known to pass."""

    wanted: int = 1
    """How often something is to be done at each failpoint."""
    passed: dict[str, Counter[str]] = field(default_factory=dict)
    """kind of command -> failpoint, in the order that they are passed -> the most often that one
    run of it passed there."""

    in_vain: Counter[tuple[str, str]] = field(default_factory=Counter)
    """kind of command, failpoint -> how often it was not passed, or not that often."""

    def learn(self, kind: str, passed: Counter[str]) -> None:
        known = self.passed.setdefault(kind, Counter())
        for name, count in passed.items():
            known[name] = max(known[name], count)

    def rarest(
        self, done: Counter[str], kind: str, chance: random.Random, after: str | None = None
    ) -> tuple[str, int] | None:
        """A failpoint that this kind of command passes and where most is missing; which pass.
        Those where it was waited for in vain come later. Where something is missing at one that
        comes `after` this one, one of those: what was done up to it is not passed again."""
        known = self.passed.get(kind)
        if not known:
            return None
        names = list(known)
        later = names[names.index(after) + 1 :] if after and after in known else names
        names = [n for n in later if self.missing(n, done) > 0] or names
        hopes = {n: self.missing(n, done) - self.in_vain[kind, n] for n in names}
        name = chance.choice(sorted(n for n in names if hopes[n] == max(hopes.values())))
        return name, chance.choice((1, chance.randint(1, known[name])))

    def unfinished(self, done: Counter[str], kinds: Iterable[str]) -> dict[str, list[str]]:
        """Failpoints that these kinds pass and where something is missing -> the kinds. A kind
        is given up where it was waited for in vain too often."""
        found: dict[str, list[str]] = {}
        for kind in kinds:
            for name in self.passed.get(kind, ()):
                if self.missing(name, done) > 0 and self.in_vain[kind, name] < MOST_IN_VAIN:
                    found.setdefault(name, []).append(kind)
        return found

    def missing(self, name: str, done: Counter[str]) -> int:
        """How often it is still to be done there."""
        return self.wanted - done[name]

    @contextmanager
    def kept(self, test: str) -> Iterator[None]:
        """Go on from what was done on the same code, and write down what is, however it ends."""
        code = hits.code()
        self.add(hits.of(test).get(code, hits.Hits()))
        self.add(hits.Hits(dates=[f"{datetime.now(UTC):%Y-%m-%d}"]))
        try:
            yield
        finally:
            hits.keep(test, code, self)


@dataclass(frozen=True)
class Ended:
    """How a command ended. `killed`: what was done to it or its switch, in words; "" if nothing."""

    args: tuple[str, ...]
    code: int
    text: str
    killed: str


class Killer:
    """Runs commands of a project, and kills them or their switch."""

    def __init__(self, project: Project, tally: Tally, chance: random.Random) -> None:
        self.project = project
        self.tally = tally
        self.chance = chance
        self._runs = 0
        self._seconds: dict[str, float] = {}
        """kind of command -> how long those took lately from their first failpoint on that nothing
        was done to."""
        self._last: dict[str, str] = {}
        """kind of command -> where something was done to it last, in this round."""

    def begin_round(self) -> None:
        """Another move: it passes all its failpoints again."""
        self._last.clear()

    def run(self, kind: str, *args: str) -> Ended:
        """To its own end."""
        return self._carried_out(kind, args, [], None)

    def at(self, place: str) -> Kill:
        """Killed at this failpoint, which it has to pass."""

        def kill(kind: str, *args: str) -> Ended:
            ended = self._carried_out(kind, args, [f"{place} kill"], None)
            assert ended.killed, f"{' '.join(args)} did not pass {place}:\n{ended.text}"
            self.tally.at[place] += 1
            return ended

        return kill

    def at_the_rarest(self, kind: str, *args: str) -> Ended:
        """Killed at a failpoint that this kind of command passes, if it passes it again."""
        return self._at_the_rarest(self.tally.at, "kill", kind, args)

    def failing_at_the_rarest(self, kind: str, *args: str) -> Ended:
        """The same with an I/O error or a full disk there, once, instead of the kill."""
        action = self.chance.choice(("error", "full"))
        return self._at_the_rarest(self.tally.failed, action, kind, args)

    def _at_the_rarest(
        self, done: Counter[str], action: str, kind: str, args: tuple[str, ...]
    ) -> Ended:
        wanted = self.tally.rarest(done, kind, self.chance, self._last.get(kind))
        lines = [f"{wanted[0]} {action} {wanted[1]}"] if wanted else []
        ended = self._carried_out(kind, args, lines, None)
        if wanted and ended.killed:
            done[wanted[0]] += 1
            self._last[kind] = wanted[0]
        elif wanted:
            self.tally.in_vain[kind, wanted[0]] += 1
        return ended

    def at_random(self, kind: str, *args: str) -> Ended:
        """Killed at any time, unless it has ended before: the command, or the process of its
        switch, or both. One of five falls before the first failpoint, where little can go wrong."""
        return self._carried_out(kind, args, [], self.chance.uniform(-0.25, 1))

    def _carried_out(
        self, kind: str, args: tuple[str, ...], wanted: list[str], part: float | None
    ) -> Ended:
        """`part`: of the time that it takes from its first failpoint on; before that if < 0."""
        # It stays: a switch whose command was killed goes on, and writes there what it passes.
        self._runs += 1
        folder = self.project.folder.parent / "points" / str(self._runs)
        with tempfile.TemporaryFile("w+") as out:
            points = Failing(folder, *wanted)
            command = self.project.start(*args, env=points.env, stdout=out.fileno())
            if part is None or part >= 0:
                self._wait(command, 120, points)
            began, killed = time.monotonic(), ""
            if part is not None:
                seconds = part * self._seconds.get(kind, USUAL) if part >= 0 else -part * 4 * USUAL
                self._wait(command, seconds)
                killed = self._strike(command, points)
            code = command.wait(120)
            if wanted and points.happened:
                killed = f"at {wanted[0]}"
            if not killed:
                took, before = time.monotonic() - began, self._seconds.get(kind, 0)
                self._seconds[kind] = max(took, 0.8 * before)
            self.tally.learn(kind, points.hits)
            out.seek(0)
            ended = Ended(args, code, out.read(), killed)
        assert "Traceback" not in ended.text, ended.text
        return ended

    def _wait(
        self, command: subprocess.Popen[str], seconds: float, points: Failing | None = None
    ) -> None:
        """So long, or until the command has ended, or has passed one of `points`."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and command.poll() is None:
            if points is not None and points.last is not None:
                return
            time.sleep(0.02)

    def _strike(self, command: subprocess.Popen[str], points: Failing) -> str:
        """Kill what there is of a command, of its switch or of both; what was killed, in words."""
        if command.poll() is not None:
            return ""
        victim, last = self.chance.choice(VICTIMS), points.last or "start"
        if not self._killed(command, victim):
            return ""
        self.tally.after[last] += 1
        self.tally.victims[victim] += 1
        return f"{victim} killed after {last}"

    def _killed(self, command: subprocess.Popen[str], victim: str) -> bool:
        """A switch has a session of its own."""
        sessions = marked_processes(self.project)
        switch = {p for p, session in sessions.items() if session != command.pid}
        chosen = {
            "command": sessions.keys() - switch,
            "switch": switch,
            "both": set(sessions),
        }[victim]
        for process in chosen:
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        return bool(chosen)
