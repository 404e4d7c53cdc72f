"""Where each dataset of the target world gets its generation. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

from reconciler import names
from reconciler.config import Wish
from reconciler.errors import Exit
from reconciler.plan import Action, Count, DatasetPlan, Move, Refusal
from reconciler.planning import retention
from reconciler.planning.situation import Situation
from reconciler.records import lineage
from reconciler.records.ledger import Departure
from reconciler.records.release import Dataset, Release, Strategy


@dataclass(frozen=True)
class Origins:
    """The origins of one release's data in one move."""

    now: Situation
    move: Move
    record: Release

    def find(self) -> tuple[dict[str, DatasetPlan], list[Refusal]]:
        """Every dataset's plan, and what cannot be had."""
        source, refusals = self._source()
        datasets: dict[str, DatasetPlan] = {}
        for name, dataset in self.record.datasets.items():
            planned = self._dataset(dataset, source)
            if isinstance(planned, Refusal):
                refusals.append(planned)
            else:
                datasets[name] = planned
        return datasets, refusals

    def _source(self) -> tuple[Departure | None, list[Refusal]]:
        """The departure whose content the target gets; None: the live data goes along."""
        wish = self.now.wish
        departures = self.now.state.departures_of(self.record.name)
        if wish is not None and wish.at not in ("departure", "arrival"):
            left = [d for d in self.now.state.departures_of(self.record.name) if d.world == wish.at]
            if left:
                return left[-1], []
            if wish.at in self.now.facts.snapshots:
                back = self.move is Move.BACK and self.now.stack.settings.data == "restore"
                return (departures[-1] if back and departures else None), []
            return None, [self._no_such_restore(wish)]
        if wish is not None and wish.at == "arrival":
            arrived = list(retention.arrivals(self.now.state, self.record.name).values())
            return (arrived[0], []) if arrived else (None, [self._no_such_restore(wish)])
        if wish is not None:
            return (departures[-1], []) if departures else (None, [self._no_such_restore(wish)])
        if self.move is Move.BACK and self.now.stack.settings.data == "restore":
            return (departures[-1], []) if departures else (None, [])
        return None, []

    def _no_such_restore(self, wish: Wish) -> Refusal:
        return Refusal(
            f"restore: {wish.release} has no data {wish.at!r}",
            f"lockstep info {wish.release}   shows its departures and snapshots",
            Exit.BAD_INPUT,
        )

    def _dataset(self, dataset: Dataset, source: Departure | None) -> DatasetPlan | Refusal:
        if dataset.shared:
            return self._shared(dataset, source)
        if dataset.strategy is Strategy.IN_PLACE:
            return self._in_place(dataset, source)
        wished = self._wished_snapshot(dataset)
        if wished is not None:
            return self._restore(dataset, wished, None, f"snapshot {wished[:12]}")
        if source is not None:
            return self._own_data(dataset, source)
        return self._along(dataset)

    def _wished_snapshot(self, dataset: Dataset) -> str | None:
        """The snapshot that the wish names, if it is of this dataset."""
        wish = self.now.wish
        found = self.now.facts.snapshots.get(wish.at) if wish is not None else None
        if wish is None or found is None or found.dataset not in (dataset.name, dataset.was):
            return None
        return wish.at

    def _along(self, dataset: Dataset) -> DatasetPlan:
        """The data of the live world (or of the plain project) goes along."""
        live = self.now.live
        before: str | None = None
        release = None
        if live is not None:
            before = live.generations.get(dataset.was or dataset.name)
            release = live.release
        elif dataset.source in self.now.facts.volumes:
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
            release = self.now.adopted_release if self.move is Move.ADOPT else None
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
            bytes=self.now.facts.volumes.get(before),
            counts=self._counts(dataset, None),
            driver=dataset.driver,
        )

    def _own_data(self, dataset: Dataset, source: Departure) -> DatasetPlan | Refusal:
        """The content that was left: its volume when nobody touched it since, else the store."""
        live = self.now.live
        text = f"the data {source.release} left"
        if source.release != self.now.stack.settings.release:
            text = f"the data {self.now.stack.settings.release} started from"
        generation = source.generations.get(dataset.name)
        if generation is not None:
            known = self.now.state.generations[generation]
            intact = known.sealed == source.seq and not known.spoiled and not known.removed
            if intact and self.now.used_since(generation, source):
                intact, text = False, f"{text} (its volume was used since)"
            same = source.release == self.now.stack.settings.release
            if intact and same and generation in self.now.facts.volumes:
                return DatasetPlan(
                    dataset.name,
                    Action.ATTACH,
                    generation,
                    known.number,
                    new=False,
                    source_text=text,
                    source_release=source.release,
                    age_seconds=self.now.age(source),
                    bytes=self.now.facts.volumes.get(generation),
                    set_aside=self._set_aside(dataset, source),
                    counts=self._counts(dataset, source),
                    driver=dataset.driver,
                )
        snapshot = source.snapshots.get(dataset.name)
        if snapshot is not None and snapshot in self.now.facts.snapshots:
            return self._restore(dataset, snapshot, source, text)
        if generation is None and dataset.name not in (live.generations if live else {}):
            return self._along(dataset)
        gone = "its volume is gone or was changed and no snapshot of it is in the store"
        return self._not_to_be_had(dataset, text, gone, source)

    def _not_to_be_had(self, dataset: Dataset, text: str, why: str, source: Departure) -> Refusal:
        ways = [
            "lockstep repair   mends what can be mended",
            "lockstep config set data keep   goes back with the data as it is now",
        ]
        nearest = next(self.now.saved(dataset.name, source.world, source.seq), None)
        if nearest is not None:
            snapshot, whose = nearest
            way = lineage.way_to(self.record.name, snapshot)
            ways.insert(1, f"{way}   takes {whose}, the nearest that is there")
        return Refusal(
            f"dataset {dataset.name}: {text} is not to be had: {why}, or damaged there",
            "\n  ".join(ways),
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
            age_seconds=self.now.age(source) if source else None,
            bytes=self.now.facts.snapshots[snapshot].bytes,
            set_aside=self._set_aside(dataset, source) if source else {},
            counts=self._counts(dataset, source),
            driver=dataset.driver,
        )

    def _in_place(self, dataset: Dataset, source: Departure | None) -> DatasetPlan | Refusal:
        wished = self._wished_snapshot(dataset)
        if wished is not None:
            text = f"snapshot {wished[:12]}, put back in place after a safety snapshot"
            return self._put_in_place(
                dataset, wished, text, None, self.now.facts.snapshots[wished].bytes
            )
        snapshot = source.snapshots.get(dataset.name) if source else None
        if source is not None and snapshot is not None and snapshot not in self.now.facts.snapshots:
            return self._not_to_be_had(
                dataset,
                f"the data {source.release} left",
                "its snapshot is not in the store",
                source,
            )
        size = self.now.facts.volumes.get(dataset.source or dataset.name)
        if snapshot is None or source is None:
            if elsewhere := self._lies_elsewhere(dataset):
                return elsewhere
            text = "stays in place; a safety snapshot is taken first"
            return self._put_in_place(dataset, None, text, None, size)
        text = f"the data {source.release} left, put back in place after a safety snapshot"
        return self._put_in_place(dataset, snapshot, text, source, size)

    def _lies_elsewhere(self, dataset: Dataset) -> Refusal | None:
        """The live world has this data on a fork: in place there is none of it."""
        place, live = dataset.source or dataset.name, self.now.live
        lies = live.generations.get(dataset.was or dataset.name, place) if live else place
        if lies == place:
            return None
        return Refusal(
            f"dataset {dataset.name} is to be worked on in place, in {place}, but its data lies "
            f"on a fork, {lies}",
            f"take `strategy: in-place` of {dataset.name} back and make the release again: its "
            "data goes along on forks",
        )

    def _put_in_place(
        self,
        dataset: Dataset,
        snapshot: str | None,
        text: str,
        source: Departure | None,
        size: int | None,
    ) -> DatasetPlan:
        place = dataset.source or dataset.name
        return DatasetPlan(
            dataset.name,
            Action.IN_PLACE,
            place,
            0,
            new=False,
            source=place,
            snapshot=snapshot,
            source_text=text,
            source_release=source.release if source else None,
            age_seconds=self.now.age(source) if source else None,
            bytes=size,
            set_aside=self._set_aside(dataset, source) if source else {},
            counts=self._counts(dataset, source),
            driver=dataset.driver,
            stop_owner=self._may_stop_owner(dataset),
        )

    def _shared(self, dataset: Dataset, source: Departure | None) -> DatasetPlan | Refusal:
        place = dataset.source or dataset.name
        wish = self.now.wish
        if wish is None or dataset.name not in wish.shared:
            return DatasetPlan(
                dataset.name,
                Action.LEAVE,
                place,
                0,
                new=False,
                source=place,
                source_text="shared: left as it is, a snapshot of it is taken",
                bytes=self.now.facts.volumes.get(place),
                driver=dataset.driver,
                shared=True,
            )
        snapshot = source.snapshots.get(dataset.name) if source else None
        if (
            wish.at in self.now.facts.snapshots
            and self.now.facts.snapshots[wish.at].dataset == dataset.name
        ):
            snapshot = wish.at
        if snapshot is None or snapshot not in self.now.facts.snapshots:
            return Refusal(
                f"shared dataset {dataset.name}: there is no snapshot of it from {wish.release}",
                f"lockstep info {wish.release}   shows what there is",
            )
        users = self.now.facts.foreign_mounts.get(place, ())
        if users and not self._may_stop_owner(dataset):
            return Refusal(
                f"shared dataset {dataset.name} is in use by {', '.join(users)}, which must be "
                "stopped to restore it",
                f"lockstep config set --path datasets.{dataset.name}.stop_owner true   allows it",
            )
        text = f"the snapshot of {wish.release}, put back in place for all who share it"
        size = self.now.facts.snapshots[snapshot].bytes
        plan = self._put_in_place(dataset, snapshot, text, source, size)
        return replace(plan, source_release=wish.release, shared=True)

    def _may_stop_owner(self, dataset: Dataset) -> bool:
        """What the stack allows now, not when the release was made."""
        setting = self.now.stack.settings.datasets.get(dataset.name)
        return setting.stop_owner if setting is not None else dataset.stop_owner

    def _set_aside(self, dataset: Dataset, source: Departure) -> dict[str, int]:
        """What only the live data has: all that came into it since it and the source parted."""
        counts = self._counts(dataset, source)
        more = {what: count.now - (count.then or 0) for what, count in counts.items()}
        return {what: count for what, count in more.items() if count > 0}

    def _counts(self, dataset: Dataset, source: Departure | None) -> dict[str, Count]:
        """What is in the live data, and what was in the source when both parted."""
        now = self.now.facts.live_probe.get(dataset.name, {})
        guessed = self.now.facts.estimated.get(dataset.name, frozenset())
        then: Mapping[str, int] = {}
        if source is not None:
            generation = self.now.live.generations.get(dataset.name) if self.now.live else None
            line = lineage.parting(self.now.state, dataset.name, generation or "", source)
            then = (line or source).probes.get(dataset.name, {})
        return {
            what: Count(
                now.get(what, 0),
                then.get(what, 0) if then else None,
                estimated=what in guessed,
            )
            for what in sorted({*now, *then})
        }

    def _next_number(self, dataset: str) -> int:
        newest = self._newest.get(dataset, 0)
        if self.now.live is None and self.now.plain_project:
            newest = max(newest, 1)
        return newest + 1

    @cached_property
    def _newest(self) -> dict[str, int]:
        """dataset -> the highest number of its generations."""
        found: dict[str, int] = {}
        for generation in self.now.state.generations.values():
            found[generation.dataset] = max(found.get(generation.dataset, 0), generation.number)
        return found

    def _generation(self, dataset: str, number: int) -> str:
        return names.generation_name(self.now.stack.project, self.now.stack.name, dataset, number)
