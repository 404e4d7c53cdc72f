"""Rounds of one stack under load: a move, killed again and again, then taken to its end; after it
the host is what the model says, and nothing else is there."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Sequence

from tests.chaos.host import Host
from tests.chaos.kills import Ended, Kill, Killer, Tally
from tests.chaos.model import Model
from tests.chaos.stage import Acknowledged, Writer, edit, read_all, until_quiet
from tests.stacks.harness import Project

OK, REFUSED, REVERTED, DEBTS, BUSY = 0, 3, 4, 5, 6
KINDS = {"forward": 4, "fail": 2, "rollback": 2, "undo": 2, "restore": 2, "stop": 1}
"""Kind of round -> how often it comes, beside the others."""
MOST_ROUNDS = 300
FIRST = ("forward", "fail", "rollback", "undo", "forward", "forward", "restore", "stop")


class Rounds:
    """One project, its writer and its model, over many rounds."""

    def __init__(self, project: Project, writer: Writer, tally: Tally, seed: str) -> None:
        self.project = project
        self.writer = writer
        self.tally = tally
        self.chance = random.Random(seed)
        self.killer = Killer(project, tally, self.chance)
        self.host = Host(project)
        self.model = Model()
        self.story: list[str] = []
        """What was done, for whoever looks at a failure."""

    def first(self) -> None:
        """The first release, without a kill."""
        self.project.init()
        self.project.run("config", "set", "deadline", "40")
        name = self.project.new("the first")
        self.model.made(name)
        self._again("up", "up", "--yes")
        self._settled(name, back=False, moved=True)

    def round(self, kind: str, *kills: Kill, kill_new: Kill | None = None) -> None:
        """One round of a kind, its commands killed like this one after the other, and the making of
        its release by `kill_new`. A kind that is not possible now (there is nothing to go back to)
        is a forward one."""
        target = self._target(kind)
        kind = kind if target is not None else "forward"
        self.tally.rounds[kind] += 1
        self.killer.begin_round()
        pruned = self.host.state.pruned
        self._say(f"round {self.tally.rounds.total()}: {kind} {target or ''}")
        if kind == "forward":
            self._forward(kills, kill_new)
        elif kind == "fail":
            self._fail(kills)
        elif kind == "stop":
            self._stop(kills)
        else:
            self._back(kind, str(target), kills)
        self._insist_on_everything(swept=not kills and self.host.state.pruned != pruned)

    def everywhere(self, done: Counter[str], kill: Kill, times: Callable[[], int]) -> None:
        """One round of each kind, to learn which failpoints it passes; then rounds with so many
        `times` a `kill` each, until it was `done` at each failpoint as often as is wanted."""
        for kind in FIRST:
            self.round(kind)
        for _ in range(MOST_ROUNDS):
            unfinished = self._unfinished_kind(done)
            if unfinished is None:
                break
            self.round(unfinished, *[kill] * times(), kill_new=kill)

    def any_kind(self) -> str:
        return self.chance.choices(list(KINDS), list(KINDS.values()))[0]

    def _unfinished_kind(self, done: Counter[str]) -> str | None:
        """A kind of round with a failpoint where something is missing; None: all was done."""
        rounds = {**{kind: kind for kind in KINDS}, "new": "forward", "repair": "stop"}
        rare = self.tally.unfinished(done, rounds)
        if not rare:
            return None
        return rounds[self.chance.choice(rare[self.chance.choice(sorted(rare))])]

    # kinds ----------------------------------------------------------------------------------

    def _forward(self, kills: Sequence[Kill], kill_new: Kill | None) -> None:
        name = self._new(breaks=False, kill=kill_new)
        for kill in kills:
            if self._arrived(self._killed(kill, "forward", "up", "--yes")):
                break
        self._again("forward", "up", "--yes")
        self._settled(name, back=False, moved=True)

    def _fail(self, kills: Sequence[Kill]) -> None:
        """A release that writes into all data and then fails."""
        self._new(breaks=True, kill=None)
        for kill in kills:
            if self._arrived(self._killed(kill, "fail", "up", "--yes")):
                break
        until_quiet(self.project)
        while self._again("fail", "up", "--yes", codes=(REVERTED, REFUSED)).code == REVERTED:
            continue
        self.project.declare(str(self.model.live))
        self._again("stay", "up", "--yes")
        self._settled(str(self.model.live), back=False, moved=False)

    def _back(self, kind: str, target: str, kills: Sequence[Kill]) -> None:
        words = ("undo", "--yes") if kind == "undo" else ("rollback", target, "--yes")
        for kill in kills:
            if kind == "undo":
                until_quiet(self.project)  # else the switch may arrive, and this be the next undo
            if self._live_release() == target:
                if self._arrived(self._killed(kill, kind, "up", "--yes")):
                    break
            elif self._killed(kill, kind, *words).code == REFUSED:
                self._killed(kill, "recover", "recover")
        until_quiet(self.project)
        if self._live_release() != target:
            if kills:
                self._again("recover", "recover")
            self._again(kind, *words)
        self._again(kind, "up", "--yes")
        self._settled(target, back=True, moved=True)

    def _stop(self, kills: Sequence[Kill]) -> None:
        """The emergency stop, and what a later up makes of it."""
        for kill in kills[:1]:
            self._killed(kill, "stop", "stop", "--yes")
        self._again("stop", "stop", "--yes")
        for kill in kills[1:]:
            self._killed(kill, "repair", "up", "--yes")
        self._again("repair", "up", "--yes")
        self._settled(str(self.model.live), back=False, moved=False)

    def _target(self, kind: str) -> str | None:
        """Where the move goes; None: it is not possible."""
        model, records = self.model, self._records()
        if kind == "undo":
            return model.previous
        if kind == "rollback":
            parent = model.parents[str(model.live)]
            return parent if parent in records and parent in model.left else None
        if kind == "restore":
            others = sorted((model.left.keys() & records) - {model.live, model.previous})
            return self.chance.choice(others) if others else None
        return "" if kind == "forward" else kind

    # commands -------------------------------------------------------------------------------

    def _new(self, *, breaks: bool, kill: Kill | None) -> str:
        """The next release, made and declared."""
        edit(self.project, breaks=breaks)
        before = self._records()
        if kill is not None:
            self._killed(kill, "new", "new", "killed")
        if self._records() == before or self.host.declared in before:
            self._again("new", "new", "a release")
        for name in sorted(self._records() - before):
            self.model.made(name)
        return str(self.host.declared)

    def _killed(self, kill: Kill, kind: str, *words: str) -> Ended:
        ended = kill(kind, *words)
        self._say(f"  {' '.join(words)} -> {ended.code} {ended.killed}")
        self._clear_the_way()
        return ended

    def _arrived(self, ended: Ended) -> bool:
        """A later command would have nothing to do, and nothing to be killed at."""
        return not ended.killed and ended.code in (OK, REVERTED)

    def _again(self, kind: str, *words: str, codes: tuple[int, ...] = (OK,)) -> Ended:
        """Without a kill it must end as it should, but for whom it had to wait."""
        deadline = time.monotonic() + 120
        while True:
            ended = self.killer.run(kind, *words)
            self._say(f"  {' '.join(words)} -> {ended.code}")
            if ended.code != BUSY:
                break
            assert time.monotonic() < deadline, ended.text
            self._clear_the_way()
            time.sleep(0.3)
        assert ended.code in codes, f"{ended.text}\n{self.told}"
        return ended

    def _clear_the_way(self) -> None:
        """What a person does after a command was killed, once it is said to be in the way."""
        self.project.run("cancel", "--yes", code=None)

    # afterwards -----------------------------------------------------------------------------

    def _settled(self, release: str, *, back: bool, moved: bool) -> None:
        """Tell the model what was done and what was written meanwhile; then both must agree."""
        until_quiet(self.project)
        self.project.wait_until_it_answers()
        with self.writer.paused() as written:
            self._tell_the_model(release, written, back=back, moved=moved)
            self.model.looked_at(read_all(self.project))

    def _tell_the_model(
        self, release: str, written: list[Acknowledged], *, back: bool, moved: bool
    ) -> None:
        state, unsure = self.host.state, self.writer.unsure
        assert state.live_release == release, (state.live_release, release, self.told)
        if moved:
            self.model.moved(release, str(state.live), written, unsure, back=back)
        else:
            self.model.stayed(written, unsure)

    def _insist_on_everything(self, *, swept: bool) -> None:
        before = self.project.containers()
        self._again("stay", "up", "--yes")
        assert self.project.containers() == before, self.told
        try:
            self.host.insist_on_one_world()
            self.host.insist_on(self.model)
            self.host.insist_on_no_orphans()
            self.host.insist_on_a_sound_store(swept=swept)
        except AssertionError as wrong:
            raise AssertionError(f"{wrong}\n{self.told}") from wrong

    def _live_release(self) -> str | None:
        return self.host.state.live_release

    def _records(self) -> set[str]:
        found = (self.project.folder / "releases").glob("*/release-info.json")
        return {path.parent.name for path in found}

    def _say(self, text: str) -> None:
        self.story.append(text)
        print(text, flush=True)

    @property
    def told(self) -> str:
        return "\n".join(self.story[-40:])
