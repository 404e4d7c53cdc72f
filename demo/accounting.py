"""Counts what a writer's record promises against what a shop has: loss and downtime, from outside.

An order is acknowledged when the shop answered 201 to it. Times are seconds since 1970.
"""

from __future__ import annotations

import itertools
import json
import subprocess
import time
import uuid
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from reconciler.docker import connect
from reconciler.errors import LockstepError
from reconciler.reaching import helper
from reconciler.reaching.reach import restore
from reconciler.world import places
from snapshots.errors import SnapshotError
from snapshots.store import Store


class AccountingError(Exception):
    """Orders could not be counted; the message says where and why."""


@dataclass(frozen=True)
class Attempt:
    """One order that a writer tried to place. `version` is the release of the shop that answered.

    Acknowledged: `order_id` and `version` are set. Otherwise `reason` is.
    """

    token: str
    item: str
    amount: int
    sent_at: float
    answered_at: float
    order_id: int | None
    version: str | None
    reason: str | None

    @property
    def acknowledged(self) -> bool:
        return self.order_id is not None

    def as_line(self) -> str:
        return json.dumps(asdict(self))


@dataclass(frozen=True)
class Gap:
    """A time without a good answer: from the last one before it to the first one after it."""

    last_good: float
    first_good: float
    failures: int

    @property
    def seconds(self) -> float:
        return self.first_good - self.last_good


def read_record(path: Path) -> list[Attempt]:
    """All attempts of a record. A last line that is still being written is left out."""
    lines = path.read_text().split("\n")[:-1] if path.exists() else []
    return [Attempt(**json.loads(line)) for line in lines]


def acknowledged(attempts: Iterable[Attempt], version: str | None = None) -> list[Attempt]:
    """The acknowledged attempts, of one version of the shop or of all."""
    return [
        attempt
        for attempt in attempts
        if attempt.acknowledged and version in (None, attempt.version)
    ]


def missing(attempts: Iterable[Attempt], stored: Collection[str]) -> list[Attempt]:
    """The acknowledged attempts whose token is not among the stored ones."""
    return [attempt for attempt in acknowledged(attempts) if attempt.token not in stored]


def between(attempts: Iterable[Attempt], since: float, until: float) -> list[Attempt]:
    """The attempts that were sent from `since` on and before `until`."""
    return [attempt for attempt in attempts if since <= attempt.sent_at < until]


def gaps(attempts: Iterable[Attempt], longer_than: float = 0.2) -> list[Gap]:
    """Every time without a good answer that lasted longer (seconds), or in which an order failed.

    What lies before the first good answer and after the last one is not a gap.
    """
    attempts = list(attempts)
    good = sorted(attempt.answered_at for attempt in attempts if attempt.acknowledged)
    bad = sorted(attempt.sent_at for attempt in attempts if not attempt.acknowledged)
    found = []
    position = 0
    for before, after in itertools.pairwise(good):
        while position < len(bad) and bad[position] < before:
            position += 1
        start = position
        while position < len(bad) and bad[position] < after:
            position += 1
        failures = position - start
        if failures or after - before > longer_than:
            found.append(Gap(before, after, failures))
    return found


def downtime(attempts: Iterable[Attempt]) -> float:
    """Seconds without service in all gaps together."""
    return sum(gap.seconds for gap in gaps(attempts))


def tokens_in_container(container: str) -> set[str]:
    """The tokens of all orders in the database of a running Postgres container.

    Raises AccountingError when it cannot be asked.
    """
    query = ["psql", "--username=shop", "--dbname=shop", "--no-psqlrc", "-qtAc"]
    return set(_docker("exec", container, *query, "SELECT token FROM orders").split())


def tokens_in_volume(volume: str, image: str) -> set[str]:
    """The tokens of all orders in a Postgres volume that no container runs on.

    A copy of the volume is looked at, since a database that starts also writes. Raises
    AccountingError when it does not come up within 30 s.
    """
    with _scratch_volume() as scratch:
        both = ["--volume", f"{volume}:/from:ro", "--volume", f"{scratch}:/to"]
        _docker("run", "--rm", *both, "--entrypoint", "cp", image, "-a", "/from/.", "/to/")
        return _tokens_in_scratch(scratch, image)


def tokens_in_snapshot(store: Path, snapshot: str, image: str) -> set[str]:
    """The tokens of all orders in a snapshot of a Postgres volume, read back from the store.

    Raises AccountingError when the snapshot is not there whole, or does not come up within 30 s.
    """
    with _scratch_volume() as scratch:
        try:
            restore(Store.open(store), snapshot, places.place(connect(), scratch))
        except (SnapshotError, LockstepError) as error:
            raise AccountingError(str(error)) from None
        finally:
            helper.close(scratch)
        return _tokens_in_scratch(scratch, image)


@contextmanager
def _scratch_volume() -> Iterator[str]:
    name = f"accounting-{uuid.uuid4().hex[:12]}"
    _docker("volume", "create", name)
    try:
        yield name
    finally:
        _docker("volume", "rm", "--force", name, check=False)


def _tokens_in_scratch(volume: str, image: str) -> set[str]:
    """What a database that is started on the volume for a moment has."""
    name = volume
    data = ["--volume", f"{volume}:/var/lib/postgresql/data", "--network", "none"]
    try:
        _docker("run", "--detach", "--name", name, *data, image)
        deadline = time.monotonic() + 30
        while True:
            try:
                return tokens_in_container(name)
            except AccountingError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)
    finally:
        _docker("rm", "--force", name, check=False)


def _docker(*arguments: str, check: bool = True) -> str:
    done = subprocess.run(
        ["docker", *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
    )
    if check and done.returncode != 0:
        raise AccountingError(f"docker {arguments[0]} {arguments[-1]}: {done.stderr.strip()}")
    return done.stdout
