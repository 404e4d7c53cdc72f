"""Blocks of files that never repeat in place are stored in groups, each against older content.

A group is up to GROUP neighbouring blocks of a file in one zstd frame, whose dictionary is the
content of up to REFERENCES blocks that the store has already. Everything that a group consists of
is itself stored as ordinary blocks (codec 0 or 1), which no group may be part of: nothing is ever
two steps away from plain content.

    member     the payload of each block in a group: hash of the head, number in the group
    head       a block: hash of the list, bytes of the group, hashes of the frame's blocks
    list       a block: the hashes of the blocks whose content is the dictionary
"""

from __future__ import annotations

import struct
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence

import zstandard

from snapshots.errors import Damaged
from snapshots.tree import BLOCK, HASH

GROUP = 256  # blocks: 16 MiB are decoded at once
KEPT = 3  # groups; several threads read several at a time
REFERENCES = BLOCK // HASH  # blocks, 128 MiB: their list fills one block
_MEMBER = struct.Struct("<32sI")
_HEAD = struct.Struct("<32sI")
MEMBER_BYTES = _MEMBER.size


def member(head: bytes, number: int) -> bytes:
    return _MEMBER.pack(head, number)


def head(list_hash: bytes, size: int, frame: Iterable[bytes]) -> bytes:
    return _HEAD.pack(list_hash, size) + b"".join(frame)


def hashes_in(packed: bytes) -> list[bytes]:
    if len(packed) % HASH:
        raise Damaged("a list of blocks has half a hash")
    return [packed[at : at + HASH] for at in range(0, len(packed), HASH)]


def head_of(payload: bytes) -> bytes:
    """The hash of the head of the group that a block is in. Raises Damaged."""
    if len(payload) != _MEMBER.size:
        raise Damaged("what says where a block is in its group has another length")
    return bytes(_MEMBER.unpack(payload)[0])


class Groups:
    """Decodes groups and keeps the last ones, with their dictionary. Safe for several threads.

    `joined`: gives the content of ordinary blocks, one after the other, or raises Damaged. In
    memory are the dictionary (128 MiB at most), twice while it is made, and the groups.
    """

    def __init__(self, joined: Callable[[Sequence[bytes]], bytearray]) -> None:
        self._joined = joined
        self._lock = threading.Lock()
        self._kept: OrderedDict[bytes, bytes] = OrderedDict()  # by the hash of their head
        self._list = b""
        self._decompressor = zstandard.ZstdDecompressor()

    def member(self, payload: bytes, raw: int) -> bytes:
        """The content of a block of `raw` bytes. Raises Damaged, ZstdError."""
        head_hash = head_of(payload)
        number = _MEMBER.unpack(payload)[1]
        with self._lock:
            group = self._kept.pop(head_hash, None)
            if group is None:
                while len(self._kept) >= KEPT:
                    self._kept.popitem(last=False)
                group = self._decode(head_hash)
            self._kept[head_hash] = group
            return group[number * BLOCK : number * BLOCK + raw]

    def needs(self, head_hash: bytes) -> list[bytes]:
        """All blocks without which a group cannot be decoded, itself among them."""
        with self._lock:
            list_hash, _, frame = self._parts(head_hash)
            return [head_hash, list_hash, *frame, *hashes_in(self._block(list_hash))]

    def list_of(self, head_hash: bytes) -> bytes:
        """The hash of the list of what a group is stored against."""
        with self._lock:
            return self._parts(head_hash)[0]

    def _parts(self, head_hash: bytes) -> tuple[bytes, int, list[bytes]]:
        content = self._block(head_hash)
        if len(content) < _HEAD.size:
            raise Damaged(f"group {head_hash.hex()[:12]} is not well formed")
        list_hash, size = _HEAD.unpack_from(content)
        if size > GROUP * BLOCK:
            raise Damaged(f"group {head_hash.hex()[:12]} is too large")
        return list_hash, size, hashes_in(content[_HEAD.size :])

    def _decode(self, head_hash: bytes) -> bytes:
        list_hash, size, frame = self._parts(head_hash)
        if list_hash != self._list:
            self._list = b""
            content = self._joined(hashes_in(self._block(list_hash)))
            dictionary = zstandard.ZstdCompressionDict(
                content, dict_type=zstandard.DICT_TYPE_RAWCONTENT
            )
            del content
            self._decompressor = zstandard.ZstdDecompressor(dict_data=dictionary)
            self._list = list_hash
        packed = self._joined(frame)
        # The size in the frame is not trusted: it would be allocated before the first byte.
        if zstandard.frame_content_size(packed) != size:
            raise Damaged(f"group {head_hash.hex()[:12]} claims another size than its head")
        return self._decompressor.decompress(packed, max_output_size=size)

    def _block(self, digest: bytes) -> bytes:
        return bytes(self._joined([digest]))
