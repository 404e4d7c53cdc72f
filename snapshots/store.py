"""The store: a folder of packs (blocks), trees (entries of a folder) and snapshot records.

A snapshot exists from the moment its record is there, and the record is written last. The id of a
snapshot is the blake3 of its record: a record that was altered, or put in place of another, is not
the one its id names. docs/store-format.md describes every file.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import secrets
import threading
import time
from collections.abc import Collection, Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from blake3 import blake3

from failpoints import failpoint
from snapshots import fs, private, storekey
from snapshots.blocks import BlockIndex, BlockSink, BlockSource
from snapshots.cipher import PLAIN, AesGcm, Cipher
from snapshots.errors import (
    Damaged,
    SnapshotError,
    StoreBusy,
    StoreUnusable,
    UnknownSnapshot,
    naming,
    shown,
)
from snapshots.pack import is_hash
from snapshots.tree import Blocks, Entry, read_tree

VERSION = 2
ENCRYPTED = 3
FORMATS = {n: b'{"format": "lockstep-store", "version": %d}\n' % n for n in (1, VERSION, ENCRYPTED)}
ID = re.compile(r"[0-9a-f]{32}")
MAX_RECORD = 1 << 20
LOCK_SECONDS = 60.0
_upgrading = threading.Lock()  # among threads, which would use the same temporary name


@dataclass(frozen=True)
class SnapshotRecord:
    """What one snapshot is. `bytes`: of file data, without holes. `skipped`: not captured, why."""

    id: str
    dataset: str
    created: str
    parent: str | None
    bytes: int
    files: int
    tags: dict[str, str]
    skipped: list[str]
    root: str


@dataclass(frozen=True)
class Swept:
    """What a sweep did. `held_back`: reasons why not all was freed that might be."""

    forgotten: list[str]
    bytes_freed: int
    held_back: list[str]


class Store:
    """A folder of snapshots. One object may be used by several threads and over a long time."""

    def __init__(self, path: Path, cipher: Cipher = PLAIN) -> None:
        self.path, self.cipher = path, cipher
        self.packs = path / "packs"
        self.trees = path / "trees"
        self.hints = path / "hints"
        self.snapshots = path / "snapshots"

    @classmethod
    def open(cls, path: Path, *, create: bool = True, passphrase: str | None = None) -> Store:
        """The store at `path`. `create`: make it (0700) if missing, and insist on write access.

        Without `create` a store on a read-only file system can be read. With a `passphrase` it is,
        or becomes, an encrypted one. Raises StoreUnusable, WrongKey, Damaged (its key).
        """
        store = cls(Path(path))
        try:
            if create:
                store._make(passphrase)
            store.check_format()
            private.insist(store.path, "the store")
            store._unlock(passphrase)
        except OSError as error:
            raise StoreUnusable(
                f"the store {path} cannot be used: {error.strerror or error}; "
                "give it a folder that can be written, or another path"
            ) from error
        return store

    def _make(self, passphrase: str | None) -> None:
        private.make_folder(self.path)
        marker = self.path / "format"
        if not marker.exists():
            strange = [name for name in os.listdir(self.path) if not name.startswith(".format.")]
            ours = {"packs", "trees", "hints", "snapshots", "damaged", "lock", "lost+found"}
            ours |= set(storekey.FILES)
            if set(strange) - ours:
                raise StoreUnusable(
                    f"{self.path} holds other files ({', '.join(sorted(strange)[:3])}) and is no "
                    "store; name an empty folder"
                )
        private.insist(self.path, "the store")
        for folder in (self.packs, self.trees, self.hints, self.snapshots):
            folder.mkdir(mode=0o700, exist_ok=True)
        os.close(os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        if not marker.exists():
            if passphrase is not None:
                storekey.make(self.path, passphrase)
            fs.write_durably(marker, FORMATS[VERSION if passphrase is None else ENCRYPTED])
        probe = self.path / f".write-{os.getpid()}.tmp"
        os.close(os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
        probe.unlink()

    @property
    def encrypted(self) -> bool:
        """Whether the store is an encrypted one. Raises OSError."""
        return (self.path / "format").read_bytes() == FORMATS[ENCRYPTED]

    def _unlock(self, passphrase: str | None) -> None:
        if self.encrypted:
            if passphrase is None:
                raise storekey.WrongKey(
                    f"the store {self.path} is encrypted, and no passphrase was given: "
                    "lockstep config set --secret encryption   takes it"
                )
            self.cipher = AesGcm(storekey.read(self.path, passphrase))
        elif passphrase is not None:
            raise StoreUnusable(
                f"the store {self.path} is not encrypted, although the config says `encryption`: "
                "lockstep encrypt   encrypts what is in it"
            )

    def check_format(self) -> None:
        """Raises StoreUnusable unless this version can read the store."""
        try:
            found = (self.path / "format").read_bytes()[:200]
        except FileNotFoundError as error:
            raise StoreUnusable(f"there is no store at {self.path}") from error
        if found not in FORMATS.values():
            raise StoreUnusable(
                f"the store {self.path} has a format that this version cannot read "
                f"({shown(found.strip())}; it reads versions 1 to {ENCRYPTED}): use the version of "
                "Lockstep that wrote it, or a newer one"
            )

    def upgrade(self) -> None:
        """Before something is written that version 1 does not have: say that it may be there."""
        marker = self.path / "format"
        with _upgrading:
            if marker.read_bytes() == FORMATS[1]:
                fs.write_durably(marker, FORMATS[VERSION])

    # -- records ---------------------------------------------------------------------------------

    def ids(self) -> list[str]:
        """The ids of all snapshots, readable or not, in no meaningful order."""
        names = (path.name for path in self.snapshots.glob("*.json"))
        return sorted(name[:-5] for name in names if ID.fullmatch(name[:-5]))

    def read(self, snapshot_id: str) -> SnapshotRecord:
        """The record of a snapshot. Raises UnknownSnapshot, Damaged."""
        path = self.record_path(snapshot_id)
        try:
            with open(path, "rb") as file:
                body = file.read(MAX_RECORD + self.cipher.overhead + 1)
        except FileNotFoundError as error:
            raise UnknownSnapshot(f"the store {self.path} has no snapshot {snapshot_id}") from error
        except OSError as error:
            raise Damaged(
                f"the record of snapshot {snapshot_id} cannot be read: {error}"
            ) from error
        if not is_record(body, snapshot_id, self.cipher):
            raise Damaged(f"the record of snapshot {snapshot_id} was altered")
        body = bytes(self.cipher.decrypt(body, snapshot_id.encode()))
        try:
            return _record_from(snapshot_id, json.loads(body))
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            raise Damaged(f"the record of snapshot {snapshot_id} is not valid: {error}") from error

    def add(self, **fields: Any) -> SnapshotRecord:
        """Write a record, durably, after everything that it names is. For `capture`."""
        body = json.dumps(
            {"record": 1, "nonce": secrets.token_hex(8), **fields},
            sort_keys=True,
            separators=(",", ":"),
        ).encode()
        if len(body) > MAX_RECORD:
            raise SnapshotError("a snapshot's tags are too long: use fewer or shorter ones")
        snapshot_id = _id_of(body)
        record = _record_from(snapshot_id, json.loads(body))
        stored = self.cipher.encrypt(body, snapshot_id.encode())
        fs.write_durably(self.record_path(snapshot_id), stored)
        return self.read(record.id)

    def forget(self, snapshot_id: str) -> None:
        """Remove a snapshot; `sweep` frees its space. Raises UnknownSnapshot."""
        path = self.record_path(snapshot_id)
        failpoint("store.forget")
        with naming("remove", os.fsencode(path)):
            try:
                path.unlink()
            except FileNotFoundError as error:
                raise UnknownSnapshot(
                    f"the store {self.path} has no snapshot {snapshot_id}"
                ) from error
            fs.sync_folder(self.snapshots)

    def record_path(self, snapshot_id: str) -> Path:
        """Where a record lies. Raises UnknownSnapshot for what is no id."""
        if not ID.fullmatch(snapshot_id):
            raise UnknownSnapshot(f"{snapshot_id[:40]!r} is not the id of a snapshot")
        return self.snapshots / f"{snapshot_id}.json"

    def tree_path(self, root: str) -> Path:
        return self.trees / f"{self.cipher.name(root)}.zst"

    def tree(self, root: str) -> Iterator[Entry]:
        """All entries of a tree. Raises Damaged."""
        return read_tree(self.tree_path(root), root, self.cipher)

    def index(self, *, load: bool = True) -> BlockIndex:
        """Which block lies where, as of now; to be closed. `load`: as for BlockIndex."""
        return BlockIndex(self.packs, self.cipher, load=load)

    # -- blocks ----------------------------------------------------------------------------------

    @contextmanager
    def reading(self) -> Iterator[BlockSource]:
        """Blocks for as long as the `with` lasts: nothing is swept meanwhile."""
        with self.locked(fcntl.LOCK_SH), self.index() as index:
            source = BlockSource(index)
            try:
                yield source
            finally:
                source.close()

    @contextmanager
    def locked(self, how: int) -> Iterator[None]:
        """The store's lock, shared or exclusive; a holder's death frees it. Raises StoreBusy."""
        with open(self.path / "lock", "rb") as file:
            deadline = time.monotonic() + LOCK_SECONDS
            while True:
                try:
                    fcntl.flock(file, how | fcntl.LOCK_NB)
                    break
                except BlockingIOError as error:
                    if time.monotonic() > deadline:
                        raise StoreBusy(
                            f"the store {self.path} is in use by another process; "
                            "run it again when that has finished"
                        ) from error
                    time.sleep(0.05)
            if os.fstat(file.fileno()).st_ino != (self.path / "lock").stat().st_ino:
                raise StoreBusy(f"the store {self.path} was encrypted meanwhile: run it again")
            yield

    # -- space -----------------------------------------------------------------------------------

    def size(self) -> int:
        """Bytes that the store takes on disk."""
        with fs.opened_root(self.path) as fd:
            return fs.measure_fd(fd, set()).bytes

    def free(self) -> int:
        """Bytes that can still be written where the store lies."""
        state = os.statvfs(self.path)
        return state.f_bavail * state.f_frsize

    def sweep(self, keep: Collection[str] | None = None) -> Swept:
        """Forget every snapshot not in `keep` (None: none), then free what none that remains needs.

        Records go first and packs last, and a pack goes only after what it still held was written
        anew: killed at any point, the store has too much in it, never too little. An unreadable
        record or tree might need anything, so then nothing is freed. Raises StoreBusy.
        """
        with naming("sweep", os.fsencode(self.path)), self.locked(fcntl.LOCK_EX):
            before = self.size()
            forgotten, roots, held_back = self._forget_all_but(keep)
            if not held_back:
                with self.index() as index:
                    held_back = self._mark(index, roots)
                    failpoint("store.marked")
                    if not held_back:
                        self._remove_unused_files(roots)
                        failpoint("store.unused-removed")
                        held_back = self._shrink_packs(index)
            return Swept(forgotten, max(0, before - self.size()), held_back)

    def _forget_all_but(
        self, keep: Collection[str] | None
    ) -> tuple[list[str], set[str], list[str]]:
        forgotten, roots, held_back = [], set(), []
        for snapshot_id in self.ids():
            try:
                record = self.read(snapshot_id)
            except Damaged as damage:
                held_back.append(str(damage))
                continue
            if keep is None or snapshot_id in keep:
                roots.add(record.root)
            else:
                self.record_path(snapshot_id).unlink()
                failpoint("store.forgotten")
                forgotten.append(snapshot_id)
        fs.sync_folder(self.snapshots)
        return forgotten, roots, held_back

    def _mark(self, index: BlockIndex, roots: set[str]) -> list[str]:
        held_back = []
        for root in roots:
            try:
                for entry in self.tree(root):
                    if isinstance(entry, Blocks):
                        index.mark(entry.hashes)
            except Damaged as damage:
                held_back.append(str(damage))
        with closing(BlockSource(index)) as source:
            held_back += [str(damage) for _, damage in index.mark_needs(source)]
        return held_back

    def _remove_unused_files(self, roots: set[str]) -> None:
        ids = set(self.ids())
        needed = {self.tree_path(root) for root in roots}
        for tree in self.trees.iterdir():
            if tree not in needed:
                tree.unlink()
        for hint in self.hints.iterdir():
            if hint.name.removesuffix(".hints") not in ids:
                hint.unlink()
        for draft in self._drafts():
            draft.unlink()

    def _drafts(self) -> list[Path]:
        folders = (self.path, self.packs, self.trees, self.hints, self.snapshots)
        return [draft for folder in folders for draft in folder.glob(".*.tmp")]

    def clear_drafts(self) -> None:
        """Remove what killed processes had begun to write, unless somebody uses the store now."""
        if not self._drafts():
            return
        with open(self.path / "lock", "rb") as file, suppress(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            for draft in self._drafts():
                draft.unlink()

    def _shrink_packs(self, index: BlockIndex) -> list[str]:
        """Drop packs without needed blocks; write packs anew of which less than half is needed.

        Dropping needs no room, so it comes first. Returns why others could not be written anew.
        """
        packs = list(index.packs())
        for path, needed, _ in packs:
            if not needed:
                path.unlink()
        fs.sync_folder(self.packs)
        try:
            self._repack(index, [path for path, needed, all_ in packs if 0 < needed * 2 < all_])
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            return [f"there is no room in {self.path} to write packs anew, only a part of which is "
                    "needed; run it again when there is"]  # fmt: skip
        return []

    def _repack(self, index: BlockIndex, packs: Iterable[Path]) -> None:
        emptied: list[Path] = []
        with self.index(load=False) as fresh:
            sink, source = BlockSink(fresh), BlockSource(index)
            try:
                for path in packs:
                    try:
                        for placed in index.marked_in(path):
                            payload = source.payload(path, placed)
                            sink.put_as_is(placed.hash, placed.raw, placed.codec, payload)
                    except Damaged:
                        continue  # what cannot be read cannot be moved: the pack stays as it is
                    emptied.append(path)
                sink.seal()
            finally:
                sink.discard()
                source.close()
        failpoint("store.repacked")
        for path in emptied:
            if path.stem not in sink.sealed:  # the same blocks, packed alike, have the same name
                path.unlink()
        fs.sync_folder(self.packs)

    def damaged_packs(self) -> list[str]:
        """Why packs of this store cannot be used at all; [] if all can."""
        with self.index() as index:
            return list(index.damaged.values())


def is_record(stored: bytes, snapshot_id: str, cipher: Cipher) -> bool:
    """Whether what lies in a record's file is the record that this id names."""
    try:
        return _id_of(bytes(cipher.decrypt(stored, snapshot_id.encode()))) == snapshot_id
    except Damaged:
        return False


