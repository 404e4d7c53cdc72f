"""A store is input: whatever it holds, nothing outside the target changes, and errors are ours."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import zstandard
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st

from snapshots.capture import capture
from snapshots.compare import tree_equal
from snapshots.errors import Damaged, SnapshotError
from snapshots.pack import ENTRY, MAGIC, RAW, SUFFIX, TRAILER, ZSTD, Placed, crc_of
from snapshots.restore import restore
from snapshots.store import Store
from snapshots.tree import BLOCK, read_tree
from snapshots.verify import verify
from tests.snapshots.conftest import mounted

HEADER = {"tree": 1, "block": BLOCK}
META = {"m": 0o644, "u": 0, "g": 0, "mt": 0}
ROOT = {"t": "d", "n": "", **META}
UP = {"t": "u"}


def file(name: str, size: int = 0, **more: Any) -> dict[str, Any]:
    return {"t": "f", "n": name, **META, "s": size, **more}


def folder(name: str) -> dict[str, Any]:
    return {"t": "d", "n": name, **META}


def end(files: int = 0, data: int = 0) -> dict[str, Any]:
    return {"t": "e", "files": files, "bytes": data}


def write_tree(path: Path, content: bytes) -> str:
    """A tree file around any content, with all hashes as they should be; returns its root."""
    root: str = blake3(content).hexdigest()
    frame = zstandard.ZstdCompressor().compress(content)
    (path / f"{root}.zst").write_bytes(blake3(frame).digest() + frame)
    return root


def forge(store: Store, content: bytes, files: int = 0, data: int = 0) -> str:
    """A snapshot around a forged tree; returns its id."""
    root = write_tree(store.trees, content)
    return store.add(
        dataset="evil",
        created="",
        parent=None,
        bytes=data,
        files=files,
        tags={},
        skipped=[],
        root=root,
    ).id


def lines(*values: Any) -> bytes:
    return b"".join(json.dumps(value).encode() + b"\n" for value in values)


BLOCKS = {"t": "b", "at": 0, "h": "00" * 32}

HOSTILE: dict[str, bytes] = {
    "parent": lines(HEADER, ROOT, file(".."), UP, end(1)),
    "parent folder": lines(HEADER, ROOT, folder(".."), file("x"), UP, UP, end(1)),
    "itself": lines(HEADER, ROOT, folder("."), UP, UP, end()),
    "empty name": lines(HEADER, ROOT, folder(""), UP, UP, end()),
    "absolute": lines(HEADER, ROOT, file("/etc/passwd"), UP, end(1)),
    "slash": lines(HEADER, ROOT, file("a/b"), UP, end(1)),
    "climbing": lines(HEADER, ROOT, file("../../x"), UP, end(1)),
    "nul": lines(HEADER, ROOT, file("a\0b"), UP, end(1)),
    "not a byte": lines(HEADER, ROOT, file("\u1234"), UP, end(1)),
    "long name": lines(HEADER, ROOT, file("x" * 256), UP, end(1)),
    "name with a root": lines(HEADER, folder("x"), UP, end()),
    "twice": lines(HEADER, ROOT, file("a"), file("a"), UP, end(2)),
    "link then folder through it": lines(
        HEADER,
        ROOT,
        {"t": "l", "n": "a", **META, "to": "/tmp"},
        folder("a"),
        file("x"),
        UP,
        UP,
        end(2),
    ),
    "out of order": lines(HEADER, ROOT, file("b"), file("a"), UP, end(2)),
    "above the root": lines(HEADER, ROOT, UP, UP, end()),
    "after the root": lines(HEADER, ROOT, UP, file("x"), end(1)),
    "two roots": lines(HEADER, ROOT, UP, ROOT, UP, end()),
    "after the end": lines(HEADER, ROOT, UP, end(), file("x")),
    "no end": lines(HEADER, ROOT, UP),
    "end inside": lines(HEADER, ROOT, end()),
    "hard link to nothing": lines(HEADER, ROOT, {"t": "h", "n": "a", "of": 7}, UP, end(1)),
    "hard link to a path": lines(HEADER, ROOT, {"t": "h", "n": "a", "of": "/etc"}, UP, end(1)),
    "number used twice": lines(HEADER, ROOT, file("a", id=1), file("b", id=1), UP, end(2)),
    "device": lines(HEADER, ROOT, {"t": "c", "n": "a", **META, "dev": 1}, UP, end(1)),
    "disk": lines(HEADER, ROOT, {"t": "b", "n": "sda", **META, "dev": [8, 0]}, UP, end(1)),
    "socket": lines(HEADER, ROOT, {"t": "s", "n": "a", **META}, UP, end(1)),
    "file with a device's mode": lines(HEADER, ROOT, {**file("a"), "m": 0o060660}, UP, end(1)),
    "overlong path": lines(HEADER, ROOT, *[folder("x" * 255)] * 300, *[UP] * 301, end()),
    "link to a path of 5000": lines(
        HEADER, ROOT, {"t": "l", "n": "a", **META, "to": "x" * 5000}, UP, end(1)
    ),
    "hard link to a folder": lines(
        HEADER, ROOT, {**folder("d"), "id": 1}, UP, {"t": "h", "n": "h", "of": 1}, UP, end(1)
    ),
    "file through a file": lines(HEADER, ROOT, file("a"), file("a/b"), UP, end(2)),
    "kind of no kind": lines(HEADER, ROOT, {"t": ["d"], "n": "a", **META}, UP, end(1)),
    "negative size": lines(HEADER, ROOT, file("a", -1), UP, end(1)),
    "absurd size": lines(HEADER, ROOT, file("a", 1 << 63), UP, end(1)),
    "size of no number": lines(HEADER, ROOT, file("a", True), UP, end(1)),
    "mode with a kind": lines(HEADER, ROOT, {**file("a"), "m": 0o020644}, UP, end(1)),
    "owner -1": lines(HEADER, ROOT, {**file("a"), "u": 2**32 - 1}, UP, end(1)),
    "time beyond time": lines(HEADER, ROOT, {**file("a"), "mt": 1 << 100}, UP, end(1)),
    "label": lines(HEADER, ROOT, {**file("a"), "x": {"security.selinux": ""}}, UP, end(1)),
    "attribute no base64": lines(HEADER, ROOT, {**file("a"), "x": {"user.a": "!"}}, UP, end(1)),
    "attributes no object": lines(HEADER, ROOT, {**file("a"), "x": [1]}, UP, end(1)),
    "blocks beyond the end": lines(HEADER, ROOT, file("a", 10), {**BLOCKS, "at": 1}, UP, end(1)),
    "blocks without a file": lines(HEADER, ROOT, BLOCKS, UP, end()),
    "blocks backwards": lines(
        HEADER, ROOT, file("a", 3 * BLOCK), {**BLOCKS, "at": 1}, BLOCKS, UP, end(1, 2 * BLOCK)
    ),
    "half a hash": lines(HEADER, ROOT, file("a", 10), {**BLOCKS, "h": "00" * 31}, UP, end(1, 10)),
    "parts outside": lines(HEADER, ROOT, file("a", 10), {**BLOCKS, "s": [5, 6]}, UP, end(1, 6)),
    "parts backwards": lines(
        HEADER, ROOT, file("a", 10), {**BLOCKS, "s": [5, 2, 0, 1]}, UP, end(1, 3)
    ),
    "wrong sums": lines(HEADER, ROOT, UP, end(5)),
    "too deep": lines(HEADER, ROOT, *[folder("d")] * 5000, *[UP] * 5001, end()),
    "no object": lines(HEADER, [1, 2]),
    "deep json": lines(HEADER) + b"[" * 100_000 + b"\n",
    "endless line": lines(HEADER) + b"0" * (3 << 20) + b"\n",
    "no newline": lines(HEADER, ROOT, UP, end())[:-1],
    "newer": lines({"tree": 2, "block": BLOCK}, ROOT, UP, end()),
    "not json": b"\x00\xff\xfe",
    "nothing": b"",
    "bomb": b"\0" * (512 << 20),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_fault_54_55_56_58_59_a_hostile_tree_is_refused_before_anything_is_written(
    what: str, store: Store, tmp_path: Path
) -> None:
    """A forged snapshot with .. or absolute members, paths through links or too long, hard links
    to outside, devices, negative and absurd sizes, bombs: each is refused, nothing is made."""
    snapshot = forge(store, HOSTILE[what], files=HOSTILE[what].count(b'"s": ') or 1)
    assert verify(store, snapshot, read_data=False)
    with pytest.raises(Damaged):
        restore(store, snapshot, tmp_path / "target")
    assert not (tmp_path / "target").exists()


def test_the_forging_itself_is_sound(store: Store, tmp_path: Path) -> None:
    """Without a hostile line such a snapshot is restored, so the refusals above mean something."""
    content = lines(
        HEADER,
        ROOT,
        folder("d"),
        file("a"),
        UP,
        file("e", 70_000, id=0),
        {"t": "h", "n": "f", "of": 0},
        UP,
        end(3),
    )
    restore(store, forge(store, content, files=3), tmp_path / "target")
    assert sorted(p.name for p in (tmp_path / "target").rglob("*")) == ["a", "d", "e", "f"]
    assert (tmp_path / "target" / "f").read_bytes() == bytes(70_000)


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_no_content_of_a_tree_causes_another_error(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Any damage to the parsed fields of a sound tree is either sound still or Damaged."""
    values: list[Any] = [HEADER, ROOT, folder("d"), file("a", 5), BLOCKS, UP, UP, end(1, 5)]
    line = data.draw(st.integers(0, len(values) - 1))
    key = data.draw(st.sampled_from(sorted(values[line])))
    anything = st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=2),
        max_leaves=4,
    )
    values[line] = values[line] | {key: data.draw(anything)}
    base = tmp_path_factory.mktemp("tree")
    root = write_tree(base, lines(*values))
    with suppress(Damaged):
        list(read_tree(base / f"{root}.zst", root))


