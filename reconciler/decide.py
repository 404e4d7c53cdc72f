"""The one decision: settings, ledger and facts in, a Plan out. No I/O, no clock.

Preview shows the same Plan that `up` carries out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from statistics import median

from reconciler import names
from reconciler.config import Stack, Wish
from reconciler.errors import Exit
from reconciler.facts import Deaf, Facts
from reconciler.plan import Action, DatasetPlan, Kept, Move, Plan, Refusal
from reconciler.planning import refusals, retention, saying
from reconciler.planning.origins import Origins
from reconciler.planning.situation import Situation
from reconciler.project import compose
from reconciler.records.ledger import Committed, State, World
from reconciler.records.release import Dataset, Release
from reconciler.world import imagehold


def decide(stack: Stack, state: State, facts: Facts) -> Plan:
    """The Plan that makes the host run the declared release with its data."""
    return _Decision(Situation(stack, state, facts)).plan()


def rollback_target(state: State, records: Mapping[str, Release]) -> str | None:
    """The release that was live before the live one first arrived; None when there is none."""
    release = state.live_release
    seen: set[str] = set()
    while release is not None and release not in seen:
        seen.add(release)
        release = _before_first_arrival(state, release)
        if release in records:
            return release
    return None


def undo_target(state: State, data: str = "restore") -> tuple[str, Wish | None] | None:
    """(release, wish) that lead to the world before the last switch, with the data it left,
    whatever the setting `data` says of rollbacks; None when there is none."""
    if state.previous is None:
        return None
    previous = state.worlds[state.previous]
    if previous.release != state.live_release and data == "restore":
        return previous.release, None
    asked = f"undo of {state.live} at {state.head}"
    return previous.release, Wish(release=previous.release, at=previous.name, asked=asked)


def _before_first_arrival(state: State, release: str) -> str | None:
    for _, outcome in state.outcomes:
        if isinstance(outcome, Committed) and state.worlds[outcome.to_world].release == release:
            return state.worlds[outcome.from_world].release if outcome.from_world else None
    return None


@dataclass(frozen=True)
class _Downtime:
    """How long a move stops the service, as far as can be told."""

    seconds: float
    basis: str
    worst: float | None = None
    measured: int = 0


@dataclass
class _Decision:
    """The working memory of one decision; every method is a pure function of the three inputs."""

    now: Situation

    def plan(self) -> Plan:
        target = self.now.stack.settings.release
        if target is None:
            return self._nothing_declared()
        record = self.now.facts.records.get(target)
        if record is None:
            return self._stay_with(refusals.unusable(self.now, target))
        move = self._move(target)
        if move in (Move.STAY, Move.REPAIR):
            return self._stand(move, record)
        return self._go(move, record)

    # which move -----------------------------------------------------------------------------

    def _move(self, target: str) -> Move:
        live = self.now.live
        if live is None:
            return Move.ADOPT if self.now.plain_project else Move.FIRST
        if self.now.facts.unfinished is not None:
            return Move.REPAIR
        if live.release != target:
            return Move.BACK if self.now.state.was_live(target) else Move.FORWARD
        if self.now.wish is not None or self.now.secrets_changed(live) or self.now.other_way(live):
            return Move.REFRESH
        down = self.now.state.stopped or self.now.broken(live) or self.now.facts.ingress
        return Move.REPAIR if down else Move.STAY

    # standing still -------------------------------------------------------------------------

    def _stand(self, move: Move, record: Release) -> Plan:
        live = self.now.live
        assert live is not None
        repaired = record
        if live.release != record.name:
            repaired = self.now.facts.records.get(live.release, record)
        datasets = {
            name: self._as_it_is(live, dataset) for name, dataset in repaired.datasets.items()
        }
        return self._finish(
            move,
            record.name,
            from_world=live.name,
            to_world=live.name,
            new_world=False,
            datasets=datasets,
            problems=(
                *refusals.images(self.now, repaired.name),
                *refusals.lost(self.now),
                *refusals.worlds_unknown(self.now),
            )
            if move is Move.REPAIR
            else (),
        )

    def _as_it_is(self, live: World, dataset: Dataset) -> DatasetPlan:
        generation = live.generations.get(dataset.name, dataset.source or dataset.name)
        known = self.now.state.generations.get(generation)
        own = dataset.name in live.generations
        return DatasetPlan(
            dataset.name,
            Action.ATTACH if own else Action.LEAVE,
            generation,
            known.number if known else 0,
            new=False,
            source_text="as it is",
            bytes=self.now.facts.volumes.get(generation),
            driver=dataset.driver,
            shared=dataset.shared,
        )

    # going somewhere ------------------------------------------------------------------------

    def _go(self, move: Move, record: Release) -> Plan:
        live = self.now.live
        adopted = move is Move.ADOPT
        datasets, problems = Origins(self.now, move, record).find()
        world, new_world, datasets = self._world(record, datasets)
        problems += [
            *refusals.worlds_beside(self.now),
            *refusals.lost(self.now, datasets),
            *refusals.moved_away(
                self.now, live.name if live else None, None if new_world else world
            ),
            *refusals.images(self.now, record.name),
            *refusals.quarantine(self.now, record),
            *refusals.foreign_users(self.now, datasets),
            *refusals.ports(self.now, record),
            *refusals.replicas(record),
            *refusals.vanished(self.now, record, live),
            *refusals.dangers(self.now, record),
            *refusals.unfinished(self.now),
            *refusals.unanswerable(self.now, record),
        ]
        return self._finish(
            move,
            record.name,
            from_world=live.name if live else (self.now.stack.project if adopted else None),
            to_world=world,
            new_world=new_world,
            datasets=datasets,
            problems=tuple(problems),
            says=saying.going(self.now, move, record, datasets),
            adopted=adopted,
        )

    # the target world -----------------------------------------------------------------------

    def _world(
        self, record: Release, datasets: Mapping[str, DatasetPlan]
    ) -> tuple[str, bool, dict[str, DatasetPlan]]:
        """(name, has to be made, datasets as that world has them)."""
        for world in reversed(self.now.state.worlds_of(record.name)):
            if self._fits(world, datasets):
                return world.name, False, dict(datasets)
            prepared = self._prepared(world, datasets)
            if prepared is not None:
                return world.name, False, prepared
        number = len(self.now.state.worlds_of(record.name)) + 1
        return names.world_name(self.now.stack.project, record.name, number), True, dict(datasets)

    def _fits(self, world: World, datasets: Mapping[str, DatasetPlan]) -> bool:
        """An old world that holds exactly the planned generations and today's secrets."""
        own = {n: d.generation for n, d in datasets.items() if d.action is Action.ATTACH}
        moved = [d for d in datasets.values() if d.new]
        if world.removed or not world.proved or moved or dict(world.generations) != own:
            return False
        if self.now.made_anew_since(world) if world.adopted else world.failed is not None:
            return False
        if self.now.other_way(world):
            return False
        known = bool(self.now.facts.fingerprint) and not world.adopted
        return bool(self.now.facts.containers.get(world.name)) and (
            not known or world.fingerprint == self.now.facts.fingerprint
        )

    def _prepared(
        self, world: World, datasets: Mapping[str, DatasetPlan]
    ) -> dict[str, DatasetPlan] | None:
        """The datasets of a world that an interrupted up made and nobody ever started.

        Docker has the last word on that: what ran may have written, and a fork brought up to date
        again would overwrite it.
        """
        if world.removed or world.touched or world.fingerprint != self.now.facts.fingerprint:
            return None
        if world.failed is not None or self.now.ran(world) or self.now.other_way(world):
            return None
        made: dict[str, DatasetPlan] = {}
        for name, planned in datasets.items():
            generation = self.now.state.generations.get(world.generations.get(name, ""))
            if not planned.new and (generation is None or generation.name == planned.generation):
                made[name] = planned
                continue
            if generation is None or generation.removed or generation.action != planned.action:
                return None
            if planned.action is Action.FORK and generation.parent != planned.source:
                return None
            if planned.action is Action.RESTORE and generation.snapshot != planned.snapshot:
                return None
            made[name] = _as_made(planned, generation.name, generation.number)
        return made

    # refusals -------------------------------------------------------------------------------

    # finishing ------------------------------------------------------------------------------

    def _nothing_declared(self) -> Plan:
        return self._stay_with(
            Refusal(
                f"stack {self.now.stack.name} declares no release",
                'lockstep new "what it is"   makes one and declares it',
                Exit.BAD_INPUT,
            )
        )

    def _stay_with(self, refusal: Refusal) -> Plan:
        return self._finish(
            Move.STAY,
            self.now.stack.settings.release,
            from_world=self.now.state.live,
            to_world=self.now.state.live,
            new_world=False,
            datasets={},
            problems=(refusal,),
            says="nothing is changed",
        )

    def _finish(
        self,
        move: Move,
        target: str | None,
        *,
        from_world: str | None,
        to_world: str | None,
        new_world: bool,
        datasets: Mapping[str, DatasetPlan],
        problems: tuple[Refusal, ...],
        says: str = "",
        adopted: bool = False,
    ) -> Plan:
        disk, no_space = refusals.disk(self.now, datasets)
        moving = move not in (Move.STAY, Move.REPAIR)
        worlds = self._declared_worlds(to_world, from_world, moving, adopted)
        leftovers = () if moving else self._leftovers(worlds)
        kept, prune = self._window(target if moving else self.now.state.live_release, moving)
        downtime = self._downtime(move, datasets)
        wish = self.now.wish
        debts = self._debts(leftovers)
        if not says and self.now.live is not None:
            says = saying.standing(self.now, move, self.now.live, (*debts, *prune))
        usable = tuple(
            k.release
            for k in kept
            if self.now.images_of(k.release) and not refusals.images(self.now, k.release)
        )
        return Plan(
            move=move,
            head=self.now.state.head,
            target=target,
            from_world=from_world,
            to_world=to_world,
            new_world=new_world,
            datasets=dict(datasets),
            worlds=worlds,
            images=usable,
            keep=kept,
            prune=prune,
            debts=debts,
            leftovers=leftovers,
            adopt_project=self.now.stack.project if adopted else None,
            adopted_release=self.now.adopted_release if adopted else None,
            wish=wish.key if wish is not None and moving else None,
            says=says,
            warnings=self._warnings(move, datasets),
            refusals=(*problems, *no_space),
            downtime_estimate_seconds=downtime.seconds,
            downtime_basis=downtime.basis,
            downtime_worst_seconds=downtime.worst,
            downtime_measured=downtime.measured,
            made=datetime.fromtimestamp(self.now.facts.now, UTC).isoformat(timespec="milliseconds"),
            disk=disk,
        )

    def _declared_worlds(
        self, to_world: str | None, from_world: str | None, moving: bool, adopted: bool
    ) -> tuple[str, ...]:
        """What shall exist after this up; adopted worlds are not ours to make or remove."""
        wanted = [to_world, from_world] if moving else [to_world, self.now.state.previous]
        if not moving:
            wanted.append(self._newest_failed())
        declared: list[str] = []
        for name in wanted:
            if name is None or name in declared or (adopted and name == self.now.stack.project):
                continue
            world = self.now.state.worlds.get(name)
            if world is not None and world.adopted:
                continue
            if world is not None and world.removed and name != to_world:
                continue
            declared.append(name)
        return tuple(declared)

    def _leftovers(self, declared: tuple[str, ...]) -> tuple[str, ...]:
        """Worlds that nobody declares and no up removed (a killed one, or a lost state)."""
        needed = {*declared, self.now.state.live, self.now.state.previous}
        return tuple(
            w.name
            for w in self.now.state.worlds.values()
            if not w.removed and not w.adopted and w.name not in needed
        )

    def _debts(self, leftovers: tuple[str, ...]) -> tuple[str, ...]:
        unsaved = [
            f"{d.release}'s {name} is not in the store yet" for d, name in self.now.state.debts()
        ]
        return (*unsaved, *(f"{world} is not needed any more" for world in leftovers))

    def _newest_failed(self) -> str | None:
        """The newest failed world, kept for a look until the next success."""
        for _, outcome in reversed(self.now.state.outcomes):
            if outcome.kind == "committed":
                return None
            if outcome.kind == "reverted" and outcome.touched:
                world = self.now.state.worlds.get(outcome.to_world)
                return world.name if world and not world.proved else None
        return None

    def _window(self, live: str | None, moving: bool) -> tuple[tuple[Kept, ...], tuple[str, ...]]:
        previous_world = self.now.state.live if moving else self.now.state.previous
        previous = self.now.state.worlds[previous_world].release if previous_world else None
        unfinished = []
        world = self.now.state.worlds.get(self.now.facts.unfinished or "")
        if world is not None:
            unfinished.append(world.release)
        declared = self.now.stack.settings.release
        if declared is not None:
            unfinished.append(declared)
        if self.now.state.live is None:
            # A run that died while it adopted may have left the record alone.
            unfinished.append(self.now.adopted_release)
        kept, pruned = retention.retain(
            self.now.stack.settings.window,
            self.now.facts.records,
            self.now.state,
            live=live,
            previous=previous,
            unfinished=[r for r in unfinished if r != live],
            now=self.now.facts.now,
        )
        unreadable = [Kept(r, ("its record cannot be read",)) for r in self.now.facts.damaged]
        return (*kept, *unreadable), pruned

    def _downtime(self, move: Move, datasets: Mapping[str, DatasetPlan]) -> _Downtime:
        if move in (Move.STAY, Move.FIRST):
            return _Downtime(0.0, "nothing is stopped")
        measured = [
            outcome.downtime_seconds
            for _, outcome in self.now.state.outcomes
            if outcome.kind != "reverted"
            and outcome.downtime_seconds is not None
            and outcome.move == move.value
        ][-10:]
        if not measured:
            copied = sum(d.bytes or 0 for d in datasets.values() if d.action is Action.FORK)
            slowest = max((deaf.grace for deaf in self.now.facts.deaf), default=0.0)
            guess = round(2.0 + copied / (1 << 30) + slowest, 1)
            graces = " and grace periods" if slowest else ""
            return _Downtime(guess, f"a guess from sizes{graces}: no such switch was measured")
        middle, worst, count = median(measured), max(measured), len(measured)
        says = (
            f"median of this stack's last {count} switches {move.value}, worst {worst:.1f} s"
            if count > 1
            else f"what this stack's last switch {move.value} took"
        )
        deaf = max(self._deaf_to_clients(), key=lambda deaf: deaf.grace, default=None)
        if deaf is not None and deaf.grace > middle:
            middle = deaf.grace + min(measured)
            worst = max(worst, middle)
            says = f"the grace period of {deaf.service}, and {says}"
        return _Downtime(round(middle, 2), says, round(worst, 2), count)

    def _deaf_to_clients(self) -> list[Deaf]:
        """Those of them that publish a port: nobody is served while such a one is stopped."""
        live = self.now.facts.records.get(self.now.live.release) if self.now.live else None
        services = compose.services(live.model) if live else {}
        return [d for d in self.now.facts.deaf if services.get(d.service, {}).get("ports")]

    def _warnings(self, move: Move, datasets: Mapping[str, DatasetPlan]) -> tuple[str, ...]:
        found: list[str] = []
        live = self.now.live
        wish = self.now.stack.settings.restore
        if wish is not None and self.now.wish is None:
            why = "was fulfilled" if wish.key in self.now.state.wishes else f"is for {wish.release}"
            found.append(f"restore {wish.release} at {wish.at}: {why}, it has no effect now")
        given = live is not None and not live.adopted
        if given and not self.now.facts.fingerprint:
            found.append(
                "the key of the secrets' fingerprints is missing: a changed secret cannot be seen"
            )
        if live is not None and live.release not in self.now.facts.records:
            found.append(f"the record of the live release {live.release} is missing or damaged")
        found += self.now.facts.damaged.values()
        if move in (Move.STAY, Move.REPAIR) and live is not None:
            found += [refusal.message for refusal in refusals.moved_away(self.now, live.name)]
        if move not in (Move.REPAIR, Move.FORWARD):
            found += [refusal.message for refusal in refusals.lost(self.now)]
        if move is Move.STAY:
            found += [refusal.message for refusal in refusals.worlds_beside(self.now)]
        if live is not None and not live.adopted:
            found += self._foreign_starts()
        record = self.now.facts.records.get(self.now.stack.settings.release or "")
        if record is not None and move not in (Move.STAY, Move.REPAIR):
            found += refusals.unasked(self.now, record)
        for planned in datasets.values():
            found += self._dataset_warnings(move, planned)
        found += [str(deaf) for deaf in self.now.facts.deaf]
        found += [str(note) for note in self.now.facts.restored]
        for tag in imagehold.gone_tags(self.now):
            found.append(f"tag {tag} was removed, its image is still there: `up` puts it back")
        for release in self.now.facts.records:
            if release != self.now.stack.settings.release:
                for refusal in refusals.images(self.now, release):
                    found.append(f"{release} is unusable: {refusal.message}")
        return tuple(found)

    def _foreign_starts(self) -> list[str]:
        running = [c.name for c in self.now.plain_project if c.state == "running"]
        if not running:
            return []
        return [
            f"the plain compose project {self.now.stack.project} was started beside the live world "
            f"({', '.join(running)}); docker compose -p {self.now.stack.project} stop ends it"
        ]

    def _dataset_warnings(self, move: Move, planned: DatasetPlan) -> list[str]:
        if planned.action is Action.CREATE and move not in (Move.FIRST, Move.ADOPT):
            return [f"dataset {planned.name} is new: it starts empty"]
        if planned.shared and planned.action is Action.IN_PLACE:
            users = self.now.facts.foreign_mounts.get(planned.generation, ())
            others = f" ({', '.join(users)})" if users else ""
            return [f"shared dataset {planned.name} is restored for everybody who uses it{others}"]
        return []


def _as_made(planned: DatasetPlan, generation: str, number: int) -> DatasetPlan:
    return replace(planned, generation=generation, number=number, new=False)
