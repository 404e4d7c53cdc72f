"""The index over all packs: what is claimed once, found, needed."""

from __future__ import annotations

import threading
from pathlib import Path

from blake3 import blake3

from snapshots import blocks
from snapshots.blocks import BlockIndex, BlockSink
from snapshots.blocktable import BlockTable
from snapshots.pack import ENTRY
from snapshots.store import Store


def test_each_block_is_claimed_once_however_many_threads_ask(store: Store) -> None:
    """Beyond the number of claims that are kept in memory."""
    count = blocks._CLAIMED // ENTRY.size * 2 + 10
    digests = [blake3(b"%d" % number).digest() for number in range(count)]
    won: list[int] = []
    with BlockIndex(store.packs) as index:

        def claim() -> None:
            won.append(sum(index.claim(digest) for digest in digests))

        threads = [threading.Thread(target=claim) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert all(index.has(digest) for digest in digests)
        assert not any(index.claim(digest) for digest in digests)
        assert index.find_many(digests[:10]) == {}  # claimed is not yet there
    assert sum(won) == count


def test_hashes_that_look_alike_are_told_apart(tmp_path: Path) -> None:
    """All but the end of the hash is what the table goes by."""
    table = BlockTable()
    alike = [bytes(10) + bytes([number]) * 22 for number in range(3)]
    table.add_all(alike[:2], 5)
    table.add(alike[2], 7)
    assert [table.candidates(digest) for digest in alike] == [[5, 6, 7]] * 3
    assert table.candidates(b"x" * 32) == []
    with BlockIndex(tmp_path) as index:
        assert [index.claim(digest) for digest in (*alike, *alike)] == [True] * 3 + [False] * 3


def test_what_was_put_is_found_marked_and_counted(store: Store) -> None:
    contents = [b"%d" % number * 3000 for number in range(50)]
    with BlockIndex(store.packs) as index:
        sink = BlockSink(index)
        digests = [sink.put(content) for content in contents]
        sink.seal()
        assert sink.put(contents[0]) == digests[0]
        sink.discard()
    with BlockIndex(store.packs) as index:
        assert index.find_many([*digests, bytes(32)]).keys() == set(digests)
        index.mark(digests[:20])
        ((path, needed, stored),) = index.packs()
        marked = index.marked_in(path)
        assert {placed.hash for placed in marked} == set(digests[:20])
        assert [placed.offset for placed in marked] == sorted(placed.offset for placed in marked)
        assert needed == sum(placed.stored for placed in marked) < stored