def test_fault_59_a_size_that_no_file_system_has_is_an_error_of_ours(
    store: Store, tmp_path: Path
) -> None:
    """A file that claims 4 EiB without any content: refused by an error that names it."""
    content = lines(HEADER, ROOT, file("a", 1 << 62), UP, end(1))
    with pytest.raises(SnapshotError):
        restore(store, forge(store, content, files=1), tmp_path / "target")


def test_fault_55_57_links_in_the_target_are_not_followed(
    small: Path, store: Store, tmp_path: Path
) -> None:
    """A restore in place over a volume in which every name is a link into another one: the other
    one keeps content, times, names and links, the target becomes what the snapshot has."""
    record = capture(small, store, dataset="data")
    outside = tmp_path / "outside"
    (outside / "folder").mkdir(parents=True)
    (outside / "folder" / "one").write_text("mine")
    (outside / "file").write_text("mine")
    (outside / "file").chmod(0o600)
    os.utime(outside / "file", ns=(1, 1))
    target = tmp_path / "target"
    target.mkdir()
    os.symlink(outside / "folder", target / "d")
    os.link(outside / "file", target / "two")
    os.symlink(outside, target / "extra")

    restore(store, record.id, target, in_place=True)

    assert tree_equal(small, target) == []
    assert (outside / "folder" / "one").read_text() == "mine"
    assert (outside / "file").read_text() == "mine"
    assert (outside / "file").stat().st_mtime_ns == 1
    assert (outside / "file").stat().st_nlink == 1

    (target / "two").unlink()
    os.symlink(outside / "file", target / "two")
    restore(store, record.id, target, in_place=True)
    assert tree_equal(small, target) == []
    assert (outside / "file").read_text() == "mine"


