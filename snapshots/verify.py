"""Verify: can a snapshot be restored, and if not, what exactly is damaged?"""

from __future__ import annotations

import os
from dataclasses import dataclass

from snapshots import fs
from snapshots.blocks import BlockSource
from snapshots.errors import Damaged, SnapshotError, naming, shown
from snapshots.inorder import InOrder
from snapshots.progress import Meter, Progress
from snapshots.store import SnapshotRecord, Store
from snapshots.tree import Blocks, Dir, File, Up, block_length, read_tree


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
        check = _Verify(record, source, read_data, Meter("verify", record.bytes, progress))
        try:
            check.run(store)
        except Damaged as damage:
            check.found[b""] = str(damage)
        return [
            Damage(record.dataset, record.id, shown(path) if path else "", reason)
            for path, reason in check.found.items()
        ]


class _Verify:
    def __init__(
        self, record: SnapshotRecord, source: BlockSource, read_data: bool, meter: Meter
    ) -> None:
        self._record, self._source, self._read_data = record, source, read_data
        self._meter = meter
        self.found: dict[bytes, str] = {}  # path -> the first thing that is wrong with it

    def run(self, store: Store) -> None:
        open_dirs: list[bytes] = []
        path, size, files, data = b"", 0, 0, 0
        with InOrder() as jobs:
            for entry in read_tree(store.tree_path(self._record.root), self._record.root):
                if isinstance(entry, Blocks):
                    work = self._check(path, size, entry)
                    jobs.submit(*work)
                    continue
                if isinstance(entry, Dir):
                    open_dirs.append(entry.name)
                elif isinstance(entry, Up):
                    open_dirs.pop()
'''.rstrip() if False else '')
