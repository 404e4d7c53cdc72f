"""Ledger, journal and catalog on a disk that loses power, fails or is full (tests/faultdisk)."""

from __future__ import annotations

import errno
import hashlib
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from reconciler.catalog import Catalog
from reconciler.config import Settings, Stack
from reconciler.errors import LockstepError
from reconciler.records.journal import Intent, JournalFile
from reconciler.records.release import ConfigFile, Release
from tests.faultdisk.mount import FaultDisk
from tests.reconciler.test_ledger import commit, world

CONFIG = b"listen 80;\n" * 200  # several sectors


@dataclass
class Promised:
    """What was acknowledged: the ledger's length, the step in the journal (None: it is gone), and
    releases that are there, or gone."""

    seq: int = 0
    step: str | None = None
    releases: set[str] = field(default_factory=set)
    removed: set[str] = field(default_factory=set)


def catalog_in(folder: Path) -> Catalog:
    return Catalog(Stack(project="shop", name="prod", root=folder, settings=Settings()))


def a_release(number: int) -> tuple[Release, dict[str, bytes]]:
    digest = hashlib.sha256(CONFIG).hexdigest()
    mounted = ConfigFile(path="/srv/shop/web.conf", sha256=digest)
    release = Release(
        name=f"prod-{number:03d}",
        parent=None,
        created="2026-01-01T00:00:00+00:00",
        model={"services": {"web": {"image": "x" * 3000}}},
        images={},
        datasets={},
        configs={"/etc/web.conf": mounted},
    )
    return release, {digest: CONFIG}


def an_intent(step: str) -> Intent:
    return Intent(
        head=3,
        move="forward",
        from_world="w1",
        to_world="w2",
        started="2026-01-01T00:00:00+00:00",
        log="switch.log",
        step=step,
        datasets={f"dataset-{n}": "fork" for n in range(60)},
    )


def appends(catalog: Catalog, promised: Promised) -> None:
    for number in range(1, 4):
        catalog.ledger.append(*world(number))
        promised.seq += 2
        catalog.ledger.append(commit(number - 1 or None, number))
        promised.seq += 1


def intents(catalog: Catalog, promised: Promised) -> None:
    catalog.root.mkdir(mode=0o700, exist_ok=True)
    file = JournalFile(catalog.journal)
    for step in ("prepare", "stop", "seal"):
        file.write(an_intent(step))
        promised.step = step
    file.remove()
    promised.step = None


def records(catalog: Catalog, promised: Promised) -> None:
    for number in (1, 2):
        catalog.write(*a_release(number))
        promised.releases.add(f"prod-{number:03d}")
    promised.releases.remove("prod-001")
    catalog.remove("prod-001")
    promised.removed.add("prod-001")


WORKS: dict[str, Callable[[Catalog, Promised], None]] = {
    "ledger": appends,
    "journal": intents,
    "catalog": records,
}


# The ledger is one file that only grows; removing a release's folder follows its record.
NEVER = [("ledger", "rename"), ("ledger", "remove")]


def insist_on_promises(folder: Path, what: str, promised: Promised) -> None:
    """All is whole, as before a step or as after it, and what was acknowledged is there."""
    catalog = catalog_in(folder)
    state = catalog.state()
    assert state.seq >= promised.seq
    intent = JournalFile(catalog.journal).read()
    if what == "journal":
        steps = [None, "prepare", "stop", "seal"]
        found = intent.step if intent else None
        assert found in steps
        if promised.step is not None:
            assert found is None or steps.index(found) >= steps.index(promised.step)
    good, damaged = catalog.records()
    assert damaged == {}
    assert promised.releases <= set(good)
    assert not promised.removed & set(good)
    for release in good.values():
        for config in release.configs.values():
            assert catalog.content(release.name, config.sha256) == CONFIG


def insist_on_going_on(folder: Path, what: str) -> None:
    """The same work can be done on what is left, after what a next start removes is removed."""
    catalog, promised = catalog_in(folder), Promised()
    catalog.mend_manifest()
    if what == "ledger":
        before = catalog.state().seq
        catalog.ledger.append(*world(9), commit(None, 9))
        assert catalog.state().seq == before + 3
        assert catalog.state().live == "w9"
        return
    WORKS[what](catalog, promised)
    insist_on_promises(folder, what, promised)


@pytest.mark.parametrize(
    "seeds", [pytest.param(range(1, 20), marks=pytest.mark.chaos), range(1)], ids=["long", "short"]
)
@pytest.mark.parametrize("what", WORKS)
def test_fault_8_17_18_power_lost_while_ledger_journal_or_catalog_is_written(
    what: str, seeds: range, disk: FaultDisk, tmp_path: Path
) -> None:
    """Power is lost after each step of writing ledger, journal and records, with any part of what
    was not synced: every acknowledged line is there, nothing half is believed, the next goes on."""
    promised = Promised()
    moments: list[tuple[int, Promised]] = []

    class Watched(Promised):
        """Notes when something was acknowledged."""

        def __setattr__(self, name: str, value: object) -> None:
            super().__setattr__(name, value)
            moments.append((disk.mark(), copy_of(self)))

    def copy_of(one: Promised) -> Promised:
        return Promised(
            getattr(one, "seq", 0),
            getattr(one, "step", None),
            set(getattr(one, "releases", ())),
            set(getattr(one, "removed", ())),
        )

    (disk.path / "project").mkdir()
    disk.sync_all()
    watched = Watched()
    WORKS[what](catalog_in(disk.path / "project"), watched)
    ended = disk.mark()
    moments.append((ended, copy_of(watched)))
    for at in range(moments[0][0], ended + 1):
        promised = [p for moment, p in moments if moment <= at][-1]
        for keep, seed in [("none", 0), ("all", 0), *(("some", seed) for seed in seeds)]:
            left = disk.lose_power(at, tmp_path / "left", keep, seed) / "project"
            insist_on_promises(left, what, promised)
            if keep == "some" and seed == seeds[0]:
                insist_on_going_on(left, what)


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC], ids=["broken", "full"])
@pytest.mark.parametrize("kind", ["write", "fsync", "rename", "create", "remove"])
@pytest.mark.parametrize("what", WORKS)
def test_fault_13_16_the_nth_operation_of_ledger_journal_or_catalog_fails(
    what: str, kind: str, code: int, disk: FaultDisk, tmp_path: Path
) -> None:
    """The Nth write, sync, rename, creation or removal fails, or finds the disk full, for every N:
    it is told, never retried as success, and the files are as before the step or as after it."""
    nth = 0
    while True:
        nth += 1
        folder = disk.path / f"project-{nth}"
        folder.mkdir()
        disk.sync_all()
        promised, failure = Promised(), None
        disk.fail(kind, nth, code, lasting=code == errno.ENOSPC)
        try:
            WORKS[what](catalog_in(folder), promised)
        except (OSError, LockstepError) as error:
            failure = error
        if disk.heal() == 0:
            assert failure is None
            assert nth > 1 or (what, kind) in NEVER
            return
        if failure is None:
            assert kind == "remove"
        insist_on_promises(folder, what, promised)
        left = disk.lose_power(disk.mark(), tmp_path / "left", "none") / folder.name
        insist_on_promises(left, what, promised)
        for place in (folder, left):
            insist_on_going_on(place, what)
        shutil.rmtree(folder)
