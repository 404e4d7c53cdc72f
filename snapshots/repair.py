"""Repair: what damage took from a store is put back from wherever it can still be had.

Content is taken from other packs, from what is left of damaged ones, and from folders that may
still hold it. Everything is written anew, made durable and read back before what is damaged goes,
so that a repair which is cut off at any point leaves the store no worse.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from snapshots import fs, salvage, storekey
from snapshots.blocks import BlockSink
from snapshots.capture import capture
from snapshots.cipher import PLAIN, Cipher
from snapshots.copies import whole_copies
from snapshots.errors import Damaged, SnapshotError, UnknownSnapshot, naming
from snapshots.hints import Hints
from snapshots.pack import MEMBER, SUFFIX, PackReader, Placed, read_index
from snapshots.progress import Progress
from snapshots.report import BadCopy, Finding, by_dataset, explained, users_of
from snapshots.salvage import Folders
from snapshots.store import MAX_RECORD, SnapshotRecord, Store
from snapshots.verify import Examination

ASIDE = "damaged"  # folder of the store for packs that hold what could not be mended


@dataclass(frozen=True)
class Repaired:
    """What a repair did.

    `mended`: sentences; `blocks`: how many were written anew or proved to lie elsewhere.
    `unmended`: what is still damaged. `aside`: damaged packs that were kept because something in
    them could not be had anywhere else; nothing reads them any more.
    """

    mended: list[str]
    blocks: int
    unmended: list[Finding]
    aside: list[Path]
    seconds: float


def repair(
    store: Store,
    folders: Mapping[str, Sequence[Path]],
    progress: Progress | None = None,
) -> Repaired:
    """Mend what is damaged anywhere in a store, as far as its content can still be had.

    `folders`: of a dataset, where it may still be (sealed volumes); they are only read, and what
    they have counts if it has the right hash. The whole store is read for it, while others may
    work with it; then it is locked for as long as the damaged packs are written anew. Raises
    StoreBusy, NotEnoughSpace.
    """
    began = time.monotonic()
    work = _Repair(store, folders, progress)
    with naming("repair", os.fsencode(store.path)):
        work.mend_key()
        work.mend_records()
        work.mend_trees()
        work.drop_hints()
        work.examine()
        if work.damaged_packs or work.bad:
            work.fetch()
            with store.locked(fcntl.LOCK_EX):
                work.mend_packs()
    return Repaired(work.mended, work.blocks, work.unmended, work.aside, time.monotonic() - began)


class _Repair:
    def __init__(self, store: Store, folders: Folders, progress: Progress | None) -> None:
        self._store, self._folders, self._progress = store, folders, progress
        self.mended: list[str] = []
        self.unmended: list[Finding] = []
        self.aside: list[Path] = []
        self.blocks = 0
        self.roots: dict[str, list[SnapshotRecord]] = {}
        self.bad: list[BadCopy] = []
        self.damaged_packs: set[str] = set()
        self._fetched: set[bytes] = set()  # from folders; in new packs, each block by itself

    # -- records, trees, hints -------------------------------------------------------------------

    def mend_key(self) -> None:
        """An encrypted store has its key twice."""
        if self._store.cipher is not PLAIN:
            for name in storekey.mend(self._store.path):
                self.mended.append(f"the store's {name}, from its copy")

    def mend_records(self) -> None:
        """A record proves itself by its name: one bit that turned over is found by trying."""
        for snapshot_id in self._store.ids():
            try:
                self._store.read(snapshot_id)
            except UnknownSnapshot:  # somebody forgot it since it was listed
                continue
            except Damaged as damage:
                path = self._store.snapshots / f"{snapshot_id}.json"
                whole = None
                with suppress(OSError):
                    whole = salvage.record_with_one_bit_back(
                        path.read_bytes()[:MAX_RECORD], snapshot_id, self._store.cipher
                    )
                if whole is None:
                    self.unmended.append(Finding("", (snapshot_id,), (), str(damage)))
                else:
                    fs.write_durably(path, whole)
                    self.mended.append(f"the record of snapshot {snapshot_id[:12]}")

    def mend_trees(self) -> None:
        """A tree that is lost is written anew if a folder still gives the very same."""
        with self._store.reading() as source:
            look = Examination(self._store, source, None)
            look.check_snapshots(self._readable())
        for root, records in look.lost_roots.items():
            for dataset in by_dataset(records):
                if any(self._gives(folder, dataset, root) for folder in self._at(dataset)):
                    self.mended.append(f"the tree {root[:12]} of {dataset}")
                    break

    def _readable(self) -> list[str]:
        lost = {i for finding in self.unmended for i in finding.snapshots}
        return [snapshot_id for snapshot_id in self._store.ids() if snapshot_id not in lost]

    def _at(self, dataset: str) -> Sequence[Path]:
        return self._folders.get(dataset, ())

    def _gives(self, folder: Path, dataset: str, root: str) -> bool:
        """Capture a folder for the sake of its tree, which is known by its content alone."""
        try:
            record = capture(folder, self._store, dataset=dataset, tags={"made-for": "repair"})
        except (SnapshotError, OSError):
            return False
        self._store.forget(record.id)
        return record.root == root

    def drop_hints(self) -> None:
        """Damaged hints only cost time: the next capture reads everything and writes new ones."""
        for path in sorted(self._store.hints.glob("*.hints")):
            try:
                Hints(path, self._store.cipher)
            except Damaged:
                path.unlink(missing_ok=True)
                self.mended.append(f"the hints of snapshot {path.stem[:12]} were dropped")

    # -- blocks ----------------------------------------------------------------------------------

    def examine(self) -> None:
        with self._store.reading() as source:
            look = Examination(self._store, source, self._progress)
            look.check_snapshots(self._readable())
            look.read(all_packs=True)
            self.roots, self.bad = look.roots, list(look.bad.values())
            self.damaged_packs = {copy.pack for copy in self.bad if copy.pack}
            self.damaged_packs |= source.index.damaged.keys()
            for root, records in look.lost_roots.items():
                for dataset, ids in by_dataset(records).items():
                    reason = f"tree {root[:12]} is damaged, and no folder gives the same"
                    self.unmended.append(Finding(dataset, ids, (), reason))

    def fetch(self) -> None:
        """Bring what no pack has from the folders, while others may work with the store."""
        with self._store.locked(fcntl.LOCK_SH):
            lost = self._lost(self._users())
            if lost:
                self._fetched = self._take_from_folders(lost)

    def mend_packs(self) -> None:
        """With the store to ourselves; sweeps and captures may have come in between."""
        users = self._users()
        lost = self._lost(users)
        for path in self._damaged():
            self._write_anew(path, lost, self._fetched - lost)
        # A group can be read again when what it consists of is whole again.
        lost -= {digest for digest, _ in whole_copies(self._store.packs, self._store.cipher, lost)}
        self.blocks = len(users) - len(lost)
        if self.blocks:
            self.mended.append(f"{self.blocks} blocks that snapshots need")
        left = [copy for copy in self.bad if copy.hash in lost]
        self.unmended += explained(self._store, self.roots, left, ())

    def _users(self) -> set[bytes]:
        """The damaged blocks that snapshots need which are still there."""
        self.roots = {
            root: records
            for root, records in self.roots.items()
            if self._store.tree_path(root).exists()
        }
        return set(users_of(self._store, self.roots, {copy.hash for copy in self.bad}))

    def _lost(self, users: set[bytes]) -> set[bytes]:
        """Those that no pack has, and not even what is left of a damaged one."""
        elsewhere = whole_copies(
            self._store.packs, self._store.cipher, users, but=self.damaged_packs
        )
        lost = users - {digest for digest, _ in elsewhere}
        for path in self._damaged() if lost else ():
            lost -= _whole_in(path, self._store.cipher)
        return lost

    def _damaged(self) -> list[Path]:
        return [path for path in map(self._pack, sorted(self.damaged_packs)) if path.exists()]

    def _pack(self, name: str) -> Path:
        return self._store.packs / (name + SUFFIX)

    def _take_from_folders(self, lost: set[bytes]) -> set[bytes]:
        with _new_packs(self._store) as sink:
            found = salvage.from_folders(self._store, self.roots, lost, self._folders)
            return {sink.put(data) for _, data in found}

    def _write_anew(self, path: Path, lost: set[bytes], found: set[bytes]) -> None:
        """Everything that is whole in a damaged pack goes into a new one, then the old one goes.

        It is kept aside if something may be in it that somebody needs. What was `found` lies in
        another pack by now, and by itself.
        """
        sound, entries = _entries(path, self._store.cipher)
        members = [placed for placed in entries if sound and placed.codec == MEMBER]
        others = [placed for placed in entries if not (sound and placed.codec == MEMBER)]
        with (
            _new_packs(self._store) as sink,
            closing(PackReader(cipher=self._store.cipher)) as reader,
        ):
            for _, data in reader.blocks(path, others):
                if not isinstance(data, Damaged):
                    sink.put(data)
            for placed in members:  # whether they can be decoded depends on other blocks
                if placed.hash not in found:
                    with suppress(Damaged):
                        payload = reader.payload(path, placed)
                        sink.put_as_is(placed.hash, placed.raw, MEMBER, payload)
        self.mended.append(f"pack {path.stem[:12]} was written anew")
        if path.stem in sink.sealed:  # the same blocks, packed alike: it took the old one's place
            return
        if self._may_be_needed(path, lost):
            folder = self._store.path / ASIDE
            folder.mkdir(mode=0o700, exist_ok=True)
            os.replace(path, folder / path.name)
            fs.sync_folder(folder)
            self.aside.append(folder / path.name)
        else:
            path.unlink()
        fs.sync_folder(self._store.packs)

    def _may_be_needed(self, path: Path, lost: set[bytes]) -> bool:
        """Whether a lost block lies in a pack, or may, as far as one can tell."""
        if self.unmended:  # what cannot be read may need anything
            return True
        known = {copy.hash for copy in self.bad if copy.pack == path.stem}
        return not lost.isdisjoint(known) if known else bool(lost)


def _entries(path: Path, cipher: Cipher) -> tuple[bool, list[Placed]]:
    """Whether the index of a pack is sound, and its entries, or what they may have been."""
    try:
        return True, list(read_index(path, path.stem, cipher))
    except Damaged:
        return False, salvage.entries_left(path, cipher)


def _whole_in(path: Path, cipher: Cipher) -> set[bytes]:
    """The hashes of all that is whole in a damaged pack."""
    with closing(PackReader(cipher=cipher)) as reader:
        blocks = reader.blocks(path, _entries(path, cipher)[1])
        return {placed.hash for placed, data in blocks if not isinstance(data, Damaged)}


@contextmanager
def _new_packs(store: Store) -> Iterator[BlockSink]:
    """Takes blocks into new packs, which are durable and read back when the block is left."""
    with store.index(load=False) as index:
        sink = BlockSink(index)
        try:
            yield sink
            sink.seal()
        finally:
            sink.discard()
