"""The sum of the ledger's events while it is made: changed in place, so that each event costs the
same however many came before it."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from reconciler.records.ledger import (
    Adopted,
    AnyEvent,
    Captured,
    Committed,
    Departure,
    Found,
    Generation,
    GenerationMade,
    GenerationRemoved,
    Hooked,
    Imported,
    Outcome,
    Pruned,
    Recovered,
    Reverted,
    State,
    Stopped,
    World,
    WorldMade,
    WorldRemoved,
)

if TYPE_CHECKING:
    from collections.abc import Mapping


_Part = TypeVar("_Part", Generation, World, Departure)


def _with(part: _Part, **changes: object) -> _Part:
    """As `dataclasses.replace`, which takes ten times as long: most events change a part."""
    made: _Part = object.__new__(type(part))
    made.__dict__.update(part.__dict__, **changes)
    return made


class Sum:
    """A State under way. Events come in the order of `seq`.

    After `add` raised KeyError (an event that speaks of what no event before it made), the sum is
    of no use any more.
    """

    def __init__(self, state: State) -> None:
        self.seq, self.head, self.chain = state.seq, state.head, state.chain
        self.live, self.previous, self.stopped = state.live, state.previous, state.stopped
        self.worlds, self.generations = dict(state.worlds), dict(state.generations)
        self.departures = {d.seq: d for d in state.departures}
        self.outcomes, self.found = list(state.outcomes), list(state.found)
        self.hooked = list(state.hooked)
        self.quarantined, self.wishes = dict(state.quarantined), set(state.wishes)
        self.pruned, self.brought = list(state.pruned), dict(state.brought)

    def state(self) -> State:
        """The sum so far; further events do not change it."""
        return State(
            seq=self.seq,
            head=self.head,
            chain=self.chain,
            live=self.live,
            previous=self.previous,
            stopped=self.stopped,
            worlds=dict(self.worlds),
            generations=dict(self.generations),
            departures=tuple(self.departures.values()),
            outcomes=tuple(self.outcomes),
            found=tuple(self.found),
            hooked=tuple(self.hooked),
            quarantined=dict(self.quarantined),
            wishes=frozenset(self.wishes),
            pruned=tuple(self.pruned),
            brought=dict(self.brought),
        )

    def add(self, seq: int, event: AnyEvent) -> None:
        """Raises KeyError."""
        self.seq = seq
        match event:  # the most frequent first
            case GenerationMade():
                self.generations[event.name] = Generation(
                    event.name,
                    event.dataset,
                    event.number,
                    event.parent,
                    event.action,
                    event.world,
                    snapshot=event.snapshot,
                )
            case Captured():
                self._captured(event)
            case WorldRemoved():
                self.worlds[event.world] = _with(self.worlds[event.world], removed=True)
            case GenerationRemoved():
                gone = _with(self.generations[event.generation], removed=True)
                self.generations[event.generation] = gone
            case WorldMade():
                self.worlds[event.world] = World(
                    event.world, event.release, event.generations, event.fingerprint, event.images
                )
            case Committed():
                self._committed(event)
            case Reverted():
                self._reverted(event)
            case Adopted():
                self._adopted(event)
            case Recovered():
                self.head, self.stopped = seq, False
                self.worlds[event.to_world] = _with(self.worlds[event.to_world], removed=False)
                self.outcomes.append((seq, event))
            case Stopped():
                self.head, self.stopped = seq, True
            case Found():
                self.found.append((seq, event))
            case Hooked():
                self.hooked.append((seq, event))
            case Imported():
                self._imported(event)
            case Pruned():
                self.pruned.append(event.release)

    def _adopted(self, event: Adopted) -> None:
        self.head, self.live = self.seq, event.world
        self.worlds[event.world] = World(
            event.world, event.release, event.generations, "", adopted=True, proved=True
        )
        for dataset, volume in event.generations.items():
            self.generations[volume] = Generation(volume, dataset, 1, None, "adopt", event.world)

    def _committed(self, event: Committed) -> None:
        new = _with(self.worlds[event.to_world], proved=True, touched=True, failed=None)
        self.worlds[new.name] = new
        for name in new.generations.values():
            if self.generations[name].sealed is not None:
                self.generations[name] = _with(self.generations[name], sealed=None, captured=None)
        if event.from_world is not None:
            self._left(event, event.from_world, event.probes)
        self.quarantined.pop(new.release, None)
        self.head, self.stopped = self.seq, False
        self.live, self.previous = event.to_world, event.from_world
        self.outcomes.append((self.seq, event))
        if event.wish:
            self.wishes.add(event.wish)

    def _reverted(self, event: Reverted) -> None:
        self.head = self.seq
        self.outcomes.append((self.seq, event))
        failed = self.worlds.get(event.to_world)
        if failed is None or not (event.touched or event.quarantine):
            return
        # Also where Docker could not start a container at all: an answered failure is that one.
        failed = _with(failed, touched=failed.touched or event.touched, failed=event.reason)
        self.worlds[failed.name] = failed
        if event.touched:
            for name in failed.generations.values():
                if self.generations[name].sealed is not None:
                    self.generations[name] = _with(self.generations[name], spoiled=True)
            self._left(event, failed.name, event.written)
        if event.quarantine:
            self.quarantined[failed.release] = failed.name

    def _imported(self, event: Imported) -> None:
        def content(snapshots: Mapping[str, str]) -> Departure:
            return Departure(self.seq, event.release, "", {}, snapshots, event.probes, event.at)

        if event.departure:
            self.departures[self.seq] = content(event.departure)
        if event.arrival:
            self.brought[event.release] = content(event.arrival)

    def _left(self, event: Outcome, world: str, counts: Mapping[str, Mapping[str, int]]) -> None:
        """A world was left: what it wrote until then is sealed."""
        self.departures[self.seq] = Departure(
            self.seq,
            self.worlds[world].release,
            world,
            event.sealed,
            event.snapshots,
            counts,
            event.at,
            isinstance(event, Reverted),
        )
        for name in event.sealed.values():
            self.generations[name] = _with(self.generations[name], sealed=self.seq, captured=None)

    def _captured(self, event: Captured) -> None:
        known = self.generations[event.generation]
        left = self.departures.get(event.sealing)
        if left is not None and event.generation in left.generations.values():
            self.departures[event.sealing] = _with(
                left, snapshots={**left.snapshots, known.dataset: event.snapshot}
            )
        if known.sealed == event.sealing:
            self.generations[event.generation] = _with(known, captured=event.snapshot)
