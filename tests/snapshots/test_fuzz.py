"""Every parser of bytes from a disk, given anything: it takes it or says so by an error of ours.

What the formats' own hashes would refuse at once gets its hashes made right again, so that what is
behind them is reached.
"""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from blake3 import blake3
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from snapshots import storekey
from snapshots.capture import capture
from snapshots.errors import Damaged, SnapshotError, StoreUnusable
from snapshots.fork import Fork
from snapshots.fs import Key
from snapshots.hints import Hints
from snapshots.pack import ENTRY, SUFFIX, TRAILER, PackReader, index_of, read_index
from snapshots.restore import restore
from snapshots.seen import SeenFiles
from snapshots.store import ID, Store
from snapshots.tree import read_tree
from snapshots.twins import Twins
from snapshots.verify import verify_all
from tests.snapshots.golden.make import is_rdb

EXAMPLES = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow], database=None
)
LONG = settings(EXAMPLES, max_examples=1000)


@st.composite
def mutations(draw: st.DrawFn) -> Callable[[bytes], bytes]:
    """Some changes of a file: bytes, numbers, pieces cut, doubled, exchanged or put in."""
    edits = draw(
        st.lists(
            st.tuples(
                st.sampled_from(["set", "number", "cut", "double", "insert", "end", "zeros"]),
                st.floats(0, 1, exclude_max=True),
                st.binary(min_size=1, max_size=12),
                st.sampled_from([0, 1, -1, 2**31, 2**32 - 1, 2**63, 2**64 - 1, 56, 255]),
            ),
            min_size=1,
            max_size=4,
        )
    )

    def changed(good: bytes) -> bytes:
        body = bytearray(good)
        for what, where, data, number in edits:
            at = int(where * max(1, len(body)))
            size = len(data) * 5
            if what == "set":
                body[at : at + len(data)] = data
            elif what == "number":
                packed = (number % 2**64).to_bytes(8, "little")
                body[at : at + len(packed)] = packed
            elif what == "cut":
                del body[at : at + size]
            elif what == "double":
                body[at:at] = body[at : at + size]
            elif what == "insert":
                body[at:at] = data
            elif what == "end":
                del body[at:]
            else:
                body[at : at + size] = bytes(len(body[at : at + size]))
        return bytes(body)

    return changed


