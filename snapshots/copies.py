"""A block may lie in several packs: all its copies, beyond the one that the index names."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import closing
from pathlib import Path

from snapshots.blocks import pack_names
from snapshots.cipher import Cipher
from snapshots.errors import Damaged
from snapshots.pack import SUFFIX, PackReader, read_index


def whole_copies(
    packs: Path, cipher: Cipher, wanted: Collection[bytes], *, but: Collection[str] = ()
) -> Iterator[tuple[bytes, bytes | memoryview]]:
    """Hash and content of those of these blocks of which a pack has a proved copy; each once.

    Packs that cannot be read, and those named in `but`, are passed over.
    """
    left = set(wanted)
    with closing(PackReader(cipher=cipher)) as reader:
        for name in pack_names(packs):
            path = packs / (name + SUFFIX)
            if not left or name in but:
                continue
            try:
                there = [placed for placed in read_index(path, name, cipher) if placed.hash in left]
            except Damaged:
                continue
            for placed, content in reader.blocks(path, there):
                if not isinstance(content, Damaged) and placed.hash in left:
                    left.remove(placed.hash)
                    yield placed.hash, content
