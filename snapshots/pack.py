"""Packs: files of compressed blocks, each with its own checksummed index at its end.

    magic | payloads | index entries, sorted by hash | trailer: count, index offset, hash, magic

The name of a pack is the blake3 of its index, which holds the hash of every block in it: a pack
proves itself. It gets its name only after it is durable and every block was read back.
"""

from __future__ import annotations

import os
import secrets
import struct
import zlib
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import zstandard
from blake3 import blake3

from failpoints import failpoint
from snapshots import fs
from snapshots.cipher import PLAIN, Cipher
from snapshots.errors import Damaged
from snapshots.groups import Groups
from snapshots.tree import BLOCK, HASH

MAGIC = b"LSPACK01"
ENTRY = struct.Struct("<32sQIIIB3x")  # the fields of Placed
TRAILER = struct.Struct("<QQ32s8s")
SUFFIX = ".pack"
RAW, ZSTD, MEMBER = 0, 1, 2
INDEX = b"index"  # the place for which it is encrypted; that of a payload is the block's hash
LEVEL = 1

PACK_BYTES = 64 << 20  # a pack is closed when its payloads or its entries reach this
PACK_BLOCKS = 16384
GAP, TOGETHER = 32 << 10, 1 << 20  # bytes read along between neighbours; read at once
BEGIN = 4 << 20  # bytes that the system is asked to write meanwhile: the sync has less to do
MAX_BLOCKS = 1 << 20  # no pack with more is believed

Find = Callable[[Collection[bytes]], "Mapping[bytes, tuple[Path, Placed]]"]


@dataclass(frozen=True, slots=True)
class Placed:
    """Where a block lies inside its pack: `stored` bytes at `offset`, `raw` when decoded.

    `crc` is of the stored bytes: some bits of a zstd frame can change without changing what it
    decodes to, and they are to be noticed as well.
    """

    hash: bytes
    offset: int
    stored: int
    raw: int
    crc: int
    codec: int


class PackWriter:
    """Writes one pack under a temporary name. Not shared between threads."""

    def __init__(self, folder: Path, cipher: Cipher) -> None:
        self._folder, self._cipher = folder, cipher
        self._path = folder / f".{os.getpid()}-{secrets.token_hex(6)}.tmp"
        fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        self._file = open(fd, "wb", buffering=1 << 20)  # noqa: SIM115
        self._hash = blake3()  # of all that was written
        self._offset = self._begun = 0  # up to where the system was asked to write
        self._write(MAGIC)
        self._entries: list[bytes] = []
        self._compressor = zstandard.ZstdCompressor(level=LEVEL, write_content_size=True)

    @property
    def full(self) -> bool:
        return self._offset >= PACK_BYTES or len(self._entries) >= PACK_BLOCKS

    def append(self, digest: bytes, data: bytes | memoryview) -> None:
        payload, codec = self._compressor.compress(data), ZSTD
        if len(payload) >= len(data):
            payload, codec = bytes(data), RAW
        self.append_as_is(digest, len(data), codec, payload)

    def append_as_is(self, digest: bytes, raw: int, codec: int, payload: bytes) -> None:
        """A block of `raw` bytes whose payload is made already."""
        at = self._offset
        payload = self._cipher.encrypt(payload, digest)
        self._entries.append(ENTRY.pack(digest, at, len(payload), raw, crc_of(payload), codec))
        self._write(payload)

    def _write(self, data: bytes) -> None:
        self._file.write(data)
        self._hash.update(data)
        self._offset += len(data)
        if self._offset >= self._begun + BEGIN:
            fs.begin_writing(self._file.fileno(), self._begun, self._offset - self._begun)
            self._begun = self._offset

    def seal(self) -> str | None:
        """Durable, read back from the device, and named. None if nothing was written."""
        if not self._entries:
            self.discard()
            return None
        count, end = len(self._entries), self._offset
        index = self._cipher.encrypt(b"".join(sorted(self._entries)), INDEX)
        digest = blake3(index).digest()
        self._write(index)
        self._write(TRAILER.pack(count, end, digest, MAGIC))
        self._file.flush()
        fd = self._file.fileno()
        failpoint("store.pack-fsync")
        os.fsync(fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)  # so that reading back means the device
        if _hash_of(fd) != self._hash.digest():
            raise Damaged(f"pack {digest.hex()[:12]} did not come back from the disk as written")
        self._file.close()
        failpoint("store.pack-rename")
        os.replace(self._path, self._folder / (digest.hex() + SUFFIX))
        failpoint("store.pack-renamed")
        fs.sync_folder(self._folder)
        return digest.hex()

    def discard(self) -> None:
        """Throw away a pack that is not wanted; harmless after `seal`."""
        with suppress(OSError):  # a full disk must not hide the first error
            self._file.close()
        self._path.unlink(missing_ok=True)