ANYTHING = st.one_of(
    st.binary(max_size=300).map(lambda data: lambda _: data),
    mutations(),
)
Change = Callable[[bytes], bytes]


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a store of every kind of content, and the files that forks leave."""
    base = tmp_path_factory.mktemp("fuzz")
    folder = base / "folder"
    (folder / "d" / "e").mkdir(parents=True)
    chance = random.Random(5)
    keys = [chance.randbytes(100) for _ in range(3000)]
    (folder / "d" / "one").write_bytes(chance.randbytes(100_000))
    (folder / "d" / "e" / "text").write_bytes(b"text\n" * 1000)
    (folder / "link").symlink_to("d/one")
    with open(folder / "sparse", "wb") as file:
        file.truncate(1 << 20)
        file.seek(1 << 19)
        file.write(b"middle")
    parent = None
    store = Store.open(base / "store")
    for _ in range(2):
        chance.shuffle(keys)
        (folder / "dump.rdb").write_bytes(b"".join(keys))
        parent = capture(folder, store, dataset="d", parent=parent, streams=is_rdb).id
    (base / "target").mkdir()
    fork = Fork(folder, base / "target", index=base / "index")
    fork.first_pass()
    shutil.copy(base / "index", base / "seen")
    fork.final_pass()
    storekey.make(base, "a passphrase")
    return base


def of_each_kind(sound: Path) -> dict[str, Path]:
    store = Store(sound / "store")

    def largest(folder: Path) -> Path:
        return max(folder.iterdir(), key=lambda path: path.stat().st_size)

    packs = sorted(store.packs.iterdir(), key=lambda path: path.stat().st_size)
    return {
        "record": largest(store.snapshots),
        "tree": largest(store.trees),
        "hints": largest(store.hints),
        "pack": packs[0],
        "seen": sound / "seen",
        "key": sound / "key",
        "format": store.path / "format",
    }


# -- what reads a file of a kind, and what makes its hashes right again --------------------------


def reads_record(path: Path) -> None:
    store = Store(path.parent)
    store.snapshots = path.parent
    body = path.read_bytes()
    name = str(blake3(body).hexdigest())[:32]
    path = path.rename(path.with_name(f"{name}.json"))
    assert ID.fullmatch(name)
    store.read(name)


def reads_tree(path: Path) -> None:
    """The lines are changed, their hashes are right."""
    import zstandard

    lines = path.read_bytes()
    root = blake3(lines).hexdigest()
    frame = zstandard.ZstdCompressor().compress(lines)
    made = path.with_name(f"{root}.zst")
    made.write_bytes(blake3(frame).digest() + frame)
    for _ in read_tree(made, root):
        pass


def reads_raw_tree(path: Path) -> None:
    for _ in read_tree(path, "0" * 64):
        pass


def reads_hints(path: Path) -> None:
    for _ in Hints(path):
        pass


def reads_sealed_hints(path: Path) -> None:
    body = path.read_bytes()[:-32]
    path.write_bytes(body + blake3(body).digest())
    reads_hints(path)


def reads_pack(path: Path) -> None:
    index_of(path, path.stem)


def reads_sealed_pack(path: Path) -> None:
    """The index is changed, the trailer and the name are those of this very index."""
    body = path.read_bytes()
    if len(body) < TRAILER.size:
        return reads_pack(path)
    _, offset, _, magic = TRAILER.unpack(body[-TRAILER.size :])
    index = body[offset : -TRAILER.size] if offset < len(body) else b""
    digest = blake3(index).digest()
    trailer = TRAILER.pack(len(index) // ENTRY.size, min(offset, len(body)), digest, magic)
    made = path.with_name(digest.hex() + SUFFIX)
    made.write_bytes(body[: -TRAILER.size] + trailer)
    reader = PackReader()
    try:
        placed = list(read_index(made, made.stem))
        for _, content in reader.blocks(made, placed):
            assert isinstance(content, (bytes, memoryview, Damaged))
    finally:
        reader.close()
    return None


def reads_seen(path: Path) -> None:
    seen = SeenFiles(path)
    seen.find(b"d", b"one")
    seen.find(b"zzz", b"zzz")
    Twins(path, "00" * 32).equal(b"d", b"one", Key(1, 2, 3, 4), None)


def reads_sealed_seen(path: Path) -> None:
    body = path.read_bytes()[:-32]
    path.write_bytes(body + blake3(body).digest())
    reads_seen(path)


def reads_key(path: Path) -> None:
    storekey.damaged(path.parent)


def reads_sealed_key(path: Path) -> None:
    with suppress(ValueError):
        value = json.loads(path.read_bytes())
        if isinstance(value, dict):
            value.pop("check", None)
            value["n"] = min(value["n"], 4) if isinstance(value.get("n"), int) else value.get("n")
            path.write_bytes(storekey.sealed_text(value))
    storekey.damaged(path.parent)
    storekey.read(path.parent, "a passphrase")


def reads_format(path: Path) -> None:
    Store(path.parent).check_format()


PARSERS: dict[str, tuple[str, Callable[[Path], None]]] = {
    "record": ("record", reads_record),
    "tree": ("tree", reads_raw_tree),
    "hints": ("hints", reads_hints),
    "sealed hints": ("hints", reads_sealed_hints),
    "pack": ("pack", reads_pack),
    "sealed pack": ("pack", reads_sealed_pack),
    "seen": ("seen", reads_seen),
    "sealed seen": ("seen", reads_sealed_seen),
    "key": ("key", reads_key),
    "sealed key": ("key", reads_sealed_key),
    "format": ("format", reads_format),
    "lines": ("lines", reads_tree),
}


def try_one(sound: Path, parser: str, change: Change, folder: Path) -> None:
    kind, reads = PARSERS[parser]
    if kind == "lines":
        good, name = lines_of(sound), "lines"
    else:
        path = of_each_kind(sound)[kind]
        good, name = path.read_bytes(), path.name
    place = folder / f"{random.getrandbits(64):x}"
    place.mkdir()
    try:
        (place / name).write_bytes(change(good))
        with suppress(SnapshotError):
            reads(place / name)
    finally:
        shutil.rmtree(place)


def lines_of(sound: Path) -> bytes:
    import zstandard

    frame = of_each_kind(sound)["tree"].read_bytes()[32:]
    with zstandard.ZstdDecompressor().stream_reader(frame) as stream:
        return stream.read()


@pytest.mark.parametrize("parser", PARSERS)
def test_fault_27_any_bytes_for_a_parser(
    parser: str, sound: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Each parser of the store's files gets random and changed bytes, with the hashes around them
    made right: it takes them, or raises an error of ours, and nothing else."""
    folder = tmp_path_factory.mktemp("parsed")

    @EXAMPLES
    @given(change=ANYTHING)
    def run(change: Change) -> None:
        try_one(sound, parser, change, folder)

    run()


@pytest.mark.chaos
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("parser", PARSERS)
def test_fault_27_very_many_bytes_for_a_parser(
    parser: str, sound: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """As the short form, a thousand times for each parser."""
    folder = tmp_path_factory.mktemp("parsed")

    @LONG
    @given(change=ANYTHING)
    def run(change: Change) -> None:
        try_one(sound, parser, change, folder)

    run()


def test_fault_27_a_changed_store_never_surprises(sound: Path, tmp_path: Path) -> None:
    """Any file of a store is changed in any way: verify and restore end with what they found, or
    with an error of ours."""
    store_path = tmp_path / "store"
    shutil.copytree(sound / "store", store_path)
    files = sorted(path for path in store_path.rglob("*") if path.is_file())
    ids = Store(store_path).ids()

    @EXAMPLES
    @given(change=ANYTHING, which=st.integers(0, len(files) - 1))
    def run(change: Change, which: int) -> None:
        good = files[which].read_bytes()
        files[which].write_bytes(change(good))
        try:
            with suppress(StoreUnusable):
                store = Store.open(store_path, create=False)
                report = verify_all(store, None, read_data=True)
                for snapshot in ids:
                    sound_still = not any(snapshot in d.snapshots for d in report.damages)
                    try:
                        restore(store, snapshot, tmp_path / "again")
                    except SnapshotError:
                        assert not sound_still
                    shutil.rmtree(tmp_path / "again", ignore_errors=True)
        finally:
            files[which].write_bytes(good)

    run()
