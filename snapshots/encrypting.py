"""Making an encrypted store of one that is not, and another passphrase for one that is.

A store is encrypted beside itself, under a name of its own; it takes the old one's place in one
step when all of it was read back, and the old one goes last. The ids of snapshots stay the same.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import shutil
from contextlib import closing
from pathlib import Path

from snapshots import fs, storekey
from snapshots.cipher import AesGcm, Cipher
from snapshots.errors import SnapshotError, StoreUnusable, naming
from snapshots.pack import PackReader, PackWriter, read_index
from snapshots.progress import Meter, Progress
from snapshots.repair import ASIDE
from snapshots.store import ENCRYPTED, FORMATS, Store
from snapshots.transfer import copy_tree
from snapshots.verify import verify_all

_EXCHANGE, _HERE = 2, -100  # RENAME_EXCHANGE, AT_FDCWD
BESIDE = ".encrypted"


def encrypt(store: Store, passphrase: str, progress: Progress | None = None) -> None:
    """Encrypt a store that is not, with all that is in it. Needs room for all of it once more.

    Cut off at any point the store is what it was; running it again begins anew. Raises
    StoreUnusable (it is encrypted already), StoreBusy, Damaged (mend it first), NotEnoughSpace.
    """
    if store.encrypted:
        raise StoreUnusable(f"the store {store.path} is encrypted already")
    if any((store.path / ASIDE).glob("*")):
        raise StoreUnusable(
            f"{store.path / ASIDE} holds packs that a repair set aside, which are not encrypted: "
            "move them away, or delete them, first"
        )
    beside = store.path.with_name(store.path.name + BESIDE)
    with naming("encrypt", os.fsencode(store.path)), store.locked(fcntl.LOCK_EX):
        shutil.rmtree(beside, ignore_errors=True)
        try:
            _Encrypting(store, Store.open(beside, passphrase=passphrase), progress).run()
            _insist_on_whole(Store.open(beside, passphrase=passphrase), store)
            _exchange(beside, store.path)
        except BaseException:
            shutil.rmtree(beside, ignore_errors=True)
            raise
        shutil.rmtree(beside)
        fs.sync_folder(beside.parent)


def begin_rekey(store: Store, old: str, new: str) -> None:
    """From now on both passphrases open the store; `end_rekey` leaves only the new one.

    Raises StoreUnusable (it is not encrypted), WrongKey.
    """
    if not store.encrypted:
        raise StoreUnusable(f"the store {store.path} is not encrypted")
    key = storekey.read(store.path, old)
    storekey.write(store.path, key, new, files=storekey.FILES[:1])


def end_rekey(store: Store, new: str) -> None:
    """Only this passphrase opens the store. Raises WrongKey."""
    storekey.write(store.path, storekey.read(store.path, new), new)


class _Encrypting:
    def __init__(self, old: Store, new: Store, progress: Progress | None) -> None:
        self._old, self._new = old, new
        total = sum(path.stat().st_size for path in old.packs.glob("*.pack"))
        self._meter = Meter("encrypt", total, progress)

    def run(self) -> None:
        """In the order in which a capture writes: packs, trees, records."""
        for pack in sorted(self._old.packs.glob("*.pack")):
            self._pack(pack)
        for root in {self._old.read(snapshot_id).root for snapshot_id in self._old.ids()}:
            copy_tree(self._old, self._new, root)
        for snapshot_id in self._old.ids():
            body = self._old.record_path(snapshot_id).read_bytes()
            stored = self._cipher.encrypt(body, snapshot_id.encode())
            fs.write_durably(self._new.record_path(snapshot_id), stored)
        self._meter.finish()

    @property
    def _cipher(self) -> Cipher:
        return self._new.cipher

    def _pack(self, path: Path) -> None:
        writer = PackWriter(self._new.packs, self._cipher)
        try:
            with closing(PackReader()) as reader:
                entries = sorted(read_index(path, path.stem), key=lambda placed: placed.offset)
                for placed in entries:
                    payload = reader.payload(path, placed)
                    writer.append_as_is(placed.hash, placed.raw, placed.codec, payload)
                    self._meter.add(len(payload))
            writer.seal()
        finally:
            writer.discard()


def _insist_on_whole(new: Store, old: Store) -> None:
    assert isinstance(new.cipher, AesGcm)
    if new.ids() != old.ids():
        raise SnapshotError(f"not every snapshot of {old.path} is in {new.path}: nothing changed")
    report = verify_all(new, None, read_data=True)
    if report.damages:
        raise SnapshotError(
            f"{new.path} did not come back from the disk as written ({report.damages[0].reason}): "
            f"{old.path} is what it was"
        )
    assert (new.path / "format").read_bytes() == FORMATS[ENCRYPTED]


def _exchange(one: Path, other: Path) -> None:
    """Two names for each other's folder, in one step."""
    libc = ctypes.CDLL(None, use_errno=True)
    names = os.fsencode(one), os.fsencode(other)
    if libc.renameat2(_HERE, names[0], _HERE, names[1], _EXCHANGE) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), str(one))
    fs.sync_folder(one.parent)