def _hash_of(fd: int) -> bytes:
    digest, at = blake3(), 0
    while data := os.pread(fd, 1 << 20, at):
        digest.update(data)
        at += len(data)
    return digest.digest()


def read_index(path: Path, name: str, cipher: Cipher = PLAIN) -> Iterator[Placed]:
    """The entries of the pack `path` that is, or shall be, called `name`. Raises Damaged."""
    return (Placed(*entry) for entry in ENTRY.iter_unpack(index_of(path, name, cipher)))


def index_of(path: Path, name: str, cipher: Cipher = PLAIN) -> bytes:
    """The index itself, all of it checked. Raises Damaged."""
    try:
        with open(path, "rb") as file:
            head = file.read(len(MAGIC))
            end = file.seek(0, os.SEEK_END)
            if end < len(MAGIC) + TRAILER.size:
                raise Damaged(f"pack {name[:12]} is cut off")
            file.seek(end - TRAILER.size)
            count, offset, digest, magic = TRAILER.unpack(file.read(TRAILER.size))
            if not head == magic == MAGIC or count > MAX_BLOCKS:
                raise Damaged(f"pack {name[:12]} is cut off or of an unknown format")
            length = count * ENTRY.size + cipher.overhead
            if offset + length + TRAILER.size != end:
                raise Damaged(f"pack {name[:12]} has not the length that it says")
            file.seek(offset)
            stored_index = file.read(length)
    except OSError as error:
        raise Damaged(f"pack {name[:12]} cannot be read: {error}") from error
    if blake3(stored_index).digest() != digest or digest.hex() != name:
        raise Damaged(f"the index of pack {name[:12]} was altered")
    try:
        index = bytes(cipher.decrypt(stored_index, INDEX))
    except Damaged as damage:
        raise Damaged(f"the index of pack {name[:12]}: {damage}") from None
    for _, at, stored, raw, _, _ in ENTRY.iter_unpack(index):
        if at + stored > offset or not 0 < stored - cipher.overhead <= raw <= BLOCK:
            raise Damaged(f"the index of pack {name[:12]} is impossible")
    return index


class PackReader:
    """Reads blocks and checks each against its hash. Not shared between threads.

    `payloads_too`: also against the checksum of what is stored; a restore, which wants nothing but
    the content, does without. `groups`: decodes what is stored in groups; without it, where the
    rest of a group lies is found out from the packs beside.
    """

    OPEN = 64  # descriptors of packs kept

    def __init__(
        self,
        *,
        payloads_too: bool = True,
        groups: Groups | None = None,
        cipher: Cipher = PLAIN,
    ) -> None:
        self._payloads_too, self._groups, self._cipher = payloads_too, groups, cipher
        self._fds: OrderedDict[Path, int] = OrderedDict()
        self._decompressor = zstandard.ZstdDecompressor()

    def block(self, path: Path, placed: Placed) -> bytes | memoryview:
        """The content of one block. Raises Damaged."""
        try:
            payload = os.pread(self._fd(path), placed.stored, placed.offset)
        except OSError as error:
            raise Damaged(f"{_named(path, placed)} cannot be read: {error}") from error
        return self._proved(path, placed, payload)

    def blocks(
        self, path: Path, wanted: Iterable[Placed]
    ) -> Iterator[tuple[Placed, bytes | memoryview | Damaged]]:
        """Blocks of one pack in the order in which they lie: the content of each, or why not.

        Neighbours are read together.
        """
        for start, end, group in _neighbours(wanted):
            try:
                together = memoryview(os.pread(self._fd(path), end - start, start))
            except OSError:  # which of them it is shows when each is read by itself
                together = None
            for placed in group:
                try:
                    if together is None:
                        yield placed, self.block(path, placed)
                    else:
                        at = placed.offset - start
                        payload = together[at : at + placed.stored]
                        yield placed, self._proved(path, placed, payload)
                except Damaged as damage:
                    yield placed, damage

    def _proved(
        self, path: Path, placed: Placed, payload: bytes | memoryview
    ) -> bytes | memoryview:
        if self._payloads_too and crc_of(payload) != placed.crc:
            raise Damaged(f"{_named(path, placed)} was altered: its bytes have another checksum")
        payload = self._decrypted(path, placed, payload)
        try:
            data = self._decoded(path, payload, placed)
        except zstandard.ZstdError as error:
            raise Damaged(f"{_named(path, placed)} cannot be read: {error}") from error
        if len(data) != placed.raw or blake3(data).digest() != placed.hash:
            raise Damaged(f"{_named(path, placed)} was altered: its content has another hash")
        return data

    def _decoded(
        self, path: Path, payload: bytes | memoryview, placed: Placed
    ) -> bytes | memoryview:
        if placed.codec == RAW:
            return payload
        if placed.codec == ZSTD:
            # The size in the frame is not trusted: it would be allocated before the first byte.
            if zstandard.frame_content_size(payload) != placed.raw:
                raise zstandard.ZstdError("the frame claims another size than the index")
            return self._decompressor.decompress(payload, max_output_size=placed.raw)
        if placed.codec == MEMBER:
            if self._groups is None:
                self._groups = Groups(
                    PlainBlocks(
                        partial(find_beside, path.parent, self._cipher), self._cipher
                    ).joined
                )
            return self._groups.member(bytes(payload), placed.raw)
        raise zstandard.ZstdError(f"codec {placed.codec} is not known to this version")

    def _fd(self, path: Path) -> int:
        fd = self._fds.get(path)
        if fd is None:
            if len(self._fds) >= self.OPEN:
                os.close(self._fds.popitem(last=False)[1])
            fd = self._fds[path] = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._fds.move_to_end(path)
        return fd

    def payload(self, path: Path, placed: Placed) -> bytes:
        """What is stored of a block, but for its encryption. Raises Damaged."""
        try:
            payload = os.pread(self._fd(path), placed.stored, placed.offset)
        except OSError as error:
            raise Damaged(f"{_named(path, placed)} cannot be read: {error}") from error
        if crc_of(payload) != placed.crc:
            raise Damaged(f"{_named(path, placed)} was altered: its bytes have another checksum")
        return bytes(self._decrypted(path, placed, payload))

    def _decrypted(
        self, path: Path, placed: Placed, payload: bytes | memoryview
    ) -> bytes | memoryview:
        try:
            return self._cipher.decrypt(payload, placed.hash)
        except Damaged as damage:
            raise Damaged(f"{_named(path, placed)}: {damage}") from None

    def close(self) -> None:
        while self._fds:
            os.close(self._fds.popitem()[1])


