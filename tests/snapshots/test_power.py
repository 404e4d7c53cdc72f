"""A store, and what is restored or forked, on a disk that loses power, lies or fails.

The disk is tests/faultdisk: what was not synced may be lost, in part and in any order.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from blake3 import blake3

from tests.faultdisk.mount import FaultDisk
from tests.snapshots.storework import (
    WORKS,
    Place,
    Promised,
    insist_on_going_on,
    insist_on_promises,
    prepared,
    put_on,
)


def looks_like(folder: Path) -> str:
    """The same for folders with the same files."""
    digest = blake3()
    for path in sorted(folder.rglob("*")):
        digest.update(f"{path.relative_to(folder)} {path.lstat().st_mode}".encode())
        if path.is_file():
            digest.update(path.read_bytes())
    return str(digest.hexdigest())


def lose_power_everywhere(
    disk: FaultDisk, prepared_place: Place, what: str, tmp_path: Path, keep: str, seeds: range
) -> None:
    """At each moment of the work, and after it."""
    place = put_on(disk, prepared_place)
    began, promised = disk.mark(), Promised()
    WORKS[what](place, promised)
    ended = disk.mark()
    assert ended > began + 2
    seen = set()
    for at in range(began, ended + 1):
        for seed in seeds:
            left = disk.lose_power(at, tmp_path / "left", keep, seed)
            look = looks_like(left), at == ended
            if look not in seen:
                seen.add(look)
                there = place.moved(left)
                insist_on_promises(there, what, promised if at == ended else Promised())
                insist_on_going_on(there, what, tmp_path / "again")
    assert len(seen) > 1


LONG = [pytest.param(range(1, 9), marks=pytest.mark.chaos), range(1)]


@pytest.mark.parametrize("what", WORKS)
def test_fault_8_17_power_lost_at_each_moment_takes_nothing_that_was_promised(
    what: str, disk: FaultDisk, tmp_path: Path
) -> None:
    """Power is lost after each single step of capture, sweep, repair, restore and fork, and all
    that was not synced with it: what was acknowledged is there, the rest runs again."""
    place = prepared(tmp_path, what)
    lose_power_everywhere(disk, place, what, tmp_path, "none", range(1))


@pytest.mark.parametrize("seeds", LONG, ids=["long", "short"])
@pytest.mark.parametrize("what", WORKS)
def test_fault_8_18_unsynced_writes_reach_the_disk_in_any_order_and_part(
    what: str, seeds: range, disk: FaultDisk, tmp_path: Path
) -> None:
    """Of what was not synced when power was lost, any part is on the disk, down to sectors of a
    write and names of a folder: no half record is believed, nothing acknowledged is missing."""
    place = prepared(tmp_path, what)
    lose_power_everywhere(disk, place, what, tmp_path, "some", seeds)
