"""Damage where a move needs the store: mended from a folder that has the content, or refused."""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection
from pathlib import Path
from typing import Any

import pytest

from reconciler.errors import Exit, Refused
from reconciler.plan import Action, DatasetPlan, Move, Plan
from reconciler.records.ledger import Departure, State
from reconciler.upkeep import mending
from snapshots.capture import capture
from snapshots.pack import read_index
from snapshots.store import Store
from snapshots.verify import verify

ALONE: dict[str, Any] = {"state": State(), "release": "prod-001"}
"""No other snapshot is known."""


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "store")


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    folder = tmp_path / "volume"
    (folder / "base").mkdir(parents=True)
    (folder / "base" / "table").write_bytes(os.urandom(300_000))
    (folder / "log").write_bytes(b"nothing to tell")
    return folder


def flip_bits(store: Store, *, spare: Collection[Path] = ()) -> None:
    for pack in set(store.packs.glob("*.pack")) - set(spare):
        content = bytearray(pack.read_bytes())
        for placed in read_index(pack, pack.stem):
            content[placed.offset + placed.stored // 2] ^= 0x10
        pack.write_bytes(content)


def test_what_is_whole_is_left_alone(store: Store, volume: Path) -> None:
    record = capture(volume, store, dataset="db")
    before = {path.name: path.read_bytes() for path in store.packs.iterdir()}

    def folders() -> dict[str, list[Path]]:
        raise AssertionError("nobody has to be asked")

    mending.insist_on_whole(store, [record.id], folders, lambda _: None, **ALONE)
    assert {path.name: path.read_bytes() for path in store.packs.iterdir()} == before


def test_damage_is_mended_from_whoever_has_the_content(
    store: Store, volume: Path, tmp_path: Path
) -> None:
    record = capture(volume, store, dataset="db")
    shutil.copytree(volume, tmp_path / "spoiled")
    (tmp_path / "spoiled" / "base" / "table").write_bytes(b"rewritten")
    flip_bits(store)
    said: list[str] = []
    folders = {"db": [tmp_path / "spoiled", volume], "files": [tmp_path / "nowhere"]}
    mending.insist_on_whole(store, [record.id], lambda: folders, said.append, **ALONE)
    assert any("base/table" in line for line in said)
    assert any(line.startswith("mended") for line in said)
    assert verify(store, record.id, read_data=True) == []


def test_what_nobody_has_any_more_is_refused_by_name(store: Store, volume: Path) -> None:
    record = capture(volume, store, dataset="db")
    flip_bits(store)
    (volume / "base" / "table").write_bytes(os.urandom(300_000))
    with pytest.raises(Refused, match="base/table") as refused:
        mending.insist_on_whole(
            store, [record.id], lambda: {"db": [volume]}, lambda _: None, **ALONE
        )
    assert refused.value.exit_code == Exit.REFUSED
    assert "log" not in refused.value.message, "that was mended"
    assert "lockstep verify" in refused.value.next_step


def test_fault_21_23_the_nearest_whole_snapshot_is_offered_and_not_taken(
    store: Store, volume: Path
) -> None:
    """One of three snapshots is damaged beyond mending: refused, and the refusal names the nearest
    whole one, the older of two, with the command that takes it; then that one is damaged, too."""
    taken, packs = [], [set(store.packs.glob("*.pack"))]
    for _ in range(3):
        (volume / "base" / "table").write_bytes(os.urandom(300_000))
        taken.append(capture(volume, store, dataset="db").id)
        packs.append(set(store.packs.glob("*.pack")))
    (volume / "base" / "table").write_bytes(b"")
    left = (
        Departure(n, f"prod-00{n}", f"shop-prod-00{n}", {}, {"db": taken[n - 1]}, {}, "")
        for n in (1, 2, 3)
    )
    state = State(departures=tuple(left))

    def offered() -> str:
        with pytest.raises(Refused, match="base/table") as refused:
            mending.insist_on_whole(
                store, [taken[1]], lambda: {"db": [volume]}, lambda _: None,
                state=state, release="prod-002",
            )  # fmt: skip
        return refused.value.next_step

    flip_bits(store, spare=packs[1] | (packs[3] - packs[2]))
    assert f"restore.at {taken[0]}   takes what prod-001 left" in offered()
    flip_bits(store, spare=packs[3] - packs[1])
    assert f"restore.at {taken[2]}   takes what prod-003 left" in offered()


def test_fault_23_the_preview_tells_of_a_pack_that_is_gone(
    store: Store, volume: Path, tmp_path: Path
) -> None:
    """A pack is removed that a rollback restores from: the preview refuses with the file's name, or
    warns where a sealed volume may still have the content, and reads no data for it."""
    (before := tmp_path / "before").mkdir()
    (before / "kept").write_bytes(os.urandom(1000))
    nearest = capture(before, store, dataset="db").id
    spare = set(store.packs.glob("*.pack"))
    record = capture(volume, store, dataset="db")
    left = (
        Departure(n, f"prod-00{n}", f"shop-prod-00{n}", {}, {"db": snapshot}, {}, "")
        for n, snapshot in ((1, nearest), (2, record.id))
    )
    restored = DatasetPlan("db", Action.RESTORE, "g9", 9, new=True, snapshot=record.id)
    plan = Plan(Move.BACK, 9, "prod-002", "shop-prod-003", "w", True, {"db": restored})
    state = State(departures=tuple(left))
    assert mending.foreseen(state, store, plan, dict) == ([], [])

    for pack in set(store.packs.glob("*.pack")) - spare:
        pack.unlink()
    (refusal,), warnings = mending.foreseen(state, store, plan, dict)
    assert warnings == []
    assert "base/table" in refusal.message
    assert f"restore.at {nearest}   takes what prod-001 left" in refusal.remedy
    refusals, (warning,) = mending.foreseen(state, store, plan, lambda: {"db": [volume]})
    assert refusals == []
    assert "base/table" in warning
    assert "lockstep repair" in warning
