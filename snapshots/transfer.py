"""Some snapshots as the files of a small store of their own, and such a store taken into another.

Ids stay the same. What comes out of an encrypted store is encrypted by the same key, which its
passphrase opens; what goes into one is encrypted by that one's.
"""

from __future__ import annotations

import fcntl
import os
import re
import secrets
from collections.abc import Collection, Iterator
from contextlib import closing
from pathlib import Path

from failpoints import failpoint
from snapshots import fs, storekey
from snapshots.blocks import BlockSink, BlockSource
from snapshots.errors import naming
from snapshots.pack import SUFFIX, PackReader, PackWriter, read_index
from snapshots.progress import Meter, Progress
from snapshots.store import Store
from snapshots.tree import Blocks
from snapshots.treefile import HASH, TreeLines, hash_of_frame

FILE = re.compile(
    r"format|key|key\.copy|packs/[0-9a-f]{64}\.pack|trees/[0-9a-f]{64}\.zst|"
    r"snapshots/[0-9a-f]{32}\.json"
)
"""The names that `files` gives, and no others."""


def files(
    store: Store, ids: Collection[str], folder: Path, progress: Progress | None = None
) -> Iterator[tuple[str, Path]]:
    """Name and path of each file of a store that holds these snapshots alone.

    Packs are made one after the other in `folder`, and each is gone when the next is asked for.
    Content is taken as it is stored: verify it before. Raises Damaged, UnknownSnapshot, StoreBusy.
    """
    with naming("read", os.fsencode(store.path)), store.reading() as source:
        index = source.index
        roots = {store.read(snapshot).root for snapshot in ids}
        for root in roots:
            for entry in store.tree(root):
                if isinstance(entry, Blocks):
                    index.mark(entry.hashes)
        for _, damage in index.mark_needs(source):
            raise damage
        yield "format", store.path / "format"
        for name in storekey.FILES if store.encrypted else ():
            yield name, store.path / name
        total = sum(needed for _, needed, _ in index.packs())
        for pack in _packs(store, source, folder, Meter("export", total, progress)):
            yield f"packs/{pack.name}", pack
            pack.unlink()
        for root in sorted(roots):
            path = store.tree_path(root)
            yield f"trees/{path.name}", path
        for snapshot in sorted(ids):
            path = store.record_path(snapshot)
            yield f"snapshots/{path.name}", path


def _packs(store: Store, source: BlockSource, folder: Path, meter: Meter) -> Iterator[Path]:
    """The marked blocks in packs of their own."""
    writer: PackWriter | None = None
    try:
        for path, needed, _ in source.index.packs():
            for placed in source.index.marked_in(path) if needed else ():
                payload = source.payload(path, placed)
                writer = writer or PackWriter(folder, store.cipher)
                writer.append_as_is(placed.hash, placed.raw, placed.codec, payload)
                meter.add(len(payload))
                if writer.full:
                    full, writer = writer, None
                    yield _sealed(full, folder)
        if writer is not None:
            full, writer = writer, None
            yield _sealed(full, folder)
        meter.finish()
    finally:
        if writer is not None:
            writer.discard()


def _sealed(writer: PackWriter, folder: Path) -> Path:
    return folder / f"{writer.seal()}{SUFFIX}"


def absorb(store: Store, other: Store, progress: Progress | None = None) -> list[str]:
    """Take every snapshot of `other`, which was verified, into `store`; their ids.

    In the order of a capture: packs, trees, records. Cut off, it has left content that no snapshot
    needs, and the next sweep frees it. Raises Damaged, StoreBusy, NotEnoughSpace.
    """
    packs = sorted(other.packs.glob(f"*{SUFFIX}"))
    meter = Meter("import", sum(path.stat().st_size for path in packs), progress)
    with naming("import", os.fsencode(store.path)), store.locked(fcntl.LOCK_SH):
        store.upgrade()
        with store.index() as index:
            sink = BlockSink(index)
            try:
                for path in packs:
                    _absorb_pack(other, path, sink, meter)
                sink.seal()
            finally:
                sink.discard()
        failpoint("store.absorbed")
        ids = other.ids()
        for root in {other.read(snapshot).root for snapshot in ids}:
            copy_tree(other, store, root)
        for snapshot in ids:
            stored = other.record_path(snapshot).read_bytes()
            body = bytes(other.cipher.decrypt(stored, snapshot.encode()))
            again = store.cipher.encrypt(body, snapshot.encode())
            fs.write_durably(store.record_path(snapshot), again)
        meter.finish()
    return ids


def _absorb_pack(other: Store, path: Path, sink: BlockSink, meter: Meter) -> None:
    with closing(PackReader(cipher=other.cipher)) as reader:
        entries = read_index(path, path.stem, other.cipher)
        for placed in sorted(entries, key=lambda placed: placed.offset):
            payload = reader.payload(path, placed)
            sink.put_as_is(placed.hash, placed.raw, placed.codec, payload)
            meter.add(len(payload))


def copy_tree(old: Store, new: Store, root: str) -> None:
    """A tree's frame as it is, in pieces, from one store into another, durably."""
    source, target = old.tree_path(root), new.tree_path(root)
    TreeLines(source, root, old.cipher).finish()
    draft = target.with_name(f".{os.getpid()}-{secrets.token_hex(6)}.tmp")
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL
    try:
        with (
            old.cipher.reader(source, HASH) as frame,
            open(os.open(draft, flags, 0o600), "wb") as file,
        ):
            file.write(bytes(HASH))
            out = new.cipher.writer(file)
            while data := frame.read(1 << 20):
                out.write(data)
            out.finish()
            file.flush()
            fs.write_all(file.fileno(), hash_of_frame(draft), 0)
            os.fsync(file.fileno())
        draft.replace(target)
    finally:
        draft.unlink(missing_ok=True)
    fs.sync_folder(target.parent)
