"""A model of a host in memory: what worlds.make, the switch and debts.pay do to the ledger and
to volumes' contents, so that decide can be walked through thousands of histories.

Contents are tuples of tokens; every live moment adds one token to each of its volumes.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from reconciler.config import Settings, Stack, Window, Wish
from reconciler.decide import decide
from reconciler.facts import Container, Disk, Facts, Snapshot
from reconciler.plan import Action, Move, Plan
from reconciler.planning import retention
from reconciler.records.ledger import (
    AnyEvent,
    Captured,
    Committed,
    GenerationMade,
    GenerationRemoved,
    Pruned,
    Reverted,
    State,
    World,
    WorldMade,
    WorldRemoved,
    add,
)
from reconciler.records.release import Dataset, Image, Kind, Release

AT = "2026-01-01T00:00:00+00:00"
Content = tuple[str, ...]


def release(number: int, *, datasets: tuple[str, ...] = ("db", "files")) -> Release:
    """A record with one service and the named datasets."""
    name = f"prod-{number:03d}"
    return Release(
        name=name,
        parent=None,
        created=AT,
        model={"services": {"web": {"image": "x"}}},
        images={"web": Image(service="web", tag=f"shop-web:{name}", id=f"sha256:{number:064d}")},
        datasets={
            d: Dataset(name=d, kind=Kind.VOLUME, driver="directory", source=f"shop_{d}")
            for d in datasets
        },
    )


class Host:
    """One host that is only ever changed by plans."""

    def __init__(self, window: int = 3) -> None:
        self.state = State()
        self.window = Window(last=window)
        self.records: dict[str, Release] = {}
        self.contents: dict[str, Content] = {}
        self.snapshots: dict[str, tuple[str, Content]] = {}
        self.declared: dict[str, dict[str, object]] = {}
        self.left: dict[str, dict[str, Content]] = {}
        """release -> dataset -> content when it was last left after having been live."""
        self.secret = "one"
        self.release: str | None = None
        self.retry: str | None = None
        self.wish: Wish | None = None
        self.data = "restore"
        self.started_by_hand: set[str] = set()
        self._tokens = itertools.count()

    # what a user does -----------------------------------------------------------------------

    def new(self) -> str:
        used = [int(r.removeprefix("prod-")) for r in (*self.records, *self.state.pruned)]
        record = release(max(used, default=0) + 1)
        self.records[record.name] = record
        self.release = record.name
        return record.name

    def up(self, *, fails: bool = False, pays: bool = True) -> Plan:
        """One `up`: fails = the new world does not pass its proof; pays = the store works."""
        plan = self.plan()
        if plan.refusals:
            return plan
        self._declare(plan)
        if plan.move not in (Move.STAY, Move.REPAIR):
            self._capture({d.generation for d in plan.datasets.values()})
            self._make(plan)
            if fails:
                self._revert(plan)
                return plan
            self._commit(plan)
        if pays:
            self._pay(plan)
            self._delete_undeclared(plan)
        return plan

    def plan(self) -> Plan:
        return decide(self.stack(), self.state, self.facts())

    def write(self) -> None:
        """The live world's services write something into every volume."""
        for volume in self._live_volumes():
            self.contents[volume] = (*self.contents[volume], f"t{next(self._tokens)}")

    # what decide sees -----------------------------------------------------------------------

    def stack(self) -> Stack:
        settings = Settings(
            release=self.release,
            window=self.window,
            retry=self.retry,
            restore=self.wish,
            data=self.data,
        )
        return Stack(project="shop", name="prod", root=Path("/nowhere"), settings=settings)

    def facts(self) -> Facts:
        return Facts(
            now=1_800_000_000.0,
            containers={
                w.name: (_container(w.name, self._container_state(w)),)
                for w in self.state.worlds.values()
                if not w.removed
            },
            images={i.tag: i.id for r in self.records.values() for i in r.images.values()},
            volumes=dict.fromkeys(self.contents, 1000),
            disk=Disk(1 << 40, 1 << 40, False),
            records=self.records,
            snapshots={i: Snapshot(d, 1000) for i, (d, _) in self.snapshots.items()},
            fingerprint=self.secret,
            live_probe=counts(self.live_contents()),
        )

    # what the hooks do ----------------------------------------------------------------------

    def apply(self, event: AnyEvent) -> None:
        self.state = add(self.state, self.state.seq + 1, event)

    def _container_state(self, world: World) -> str:
        if world.name in self.started_by_hand or world.name == self.state.live:
            return "running"
        return "exited" if world.touched else "created"

    def _declare(self, plan: Plan) -> None:
        """Pulumi's side: a World that exists must never get other inputs."""
        now: dict[str, dict[str, object]] = {}
        for world in plan.worlds:
            known = self.state.worlds.get(world)
            generations = (
                dict(known.generations)
                if known
                else {
                    n: d.generation
                    for n, d in plan.datasets.items()
                    if d.new or d.action == "attach"
                }
            )
            now[world] = {"release": known.release if known else plan.target, **generations}
        for world, inputs in now.items():
            assert self.declared.get(world, inputs) == inputs, f"{world} would be changed"
        self.declared = {**self.declared, **now}

    def _make(self, plan: Plan) -> None:
        if not plan.new_world:
            return
        generations: dict[str, str] = {}
        for name, planned in plan.datasets.items():
            generations[name] = planned.generation
            if not planned.new:
                known = self.state.generations[planned.generation]
                assert known.sealed is not None
                assert not known.spoiled
                continue
            assert planned.generation not in self.contents, "a generation's name is used twice"
            self.contents[planned.generation] = self._filling(planned.action, planned)
            self.apply(
                GenerationMade(
                    at=AT,
                    name=planned.generation,
                    dataset=name,
                    number=planned.number,
                    parent=planned.source,
                    action=planned.action.value,
                    snapshot=planned.snapshot,
                    world=str(plan.to_world),
                )
            )
        self.apply(
            WorldMade(
                at=AT,
                world=str(plan.to_world),
                release=str(plan.target),
                generations=generations,
                fingerprint=self.secret,
                images={s: i.id for s, i in self.records[str(plan.target)].images.items()},
            )
        )

    def _filling(self, action: Action, planned: object) -> Content:
        source = getattr(planned, "source", None)
        snapshot = getattr(planned, "snapshot", None)
        if action is Action.FORK:
            return self.contents[str(source)]
        if action is Action.RESTORE:
            return self.snapshots[str(snapshot)][1]
        return ()

    def _commit(self, plan: Plan) -> None:
        sealed = self._seal(plan)
        if plan.from_world is not None:
            left = self.state.worlds[plan.from_world].release
            self.left[left] = {d: self.contents[v] for d, v in sealed.items()}
        self.apply(
            Committed(
                at=AT,
                move=plan.move.value,
                from_world=plan.from_world,
                to_world=str(plan.to_world),
                sealed=sealed,
                wish=plan.wish,
                downtime_seconds=1.0,
                probes=counts({d: self.contents[v] for d, v in sealed.items()}),
            )
        )
        self.write()

    def _revert(self, plan: Plan) -> None:
        self._seal(plan)
        failed = self.state.worlds[str(plan.to_world)]
        for volume in failed.generations.values():
            self.contents[volume] = (*self.contents[volume], f"bad{next(self._tokens)}")
        self.apply(
            Reverted(
                at=AT,
                move=plan.move.value,
                from_world=plan.from_world,
                to_world=failed.name,
                sealed=dict(failed.generations),
                touched=True,
                quarantine=True,
                reason="web never healthy",
            )
        )

    def _seal(self, plan: Plan) -> dict[str, str]:
        """The old world stops; forks get what it wrote last."""
        for planned in plan.datasets.values():
            if planned.action is Action.FORK:
                self.contents[planned.generation] = self.contents[str(planned.source)]
        old = self.state.worlds.get(plan.from_world or "")
        return dict(old.generations) if old else {}

    def _capture(self, only: set[str]) -> None:
        for departure, dataset in self.state.debts():
            generation = departure.generations[dataset]
            if generation not in only:
                continue
            snapshot = f"s{next(self._tokens)}"
            self.snapshots[snapshot] = (dataset, self.contents[generation])
            self.apply(
                Captured(
                    at=AT,
                    generation=generation,
                    sealing=departure.seq,
                    snapshot=snapshot,
                    bytes=1000,
                )
            )

    def _pay(self, plan: Plan) -> None:
        self._capture(set(self.contents))
        for world in plan.leftovers:
            self._remove(world)
        for pruned in plan.prune:
            self.apply(Pruned(at=AT, release=pruned))
            del self.records[pruned]
        if plan.prune:
            needed = retention.needed_snapshots(self.state, [k.release for k in plan.keep])
            self.snapshots = {i: s for i, s in self.snapshots.items() if i in needed}

    def _delete_undeclared(self, plan: Plan) -> None:
        for world in [w for w in self.declared if w not in plan.worlds]:
            del self.declared[world]
            if not self.state.worlds[world].removed:
                self._remove(world)

    def _remove(self, name: str) -> None:
        assert name not in (self.state.live, self.state.previous), f"{name} must not be removed"
        world = self.state.worlds[name]
        in_use = {
            g
            for w in self.state.worlds.values()
            if w.name != name and not w.removed
            for g in w.generations.values()
        }
        self.apply(WorldRemoved(at=AT, world=name))
        for generation in world.generations.values():
            known = self.state.generations[generation]
            if generation in in_use or known.removed:
                continue
            assert not world.touched or known.captured, f"{generation} was never captured"
            self.apply(GenerationRemoved(at=AT, generation=generation))
            del self.contents[generation]

    def _live_volumes(self) -> list[str]:
        live = self.state.worlds.get(self.state.live or "")
        return list(live.generations.values()) if live else []

    def live_contents(self) -> dict[str, Content]:
        live = self.state.worlds.get(self.state.live or "")
        return {d: self.contents[v] for d, v in live.generations.items()} if live else {}


def counts(contents: Mapping[str, Content]) -> dict[str, dict[str, int]]:
    """What a data probe says of contents."""
    return {dataset: {"tokens": len(tokens)} for dataset, tokens in contents.items()}


def _container(world: str, state: str) -> Container:
    return Container(f"{world}-id", f"{world}-web-1", world, "web", state, 0, "no", "", {})


def with_wish(host: Host, **wish: object) -> None:
    """Declare a one-shot wish for the declared release."""
    host.wish = Wish(release=str(host.release), **wish)


__all__ = ["Host", "release", "replace", "with_wish"]
