"""A group of datasets captured at one point in time, while their engines run.

Each is captured as it is first. Then all who write any of them stand still, for a few seconds at
most, in which only what changed since is captured.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from reconciler import clock
from reconciler.catalog import Catalog
from reconciler.config import Stack
from reconciler.docker import Docker
from reconciler.docker.frozen import Freezer
from reconciler.errors import BadInput, LockstepError
from reconciler.planning.pruning import BACKUP
from reconciler.reaching.inside import Inside
from reconciler.reaching.reach import capture, driver_for
from reconciler.records.ledger import World
from reconciler.records.release import Dataset, Release
from reconciler.world import places, users
from snapshots.drivers import Driver
from snapshots.errors import EngineFailed, SnapshotError, Unsupported
from snapshots.livepoint import LivePoint
from snapshots.progress import Progress
from snapshots.store import SnapshotRecord, Store

POINT = "group-point"
"""The tag that the snapshots of one point share: the group and the moment."""
ADVANCE = "advance"
FREEZE_SECONDS = 5.0
_PASSES = 3

Say = Callable[[str], None]


@dataclass(frozen=True)
class Member:
    """A dataset of the group, and who works on it now."""

    dataset: Dataset
    source: str
    path: Path
    driver: Driver
    engine: Inside | None
    """The container that serves it; None when nobody writes it now."""
    writers: frozenset[str]
    """Ids of all containers that may write it."""


def take(
    stack: Stack,
    catalog: Catalog,
    docker: Docker,
    world: World,
    group: str,
    progress: Say,
    *,
    freeze_limit: float = FREEZE_SECONDS,
) -> dict[str, SnapshotRecord]:
    """dataset -> snapshot, of all datasets of a group of the live world at one point.

    Nothing stands still for longer than `freeze_limit` seconds. Needs the host lock. Raises
    BadInput for an unknown group, LockstepError when there is no such point, and whatever keeps
    the store from taking the data; then there is no snapshot of any.
    """
    members = _members(stack, catalog, docker, world, group)
    store = stack.open_store()
    tags = {"release": world.release, "world": world.name}
    try:
        with _in_advance(members, store, tags, freeze_limit, progress) as parents:
            still = _Still(docker, members, freeze_limit, progress)
            return still.capture(store, group, tags | {"kind": BACKUP}, parents)
    except Unsupported as error:
        raise LockstepError(f"there is no snapshot of group {group}: {error}") from None
    except EngineFailed as error:
        raise LockstepError(
            f"there is no snapshot of group {group}: {error}",
            next_step=f"lockstep snapshot --group {group} --freeze-limit {2 * freeze_limit:g}   "
            "lets them stand still for longer",
        ) from None


def _members(
    stack: Stack, catalog: Catalog, docker: Docker, world: World, group: str
) -> list[Member]:
    members = []
    for dataset in datasets_of(stack, catalog.record(world.release), group):
        source = world.generations.get(dataset.name) or dataset.source or dataset.name
        driver = driver_for(dataset.driver, stack.settings.commands(dataset.name))
        using = users.users(docker, source, first=world.name)
        serving = users.engine(docker, driver, using, source)
        members.append(
            Member(
                dataset,
                source,
                places.place(docker, source),
                driver,
                Inside(docker, serving.id) if serving is not None else None,
                frozenset(user.id for user in using if users.writes(user, source)),
            )
        )
    return members


def datasets_of(stack: Stack, record: Release, group: str) -> list[Dataset]:
    """The datasets of a group of the config, as a release has them. Raises BadInput."""
    named = stack.settings.groups.get(group)
    if named is None:
        known = ", ".join(sorted(stack.settings.groups)) or "none"
        raise BadInput(
            f"the config has no group {group}; it has {known}",
            next_step=f"lockstep config set --path groups.{group}[0] DATASET",
        )
    missing = sorted(set(named) - record.datasets.keys())
    if missing:
        raise BadInput(
            f"group {group} names {', '.join(missing)}, which {record.name} does not have",
            next_step=f"lockstep info {record.name}   shows its datasets",
        )
    return [record.datasets[name] for name in named]


@contextmanager
def _in_advance(
    members: Sequence[Member], store: Store, tags: dict[str, str], limit: float, progress: Say
) -> Iterator[dict[str, str]]:
    """dataset -> a snapshot of its files as they were, of no use but as a parent; removed on exit.

    Repeated while a pass takes longer than the others may stand still: the next one is shorter.
    """
    parents: dict[str, str] = {}
    made: list[str] = []
    try:
        for _ in range(_PASSES):
            began = time.monotonic()
            for member in members:
                name = member.dataset.name
                progress(f"reading {name} in advance")
                if member.engine is not None:
                    member.driver.before_stop(member.engine)
                record = capture(
                    member.path,
                    store,
                    dataset=name,
                    parent=parents.get(name) or _newest(store, member.source),
                    tags=tags | {"kind": ADVANCE},
                    live=LivePoint(),
                    streams=member.driver.is_stream,
                    progress=places.in_mib(name, progress),
                )
                made.append(record.id)
                parents[name] = record.id
            if time.monotonic() - began < limit / 2:
                break
        yield parents
    finally:
        for snapshot in made:
            with suppress(SnapshotError):  # it only costs its record's space
                store.forget(snapshot)


@dataclass(frozen=True)
class _Still:
    """The moment in which nobody writes."""

    docker: Docker
    members: Sequence[Member]
    limit: float
    progress: Say

    def capture(
        self, store: Store, group: str, tags: dict[str, str], parents: dict[str, str]
    ) -> dict[str, SnapshotRecord]:
        """What changed since the parents, while all stand still; all of it or nothing."""
        taken: dict[str, SnapshotRecord] = {}
        try:
            with self._all_still() as points:
                began = time.monotonic()
                point = f"{group} {clock.now('milliseconds')}"
                for member in self.members:
                    name = member.dataset.name
                    taken[name] = capture(
                        member.path,
                        store,
                        dataset=name,
                        parent=parents[name],
                        tags={**tags, "generation": member.source, POINT: point},
                        live=points[name],
                        streams=member.driver.is_stream,
                        progress=self._not_for_longer(began + self.limit),
                    )
        except BaseException:
            for record in taken.values():
                store.forget(record.id)
            raise
        self.progress(f"all of group {group} stood still for {time.monotonic() - began:.1f} s")
        return taken

    @contextmanager
    def _all_still(self) -> Iterator[dict[str, LivePoint]]:
        """Who is no engine first, then engines, which are told before: so each has in its files
        what it has acknowledged, and at the end nothing moves."""
        engines = {m.engine.container_id for m in self.members if m.engine is not None}
        writers = {writer for m in self.members for writer in m.writers}
        with (
            Freezer(self.docker, engines | writers, self.limit) as freezer,
            freezer.frozen(writers - engines),
            ExitStack() as told,
        ):
            points = {m.dataset.name: told.enter_context(self._told(m)) for m in self.members}
            with freezer.frozen(engines):
                yield points

    @contextmanager
    def _told(self, member: Member) -> Iterator[LivePoint]:
        if member.engine is None:
            yield LivePoint()
            return
        with member.driver.still(member.engine, member.path, self.limit) as point:
            yield point

    def _not_for_longer(self, until: float) -> Progress:
        """A capture that takes too long is given up: nothing stands still any more by then."""

        def look(what: str, done: int, total: int) -> None:  # noqa: ARG001
            # What is captured to the end is a snapshot by then, which only its caller can forget.
            if done < total and time.monotonic() > until:
                raise EngineFailed(f"what changed could not be captured within {self.limit:g} s")

        return look


def _newest(store: Store, source: str) -> str | None:
    """The newest backup of the same generation."""
    found = [store.read(snapshot) for snapshot in store.ids()]
    same = [record for record in found if record.tags.get("generation") == source]
    return max(same, key=lambda record: record.created).id if same else None
