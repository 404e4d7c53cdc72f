"""Snapshots taken from one store into another: the same ids, the same content, nothing besides."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import pytest

from snapshots.capture import capture
from snapshots.compare import tree_equal
from snapshots.errors import Damaged, UnknownSnapshot
from snapshots.restore import restore
from snapshots.store import Store
from snapshots.transfer import FILE, absorb, files
from snapshots.verify import verify_all
from tests.snapshots.test_streams import Dump, is_rdb

PASSPHRASE = "correct horse battery"


def carried(store: Store, ids: Iterable[str], folder: Path, passphrase: str | None = None) -> Store:
    """A small store made of the files, as somebody gets them who has but these."""
    (folder / "packing").mkdir(parents=True)
    small = folder / "small"
    for name in ("packs", "trees", "snapshots", "hints"):
        (small / name).mkdir(mode=0o700, parents=True)
    small.chmod(0o700)
    (small / "lock").touch(0o600)
    for name, path in files(store, list(ids), folder / "packing"):
        assert FILE.fullmatch(name)
        (small / name).write_bytes(path.read_bytes())
    assert not list((folder / "packing").iterdir())
    return Store.open(small, create=False, passphrase=passphrase)


@pytest.mark.parametrize("source", [None, PASSPHRASE])
@pytest.mark.parametrize("target", [None, "another passphrase"])
def test_ids_and_content_stay_whatever_is_encrypted(
    tmp_path: Path, source: str | None, target: str | None
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    dump = Dump(folder / "dump.rdb")
    (folder / "other").write_bytes(os.urandom(100_000))
    store = Store.open(tmp_path / "store", passphrase=source)
    ids: list[str] = []
    for changed in (0, 300):
        dump.write(changed)
        parent = ids[-1] if ids else None
        ids.append(capture(folder, store, dataset="d", parent=parent, streams=is_rdb).id)
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "file").write_bytes(b"not to be told" * 9999)
    apart = capture(secret, store, dataset="secret").id

    small = carried(store, ids[1:], tmp_path / "way", source)
    assert small.ids() == ids[1:]
    assert verify_all(small, None, read_data=True).damages == []
    assert small.size() < store.size()
    into = Store.open(tmp_path / "into", passphrase=target)
    kept = capture(secret, into, dataset="own").id
    assert absorb(into, small) == ids[1:]
    assert absorb(into, small) == ids[1:], "once more changes nothing"
    assert set(into.ids()) == {ids[1], kept}
    assert apart not in into.ids()
    assert verify_all(into, None, read_data=True).damages == []
    assert into.read(ids[1]) == store.read(ids[1])
    restore(into, ids[1], tmp_path / "back")
    tree_equal(folder, tmp_path / "back")
    again = capture(folder, into, dataset="d", parent=ids[1], streams=is_rdb)
    restore(into, again.id, tmp_path / "again")
    tree_equal(folder, tmp_path / "again")


def test_what_is_damaged_or_unknown_goes_nowhere(small: Path, store: Store, tmp_path: Path) -> None:
    taken = capture(small, store, dataset="d").id
    with pytest.raises(UnknownSnapshot):
        list(files(store, ["0" * 32], tmp_path))
    (pack,) = store.packs.iterdir()
    content = bytearray(pack.read_bytes())
    content[100] ^= 1
    pack.write_bytes(content)
    with pytest.raises(Damaged):
        list(files(store, [taken], tmp_path))
    assert not list(tmp_path.glob(".*.tmp")), "nothing is left of a pack that was begun"
