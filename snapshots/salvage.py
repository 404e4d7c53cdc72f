"""Where content that a store lost may still be: in what is left of a pack, and in folders.

Whatever is found counts only if it has the hash of the block that is looked for, so a source may
be damaged, hostile, or something else altogether.
"""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from blake3 import blake3

from snapshots import fs
from snapshots.cipher import Cipher
from snapshots.pack import ENTRY, MAX_BLOCKS, TRAILER, Placed
from snapshots.store import SnapshotRecord, Store, is_record
from snapshots.tree import BLOCK, Blocks, File, block_length, with_paths

Folders = Mapping[str, Sequence[Path]]  # dataset -> where its content may still lie


def entries_left(path: Path, cipher: Cipher) -> list[Placed]:
    """Entries of a damaged index that may be right: where its trailer says, or the file's length.

    One altered field of the trailer leaves the other, by which the index is found all the same.
    """
    try:
        with open(path, "rb") as file:
            end = file.seek(0, os.SEEK_END) - TRAILER.size
            file.seek(max(0, end))
            count, offset, _, _ = TRAILER.unpack(file.read(TRAILER.size))
            by_count = end - count * ENTRY.size - cipher.overhead
            found: dict[tuple[bytes, int], Placed] = {}
            for start in {offset, by_count}:
                if not 0 <= start < end or end - start > MAX_BLOCKS * ENTRY.size:
                    continue
                file.seek(start)
                index = cipher.guess(file.read(end - start))
                index = index[: len(index) // ENTRY.size * ENTRY.size]
                for placed in (Placed(*entry) for entry in ENTRY.iter_unpack(index)):
                    length = placed.stored - cipher.overhead
                    if 0 < length <= placed.raw <= BLOCK and placed.offset < end:
                        found[placed.hash, placed.offset] = placed
            return list(found.values())
    except (OSError, struct.error):
        return []


def from_folders(
    store: Store, roots: Mapping[str, Sequence[SnapshotRecord]], wanted: set[bytes], at: Folders
) -> Iterator[tuple[bytes, bytes]]:
    """Hash and content of wanted blocks that folders of their datasets have.

    Looked for first where the trees `roots` say that they were, then in all files.
    """
    left = set(wanted)
    for root, records in roots.items():
        folders = _folders(records, at)
        size = 0
        for path, entry in with_paths(store.tree(root)):
            if isinstance(entry, File):
                size = entry.size
            elif isinstance(entry, Blocks) and not left.isdisjoint(entry.hashes):
                for number, digest in enumerate(entry.hashes, start=entry.at):
                    if digest in left:
                        data = _first_match(folders, path, number, size, digest)
                        if data is not None:
                            left.remove(digest)
                            yield digest, data
    users = [record for records in roots.values() for record in records]
    for folder in _folders(users, at) if left else ():
        with suppress(OSError), fs.opened_root(folder) as fd:
            for data in _all_blocks(fd):
                digest = blake3(data).digest()
                if digest in left:
                    left.remove(digest)
                    yield digest, data


def _folders(records: Iterable[SnapshotRecord], at: Folders) -> list[Path]:
    datasets = dict.fromkeys(record.dataset for record in records)
    return list(dict.fromkeys(folder for name in datasets for folder in at.get(name, ())))


def _first_match(
    folders: Sequence[Path], path: bytes, number: int, size: int, digest: bytes
) -> bytes | None:
    for folder in folders:
        with suppress(OSError):
            data = _read_at(folder, path, number * BLOCK, block_length(number, size))
            if blake3(data).digest() == digest:
                return data
    return None


def _read_at(folder: Path, path: bytes, offset: int, length: int) -> bytes:
    """Bytes of a file below a folder, following no link on the way."""
    *steps, name = path.split(b"/")
    with fs.opened_root(folder) as root:
        fds = [os.dup(root)]
        try:
            for step in steps:
                fds.append(os.open(step, fs.DIRECTORY, dir_fd=fds[-1]))
            with fs.opened(fds[-1], name, fs.READ) as fd:
                return os.pread(fd, length, offset) if stat.S_ISREG(os.fstat(fd).st_mode) else b""
        finally:
            for fd in fds:
                os.close(fd)


def _all_blocks(dir_fd: int) -> Iterator[bytes]:
    """Every block that holds data in every file of a folder."""
    for name in fs.names_in(dir_fd):
        with suppress(OSError):
            st = fs.lstat(dir_fd, name)
            if stat.S_ISDIR(st.st_mode):
                with fs.opened(dir_fd, name, fs.DIRECTORY) as inner:
                    yield from _all_blocks(inner)
            elif stat.S_ISREG(st.st_mode):
                with fs.opened(dir_fd, name, fs.READ) as fd:
                    end = 0
                    for offset, length in fs.segments(fd, st.st_size):
                        first = max(end, offset // BLOCK)
                        end = -(-(offset + length) // BLOCK)
                        for number in range(first, end):
                            yield os.pread(fd, BLOCK, number * BLOCK)


def record_with_one_bit_back(body: bytes, names: str, cipher: Cipher) -> bytes | None:
    """The record of this id, if `body` is it but for one bit."""
    changed = bytearray(body)
    for bit in range(8 * len(body)):
        changed[bit // 8] ^= 1 << bit % 8
        if is_record(bytes(changed), names, cipher):
            return bytes(changed)
        changed[bit // 8] ^= 1 << bit % 8
    return None
