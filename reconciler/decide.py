"""The one decision: settings, ledger and facts in, a Plan out. No I/O, no clock.

Preview shows the same Plan that `up` carries out.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from statistics import median

from reconciler import compose, names, retention
from reconciler.config import Stack, Wish
from reconciler.errors import Exit
from reconciler.facts import Container, Facts
from reconciler.ledger import Committed, Departure, State, World
from reconciler.plan import Action, DatasetPlan, DiskNeed, Kept, Move, Plan, Refusal
from reconciler.release import Dataset, Release, Strategy

RESERVE_BYTES = 64 << 20
"""Free space that no plan may use up."""


def decide(stack: Stack, state: State, facts: Facts) -> Plan:
    """The Plan that makes the host run the declared release with its data."""
    return _Decision(stack, state, facts).plan()


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


def undo_target(state: State) -> tuple[str, Wish | None] | None:
    """(release, wish) that lead to the world before the last switch; None when there is none."""
    if state.previous is None:
        return None
    previous = state.worlds[state.previous]
    if previous.release != state.live_release:
        return previous.release, None
    asked = f"undo of {state.live} at {state.head}"
    return previous.release, Wish(release=previous.release, at=previous.name, asked=asked)


def _before_first_arrival(state: State, release: str) -> str | None:
    for _, outcome in state.outcomes:
        if isinstance(outcome, Committed) and state.worlds[outcome.to_world].release == release:
            return state.worlds[outcome.from_world].release if outcome.from_world else None
    return None


@dataclass
class _Decision:
    """The working memory of one decision; every method is a pure function of the three inputs."""

    stack: Stack
    state: State
    facts: Facts

    def plan(self) -> Plan:
        target = self.stack.settings.release
        if target is None:
            return self._nothing_declared()
        record = self.facts.records.get(target)
        if record is None:
            return self._stay_with(self._unusable(target))
        move = self._move(target)
        if move in (Move.STAY, Move.REPAIR):
            return self._stand(move, record)
        return self._go(move, record)

    # which move -----------------------------------------------------------------------------

    def _move(self, target: str) -> Move:
        live = self._live()
        if live is None:
            return Move.ADOPT if self._plain_project() else Move.FIRST
        if self.facts.unfinished is not None:
            return Move.REPAIR
        if live.release != target:
            return Move.BACK if self.state.was_live(target) else Move.FORWARD
        if self._wish() is not None or self._secrets_changed(live):
            return Move.REFRESH
        return Move.REPAIR if self.state.stopped or self._broken(live) else Move.STAY

    def _live(self) -> World | None:
        return self.state.worlds[self.state.live] if self.state.live else None

    def _plain_project(self) -> tuple[Container, ...]:
        """The containers of the compose project that ran before Lockstep came."""
        return tuple(c for c in self.facts.containers.get(self.stack.project, ()) if not c.one_off)

    def _wish(self) -> Wish | None:
        wish = self.stack.settings.restore
        if wish is None or wish.release != self.stack.settings.release:
            return None
        return None if wish.key in self.state.wishes else wish

    def _secrets_changed(self, live: World) -> bool:
        known = bool(self.facts.fingerprint and live.fingerprint)
        return known and live.fingerprint != self.facts.fingerprint

    def _broken(self, live: World) -> tuple[str, ...]:
        """Services of the live world whose containers are missing or stand still."""
        record = self.facts.records.get(live.release)
        if record is None:
            return ()
        found: dict[str, list[Container]] = {}
        for container in self.facts.containers.get(live.name, ()):
            found.setdefault(container.service, []).append(container)
        return tuple(
            service
            for service in record.model.get("services", {})
            if not _stands(found.get(service, []), job=compose.is_job(record.model, service))
        )

    # standing still -------------------------------------------------------------------------

    def _stand(self, move: Move, record: Release) -> Plan:
        live = self._live()
        assert live is not None
        repaired = record
        if live.release != record.name:
            repaired = self.facts.records.get(live.release, record)
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
            refusals=self._image_refusals(repaired) if move is Move.REPAIR else (),
            says=self._says_stand(move, live),
        )

    def _as_it_is(self, live: World, dataset: Dataset) -> DatasetPlan:
        generation = live.generations.get(dataset.name, dataset.source or dataset.name)
        known = self.state.generations.get(generation)
        own = dataset.name in live.generations
        return DatasetPlan(
            dataset.name,
            Action.ATTACH if own else Action.LEAVE,
            generation,
            known.number if known else 0,
            new=False,
            source_text="as it is",
            bytes=self.facts.volumes.get(generation),
            driver=dataset.driver,
            shared=dataset.shared,
        )

    def _says_stand(self, move: Move, live: World) -> str:
        if move is Move.STAY:
            return f"{live.release} is live; nothing to do"
        if self.facts.unfinished is not None:
            return f"a switch to {self.facts.unfinished} was not finished: it is put right first"
        if self.state.stopped:
            return f"{live.release} was stopped by hand: it is started again"
        broken = ", ".join(self._broken(live))
        return f"{live.release} is live, but {broken} stand still or are missing: started again"

    # going somewhere ------------------------------------------------------------------------

    def _go(self, move: Move, record: Release) -> Plan:
        live = self._live()
        adopted = self._plain_project() if move is Move.ADOPT else ()
        source, problems = self._source_of_data(move, record)
        datasets: dict[str, DatasetPlan] = {}
        refusals = [*self._image_refusals(record), *self._quarantine(record), *problems]
        for name, dataset in record.datasets.items():
            planned = self._dataset(move, dataset, source)
            if isinstance(planned, Refusal):
                refusals.append(planned)
            else:
                datasets[name] = planned
        from_world = live.name if live else (self.stack.project if adopted else None)
        world, new_world, datasets = self._world(record, datasets)
        refusals += [
            *self._foreign_users(datasets),
            *self._port_refusals(record),
            *self._vanished(record, live),
        ]
        return self._finish(
            move,
            record.name,
            from_world=from_world,
            to_world=world,
            new_world=new_world,
            datasets=datasets,
            refusals=tuple(refusals),
            says=self._says_go(move, record, from_world),
            adopted=bool(adopted),
        )

    def _source_of_data(
        self, move: Move, record: Release
    ) -> tuple[Departure | None, list[Refusal]]:
        """The departure whose content the target gets; None: the live data goes along."""
        wish = self._wish()
        departures = self.state.departures_of(record.name)
        if wish is not None and wish.at not in ("departure", "arrival"):
            left = [d for d in self.state.departures_of(record.name) if d.world == wish.at]
            if left:
                return left[-1], []
            if wish.at in self.facts.snapshots:
                back = move is Move.BACK and self.stack.settings.data == "restore"
                return (departures[-1] if back and departures else None), []
            return None, [self._no_such_restore(wish)]
        if wish is not None and wish.at == "arrival":
            arrived = list(retention.arrivals(self.state, record.name).values())
            return (arrived[0], []) if arrived else (None, [self._no_such_restore(wish)])
        if wish is not None:
            return (departures[-1], []) if departures else (None, [self._no_such_restore(wish)])
        if move is Move.BACK and self.stack.settings.data == "restore":
            return (departures[-1], []) if departures else (None, [])
        return None, []

    def _no_such_restore(self, wish: Wish) -> Refusal:
        return Refusal(
            f"restore: {wish.release} has no data {wish.at!r}",
            f"lockstep info {wish.release}   shows its departures and snapshots",
            Exit.BAD_INPUT,
        )

    def _dataset(
        self, move: Move, dataset: Dataset, source: Departure | None
    ) -> DatasetPlan | Refusal:
        if dataset.shared:
            return self._shared(dataset, source)
        if dataset.strategy is Strategy.IN_PLACE:
            return self._in_place(dataset, source)
        wish = self._wish()
        if wish is not None and wish.at in self.facts.snapshots:
            snapshot = self.facts.snapshots[wish.at]
            if snapshot.dataset in (dataset.name, dataset.was):
                return self._restore(dataset, wish.at, None, f"snapshot {wish.at[:12]}")
        if source is not None:
            return self._own_data(dataset, source)
        return self._along(move, dataset)

    def _along(self, move: Move, dataset: Dataset) -> DatasetPlan:
        """The data of the live world (or of the plain project) goes along."""
        live = self._live()
        before: str | None = None
        release = None
        if live is not None:
            before = live.generations.get(dataset.was or dataset.name)
            release = live.release
        elif dataset.source in self.facts.volumes:
            before = dataset.source
        number = self._next_number(dataset.name)
        generation = self._generation(dataset.name, number)
        if before is None:
            return DatasetPlan(
                dataset.name,
                Action.CREATE,
                generation,
                number,
                new=True,
                source_text="empty",
                driver=dataset.driver,
            )
        if release is None:
            release = self._adopted_release() if move is Move.ADOPT else None
        return DatasetPlan(
            dataset.name,
            Action.FORK,
            generation,
            number,
            new=True,
            source=before,
            source_text=f"a fork of {release}'s data" if release else f"a fork of volume {before}",
            source_release=release,
            age_seconds=0.0,
            bytes=self.facts.volumes.get(before),
            driver=dataset.driver,
        )

    def _own_data(self, dataset: Dataset, source: Departure) -> DatasetPlan | Refusal:
        """The content that was left: its volume when nobody touched it since, else the store."""
        live = self._live()
        text = f"the data {source.release} left"
        if source.release != self.stack.settings.release:
            text = f"the data {self.stack.settings.release} started from"
        generation = source.generations.get(dataset.name)
        if generation is not None:
            known = self.state.generations[generation]
            intact = known.sealed == source.seq and not known.spoiled and not known.removed
            same = source.release == self.stack.settings.release
            if intact and same and generation in self.facts.volumes:
                return DatasetPlan(
                    dataset.name,
                    Action.ATTACH,
                    generation,
                    known.number,
                    new=False,
                    source_text=text,
                    source_release=source.release,
                    age_seconds=self._age(source),
                    bytes=self.facts.volumes.get(generation),
                    set_aside=self._set_aside(dataset, source),
                    driver=dataset.driver,
                )
        snapshot = source.snapshots.get(dataset.name)
        if snapshot is not None and snapshot in self.facts.snapshots:
            return self._restore(dataset, snapshot, source, text)
        if generation is None and dataset.name not in (live.generations if live else {}):
            return self._along(Move.FORWARD, dataset)
        return Refusal(
            f"dataset {dataset.name}: {text} is not to be had: its volume is gone or was changed "
            "and no snapshot of it is in the store",
            "lockstep config set data keep   goes back with the data as it is now",
        )

    def _restore(
        self, dataset: Dataset, snapshot: str, source: Departure | None, text: str
    ) -> DatasetPlan:
        number = self._next_number(dataset.name)
        return DatasetPlan(
            dataset.name,
            Action.RESTORE,
            self._generation(dataset.name, number),
            number,
            new=True,
            snapshot=snapshot,
            source_text=f"{text}, from the store",
            source_release=source.release if source else None,
            age_seconds=self._age(source) if source else None,
            bytes=self.facts.snapshots[snapshot].bytes,
            set_aside=self._set_aside(dataset, source) if source else {},
            driver=dataset.driver,
        )

    def _in_place(self, dataset: Dataset, source: Departure | None) -> DatasetPlan:
        place = dataset.source or dataset.name
        snapshot = source.snapshots.get(dataset.name) if source else None
        if snapshot is not None and snapshot not in self.facts.snapshots:
            snapshot = None
        text = "stays in place; a safety snapshot is taken first"
        if snapshot is not None and source is not None:
            text = f"the data {source.release} left, put back in place after a safety snapshot"
        return DatasetPlan(
            dataset.name,
            Action.IN_PLACE,
            place,
            0,
            new=False,
            source=place,
            snapshot=snapshot,
            source_text=text,
            source_release=source.release if source and snapshot else None,
            age_seconds=self._age(source) if source and snapshot else None,
            bytes=self.facts.volumes.get(place),
            set_aside=self._set_aside(dataset, source) if source and snapshot else {},
            driver=dataset.driver,
            stop_owner=self._may_stop_owner(dataset),
        )

    def _shared(self, dataset: Dataset, source: Departure | None) -> DatasetPlan | Refusal:
        place = dataset.source or dataset.name
        wish = self._wish()
        if wish is None or dataset.name not in wish.shared:
            return DatasetPlan(
                dataset.name,
                Action.LEAVE,
                place,
                0,
                new=False,
                source=place,
                source_text="shared: left as it is, a snapshot of it is taken",
                bytes=self.facts.volumes.get(place),
                driver=dataset.driver,
                shared=True,
            )
        snapshot = source.snapshots.get(dataset.name) if source else None
        if (
            wish.at in self.facts.snapshots
            and self.facts.snapshots[wish.at].dataset == dataset.name
        ):
            snapshot = wish.at
        if snapshot is None or snapshot not in self.facts.snapshots:
            return Refusal(
                f"shared dataset {dataset.name}: there is no snapshot of it from {wish.release}",
                f"lockstep info {wish.release}   shows what there is",
            )
        users = self.facts.foreign_mounts.get(place, ())
        if users and not self._may_stop_owner(dataset):
            return Refusal(
                f"shared dataset {dataset.name} is in use by {', '.join(users)}, which must be "
                "stopped to restore it",
                f"lockstep config set --path datasets.{dataset.name}.stop_owner true   allows it",
            )
        return DatasetPlan(
            dataset.name,
            Action.IN_PLACE,
            place,
            0,
            new=False,
            source=place,
            snapshot=snapshot,
            source_text=f"the snapshot of {wish.release}, put back in place for all who share it",
            source_release=wish.release,
            age_seconds=self._age(source) if source else None,
            bytes=self.facts.snapshots[snapshot].bytes,
            set_aside=self._set_aside(dataset, source) if source else {},
            driver=dataset.driver,
            shared=True,
            stop_owner=self._may_stop_owner(dataset),
        )

    def _may_stop_owner(self, dataset: Dataset) -> bool:
        """What the stack allows now, not when the release was made."""
        setting = self.stack.settings.datasets.get(dataset.name)
        return setting.stop_owner if setting is not None else dataset.stop_owner

    def _age(self, source: Departure) -> float:
        return max(0.0, self.facts.now - datetime.fromisoformat(source.at).timestamp())

    def _set_aside(self, dataset: Dataset, source: Departure) -> dict[str, int]:
        now = self.facts.live_probe.get(dataset.name, {})
        then = source.probes.get(dataset.name, {})
        more = {what: count - then.get(what, 0) for what, count in now.items()}
        return {what: count for what, count in more.items() if count > 0}

    def _next_number(self, dataset: str) -> int:
        known = [g.number for g in self.state.generations.values() if g.dataset == dataset]
        if self._live() is None and self._plain_project():
            known.append(1)
        return max(known, default=0) + 1

    def _generation(self, dataset: str, number: int) -> str:
        return names.generation_name(self.stack.project, self.stack.name, dataset, number)

    def _adopted_release(self) -> str:
        return names.release_name(self.stack.name, names.ADOPTED_NUMBER)

    # the target world -----------------------------------------------------------------------

    def _world(
        self, record: Release, datasets: Mapping[str, DatasetPlan]
    ) -> tuple[str, bool, dict[str, DatasetPlan]]:
        """(name, has to be made, datasets as that world has them)."""
        for world in reversed(self.state.worlds_of(record.name)):
            if self._fits(world, datasets):
                return world.name, False, dict(datasets)
            prepared = self._prepared(world, datasets)
            if prepared is not None:
                return world.name, False, prepared
        number = len(self.state.worlds_of(record.name)) + 1
        return names.world_name(self.stack.project, record.name, number), True, dict(datasets)

    def _fits(self, world: World, datasets: Mapping[str, DatasetPlan]) -> bool:
        """An old world that holds exactly the planned generations and today's secrets."""
        own = {n: d.generation for n, d in datasets.items() if d.action is Action.ATTACH}
        moved = [d for d in datasets.values() if d.new]
        if world.removed or not world.proved or moved or dict(world.generations) != own:
            return False
        known = bool(self.facts.fingerprint) and not world.adopted
        return bool(self.facts.containers.get(world.name)) and (
            not known or world.fingerprint == self.facts.fingerprint
        )

    def _prepared(
        self, world: World, datasets: Mapping[str, DatasetPlan]
    ) -> dict[str, DatasetPlan] | None:
        """The datasets of a world that an interrupted up made and nobody ever started."""
        if world.removed or world.touched or world.fingerprint != self.facts.fingerprint:
            return None
        made: dict[str, DatasetPlan] = {}
        for name, planned in datasets.items():
            generation = self.state.generations.get(world.generations.get(name, ""))
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

    def _unusable(self, target: str) -> Refusal:
        if target in self.facts.damaged:
            return Refusal(self.facts.damaged[target], "lockstep list   shows usable releases")
        if target in self.state.pruned:
            return Refusal(
                f"{target} was pruned: it left the window and its data is gone",
                "lockstep list   shows the releases there are",
                Exit.BAD_INPUT,
            )
        near = difflib.get_close_matches(target, self.facts.records, n=3, cutoff=0.5)
        hint = f"; the nearest are {', '.join(near)}" if near else ""
        return Refusal(
            f"there is no release {target}{hint}",
            "lockstep list   shows the releases there are",
            Exit.BAD_INPUT,
        )

    def _quarantine(self, record: Release) -> list[Refusal]:
        failed = self.state.quarantined.get(record.name)
        if failed is None or self.stack.settings.retry == failed:
            return []
        why = self.state.worlds[failed].failed or "it did not pass its proof"
        return [
            Refusal(
                f"{record.name} is quarantined: {why}",
                "declare a new release (lockstep new), or answer this failure: "
                f"lockstep config set retry {failed}",
            )
        ]

    def _image_refusals(self, record: Release) -> tuple[Refusal, ...]:
        found = []
        for service, image in record.images.items():
            now = self.facts.images.get(image.tag)
            if now is None and not record.adopted:
                found.append(
                    Refusal(
                        f"image {image.tag} of service {service} in {record.name} is missing "
                        f"(it was {image.id[:19]})",
                        f"docker tag {image.id[:19]} {image.tag}   if the image is still there; "
                        "else declare another release",
                    )
                )
            elif now is not None and now != image.id:
                found.append(
                    Refusal(
                        f"tag {image.tag} was moved: it is {now[:19]}, {record.name} was made "
                        f"with {image.id[:19]}",
                        f"docker tag {image.id[:19]} {image.tag}   puts it back",
                    )
                )
        return tuple(found)

    def _foreign_users(self, datasets: Mapping[str, DatasetPlan]) -> list[Refusal]:
        found = []
        for planned in datasets.values():
            users = self.facts.foreign_mounts.get(planned.generation, ())
            users = (*users, *self.facts.foreign_mounts.get(planned.source or "", ()))
            if users and not planned.shared and not planned.stop_owner:
                found.append(
                    Refusal(
                        f"dataset {planned.name}: {planned.source or planned.generation} is in use "
                        f"by {', '.join(sorted(set(users)))}, which is none of ours",
                        "stop it first, or declare the dataset shared",
                    )
                )
        return found

    def _port_refusals(self, record: Release) -> list[Refusal]:
        published = {(p.port, p.protocol) for p in compose.published_ports(record.model)}
        return [
            Refusal(
                f"port {held.port}/{held.protocol} that {record.name} publishes is held by "
                f"{held.holder}",
                "stop it, or publish another port",
            )
            for held in self.facts.ports
            if (held.port, held.protocol) in published
        ]

    def _vanished(self, record: Release, live: World | None) -> list[Refusal]:
        """Datasets of the live world that a release never live before does not know."""
        if live is None or self.state.was_live(record.name):
            return []
        known = set(record.datasets) | set(record.dropped)
        known |= {d.was for d in record.datasets.values() if d.was}
        return [
            Refusal(
                f"dataset {name} of {live.release} is not in {record.name}",
                "declare the release anew with x-lockstep: {was: "
                + name
                + "} on the volume that replaces it, or x-lockstep: {dropped: ["
                + name
                + "]} at the top of the compose file",
            )
            for name in live.generations
            if name not in known
        ]

    def _disk(self, datasets: Mapping[str, DatasetPlan]) -> tuple[DiskNeed, list[Refusal]]:
        needed = 0
        captured = 0
        for planned in datasets.values():
            copied = planned.action is Action.FORK and not self.facts.disk.reflink
            if planned.new and (copied or planned.action is Action.RESTORE):
                needed += planned.bytes or 0
            if planned.action is Action.IN_PLACE:
                captured += planned.bytes or 0
        disk = self.facts.disk
        need = DiskNeed(needed, disk.volumes_free, disk.store_free)
        if needed and needed + RESERVE_BYTES > disk.volumes_free:
            return need, [
                Refusal(
                    f"not enough disk for a second copy of the data: {_mib(needed)} MiB and a "
                    f"reserve of {_mib(RESERVE_BYTES)} MiB are needed, "
                    f"{_mib(disk.volumes_free)} MiB are free",
                    "free space, lower the window (lockstep config set window 1), let the "
                    "dataset be worked on in place (datasets.NAME.strategy in-place), or keep "
                    "the volumes on XFS or btrfs, where a fork needs no space",
                )
            ]
        if captured and captured + RESERVE_BYTES > disk.store_free:
            return need, [
                Refusal(
                    f"not enough disk for a safety snapshot: {_mib(captured)} MiB are needed, "
                    f"{_mib(disk.store_free)} MiB are free for the store",
                    "free space, or put the store elsewhere (lockstep config set store PATH)",
                )
            ]
        return need, []

    # finishing ------------------------------------------------------------------------------

    def _nothing_declared(self) -> Plan:
        return self._stay_with(
            Refusal(
                f"stack {self.stack.name} declares no release",
                'lockstep new "what it is"   makes one, lockstep config set release NAME declares it',
                Exit.BAD_INPUT,
            )
        )

    def _stay_with(self, refusal: Refusal) -> Plan:
        return self._finish(
            Move.STAY,
            self.stack.settings.release,
            from_world=self.state.live,
            to_world=self.state.live,
            new_world=False,
            datasets={},
            refusals=(refusal,),
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
        refusals: tuple[Refusal, ...],
        says: str,
        adopted: bool = False,
    ) -> Plan:
        disk, no_space = self._disk(datasets)
        moving = move not in (Move.STAY, Move.REPAIR)
        worlds = self._declared_worlds(to_world, from_world, moving, adopted)
        leftovers = () if moving else self._leftovers(worlds)
        kept, prune = self._window(target if moving else self.state.live_release, moving)
        estimate, basis = self._downtime(move, datasets)
        wish = self._wish()
        usable = tuple(
            k.release
            for k in kept
            if k.release in self.facts.records
            and not self.facts.records[k.release].adopted
            and not self._image_refusals(self.facts.records[k.release])
        )
        return Plan(
            move=move,
            head=self.state.head,
            target=target,
            from_world=from_world,
            to_world=to_world,
            new_world=new_world,
            datasets=dict(datasets),
            worlds=worlds,
            images=usable,
            keep=kept,
            prune=prune,
            debts=self._debts(leftovers, prune),
            leftovers=leftovers,
            adopt_project=self.stack.project if adopted else None,
            adopted_release=self._adopted_release() if adopted else None,
            wish=wish.key if wish is not None and moving else None,
            says=says,
            warnings=self._warnings(move, datasets, prune),
            refusals=(*refusals, *no_space),
            downtime_estimate_seconds=estimate,
            downtime_basis=basis,
            disk=disk,
        )

    def _declared_worlds(
        self, to_world: str | None, from_world: str | None, moving: bool, adopted: bool
    ) -> tuple[str, ...]:
        """What shall exist after this up; adopted worlds are not ours to make or remove."""
        wanted = [to_world, from_world] if moving else [to_world, self.state.previous]
        if not moving:
            wanted.append(self._newest_failed())
        declared: list[str] = []
        for name in wanted:
            if name is None or name in declared or (adopted and name == self.stack.project):
                continue
            world = self.state.worlds.get(name)
            if world is not None and (world.adopted or world.removed):
                continue
            if world is not None and world.release not in self.facts.records:
                continue
            declared.append(name)
        return tuple(declared)

    def _leftovers(self, declared: tuple[str, ...]) -> tuple[str, ...]:
        """Worlds that nobody declares and no up removed (a killed one, or a lost state)."""
        needed = {*declared, self.state.live, self.state.previous}
        return tuple(
            w.name
            for w in self.state.worlds.values()
            if not w.removed and not w.adopted and w.name not in needed
        )

    def _debts(self, leftovers: tuple[str, ...], prune: tuple[str, ...]) -> tuple[str, ...]:
        unsaved = [
            f"{d.release}'s {name} is not in the store yet" for d, name in self.state.debts()
        ]
        unpruned = [f"{release} has left the window" for release in prune]
        return (*unsaved, *unpruned, *(f"{world} is not needed any more" for world in leftovers))

    def _newest_failed(self) -> str | None:
        """The newest failed world, kept for a look until the next success."""
        for _, outcome in reversed(self.state.outcomes):
            if outcome.kind == "committed":
                return None
            if outcome.kind == "reverted" and outcome.touched:
                world = self.state.worlds.get(outcome.to_world)
                return world.name if world and not world.proved else None
        return None

    def _window(self, live: str | None, moving: bool) -> tuple[tuple[Kept, ...], tuple[str, ...]]:
        previous_world = self.state.live if moving else self.state.previous
        previous = self.state.worlds[previous_world].release if previous_world else None
        unfinished = []
        world = self.state.worlds.get(self.facts.unfinished or "")
        if world is not None:
            unfinished.append(world.release)
        declared = self.stack.settings.release
        if declared is not None:
            unfinished.append(declared)
        return retention.retain(
            self.stack.settings.window,
            self.facts.records,
            self.state,
            live=live,
            previous=previous,
            unfinished=[r for r in unfinished if r != live],
            now=self.facts.now,
        )

    def _downtime(
        self, move: Move, datasets: Mapping[str, DatasetPlan]
    ) -> tuple[float | None, str]:
        if move in (Move.STAY, Move.FIRST):
            return (0.0, "nothing is stopped")
        measured = [
            outcome.downtime_seconds
            for _, outcome in self.state.outcomes
            if outcome.kind != "reverted"
            and outcome.downtime_seconds is not None
            and outcome.move == move.value
        ]
        if measured:
            recent = measured[-10:]
            worst = max(recent)
            return round(median(recent), 2), (
                f"median of this stack's last {len(recent)} {move.value} "
                f"switch{'es' if len(recent) > 1 else ''}, worst {worst:.1f} s"
            )
        copied = sum(d.bytes or 0 for d in datasets.values() if d.action is Action.FORK)
        return round(2.0 + copied / (1 << 30), 1), "a guess from sizes: no such switch was measured"

    def _warnings(
        self, move: Move, datasets: Mapping[str, DatasetPlan], prune: tuple[str, ...]
    ) -> tuple[str, ...]:
        found: list[str] = []
        live = self._live()
        wish = self.stack.settings.restore
        if wish is not None and self._wish() is None:
            why = "was fulfilled" if wish.key in self.state.wishes else f"is for {wish.release}"
            found.append(f"restore {wish.release} at {wish.at}: {why}, it has no effect now")
        if live is not None and live.fingerprint and not self.facts.fingerprint:
            found.append(
                "the key of the secrets' fingerprints is missing: a changed secret cannot be seen"
            )
        if live is not None and live.release not in self.facts.records:
            found.append(f"the record of the live release {live.release} is missing or damaged")
        found += [why for why in self.facts.damaged.values()]
        if live is not None and not live.adopted:
            found += self._foreign_starts()
        for planned in datasets.values():
            found += self._dataset_warnings(move, planned)
        for kept, record in self.facts.records.items():
            if kept != self.stack.settings.release and not record.adopted:
                for refusal in self._image_refusals(record):
                    found.append(f"{kept} is unusable: {refusal.message}")
        return tuple(found)

    def _foreign_starts(self) -> list[str]:
        running = [c.name for c in self._plain_project() if c.state == "running"]
        if not running:
            return []
        return [
            f"the plain compose project {self.stack.project} was started beside the live world "
            f"({', '.join(running)}); docker compose -p {self.stack.project} stop ends it"
        ]

    def _dataset_warnings(self, move: Move, planned: DatasetPlan) -> list[str]:
        if planned.action is Action.CREATE and move not in (Move.FIRST, Move.ADOPT):
            return [f"dataset {planned.name} is new: it starts empty"]
        if planned.shared and planned.action is Action.IN_PLACE:
            users = self.facts.foreign_mounts.get(planned.generation, ())
            others = f" ({', '.join(users)})" if users else ""
            return [f"shared dataset {planned.name} is restored for everybody who uses it{others}"]
        return []

    def _says_go(self, move: Move, record: Release, from_world: str | None) -> str:
        live = self.state.live_release
        match move:
            case Move.FIRST:
                return f"nothing is live: {record.name} becomes the first release"
            case Move.ADOPT:
                return (
                    f"the compose project {self.stack.project} that runs now is adopted as "
                    f"{self._adopted_release()}, then {record.name} goes live with its data"
                )
            case Move.FORWARD:
                return f"{live} -> {record.name}: a new release; the data goes along on a fork"
            case Move.BACK if self.stack.settings.data == "keep":
                return f"{live} -> {record.name}: back, with the data as it is now"
            case Move.BACK:
                return f"{live} -> {record.name}: back, with the data {record.name} left"
            case _ if self._wish() is not None:
                return f"{record.name} stays live; a restore of its data was asked for"
            case _:
                return f"{record.name} stays live and gets its changed secrets"


def _stands(containers: list[Container], *, job: bool) -> bool:
    if not containers:
        return False
    if job:
        return all(c.state == "running" or c.exit_code == 0 for c in containers)
    return all(c.state in ("running", "restarting") for c in containers)


def _as_made(planned: DatasetPlan, generation: str, number: int) -> DatasetPlan:
    return replace(planned, generation=generation, number=number, new=False)


def _mib(size: int) -> int:
    return -(-size // (1 << 20))