def forge_block(store: Store, digest: bytes, payload: bytes, codec: int) -> str:
    """A pack with one block in which all checksums are right, and a snapshot that needs it."""
    placed = Placed(digest, len(MAGIC), len(payload), BLOCK, crc_of(payload), codec)
    index = ENTRY.pack(*(getattr(placed, name) for name in Placed.__slots__))
    name = blake3(index).digest()
    trailer = TRAILER.pack(1, len(MAGIC) + len(payload), name, MAGIC)
    (store.packs / (name.hex() + SUFFIX)).write_bytes(MAGIC + payload + index + trailer)
    blocks = {**BLOCKS, "h": digest.hex()}
    content = lines(HEADER, ROOT, file("a", BLOCK), blocks, UP, end(1, BLOCK))
    return forge(store, content, files=1, data=BLOCK)


BOMB = zstandard.ZstdCompressor().compress(bytes(256 << 20))
OTHER = b"other content".ljust(BLOCK)


MANY = 50_000
LIMITED = """
import resource, sys
from pathlib import Path
from snapshots.restore import restore
from snapshots.store import Store
resource.setrlimit(resource.RLIMIT_AS, (600 << 20, 600 << 20))
restore(Store.open(Path(sys.argv[1]), create=False), sys.argv[2], Path(sys.argv[3]))
"""


