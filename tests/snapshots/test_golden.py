"""Stores that any version wrote are restored whole, and the page on the format is enough for it."""

from __future__ import annotations

import ast
import base64
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3

from snapshots.capture import capture
from snapshots.pack import MEMBER, read_index
from snapshots.restore import restore
from snapshots.store import FORMATS, Store
from snapshots.verify import verify
from tests.snapshots import reader
from tests.snapshots.golden.make import is_rdb, manifest

GOLDEN = Path(__file__).parent / "golden"
VERSIONS = sorted(path.name for path in GOLDEN.glob("v*"))
PASSPHRASES = {"v3": "golden passphrase"}
KINDS = {"d": "0o4", "f": "0o10", "l": "0o12", "p": "0o1"}


def expected_of(version: str) -> dict[str, dict[str, dict[str, Any]]]:
    found: dict[str, dict[str, dict[str, Any]]] = json.loads(
        (GOLDEN / version / "manifest.json").read_text()
    )
    return found


def copied(version: str, to: Path) -> None:
    """A golden store as it was when it was made: a clone has its files, but not their modes."""
    shutil.copytree(GOLDEN / version / "store", to)
    for folder in (to, *(path for path in to.rglob("*") if path.is_dir())):
        folder.chmod(0o700)


def test_there_is_one_of_each_version() -> None:
    assert [f"v{number}" for number in FORMATS] == VERSIONS
    packs = (GOLDEN / "v2" / "store" / "packs").iterdir()
    assert MEMBER in {placed.codec for pack in packs for placed in read_index(pack, pack.stem)}


@pytest.mark.parametrize("version", VERSIONS)
def test_fault_86_a_golden_store_is_restored(version: str, tmp_path: Path) -> None:
    """Stores that each version of the format wrote are verified to the last byte and restored,
    entry by entry as their manifests say."""
    if os.geteuid() != 0:
        pytest.skip("only root can restore owners and attributes of others")
    copied(version, tmp_path / "store")
    store = Store.open(tmp_path / "store", create=False, passphrase=PASSPHRASES.get(version))
    expected = expected_of(version)
    assert store.ids() == sorted(expected)
    for snapshot, entries in expected.items():
        assert verify(store, snapshot, read_data=True) == []
        restore(store, snapshot, tmp_path / snapshot)
        assert manifest(tmp_path / snapshot) == entries


@pytest.mark.parametrize("version", VERSIONS)
def test_whoever_knows_the_page_can_read_it(version: str) -> None:
    store = reader.Reader(GOLDEN / version / "store", PASSPHRASES.get(version, ""))
    expected = expected_of(version)
    assert store.snapshots() == sorted(expected)
    for snapshot, entries in expected.items():
        assert _described(store.entries(snapshot)) == _comparable(entries)


def _comparable(entries: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Of a manifest, what does not depend on a file system."""
    found = {}
    for path, entry in entries.items():
        rest = {key: value for key, value in entry.items() if key not in ("same as", "sparse")}
        if entry.get("same as", path) != path:
            rest = {"same as": entry["same as"]}
        found[path] = rest
    return found


def _described(entries: dict[bytes, reader.Entry | bytes]) -> dict[str, dict[str, Any]]:
    """What the reader found, in the words of the manifest, whose names of links it follows."""
    found: dict[str, dict[str, Any]] = {}
    for path, entry in entries.items():
        name = path.decode("latin-1")
        if isinstance(entry, bytes):
            found[name] = {"same as": entry.decode("latin-1")}
            continue
        found[name] = {
            "mode": f"{KINDS[entry.kind]}{entry.mode:04o}",
            "owner": list(entry.owner),
            "mtime_ns": entry.mtime_ns,
            "xattrs": {
                key.decode("latin-1"): base64.b64encode(value).decode()
                for key, value in entry.xattrs.items()
            },
        }
        if entry.kind == "l":
            found[name]["target"] = entry.target.decode("latin-1")
        elif entry.kind == "f":
            found[name] |= {"size": entry.size, "content": _content(entry)}
    return found


def _content(entry: reader.Entry) -> str:
    digest = blake3()
    for start, data in entry.data:
        for offset in range(0, len(data), 4096):
            page = data[offset : offset + 4096]
            if page.strip(b"\0"):
                digest.update(b"%d:" % (start + offset) + page)
    return str(digest.hexdigest())


def test_the_reader_uses_nothing_of_the_product() -> None:
    tree = ast.parse(Path(reader.__file__).read_text())
    names = {
        name.split(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for name in (
            [a.name for a in node.names] if isinstance(node, ast.Import) else [node.module or ""]
        )
    }
    assert names.isdisjoint({"snapshots", "reconciler", "engine", "cli", "tests"})


@pytest.mark.parametrize("version", ["v2", "v3"])
def test_the_reader_finds_what_is_wrong(version: str, tmp_path: Path) -> None:
    copied(version, tmp_path / "store")
    for path in sorted((tmp_path / "store").rglob("*")):
        if not path.is_file() or path.name in ("lock", "key.copy"):
            continue
        good = path.read_bytes()
        for at in {0, 9, len(good) // 2, len(good) - 1}:
            bad = bytearray(good)
            bad[at] ^= 1
            path.write_bytes(bad)
            with pytest.raises((reader.Wrong, KeyError)):
                _read_all(tmp_path / "store", PASSPHRASES.get(version, ""))
        path.write_bytes(good)


def _read_all(path: Path, passphrase: str) -> None:
    store = reader.Reader(path, passphrase)
    for snapshot in store.snapshots():
        store.entries(snapshot)


def test_a_store_of_version_1_is_upgraded_by_the_first_capture(tmp_path: Path) -> None:
    copied("v1", tmp_path / "store")
    store = Store.open(tmp_path / "store")
    first, second = expected_of("v1")
    assert (store.path / "format").read_bytes() == FORMATS[1]
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "dump.rdb").write_bytes(os.urandom(2 << 20))
    record = capture(tmp_path / "data", store, dataset="shop_db", parent=second, streams=is_rdb)
    assert (store.path / "format").read_bytes() == FORMATS[2]
    for snapshot in (first, second, record.id):
        assert verify(store, snapshot, read_data=True) == []
