"""Verify: can a snapshot be restored, and if not, what exactly is damaged?"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from snapshots.blocks import BlockSource
from snapshots.errors import Damaged, naming, shown
from snapshots.inorder import InOrder
from snapshots.progress import Meter, Progress
from snapshots.store import SnapshotRecord, Store
from snapshots.tree import Blocks, File, data_parts, read_tree, with_paths


@dataclass(frozen=True)
class Damage:
    """One thing that is wrong. `dataset` and `file` are empty where nothing so fine is known."""

    dataset: str
    snapshot: str
    file: str
    reason: str

    def __str__(self) -> str:
        where = " ".join(part for part in (self.dataset, self.snapshot[:12], self.file) if part)
        return f"{where}: {self.reason}"


def verify(
    store: Store, snapshot_id: str, *, read_data: bool, progress: Progress | None = None
) -> list[Damage]:
    """What is wrong with a snapshot; [] if it can be restored.

    Always: its record, its whole tree, the indexes of all packs, and that every block it needs is
    there. `read_data`: also every byte. At most one Damage for each file. Raises UnknownSnapshot.
    """
    try:
        record = store.read(snapshot_id)
    except Damaged as damage:
        return [Damage("", snapshot_id, "", str(damage))]
    with naming("verify", os.fsencode(store.path)), store.reading() as source:
        found = _check_all(store, record, source, read_data, progress)
    return [Damage(record.dataset, record.id, file, reason) for file, reason in found.items()]


def _check_all(
    store: Store,
    record: SnapshotRecord,
    source: BlockSource,
    read_data: bool,
    progress: Progress | None,
) -> dict[str, str]:
    """File -> the first thing that is wrong with it; under "" what is wrong with the whole."""
    found: dict[str, str] = {}
    meter = Meter("verify", record.bytes, progress)
    check = source.read_all if read_data else source.find_all
    size = data = 0

    def note(path: bytes, length: int, reason: str | None) -> None:
        meter.add(length)
        if reason:
            found.setdefault(shown(path), reason)

    try:
        with InOrder() as jobs:
            for path, entry in with_paths(read_tree(store.tree_path(record.root), record.root)):
                if isinstance(entry, File):
                    size = entry.size
                elif isinstance(entry, Blocks):
                    length = sum(count for _, count in data_parts(entry, size))
                    data += length
                    jobs.submit(partial(_reason, check, entry, size), partial(note, path, length))
        if data != record.bytes:
            found[""] = "its record and its tree do not agree"
    except Damaged as damage:
        found[""] = str(damage)
    meter.finish()
    return found


def _reason(check: Callable[[Blocks, int], None], run: Blocks, size: int) -> str | None:
    try:
        check(run, size)
    except Damaged as damage:
        return str(damage)
    return None
