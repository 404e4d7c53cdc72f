"""Which block lies where: an index over all packs of a store, and threads that use it.

The packs' own indexes are the truth. This one is made from them for each operation, in a private
temporary SQLite database, so that its size does not show in memory and nothing can be stale.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from blake3 import blake3

from snapshots.errors import Damaged
from snapshots.pack import SUFFIX, PackReader, PackWriter, Placed, is_hash, read_index
from snapshots.tree import Blocks, block_length

# Where a block lies: number of the pack, then offset, stored, raw, crc, codec as in `Placed`.
Place = tuple[int, int, int, int, int, int]


class BlockIndex:
    """All blocks of the packs in `folder`. Safe for several threads; closes with the `with`.

    `load=False` begins with no block, so that everything is written anew.
    """

    def __init__(self, folder: Path, *, load: bool = True) -> None:
        self.folder = folder
        self.damaged: dict[str, str] = {}  # pack name -> why none of its blocks can be used
        self._lock = threading.Lock()
        self._db = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        self._db.execute("PRAGMA journal_mode = OFF")
        self._db.execute("PRAGMA cache_size = -32768")
        self._db.execute(
            "CREATE TABLE blocks (hash BLOB PRIMARY KEY, pack INT, offset INT, stored INT, raw INT,"
            " crc INT, codec INT, marked INT DEFAULT 0) WITHOUT ROWID"
        )
        self._packs: list[str] = []
        self._db.execute("BEGIN")
        for name in pack_names(folder) if load else ():
            self._load(name)
        self._db.execute("COMMIT")

    def _load(self, name: str) -> None:
        try:
            entries = list(read_index(self.folder / (name + SUFFIX), name))
        except Damaged as damage:
            self.damaged[name] = str(damage)
            return
        number = len(self._packs)
        self._packs.append(name)
        self._db.executemany(
            "INSERT OR IGNORE INTO blocks VALUES (?,?,?,?,?,?,?,0)",
            ((e.hash, number, e.offset, e.stored, e.raw, e.crc, e.codec) for e in entries),
        )

    def __enter__(self) -> BlockIndex:
        return self

    def __exit__(self, *_: object) -> None:
        self._db.close()

    @property
    def names(self) -> list[str]:
        """The packs that can be read."""
        return self._packs

    def claim(self, digest: bytes) -> bool:
        """True, once, for a block that the store does not have: the caller writes it."""
        with self._lock:
            done = self._db.execute(
                "INSERT OR IGNORE INTO blocks (hash) VALUES (?)", (digest,)
            ).rowcount
        return done == 1

    def has(self, digest: bytes) -> bool:
        with self._lock:
            row = self._db.execute("SELECT 1 FROM blocks WHERE hash = ?", (digest,)).fetchone()
        return row is not None

    def find(self, digest: bytes) -> tuple[Path, Placed] | None:
        """The pack and the place of a block; None if no readable pack has it."""
        with self._lock:
            row = self._db.execute(
                "SELECT pack, offset, stored, raw, crc, codec FROM blocks WHERE hash = ?", (digest,)
            ).fetchone()
        if row is None or row[0] is None:
            return None
        return self.folder / (self._packs[row[0]] + SUFFIX), Placed(digest, *row[1:])

    def find_many(self, digests: Sequence[bytes]) -> dict[bytes, Place]:
        """The places of those of these blocks (at most 10,000) that a readable pack has."""
        marks = ",".join("?" * len(digests))
        with self._lock:
            rows = self._db.execute(
                "SELECT hash, pack, offset, stored, raw, crc, codec FROM blocks"
                f" WHERE pack IS NOT NULL AND hash IN ({marks})",
                digests,
            ).fetchall()
        return {row[0]: row[1:] for row in rows}

    def pack_path(self, number: int) -> Path:
        """The file of the pack with this number, as in a Place."""
        return self.folder / (self._packs[number] + SUFFIX)

    def mark(self, digests: Iterable[bytes]) -> None:
        """Remember that these blocks are needed."""
        with self._lock:
            self._db.executemany(
                "UPDATE blocks SET marked = 1 WHERE hash = ?", ((d,) for d in digests)
            )

    def packs(self) -> Iterator[tuple[Path, int, int]]:
        """Of each readable pack: its path, its marked bytes, and all its stored bytes.

        A block that lies in two packs counts for the one that `find` names.
        """
        for number, name in enumerate(self._packs):
            path = self.folder / (name + SUFFIX)
            with self._lock:
                (marked,) = self._db.execute(
                    "SELECT coalesce(sum(stored), 0) FROM blocks WHERE pack = ? AND marked = 1",
                    (number,),
                ).fetchone()
            yield path, marked, sum(entry.stored for entry in read_index(path, name))

    def marked_in(self, path: Path) -> list[Placed]:
        """The needed blocks that `find` names in this pack, in the order in which they lie."""
        with self._lock:
            rows = self._db.execute(
                "SELECT hash, offset, stored, raw, crc, codec FROM blocks"
                " WHERE pack = ? AND marked = 1 ORDER BY offset",
                (self._packs.index(path.stem),),
            ).fetchall()
        return [Placed(*row) for row in rows]


class BlockSource:
    """Blocks by hash, checked; each thread has its own descriptors.

    `payloads_too`: as for `PackReader`; set it before the first read.
    """

    payloads_too = True

    def __init__(self, index: BlockIndex) -> None:
        self.index = index
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
            reader = self._local.reader = PackReader(payloads_too=self.payloads_too)
            self._readers.append(reader)
        return reader

    def close(self) -> None:
        for reader in self._readers:
            reader.close()


class BlockSink:
    """Takes blocks from several threads; each thread fills packs of its own."""

    def __init__(self, index: BlockIndex) -> None:
        self._index = index
        self._local = threading.local()
        self._lock = threading.Lock()
        self._open: list[PackWriter] = []
        self.sealed: set[str] = set()  # names of the packs that are durable and proved

    def put(self, data: memoryview | bytes) -> bytes:
        """Store a block unless the store has it; returns its hash."""
        digest: bytes = blake3(data).digest()
        if self._index.claim(digest):
            writer = self._writer()
            writer.append(digest, data)
            if writer.full:
                self._forget(writer)
                self._seal(writer)
        return digest

    def _writer(self) -> PackWriter:
        writer: PackWriter | None = getattr(self._local, "writer", None)
        if writer is None:
            writer = self._local.writer = PackWriter(self._index.folder)
            with self._lock:
                self._open.append(writer)
        return writer

    def _forget(self, writer: PackWriter) -> None:
        self._local.writer = None
        with self._lock:
            self._open.remove(writer)

    def seal(self) -> None:
        """Make everything durable and prove it. Call when no thread puts any more."""
        while self._open:
            self._seal(self._open[-1])
            self._open.pop()

    def _seal(self, writer: PackWriter) -> None:
        try:
            name = writer.seal()
        except BaseException:
            writer.discard()
            raise
        if name:
            self.sealed.add(name)

    def discard(self) -> None:
        """Throw away packs that were not sealed; harmless after `seal`."""
        while self._open:
            self._open.pop().discard()


def pack_names(folder: Path) -> list[str]:
    """The names of the packs in a folder, without their suffix."""
    return sorted(p.stem for p in folder.glob("*" + SUFFIX) if is_hash(p.stem))
