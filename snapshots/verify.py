"""Verify: can snapshots be restored, and if not, what exactly is damaged and whom does it touch?"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from functools import partial
from itertools import islice
from pathlib import Path

from snapshots import storekey
from snapshots.blocks import BlockSource
from snapshots.cipher import PLAIN
from snapshots.copies import whole_copies
from snapshots.errors import Damaged, StoreUnusable, UnknownSnapshot, naming, shown
from snapshots.inorder import InOrder
from snapshots.pack import ENTRY, MAGIC, TRAILER, Placed, read_index
from snapshots.progress import Meter, Progress
from snapshots.report import BadCopy, Damage, Finding, Report, by_dataset, explained
from snapshots.store import SnapshotRecord, Store
from snapshots.tree import Blocks, Dir, File, Up, block_length, data_parts, with_paths

__all__ = ["Damage", "Finding", "Report", "verify", "verify_all"]

JOB_BLOCKS = 256  # read and proved by one job
WAITING = 16  # jobs ahead of the one whose result is taken


def verify(
    store: Store, snapshot_id: str, *, read_data: bool, progress: Progress | None = None
) -> list[Damage]:
    """What is wrong with a snapshot; [] if it can be restored.

    Always: its record, its whole tree, and that every block it needs is there, in a pack whose
    index is sound. `read_data`: also every byte of them. At most one Damage for each file. Raises
    UnknownSnapshot.
    """
    found: dict[str, Damage] = {}
    report = verify_all(store, [snapshot_id], read_data=read_data, progress=progress)
    for finding in report.damages:
        for file in finding.files or ("",):
            found.setdefault(file, Damage(finding.dataset, snapshot_id, file, finding.reason))
    return list(found.values())


def verify_all(
    store: Store,
    snapshot_ids: Iterable[str] | None,
    *,
    read_data: bool,
    progress: Progress | None = None,
) -> Report:
    """What is wrong with these snapshots; with `None`, what is wrong anywhere in the store.

    Always: format, records, trees, the indexes of packs, and that every block is there.
    `read_data`: also every byte of the blocks that are needed, or of all packs, each once, however
    many snapshots need it. Memory does not grow with the data. Progress is told as "check" (bytes
    of content in trees), then as "verify" (bytes in packs). Raises UnknownSnapshot, StoreBusy.
    """
    began = time.monotonic()
    with naming("verify", os.fsencode(store.path)), store.reading() as source:
        ids = store.ids() if snapshot_ids is None else list(dict.fromkeys(snapshot_ids))
        work = Examination(store, source, progress)
        work.check_format()
        if snapshot_ids is None:
            work.check_packs()
        work.check_snapshots(ids, named=snapshot_ids is not None)
        if read_data:
            work.read(all_packs=snapshot_ids is None)
        return Report(work.findings(), ids, work.bytes_read, time.monotonic() - began)


class Examination:
    """A look at a store, step by step, and what it found.

    `roots`: trees that can be read, with their snapshots; `lost_roots`: those that cannot.
    `lost_records`: ids. `bad`: blocks by hash and pack.
    """

    def __init__(self, store: Store, source: BlockSource, progress: Progress | None) -> None:
        self._store, self._source, self._progress = store, source, progress
        self.roots: dict[str, list[SnapshotRecord]] = {}
        self.lost_roots: dict[str, list[SnapshotRecord]] = {}
        self.lost_records: list[str] = []
        self.bad: dict[tuple[bytes, str], BadCopy] = {}
        self._found: list[Finding] = []
        self.bytes_read = 0

    def findings(self) -> list[Finding]:
        """Everything that was found; what is wrong with blocks comes last."""
        if not self.bad:
            return self._found
        bad = self.bad.values()
        whole = {
            digest
            for digest, _ in whole_copies(
                self._store.packs, self._store.cipher, {c.hash for c in bad}
            )
        }
        return self._found + explained(self._store, self.roots, bad, whole)

    def _note(self, reason: str, dataset: str = "", *ids: str, file: bytes | None = None) -> None:
        files = () if file is None else (shown(file),)
        self._found.append(Finding(dataset, ids, files, reason))

    # -- records, trees, presence ----------------------------------------------------------------

    def check_format(self) -> None:
        try:
            self._store.check_format()
        except StoreUnusable as unusable:
            self._note(str(unusable))
        if self._store.cipher is not PLAIN:
            for name in storekey.damaged(self._store.path):
                self._note(f"{name}, one of two copies of the key, is damaged or missing")

    def check_packs(self) -> None:
        for reason in self._source.index.damaged.values():
            self._note(reason)

    def check_snapshots(self, ids: Iterable[str], *, named: bool = False) -> None:
        """`named`: by the caller, so that one that is not there is an error."""
        for snapshot_id in ids:
            try:
                record = self._store.read(snapshot_id)
            except UnknownSnapshot:  # somebody forgot it since it was listed
                if named:
                    raise
            except Damaged as damage:
                self.lost_records.append(snapshot_id)
                self._note(str(damage), "", snapshot_id)
            else:
                self.roots.setdefault(record.root, []).append(record)
        total = sum(records[0].bytes for records in self.roots.values())
        meter = Meter("check", total, self._progress)
        for root, records in list(self.roots.items()):
            try:
                sums = self._check_tree(root, records, meter)
            except Damaged as damage:
                self.lost_roots[root] = self.roots.pop(root)
                for dataset, of_dataset in by_dataset(records).items():
                    self._note(str(damage), dataset, *of_dataset)
                continue
            for record in records:
                if (record.files, record.bytes) != sums:
                    self._note("its record and its tree do not agree", record.dataset, record.id)
        meter.finish()
        for placed, reason in self._source.index.mark_needs(self._source):
            self.bad[placed.hash, ""] = BadCopy(placed.hash, "", str(reason))

    def _check_tree(
        self, root: str, records: list[SnapshotRecord], meter: Meter
    ) -> tuple[int, int]:
        """Files and bytes of data in a tree, of which all blocks were looked up. Raises Damaged."""
        files = data = size = 0
        for path, entry in with_paths(self._store.tree(root)):
            if isinstance(entry, Blocks):
                length = sum(count for _, count in data_parts(entry, size))
                data += length
                meter.add(length)
                if reason := self._look_up(entry, size):
                    for dataset, ids in by_dataset(records).items():
                        self._note(reason, dataset, *ids, file=path)
            elif not isinstance(entry, (Dir, Up)):
                files += 1
                size = entry.size if isinstance(entry, File) else 0
        return files, data

    def _look_up(self, run: Blocks, size: int) -> str | None:
        """Notes blocks that are missing; returns why the run cannot be right, if it cannot."""
        impossible = None
        places = self._source.index.find_many(run.hashes)
        for number, digest in enumerate(run.hashes, start=run.at):
            name, length = f"block {digest.hex()[:12]}", block_length(number, size)
            if digest not in places:
                missing = f"{name} is missing from the store{self._perhaps()}"
                self.bad[digest, ""] = BadCopy(digest, "", missing)
            elif places[digest][3] != length:
                impossible = f"{name} has {places[digest][3]} bytes instead of {length}"
        self._source.index.mark(run.hashes)
        return impossible

    def _perhaps(self) -> str:
        """Where a missing block may have been."""
        reasons = list(self._source.index.damaged.values())
        return f" ({reasons[0]})" if reasons else ""

    # -- every byte ------------------------------------------------------------------------------

    def read(self, *, all_packs: bool) -> None:
        """Prove the needed blocks, or all, in the order in which they lie, on several threads."""
        packs = list(self._source.index.packs())
        total = sum(stored if all_packs else needed for _, needed, stored in packs)
        meter = Meter("verify", total, self._progress)
        with InOrder(waiting=WAITING) as jobs:
            for path, _, _ in packs:
                blocks = self._all_in(path) if all_packs else self._source.index.marked_in(path)
                rest = iter(blocks)
                while some := list(islice(rest, JOB_BLOCKS)):
                    length = sum(placed.stored for placed in some)
                    then = partial(self._proved, path, length, meter)
                    jobs.submit(partial(self._prove, path, some), then)
        meter.finish()

    def _all_in(self, path: Path) -> list[Placed]:
        """All blocks of a pack, which follow each other without a gap up to its index."""
        cipher = self._store.cipher
        blocks = sorted(read_index(path, path.stem, cipher), key=lambda placed: placed.offset)
        ends = [len(MAGIC), *(placed.offset + placed.stored for placed in blocks)]
        index = path.stat().st_size - TRAILER.size - len(blocks) * ENTRY.size - cipher.overhead
        if ends != [*(placed.offset for placed in blocks), index]:
            self._note(f"pack {path.stem[:12]} has bytes that belong to no block")
        return blocks

    def _prove(self, path: Path, some: list[Placed]) -> list[BadCopy]:
        return [
            BadCopy(placed.hash, path.stem, str(content))
            for placed, content in self._source.read(path, some)
            if isinstance(content, Damaged)
        ]

    def _proved(self, path: Path, length: int, meter: Meter, bad: list[BadCopy]) -> None:
        self.bytes_read += length
        meter.add(length)
        self.bad.update({(copy.hash, path.stem): copy for copy in bad})