def test_fault_59_more_entries_than_the_disk_has_room_for(store: Store, tmp_path: Path) -> None:
    """50 000 empty files for a disk with 1000 inodes, by a process that may have 600 MiB: refused
    with both numbers before one of them is made."""
    names = b"".join(
        b'{"t":"f","n":"%08d","m":420,"u":0,"g":0,"mt":0,"s":0}\n' % n for n in range(MANY)
    )
    content = lines(HEADER, ROOT) + names + lines(UP, end(MANY))
    snapshot = forge(store, content, files=MANY)
    for place in mounted(tmp_path, "-t", "tmpfs", "-o", "size=64m,nr_inodes=1000", "none"):
        target = place / "target"
        done = subprocess.run(
            [sys.executable, "-c", LIMITED, str(store.path), snapshot, str(target)],
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent.parent)},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert "NotEnoughSpace" in done.stderr
        assert "inodes" in done.stderr
        assert not target.exists() or not any(target.iterdir())


@pytest.mark.parametrize(
    ("payload", "codec", "reason"),
    [
        (BOMB, ZSTD, "another size"),
        (OTHER, RAW, "another hash"),
        (zstandard.ZstdCompressor().compress(OTHER), ZSTD, "another hash"),
        (OTHER[:-1], RAW, "another hash"),
        (OTHER, ZSTD, "cannot be read"),
        (OTHER, 7, "codec 7 is not known"),
    ],
)
def test_a_forged_block_is_refused(
    payload: bytes, codec: int, reason: str, store: Store, tmp_path: Path
) -> None:
    snapshot = forge_block(store, blake3(bytes(BLOCK)).digest(), payload, codec)
    with pytest.raises(Damaged, match=reason):
        restore(store, snapshot, tmp_path / "target")
    (damage,) = verify(store, snapshot, read_data=True)
    assert damage.file == "a"


def test_a_well_forged_block_is_restored(store: Store, tmp_path: Path) -> None:
    """Without the lie it works, so the refusals above mean something."""
    payload = zstandard.ZstdCompressor().compress(OTHER)
    restore(store, forge_block(store, blake3(OTHER).digest(), payload, ZSTD), tmp_path / "target")
    assert (tmp_path / "target" / "a").read_bytes() == OTHER


SOUND_RECORD: dict[str, Any] = {
    "record": 1,
    "dataset": "",
    "created": "",
    "parent": None,
    "bytes": 0,
    "files": 0,
    "tags": {},
    "skipped": [],
    "root": "0" * 64,
}
HOSTILE_RECORDS: dict[str, bytes] = {
    "empty": b"",
    "empty object": b"{}",
    "list": b"[]",
    "deep": b"[" * 100_000,
    "not text": b"\xff",
    "huge": b" " * (2 << 20),
} | {
    f"{key} {value!r}": json.dumps(SOUND_RECORD | {key: value}).encode()
    for key, value in [
        ("record", 2),
        ("dataset", 1),
        ("created", None),
        ("parent", "../x"),
        ("bytes", -1),
        ("files", True),
        ("tags", [["a", "b"]]),
        ("tags", {"a": 1}),
        ("skipped", "text"),
        ("root", "../../../etc"),
        ("root", 7),
    ]
}


@pytest.mark.parametrize("body", HOSTILE_RECORDS.values(), ids=HOSTILE_RECORDS)
def test_a_hostile_record_is_damaged_and_others_go_on(
    body: bytes, small: Path, store: Store
) -> None:
    good = capture(small, store, dataset="data")
    evil = blake3(body).hexdigest()[:32]
    (store.snapshots / f"{evil}.json").write_bytes(body)
    with pytest.raises(Damaged):
        store.read(evil)
    assert verify(store, evil, read_data=True)
    assert sorted(store.ids()) == sorted([evil, good.id])
    assert verify(store, good.id, read_data=True) == []


def test_struct_of_the_pack_is_what_the_page_says() -> None:
    assert ENTRY.size == 56
    assert TRAILER.size == 56
    assert struct.calcsize("<32sQIIIB3x") == ENTRY.size
