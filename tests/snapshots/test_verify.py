"""Damage anywhere is found, named with all that it touches, and nothing is read twice."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from snapshots.capture import capture
from snapshots.errors import StoreUnusable, UnknownSnapshot
from snapshots.pack import ENTRY, TRAILER, Placed, read_index
from snapshots.store import Store
from snapshots.verify import verify_all


@dataclass(frozen=True)
class Subject:
    """A store with everything in it that can be damaged; sound again after each example."""

    store: Store
    files: list[Path]


@pytest.fixture(scope="module")
def subject(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Subject]:
    """Two datasets, three snapshots, content in two packs, and blocks that nobody needs."""
    base = tmp_path_factory.mktemp("subject")
    store, beside = Store.open(base / "store"), Store.open(base / "beside")
    folder = base / "folder"
    folder.mkdir()
    (folder / "noise").write_bytes(random.Random(1).randbytes(3000))
    (folder / "text").write_bytes(b"a page of a database " * 4000)
    for where in (store, beside):
        capture(folder, where, dataset="one")
    capture(folder, store, dataset="two")
    (folder / "more").write_bytes(random.Random(2).randbytes(70_000))
    store.forget(capture(folder, store, dataset="one").id)
    (folder / "more").unlink()
    (folder / "text").write_bytes(b"another text")
    capture(folder, store, dataset="one")
    for pack in beside.packs.iterdir():
        shutil.copy(pack, store.packs)
    used = {store.read(i).root for i in store.ids()}
    for tree in store.trees.iterdir():
        if tree.stem not in used:
            tree.unlink()
    places = (store.packs, store.trees, store.snapshots)
    files = [store.path / "format", *(path for place in places for path in sorted(place.iterdir()))]
    assert verify_all(store, None, read_data=True).damages == []
    yield Subject(store, files)
    assert verify_all(store, None, read_data=True).damages == []


def found(store: Store, *, read_data: bool) -> bool:
    try:
        opened = Store.open(store.path, create=False)
    except StoreUnusable:
        return True
    return bool(verify_all(opened, None, read_data=read_data).damages)


@settings(max_examples=120, deadline=None)
@given(data=st.data())
def test_any_bit_anywhere(data: st.DataObject, subject: Subject) -> None:
    path = data.draw(st.sampled_from(subject.files))
    body = path.read_bytes()
    at = data.draw(st.integers(0, len(body) - 1))
    bit = data.draw(st.integers(0, 7))
    index = len(body)
    if path.parent == subject.store.packs:
        index = len(body) - TRAILER.size - len(list(read_index(path, path.stem))) * ENTRY.size
    payload = path.parent == subject.store.packs and 8 <= at < index
    try:
        path.write_bytes(body[:at] + bytes([body[at] ^ 1 << bit]) + body[at + 1 :])
        assert found(subject.store, read_data=True)
        # Without reading data it is found everywhere but in the data.
        assert found(subject.store, read_data=False) is not payload
    finally:
        path.write_bytes(body)


def first_block(store: Store, length: int) -> tuple[Path, Placed]:
    packs = ((pack, read_index(pack, pack.stem)) for pack in store.packs.iterdir())
    return next((pack, placed) for pack, all_ in packs for placed in all_ if placed.raw == length)


def test_damage_names_all_that_it_touches(store: Store, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    (folder / "d").mkdir(parents=True)
    (folder / "d" / "a").write_bytes(os.urandom(500))
    shutil.copy(folder / "d" / "a", folder / "same content")
    (folder / "b").write_bytes(os.urandom(600))
    one = capture(folder, store, dataset="one").id
    two = capture(folder, store, dataset="two").id
    (folder / "c").write_bytes(b"c")
    three = capture(folder, store, dataset="one").id
    (folder / "d" / "a").unlink()
    (folder / "same content").unlink()
    without = capture(folder, store, dataset="one").id

    pack, placed = first_block(store, 500)
    body = bytearray(pack.read_bytes())
    body[placed.offset + 5] ^= 4
    pack.write_bytes(body)

    report = verify_all(store, None, read_data=True)
    assert set(report.snapshots) == {one, two, three, without}
    damages = sorted(report.damages, key=lambda damage: damage.dataset)
    assert [damage.dataset for damage in damages] == ["one", "two"]
    assert [damage.files for damage in damages] == [("d/a", "same content")] * 2
    assert [damage.snapshots for damage in damages] == [tuple(sorted([one, three])), (two,)]
    assert not any(damage.elsewhere for damage in damages)
    assert verify_all(store, [without], read_data=True).damages == []
    assert verify_all(store, None, read_data=False).damages == []


def test_what_many_snapshots_need_is_read_once(store: Store, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "large").write_bytes(os.urandom(1_000_000))
    first = capture(folder, store, dataset="one")
    once = verify_all(store, [first.id], read_data=True)
    assert once.bytes_read >= 1_000_000
    more = [capture(folder, store, dataset=f"d{number}").id for number in range(3)]
    told: list[tuple[str, int, int]] = []
    report = verify_all(
        store, [first.id, *more, first.id], read_data=True, progress=lambda *args: told.append(args)
    )
    assert report.snapshots == [first.id, *more]
    assert report.bytes_read == once.bytes_read
    assert {what for what, _, _ in told} == {"check", "verify"}
    assert verify_all(store, None, read_data=False).bytes_read == 0


def test_an_unknown_snapshot_is_no_damage(store: Store) -> None:
    with pytest.raises(UnknownSnapshot):
        verify_all(store, ["0" * 32], read_data=False)


def test_a_damaged_record_keeps_nobody_from_looking_at_others(small: Path, store: Store) -> None:
    good, bad = (capture(small, store, dataset="data").id for _ in range(2))
    path = store.snapshots / f"{bad}.json"
    path.write_bytes(path.read_bytes()[:-1])
    (damage,) = verify_all(store, None, read_data=True).damages
    assert damage.snapshots == (bad,)
    assert verify_all(store, [good], read_data=True).damages == []