def _id_of(body: bytes) -> str:
    return str(blake3(body).hexdigest())[:32]


def _record_from(snapshot_id: str, value: Any) -> SnapshotRecord:
    """A record from parsed JSON, every field checked. Raises KeyError, TypeError, ValueError."""
    if value["record"] != 1:
        raise ValueError(f"version {value['record']!r} is not known")
    record = SnapshotRecord(
        id=snapshot_id,
        dataset=value["dataset"],
        created=value["created"],
        parent=value["parent"],
        bytes=value["bytes"],
        files=value["files"],
        tags=value["tags"],
        skipped=value["skipped"],
        root=value["root"],
    )
    if not isinstance(record.tags, dict) or not isinstance(record.skipped, list):
        raise TypeError("a field has the wrong type")
    texts = [record.dataset, record.created, *record.tags, *record.tags.values(), *record.skipped]
    if not all(isinstance(text, str) for text in (*texts, record.root)):
        raise TypeError("a field that should be text is not")
    if not all(type(n) is int and n >= 0 for n in (record.bytes, record.files)):
        raise ValueError("a count is not one")
    if not is_hash(record.root):
        raise ValueError("its root is no hash")
    if record.parent is not None and not ID.fullmatch(record.parent):
        raise ValueError("its parent is no id")
    return record
