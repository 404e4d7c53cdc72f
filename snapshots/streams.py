"""Files that never repeat in place are stored against what they were in the parent snapshot.

An RDB file has its keys in another order after each restart, so that no block of it is ever the
same; but nearly all its bytes are somewhere in the one before. snapshots/groups.py has the format.
"""

from __future__ import annotations

from collections.abc import Sequence

import zstandard
from backports import zstd
from blake3 import blake3

from snapshots import groups
from snapshots.blocks import BlockIndex, BlockSink, BlockSource
from snapshots.errors import Damaged
from snapshots.groups import GROUP, REFERENCES
from snapshots.pack import LEVEL, MEMBER
from snapshots.tree import BLOCK

# One match in 32 bytes is found anywhere in 128 MiB, with 32 MiB of memory and a third of a second
# for each group; level 3 without it finds nothing at all in keys that changed their order.
_OPTIONS: dict[int, int] = {
    zstd.CompressionParameter.compression_level: 1,
    zstd.CompressionParameter.window_log: 28,
    zstd.CompressionParameter.enable_long_distance_matching: 1,
    zstd.CompressionParameter.ldm_min_match: 32,
    zstd.CompressionParameter.ldm_hash_rate_log: 5,
    zstd.CompressionParameter.ldm_hash_log: 22,
}
WORTH = 0.7  # of what the blocks take by themselves; above that they become the new reference
_TASTE = 16  # one block in so many tells what they take by themselves


class StreamWriter:
    """Stores one file in groups of blocks. `before`: the hashes of its blocks in the parent."""

    def __init__(
        self, index: BlockIndex, source: BlockSource, sink: BlockSink, before: Sequence[bytes]
    ) -> None:
        self._index, self._source, self._sink, self._before = index, source, sink, before
        self._section = -1
        self._list: bytes | None = None
        self._dictionary: zstd.ZstdDict | None = None
        self._taster = zstandard.ZstdCompressor(level=LEVEL)

    def put(self, first: int, data: memoryview) -> list[bytes]:
        """Store the blocks from `first`, at most GROUP; returns their hashes."""
        blocks = [data[at : at + BLOCK] for at in range(0, len(data), BLOCK)]
        hashes = [blake3(block).digest() for block in blocks]
        if all(self._index.has(digest) for digest in hashes):
            return hashes
        self._open_section(first // REFERENCES)
        if self._dictionary is None or not self._grouped(data, blocks, hashes):
            for block in blocks:
                self._sink.put(block)
        return hashes

    def _open_section(self, section: int) -> None:
        """The same stretch of what the file was before is the dictionary."""
        if section == self._section:
            return
        self._section, self._list, self._dictionary = section, None, None
        before = self._before[section * REFERENCES : (section + 1) * REFERENCES]
        try:
            listed = self._listed(before)
            if listed:
                content = self._source.joined(groups.hashes_in(listed))
                self._dictionary = zstd.ZstdDict(content, is_raw=True)
                self._list = self._sink.put(listed)
        except Damaged:  # without it the blocks are stored by themselves
            self._dictionary = None

    def _listed(self, before: Sequence[bytes]) -> bytes:
        """The hashes of the blocks to store against: never of such as are in a group."""
        places = self._index.find_all(before)
        for digest in before:
            if digest in places and places[digest][1].codec == MEMBER:
                path, placed = places[digest]
                head = groups.head_of(self._source.payload(path, placed))
                return bytes(self._source.joined([self._source.groups.list_of(head)]))
        return b"".join(digest for digest in before if digest in places)

    def _grouped(
        self, data: memoryview, blocks: Sequence[memoryview], hashes: Sequence[bytes]
    ) -> bool:
        """False if it is not worth it."""
        assert self._dictionary is not None
        assert self._list is not None
        frame = memoryview(
            zstd.compress(data, options=_OPTIONS, zstd_dict=self._dictionary.as_prefix)
        )
        some = blocks[::_TASTE]
        alone = sum(len(self._taster.compress(block)) for block in some)
        if len(frame) > WORTH * alone * len(blocks) / len(some):
            return False
        pieces = [self._sink.put(frame[at : at + BLOCK]) for at in range(0, len(frame), BLOCK)]
        head = self._sink.put(groups.head(self._list, len(data), pieces))
        if any(self._index.is_member(digest) for digest in (*pieces, head, self._list)):
            return False  # somebody stored the insides of a store as a stream
        for number, (block, digest) in enumerate(zip(blocks, hashes, strict=True)):
            if len(block) > groups.MEMBER_BYTES:
                payload = groups.member(head, number)
                self._sink.put_as_is(digest, len(block), MEMBER, payload)
            else:
                self._sink.put(block)
        return True


__all__ = ["GROUP", "StreamWriter"]
