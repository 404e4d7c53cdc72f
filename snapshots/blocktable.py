"""From the hash of a block to its number, in 12 bytes a block."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

_KEY = slice(2, 10)  # of the hash; its first bytes choose the bucket
_SLOT = 12  # the key, then the number


class BlockTable:
    """Numbers by hash. What it finds are candidates: the caller compares the whole hash."""

    def __init__(self) -> None:
        self._buckets: dict[bytes, bytearray] = {}

    def add(self, digest: bytes, number: int) -> None:
        slot = digest[_KEY] + number.to_bytes(4, "little")
        bucket = self._buckets.get(digest[:2])
        if bucket is None:
            self._buckets[digest[:2]] = bytearray(slot)
        else:
            bucket += slot

    def add_all(self, digests: Iterable[bytes], number: int) -> int:
        """With numbers that ascend from `number`; returns the next one."""
        add = self.add
        for digest in digests:
            add(digest, number)
            number += 1
        return number

    def candidates(self, digest: bytes) -> Iterator[int]:
        """Numbers that this hash may have, in the order in which they were added."""
        bucket = self._buckets.get(digest[:2])
        if bucket is None:
            return
        at = bucket.find(digest[_KEY])
        while at >= 0:
            if at % _SLOT == 0:
                yield int.from_bytes(bucket[at + 8 : at + _SLOT], "little")
            at = bucket.find(digest[_KEY], at + 1)
