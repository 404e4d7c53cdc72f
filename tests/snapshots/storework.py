"""Work on a store, of every kind, and what must be true of the store whatever happens to it."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from snapshots.capture import capture
from snapshots.compare import tree_equal
from snapshots.errors import NotEnoughSpace
from snapshots.fork import Fork
from snapshots.pack import read_index
from snapshots.repair import repair
from snapshots.restore import restore
from snapshots.store import SnapshotRecord, Store
from snapshots.verify import verify
from tests.faultdisk.mount import FaultDisk
from tests.snapshots.golden.make import is_rdb

DAMAGED = "repair"  # the work whose store is not sound beforehand


@dataclass
class Promised:
    """What work acknowledged so far. `gone`: is not to come back; `equal`: folders that are to."""

    there: set[str] = field(default_factory=set)
    gone: set[str] = field(default_factory=set)
    equal: dict[str, Path] = field(default_factory=dict)


@dataclass
class Place:
    """`disk`: where the store lies, and what is restored; `old` and `new`: what is captured."""

    disk: Path
    old: Path
    new: Path
    kept: str = ""
    other: str = ""

    @property
    def store(self) -> Path:
        return self.disk / "store"

    @property
    def target(self) -> Path:
        return self.disk / "target"

    def moved(self, disk: Path) -> Place:
        return Place(disk, self.old, self.new, self.kept, self.other)


def sources(base: Path) -> Place:
    """Two states of a folder: half of it equal, a file that changes places as an RDB does."""
    chance = random.Random(11)
    keys = [chance.randbytes(100) for _ in range(3000)]
    for name in ("old", "new"):
        folder = base / name
        (folder / "d").mkdir(parents=True)
        (folder / "d" / "same").write_bytes(random.Random(1).randbytes(150_000))
        (folder / "changes").write_bytes(chance.randbytes(90_000))
        (folder / "text").write_text(name * 1000)
        (folder / "link").symlink_to("text")
        chance.shuffle(keys)
        (folder / "dump.rdb").write_bytes(b"".join(keys))
    return Place(base / "prepared", base / "old", base / "new")


def prepared(base: Path, what: str) -> Place:
    """A disk (a plain folder) on which the work can begin."""
    place = sources(base)
    place.disk.mkdir()
    if what == "first":
        return place
    store = Store.open(place.store)
    (place.old / "gone").write_bytes(random.Random(3).randbytes(800_000))  # most of a pack
    place.other = _captured(place.old, store).id
    (place.old / "gone").unlink()
    (place.old / "more").write_bytes(random.Random(2).randbytes(140_000))
    place.kept = _captured(place.old, store, place.other).id
    if what == DAMAGED:
        store.forget(place.other)
        pack = max(store.packs.iterdir(), key=lambda path: path.stat().st_size)
        placed = sorted(read_index(pack, pack.stem), key=lambda each: each.offset)[1]
        body = bytearray(pack.read_bytes())
        body[placed.offset + 9] ^= 4
        pack.write_bytes(body)
    if what == "fork":
        place.target.mkdir()
    if what == "in place":
        shutil.copytree(place.new, place.target, symlinks=True)
    return place


def put_on(disk: FaultDisk, place: Place, name: str = "") -> Place:
    """The prepared disk, copied to the one that fails, and synced."""
    folder = disk.path / name
    shutil.copytree(place.disk, folder, symlinks=True, dirs_exist_ok=True)
    disk.sync_all()
    return place.moved(folder)


def _captured(folder: Path, store: Store, parent: str | None = None) -> SnapshotRecord:
    return capture(folder, store, dataset="d", parent=parent, streams=is_rdb)


def _first(place: Place, promised: Promised) -> None:
    promised.there.add(_captured(place.old, Store.open(place.store)).id)


def _capture(place: Place, promised: Promised) -> None:
    promised.there.add(_captured(place.new, Store.open(place.store), place.kept).id)


def _forget(place: Place, promised: Promised) -> None:
    Store.open(place.store).forget(place.other)
    promised.gone.add(place.other)


def _sweep(place: Place, promised: Promised) -> None:
    swept = Store.open(place.store).sweep([place.kept])
    promised.gone.add(place.other)
    if swept.held_back:  # not all was freed, and it was said
        raise NotEnoughSpace(*swept.held_back)


def _repair(place: Place, promised: Promised) -> None:
    done = repair(Store.open(place.store), {"d": [place.old]})
    assert done.unmended == []
    promised.there.add(place.kept)


def _restore(place: Place, promised: Promised) -> None:
    restore(Store.open(place.store), place.kept, place.target)
    promised.equal["target"] = place.old


def _in_place(place: Place, promised: Promised) -> None:
    restore(Store.open(place.store), place.kept, place.target, in_place=True)
    promised.equal["target"] = place.old


def _fork(place: Place, promised: Promised) -> None:
    fork = Fork(place.old, place.target, index=place.disk / "index")
    fork.first_pass()
    fork.final_pass()
    promised.equal["target"] = place.old


WORKS: dict[str, Callable[[Place, Promised], None]] = {
    "first": _first,
    "capture": _capture,
    "forget": _forget,
    "sweep": _sweep,
    DAMAGED: _repair,
    "restore": _restore,
    "in place": _in_place,
    "fork": _fork,
}


def insist_on_promises(place: Place, what: str, promised: Promised) -> None:
    """The store is whole, as before the work or as after it, and has what was acknowledged."""
    store = Store.open(place.store)
    ids = set(store.ids())
    assert promised.there <= ids
    assert not promised.gone & ids
    if what != "first":
        assert place.kept in ids
    for snapshot in ids:
        damages = verify(store, snapshot, read_data=True)
        if what == DAMAGED and place.kept not in promised.there:
            assert len(damages) <= 1  # no worse
        else:
            assert damages == [], snapshot
    for name, folder in promised.equal.items():
        assert tree_equal(folder, place.disk / name) == []


def insist_on_going_on(place: Place, what: str, again: Path) -> None:
    """The same work, run once more, does what it should, and nothing of the first run is left."""
    promised = Promised()
    if what == "forget":
        place.other = _captured(place.new, Store.open(place.store)).id
    if what in ("restore", "fork"):  # what was not acknowledged is thrown away
        shutil.rmtree(place.target, ignore_errors=True)
        (place.disk / "index").unlink(missing_ok=True)
    if what == "fork":
        place.target.mkdir()
    WORKS[what](place, promised)
    store = Store.open(place.store)
    if what != "first":
        assert store.sweep([place.kept]).held_back == []
        restore(store, place.kept, again)
        assert tree_equal(place.old, again) == []
        shutil.rmtree(again)
    else:
        store.sweep(promised.there)
    assert not list(place.store.rglob("*.tmp"))
    insist_on_promises(place, what, Promised(equal=promised.equal))
