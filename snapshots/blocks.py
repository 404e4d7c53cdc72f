"""Which block lies where: an index over all packs of a store, and threads that use it.

The packs' own indexes are the truth. This one is made from them for each operation, so that nothing
in it can be stale.
"""

from __future__ import annotations

import itertools
import os
import tempfile
import threading
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from blake3 import blake3

from snapshots import fs
from snapshots.blocktable import BlockTable
from snapshots.cipher import PLAIN, Cipher
from snapshots.errors import Damaged
from snapshots.groups import Groups, head_of
from snapshots.pack import (
    ENTRY,
    MEMBER,
    SUFFIX,
    PackReader,
    PackWriter,
    Placed,
    PlainBlocks,
    index_of,
    is_hash,
)
from snapshots.tree import HASH, Blocks, block_length

# Where a block lies: number of the pack, then offset, stored, raw, crc, codec as in `Placed`.
Place = tuple[int, int, int, int, int, int]
Entry = tuple[bytes, int, int, int, int, int]

_NOWHERE = bytes(ENTRY.size - HASH)  # where a block lies that is only claimed
_CLAIMED = 4096 * ENTRY.size  # bytes of claims that are written together
SEALING = 2  # packs at once: as many as there are threads that leave one unfinished at the end


class BlockIndex:
    """All blocks of the packs in `folder`. Safe for several threads; closes with the `with`.

    `load=False` begins with no block, so that everything is written anew. In memory are 12 bytes
    for each block, and one more where it is needed; the rest is in a temporary file.
    """

    def __init__(self, folder: Path, cipher: Cipher = PLAIN, *, load: bool = True) -> None:
        self.folder, self.cipher = folder, cipher
        self.damaged: dict[str, str] = {}  # pack name -> why none of its blocks can be used
        self._lock = threading.Lock()
        self._table = BlockTable()
        self._entries = tempfile.TemporaryFile()  # noqa: SIM115  # indexes, then claimed hashes
        self._packs: list[str] = []
        self._starts: list[int] = []  # of each pack, the number of its first entry
        self._loaded = 0
        self._filled = False
        for name in pack_names(folder) if load else ():
            self._load(name)
        self._entries.flush()
        self._kept = self._loaded  # entries in the file
        self._claimed = bytearray()  # and those after them
        self._needed = bytearray(self._loaded)

    def _load(self, name: str) -> None:
        try:
            index = index_of(self.folder / (name + SUFFIX), name, self.cipher)
        except Damaged as damage:
            self.damaged[name] = str(damage)
            return
        self._packs.append(name)
        self._starts.append(self._loaded)
        self._entries.write(index)
        self._loaded += len(index) // ENTRY.size

    def __enter__(self) -> BlockIndex:
        return self

    def __exit__(self, *_: object) -> None:
        self._entries.close()

    @property
    def names(self) -> list[str]:
        """The packs that can be read."""
        return self._packs

    def claim(self, digest: bytes) -> bool:
        """True, once, for a block that the store does not have: the caller writes it."""
        with self._lock:
            if self._number(digest) is not None:
                return False
            self._table.add(digest, self._kept + len(self._claimed) // ENTRY.size)
            self._claimed += digest + _NOWHERE
            if len(self._claimed) >= _CLAIMED:
                claimed = memoryview(self._claimed)
                fs.write_all(self._entries.fileno(), claimed, self._kept * ENTRY.size)
                self._kept += len(self._claimed) // ENTRY.size
                self._claimed = bytearray()
            return True

    def has(self, digest: bytes) -> bool:
        with self._lock:
            return self._number(digest) is not None

    def find(self, digest: bytes) -> tuple[Path, Placed] | None:
        """The pack and the place of a block; None if no readable pack has it."""
        place = self._place(digest)
        return (self.pack_path(place[0]), Placed(digest, *place[1:])) if place else None

    def find_many(self, digests: Iterable[bytes]) -> dict[bytes, Place]:
        """The places of those of these blocks that a readable pack has."""
        with self._lock:
            places = [(digest, self._place_of(digest)) for digest in digests]
        return {digest: place for digest, place in places if place}

    def find_all(self, digests: Iterable[bytes]) -> dict[bytes, tuple[Path, Placed]]:
        """As `find`, for those of these blocks that are there."""
        found = ((digest, self.find(digest)) for digest in digests)
        return {digest: where for digest, where in found if where}

    def is_member(self, digest: bytes) -> bool:
        """Whether a block is stored in a group."""
        place = self._place(digest)
        return place is not None and place[5] == MEMBER

    def pack_path(self, number: int) -> Path:
        """The file of the pack with this number, as in a Place."""
        return self.folder / (self._packs[number] + SUFFIX)

    def mark(self, digests: Iterable[bytes]) -> None:
        """Remember that these blocks are needed."""
        for digest in digests:
            with self._lock:
                number = self._number(digest)
            if number is not None and number < self._loaded:
                self._needed[number] = 1

    def packs(self) -> Iterator[tuple[Path, int, int]]:
        """Of each readable pack: its path, its marked bytes, and all its stored bytes.

        A block that lies in two packs counts for the one that `find` names.
        """
        for number in range(len(self._packs)):
            start, entries = self._entries_of(number)
            stored = [entry[2] for entry in entries]
            needed = sum(itertools.compress(stored, self._needed[start : start + len(stored)]))
            yield self.pack_path(number), needed, sum(stored)

    def marked_in(self, path: Path) -> list[Placed]:
        """The needed blocks that `find` names in this pack, in the order in which they lie."""
        start, entries = self._entries_of(self._packs.index(path.stem))
        needed = itertools.compress(entries, self._needed[start : start + len(entries)])
        return sorted((Placed(*entry) for entry in needed), key=lambda placed: placed.offset)

    def mark_needs(self, source: BlockSource) -> list[tuple[Placed, Damaged]]:
        """Mark also what the marked blocks that are in groups need to be read.

        Returns those for which it is not there, and why.
        """
        members: dict[bytes, list[Placed]] = {}  # by the head of their group
        lost: list[tuple[Placed, Damaged]] = []
        for path, _, _ in self.packs():
            for placed in self.marked_in(path):
                if placed.codec == MEMBER:
                    try:
                        head = head_of(source.payload(path, placed))
                        members.setdefault(head, []).append(placed)
                    except Damaged as damage:
                        lost.append((placed, damage))
        for head, blocks in members.items():
            try:
                needs = source.groups.needs(head)
                self.mark(needs)
                for digest in needs:
                    if self.find(digest) is None:
                        raise Damaged(f"block {digest.hex()[:12]}, which a group needs, is missing")
            except Damaged as damage:
                lost += [(placed, damage) for placed in blocks]
        return lost

    def _entries_of(self, pack: int) -> tuple[int, list[Entry]]:
        start = self._starts[pack]
        end = self._starts[pack + 1] if pack + 1 < len(self._starts) else self._loaded
        size = ENTRY.size
        packed = os.pread(self._entries.fileno(), (end - start) * size, start * size)
        return start, list(ENTRY.iter_unpack(packed))

    def _number(self, digest: bytes) -> int | None:
        found = self._entry(digest)
        return found[0] if found else None

    def _entry(self, digest: bytes) -> tuple[int, bytes] | None:
        """The number of a block and its packed entry, of which a claimed one has only the hash."""
        fd, size = self._entries.fileno(), ENTRY.size
        if not self._filled:
            self._fill()
        for number in self._table.candidates(digest):
            if number < self._kept:
                packed = os.pread(fd, size, number * size)
            else:
                at = (number - self._kept) * size
                packed = bytes(self._claimed[at : at + size])
            if packed.startswith(digest):
                return number, packed
        return None

    def _fill(self) -> None:
        """The table, when it is asked for: where nothing changed it never is."""
        self._filled = True
        for pack in range(len(self._packs)):
            start, entries = self._entries_of(pack)
            self._table.add_all((entry[0] for entry in entries), start)

    def _place(self, digest: bytes) -> Place | None:
        with self._lock:
            return self._place_of(digest)

    def _place_of(self, digest: bytes) -> Place | None:
        found = self._entry(digest)
        if found is None or found[0] >= self._loaded:
            return None
        number, packed = found
        return (bisect_right(self._starts, number) - 1, *ENTRY.unpack(packed)[1:])


class BlockSource:
    """Blocks by hash, checked; each thread has its own descriptors.

    `payloads_too`: as for `PackReader`; set it before the first read.
    """

    payloads_too = True

    def __init__(self, index: BlockIndex) -> None:
        self.index = index
        self._plain = PlainBlocks(index.find_all, index.cipher)
        self.groups = Groups(self._plain.joined)
        self._local = threading.local()
        self._readers: list[PackReader] = []

    def get(self, digest: bytes, length: int) -> bytes | memoryview:
        """The block, of exactly this length. Raises Damaged."""
        path, placed = self.find(digest, length)
        return self._reader().block(path, placed)

    def get_many(
        self, places: Mapping[bytes, Place]
    ) -> Iterator[tuple[bytes, bytes | memoryview | Damaged]]:
        """Hash and content of these blocks, or why not, in the order in which they lie in packs."""
        packs: dict[int, list[Placed]] = {}
        for digest, place in places.items():
            packs.setdefault(place[0], []).append(Placed(digest, *place[1:]))
        for number in sorted(packs):
            for placed, content in self.read(self.index.pack_path(number), packs[number]):
                yield placed.hash, content

    def read(
        self, pack: Path, wanted: Iterable[Placed]
    ) -> Iterator[tuple[Placed, bytes | memoryview | Damaged]]:
        """Blocks of one pack, as `PackReader.blocks`."""
        return self._reader().blocks(pack, wanted)

    def find(self, digest: bytes, length: int) -> tuple[Path, Placed]:
        """Where a block of this length lies, without reading it. Raises Damaged."""
        found = self.index.find(digest)
        if found is None:
            raise Damaged(f"block {digest.hex()[:12]} is missing from the store")
        if found[1].raw != length:
            raise Damaged(f"block {digest.hex()[:12]} has {found[1].raw} bytes instead of {length}")
        return found

    def payload(self, path: Path, placed: Placed) -> bytes:
        """What is stored of a block, as it is. Raises Damaged."""
        return self._reader().payload(path, placed)

    def joined(self, digests: Sequence[bytes]) -> bytearray:
        """The content of blocks that are not in groups, one after the other. Raises Damaged."""
        return self._plain.joined(digests)

    def find_all(self, run: Blocks, size: int) -> None:
        """Damaged unless all blocks of this run of a file of `size` bytes are there."""
        for index, digest in enumerate(run.hashes, start=run.at):
            self.find(digest, block_length(index, size))

    def read_all(self, run: Blocks, size: int) -> None:
        """Damaged unless all blocks of this run can be read and are what they should be."""
        for index, digest in enumerate(run.hashes, start=run.at):
            self.get(digest, block_length(index, size))

    def _reader(self) -> PackReader:
        reader: PackReader | None = getattr(self._local, "reader", None)
        if reader is None:
            reader = self._local.reader = PackReader(
                payloads_too=self.payloads_too, groups=self.groups, cipher=self.index.cipher
            )
            self._readers.append(reader)
        return reader

    def close(self) -> None:
        self._plain.close()
        for reader in self._readers:
            reader.close()


class BlockSink:
    """Takes blocks from several threads; each thread fills packs of its own.

    A full pack is made durable and read back by threads of its own, while others are filled.
    """

    def __init__(self, index: BlockIndex) -> None:
        self._index = index
        self._local = threading.local()
        self._lock = threading.Lock()
        self._open: list[PackWriter] = []
        self._sealer = ThreadPoolExecutor(SEALING, thread_name_prefix="seal")
        self._sealing: list[tuple[Future[None], PackWriter]] = []
        self.sealed: set[str] = set()  # names of the packs that are durable and proved

    def put(self, data: memoryview | bytes) -> bytes:
        """Store a block unless the store has it; returns its hash."""
        digest: bytes = blake3(data).digest()
        if self._index.claim(digest):
            writer = self._writer()
            writer.append(digest, data)
            self._seal_if_full(writer)
        return digest

    def put_as_is(self, digest: bytes, raw: int, codec: int, payload: bytes) -> None:
        """A block whose payload is made already, unless the store has it."""
        if self._index.claim(digest):
            writer = self._writer()
            writer.append_as_is(digest, raw, codec, payload)
            self._seal_if_full(writer)

    def seal(self) -> None:
        """Make everything durable and prove it. Call when no thread puts any more."""
        while self._open:
            self._give_to_seal(self._open[-1])
        self._wait(0)

    def discard(self) -> None:
        """Throw away packs that were not sealed; harmless after `seal`."""
        self._sealer.shutdown(wait=True, cancel_futures=True)
        for writer in (*self._open, *(writer for _, writer in self._sealing)):
            writer.discard()

    def _writer(self) -> PackWriter:
        writer: PackWriter | None = getattr(self._local, "writer", None)
        if writer is None:
            writer = self._local.writer = PackWriter(self._index.folder, self._index.cipher)
            with self._lock:
                self._open.append(writer)
        return writer

    def _seal_if_full(self, writer: PackWriter) -> None:
        if writer.full:
            self._local.writer = None
            self._give_to_seal(writer)
            self._wait(2)

    def _give_to_seal(self, writer: PackWriter) -> None:
        with self._lock:
            self._sealing.append((self._sealer.submit(self._seal, writer), writer))
            self._open.remove(writer)

    def _wait(self, most: int) -> None:
        """Until at most so many packs are being sealed. Raises what sealing one raised."""
        while True:
            with self._lock:
                if len(self._sealing) <= most:
                    return
                first, _ = self._sealing.pop(0)
            first.result()

    def _seal(self, writer: PackWriter) -> None:
        try:
            name = writer.seal()
        except BaseException:
            writer.discard()
            raise
        if name:
            self.sealed.add(name)


def pack_names(folder: Path) -> list[str]:
    """The names of the packs in a folder, without their suffix."""
    return sorted(p.stem for p in folder.glob("*" + SUFFIX) if is_hash(p.stem))
