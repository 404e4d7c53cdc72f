"""Chapter `sizes`: what grows with the data. A fork by reflink should not, nor should memory.

Ours alone, on every ground, with PostgreSQL folders of a quarter of the size and of the whole. Each
ground has a third of the share of time.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from bench import grounds, machine
from bench.grounds import Ground
from bench.measure import Command, run
from bench.peers import OURS
from bench.results import Results, Series
from bench.shares import Share
from bench.storing import CPU, MEMORY
from bench.subjects import GIB, MIB, Subject
from bench.work import bring

CHAPTER = "sizes"
FORK, CAPTURE, RESTORE = "seconds fork", "seconds capture first", "seconds restore"


@dataclass
class Sizes:
    """Measures small and large beside each other."""

    small: Subject
    large: Subject
    results: Results
    work: Path
    say: Callable[[str], None]

    def carry_out(self, rounds: int, share: Share) -> None:
        for subject in (self.small, self.large):
            subject.state(1)
        share.start()
        for kind in ("disk", *grounds.LOOPED):
            missing = [r for r in range(1, rounds + 1) if not self.results.has(CHAPTER, kind, r)]
            if missing:
                own = Share(share.seconds / 3)
                own.start()
                self._on(kind, missing, own)

    def _on(self, kind: str, rounds: list[int], share: Share) -> None:
        states = {s: s.state(1) for s in (self.small, self.large)}
        with ExitStack() as stack:
            if kind == "disk":
                ground = stack.enter_context(grounds.disk(self.work / "disk"))
            else:
                size = 4 * sum(_size(state) for state in states.values()) + GIB
                ground = stack.enter_context(grounds.looped(kind, self.work / grounds.IMAGE, size))
            for subject, state in states.items():
                bring(state, ground.path / subject.name)
            for number in rounds:
                if number > 1 and not share.lasts():
                    return
                self.say(f"sizes on {ground.name}, round {number}")
                with self.results.round(CHAPTER, kind, number):
                    for subject in states:
                        self._one(ground, kind, subject)

    def _one(self, ground: Ground, kind: str, subject: Subject) -> None:
        source = ground.path / subject.name
        target, kept = ground.path / "target", ground.path / "kept"
        steps = [(FORK, OURS.fork(source, target))]
        if kind == "disk":  # elsewhere it is the fork's reflinks that matter
            steps.append((CAPTURE, OURS.capture(kept, source, 1)))
            steps.append((RESTORE, OURS.restore(kept, 1, target)))
        for what, command in steps:
            grounds.clear(target)
            kept.mkdir(exist_ok=True)
            self._measure(kind, subject, what, command)
        grounds.clear(target)
        grounds.clear(kept)

    def _measure(self, kind: str, subject: Subject, what: str, command: Command) -> None:
        if self.results.facts["cold"]:
            machine.empty_caches()
        spent = run(command)
        for name, value in (
            (what, spent.seconds),
            (f"{MEMORY} {what}", float(spent.peak_bytes)),
            (f"{CPU} {what}", spent.cpu_seconds),
        ):
            self.results.add(Series(CHAPTER, kind, subject.name, name), value)
        self.say(
            f"  {subject.title}: {what.removeprefix('seconds ')} {spent.seconds:.2f} s, "
            f"{spent.cpu_seconds:.2f} s CPU, {spent.peak_bytes // MIB} MiB"
        )


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
