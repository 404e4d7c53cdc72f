"""What a verification says: damage, and each dataset, snapshot and file that it touches."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from snapshots.errors import shown
from snapshots.store import SnapshotRecord, Store
from snapshots.tree import Blocks, with_paths


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


@dataclass(frozen=True)
class Finding:
    """What one cause does to one dataset ("" where none of the snapshots checked needs it).

    `snapshots` (ids) and `files` (paths, printable): all that it touches; without files it is the
    whole of these snapshots. `blocks`: how many it concerns, 0 if it is not about blocks.
    `elsewhere`: another pack has all of them whole, so that a repair needs nothing else.
    """

    dataset: str
    snapshots: tuple[str, ...]
    files: tuple[str, ...]
    reason: str
    blocks: int = 0
    elsewhere: bool = False

    def __str__(self) -> str:
        where = [self.dataset, *(snapshot[:12] for snapshot in self.snapshots), *self.files[:3]]
        if len(self.files) > 3:
            where.append(f"and {len(self.files) - 3} more files")
        more = f", and so for {self.blocks - 1} more blocks" if self.blocks > 1 else ""
        saved = "; another pack has the content" if self.elsewhere else ""
        return f"{' '.join(filter(None, where)) or 'store'}: {self.reason}{more}{saved}"


@dataclass(frozen=True)
class Report:
    """What a verification found. `snapshots`: ids checked; `bytes_read`: of blocks, as stored."""

    damages: list[Finding]
    snapshots: list[str]
    bytes_read: int
    seconds: float


@dataclass(frozen=True)
class BadCopy:
    """A block that cannot be had from the pack of that name ("": from none), and why."""

    hash: bytes
    pack: str
    reason: str


@dataclass
class Users:
    """Who needs a block in one dataset."""

    snapshots: set[str]
    files: set[str]


def explained(
    store: Store,
    roots: Mapping[str, Collection[SnapshotRecord]],
    bad: Collection[BadCopy],
    whole: Collection[bytes],
) -> list[Finding]:
    """Whom these blocks touch; those with one pack and the same users make one Finding.

    `roots`: trees, with the snapshots that have them. `whole`: blocks that can be had elsewhere.
    """
    users = users_of(store, roots, {copy.hash for copy in bad})
    nobody = {"": Users(set(), set())}
    alike: dict[tuple[object, ...], list[Finding]] = {}
    for copy in bad:
        for dataset, needed in users.get(copy.hash, nobody).items():
            finding = Finding(
                dataset,
                tuple(sorted(needed.snapshots)),
                tuple(sorted(needed.files)),
                copy.reason,
                elsewhere=copy.hash in whole,
            )
            key = (copy.pack, dataset, finding.snapshots, finding.files, finding.elsewhere)
            alike.setdefault(key, []).append(finding)
    return [_together(findings) for findings in alike.values()]


def _together(findings: list[Finding]) -> Finding:
    one = findings[0]
    return Finding(one.dataset, one.snapshots, one.files, one.reason, len(findings), one.elsewhere)


def users_of(
    store: Store, roots: Mapping[str, Collection[SnapshotRecord]], bad: set[bytes]
) -> dict[bytes, dict[str, Users]]:
    """Block -> dataset -> who needs it there."""
    users: dict[bytes, dict[str, Users]] = {}
    for root, records in roots.items():
        snapshots = by_dataset(records)
        for path, entry in with_paths(store.tree(root)):
            if not isinstance(entry, Blocks):
                continue
            for digest in bad.intersection(entry.hashes):
                for dataset, ids in snapshots.items():
                    needed = users.setdefault(digest, {}).setdefault(dataset, Users(set(), set()))
                    needed.snapshots.update(ids)
                    needed.files.add(shown(path))
    return users


def by_dataset(records: Iterable[SnapshotRecord]) -> dict[str, tuple[str, ...]]:
    """The ids of snapshots by their datasets."""
    found: dict[str, tuple[str, ...]] = {}
    for record in records:
        found[record.dataset] = (*found.get(record.dataset, ()), record.id)
    return found
