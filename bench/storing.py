"""Chapter `storing`: three releases of a folder are kept, and the last one is brought back.

In each round all tools see the same folder, which changes under them in place: every one captures
state 1, then every one state 2, then state 3; then each restores the last one to an empty folder,
and over a folder that is still in state 1. At the end the disk alone writes and reads as much.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from bench import grounds, machine, peers
from bench.errors import BenchError, TooSlow
from bench.grounds import Ground
from bench.measure import Command, Spent, run
from bench.peers import OURS, Ours, Tool
from bench.results import Results, Series
from bench.shares import IMAGE, PEER, Share, takes_part
from bench.subjects import GIB, MIB, STATES, Subject
from bench.work import bring

CHAPTER = "storing"
FIRST, NEXT, THIRD = "seconds capture first", "seconds capture next", "seconds capture third"
EMPTY, IN_PLACE = "seconds restore", "seconds restore in place"
STORE = "bytes after {}"
MEMORY, CPU = "memory", "cpu"
DISK, WRITTEN, READ = "the disk alone", "seconds written", "seconds read"
LIMIT_SPARSE = 30.0

Say = Callable[[str], None]


@dataclass
class Seat:
    """One tool with a folder of its own, on one ground, beside the folder that it captures."""

    who: str
    tool: Tool
    ground: Ground

    @property
    def kept(self) -> Path:
        return self.ground.path / f"kept-{self.who.replace(' ', '-')}"

    @property
    def source(self) -> Path:
        return self.ground.path / "folder"

    @property
    def target(self) -> Path:
        return self.ground.path / f"again-{self.who.replace(' ', '-')}"


@dataclass
class Storing:
    """Measures one subject on all grounds."""

    subject: Subject
    results: Results
    work: Path
    say: Say

    def carry_out(self, rounds: int, share: Share) -> None:
        name = self.subject.name
        missing = [r for r in range(1, rounds + 1) if not self.results.has(CHAPTER, name, r)]
        if not missing:
            return
        for number in STATES:
            self.subject.state(number)
        share.start()
        with self._grounds() as found:
            for number in missing:
                if number > 1 and not share.lasts():
                    self.say(f"{self.subject.title}: no time for round {number}")
                    return
                with self._round(number):
                    self._all(self._seats(found, number, share.seconds), number)

    @contextmanager
    def _round(self, number: int) -> Iterator[None]:
        self.say(f"{self.subject.title}: storing, round {number}")
        with self.results.round(CHAPTER, self.subject.name, number):
            yield

    @contextmanager
    def _grounds(self) -> Iterator[list[Ground]]:
        data = _allocated(self.subject.state(1))
        with ExitStack() as stack:
            kind = machine.filesystem(self.work)
            if self.subject.many and kind in grounds.MAKE:
                first = grounds.looped(kind, self.work / grounds.OWN, 10 * data + GIB)
            else:
                first = grounds.disk(self.work / "disk")
            found = [stack.enter_context(first)]
            for kind in grounds.LOOPED:
                image = grounds.looped(kind, self.work / grounds.IMAGE, 5 * data + GIB)
                found.append(stack.enter_context(image))
            yield found

    def _seats(self, found: list[Ground], number: int, seconds: float) -> list[Seat]:
        """Who takes part in a round; ours on the disk always does."""
        disk, *images = found
        tools = peers.PEERS_SPARSE if self.subject.sparse else peers.PEERS
        there = [Seat(tool.name, tool, disk) for tool in tools]
        seats = [s for s in there if self._takes_part(s, number, PEER * seconds)]
        seats.append(Seat(OURS.name, OURS, disk))
        there = [Seat(f"{OURS.name} on {g.name}", OURS, g) for g in images]
        return seats + [s for s in there if self._takes_part(s, number, IMAGE * seconds)]

    def _takes_part(self, seat: Seat, number: int, allowed: float) -> bool:
        spent = self.results.spent(CHAPTER, self.subject.name, seat.who)
        return takes_part(number, spent, allowed)

    def _all(self, seats: list[Seat], number: int) -> None:
        places = {seat.source: seat.ground for seat in seats}
        for seat in seats:
            grounds.clear(seat.kept)
            seat.kept.mkdir()
            if (command := seat.tool.prepare(seat.kept)) is not None:
                run(command)
        for state, what in zip(STATES, (FIRST, NEXT, THIRD), strict=True):
            for place in places:
                bring(self.subject.state(state), place)
            for seat in list(seats):
                if not self._capture(seat, state, what):
                    seats.remove(seat)
                    grounds.clear(seat.kept)
        for seat in seats:
            self._restore(seat, compare=number == 1)
        if not (self.subject.many or self.subject.sparse):
            self._floor(next(seat.ground for seat in seats if seat.who == OURS.name))

    def _floor(self, disk: Ground) -> None:
        """What the disk takes to write as many bytes as a restore, and to read them."""
        seat = Seat(DISK, OURS, disk)  # durable when it ends, as ours is
        argv = [sys.executable, "-m", "bench.floor"]
        size = str(_allocated(seat.source))
        for what, words in (
            (WRITTEN, ["write", str(seat.target), size]),
            (READ, ["read", str(seat.source)]),
        ):
            self._measure(seat, what, Command([*argv, *words], cwd=peers.ROOT))
        seat.target.unlink()

    def _capture(self, seat: Seat, state: int, what: str) -> bool:
        """False when the tool was ended because it took too long."""
        command = seat.tool.capture(seat.kept, seat.source, state)
        if not self._measure(seat, what, command):
            return False
        self._add(seat, STORE.format(state), _allocated(seat.kept, beside=("cache",)))
        return True

    def _restore(self, seat: Seat, *, compare: bool) -> None:
        """The last release, once into nothing and once over what was there at first."""
        try:
            self._bring_back(seat, compare=compare)
        finally:
            grounds.clear(seat.target)
            grounds.clear(seat.kept)

    def _bring_back(self, seat: Seat, *, compare: bool) -> None:
        wanted = self.subject.state(STATES[-1])
        last = STATES[-1]
        kept, target = seat.kept, seat.target
        if not self._measure(seat, EMPTY, seat.tool.restore(kept, last, target)):
            return
        if compare:
            self._insist_equal(seat, wanted)
        if isinstance(seat.tool, Ours):  # the others empty it first
            bring(self.subject.state(1), target)
        if self._measure(seat, IN_PLACE, seat.tool.replace(kept, last, target)) and compare:
            self._insist_equal(seat, wanted)

    def _measure(self, seat: Seat, what: str, command: Command) -> bool:
        if self.results.facts["cold"]:
            machine.empty_caches()
        limit = LIMIT_SPARSE if self.subject.sparse else 900.0
        try:
            spent = run(_until_durable(seat, command), limit=limit)
        except TooSlow as slow:
            self.say(f"  {seat.who}: {what}: {slow}")
            self._add(seat, what, slow.seconds, at_least=True)
            return False
        self._note(seat, what, spent)
        return True

    def _note(self, seat: Seat, what: str, spent: Spent) -> None:
        self._add(seat, what, spent.seconds)
        self._add(seat, f"{MEMORY} {what}", spent.peak_bytes)
        self._add(seat, f"{CPU} {what}", spent.cpu_seconds)
        self.say(
            f"  {seat.who}: {what.removeprefix('seconds ')} {spent.seconds:.2f} s, "
            f"{spent.cpu_seconds:.2f} s CPU, {spent.peak_bytes // MIB} MiB"
        )

    def _add(self, seat: Seat, what: str, value: float, *, at_least: bool = False) -> None:
        series = Series(CHAPTER, self.subject.name, seat.who, what)
        self.results.add(series, value, at_least=at_least)

    def _insist_equal(self, seat: Seat, wanted: Path) -> None:
        """What came back is what was there; a figure for anything else would mean nothing."""
        if self.subject.sparse:
            for name in ("disk.img",):
                _insist_same_parts(wanted / name, seat.target / name)
            return
        argv = ["diff", "--recursive", "--brief", "--no-dereference", str(wanted), str(seat.target)]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=900)
        if done.returncode != 0:
            raise BenchError(f"{seat.who} brought back something else:\n{done.stdout[:1000]}")


def _insist_same_parts(one: Path, other: Path) -> None:
    from bench.work import STEP, data_of

    with one.open("rb") as a, other.open("rb") as b:
        size = one.stat().st_size
        if other.stat().st_size != size:
            raise BenchError(f"{other} has another size than {one}")
        for start, end in data_of(a.fileno(), size):
            for at in range(start, end, STEP):
                a.seek(at)
                b.seek(at)
                if a.read(min(STEP, end - at)) != b.read(min(STEP, end - at)):
                    raise BenchError(f"{other} differs from {one} at {at}")


def _allocated(folder: Path, beside: tuple[str, ...] = ()) -> int:
    """Bytes on disk below a folder, without the folders named `beside` at its top."""
    total = 0
    waiting = [folder]
    while waiting:
        place = waiting.pop()
        for path in place.iterdir():
            if place == folder and path.name in beside:
                continue
            st = path.lstat()
            total += st.st_blocks * 512
            if path.is_dir() and not path.is_symlink():
                waiting.append(path)
    return total


def _until_durable(seat: Seat, command: Command) -> Command:
    """Ours ends when its result would outlive a power cut; what does not is followed by a sync."""
    if isinstance(seat.tool, Ours):
        return command
    argv = ["sh", "-euc", 'kept=$1; shift; "$@"; sync -f "$kept"', "sh", str(seat.kept)]
    return replace(command, argv=[*argv, *command.argv])
