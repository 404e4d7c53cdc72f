"""From the hash of a block to its number, in 12 bytes a block."""

from __future__ import annotations

from collections.abc import Iterable

_KEY = slice(2, 10)  # of the hash; its first bytes choose the bucket
_SLOT = 12  # the key, then the number


class BlockTable:
    """Numbers by hash. What it finds are candidates: the caller compares the whole hash."""

    def __init__(self) -> None:
        self._buckets: dict[bytes, bytes] = {}

    def add(self, digest: bytes, number: int) -> None:
        self.add_all((digest,), number)

    def add_all(self, digests: Iterable[bytes], number: int) -> None:
        """With numbers that ascend from `number`."""
        buckets = self._buckets
        for at, digest in enumerate(digests, start=number):
            slot = digest[_KEY] + at.to_bytes(4, "little")
            bucket = buckets.setdefault(digest[:2], slot)
            if bucket is not slot:
                buckets[digest[:2]] = bucket + slot

    def candidates(self, digest: bytes) -> list[int]:
        """Numbers that this hash may have, in the order in which they were added."""
        found: list[int] = []
        bucket, key = self._buckets.get(digest[:2], b""), digest[_KEY]
        at = bucket.find(key)
        while at >= 0:
            if at % _SLOT == 0:
                found.append(int.from_bytes(bucket[at + 8 : at + _SLOT], "little"))
            at = bucket.find(key, at + 1)
        return found
