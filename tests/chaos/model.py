"""What a host must be after any history of moves and crashes, in terms of releases and notes.

The model is told what was wished and what the client was promised, never how it was done; then the
real host is compared with it: what is live, where undo and rollback lead, what every release has
or left, and that nothing else is there.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from tests.chaos.stage import PLACES, Acknowledged

Found = Mapping[str, frozenset[str]]


@dataclass(frozen=True)
class Content:
    """The notes of one dataset: `must` were acknowledged or seen, `may` had no answer."""

    must: frozenset[str] = frozenset()
    may: frozenset[str] = frozenset()

    def insist_on(self, found: frozenset[str], what: str) -> None:
        lost, strange = self.must - found, found - self.must - self.may
        assert not lost, f"{what}: acknowledged, but lost: {_some(lost)}"
        assert not strange, f"{what}: does not belong there: {_some(strange)}"


Contents = Mapping[str, Content]


def _some(notes: Iterable[str]) -> str:
    return ", ".join(sorted(notes)[:8])


def contents(base: Contents, notes: Iterable[str], unsure: Iterable[str]) -> Contents:
    """More notes in every dataset."""
    more, may = frozenset(notes), frozenset(unsure)
    return {n: Content(c.must | more, (c.may | may) - c.must - more) for n, c in base.items()}


@dataclass
class Model:
    """One stack. `live` and `previous` are releases."""

    live: str | None = None
    live_world: str | None = None
    previous: str | None = None
    base: Contents = field(default_factory=lambda: {name: Content() for name in PLACES})
    """What the live world had when it was last looked at."""
    left: dict[str, Contents] = field(default_factory=dict)
    """release -> what it left when it was last left after it had been live."""
    parents: dict[str, str | None] = field(default_factory=dict)
    arrived: list[str] = field(default_factory=list)
    """Releases that were live, each once, in the order of their first arrival."""

    def made(self, release: str) -> None:
        """A new release was recorded."""
        self.parents.setdefault(release, self.live)

    def stayed(self, written: list[Acknowledged], unsure: set[str]) -> None:
        """The same world is live; whatever another one took was set aside with it."""
        self.base = contents(self.base, _by(written, self.live_world), unsure)

    def moved(
        self,
        release: str,
        world: str,
        written: list[Acknowledged],
        unsure: set[str],
        *,
        back: bool,
    ) -> None:
        """Another world is live: with what its release left (`back`), else the data goes along."""
        leaving = contents(self.base, _by(written, self.live_world), unsure)
        if self.live is not None:
            self.left[self.live] = leaving
        start = self.left[release] if back else leaving
        self.base = contents(start, _by(written, world), unsure)
        self.previous, self.live, self.live_world = self.live, release, world
        if release not in self.arrived:
            self.arrived.append(release)

    def looked_at(self, found: Found) -> None:
        """The live world's notes; from now on they are what it has."""
        for name, content in self.base.items():
            content.insist_on(found[name], f"{name} of {self.live}, which is live")
        self.base = {name: Content(notes) for name, notes in found.items()}

    def insist_on_left(self, release: str, dataset: str, found: frozenset[str], what: str) -> None:
        self.left[release][dataset].insist_on(found, f"{dataset} as {release} left it, {what}")


def _by(written: list[Acknowledged], world: str | None) -> list[str]:
    return [one.note for one in written if one.world == world]