class PlainBlocks:
    """Content of blocks that are stored by themselves. `find`: tells where they lie."""

    def __init__(self, find: Find, cipher: Cipher) -> None:
        self._find, self._reader = find, PackReader(cipher=cipher)

    def joined(self, digests: Sequence[bytes]) -> bytearray:
        """One after the other. Raises Damaged."""
        places = self._find(set(digests))
        for digest in digests:
            if digest not in places:
                raise Damaged(f"block {digest.hex()[:12]}, which a group needs, is missing")
            if places[digest][1].codec == MEMBER:
                raise Damaged(f"block {digest.hex()[:12]}, which a group needs, is in a group")
        content, at = bytearray(sum(places[digest][1].raw for digest in digests)), 0
        for digest in digests:
            path, placed = places[digest]
            content[at : at + placed.raw] = self._reader.block(path, placed)
            at += placed.raw
        return content

    def close(self) -> None:
        self._reader.close()


def find_beside(
    folder: Path, cipher: Cipher, wanted: Collection[bytes]
) -> dict[bytes, tuple[Path, Placed]]:
    """Where these blocks lie in the packs of a folder, by a look into all of them."""
    found: dict[bytes, tuple[Path, Placed]] = {}
    for path in folder.glob("*" + SUFFIX):
        with suppress(Damaged):
            for placed in read_index(path, path.stem, cipher):
                if placed.hash in wanted:
                    found.setdefault(placed.hash, (path, placed))
    return found


def _named(path: Path, placed: Placed) -> str:
    return f"block {placed.hash.hex()[:12]} in pack {path.stem[:12]}"


def _neighbours(wanted: Iterable[Placed]) -> Iterator[tuple[int, int, list[Placed]]]:
    """What is read together: from where, to where, and the blocks in it."""
    group: list[Placed] = []
    start = end = 0
    for placed in sorted(wanted, key=lambda placed: placed.offset):
        after = placed.offset + placed.stored
        if group and (placed.offset > end + GAP or after > start + TOGETHER):
            yield start, end, group
            group = []
        if not group:
            start = end = placed.offset
        group.append(placed)
        end = max(end, after)
    if group:
        yield start, end, group


def crc_of(payload: bytes | memoryview) -> int:
    return zlib.crc32(payload)


def is_hash(text: str) -> bool:
    return len(text) == 2 * HASH and all(c in "0123456789abcdef" for c in text)
