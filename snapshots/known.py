"""The files of an earlier snapshot, so that what did not change is taken over unread."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from pathlib import Path

from snapshots import fs
from snapshots.errors import Damaged, SnapshotError
from snapshots.groups import hashes_in
from snapshots.hints import Hint, Hints
from snapshots.store import Store
from snapshots.treefile import TreeLines
from snapshots.twins import Twins


class KnownFiles:
    """Asked for in the order of a walk. `snapshot_id` None, or one without hints: no file at all.

    `twins`: what a fork or a restore left beside the folder, for one made from that snapshot's.
    `packs`: those that can be read; `whole` says whether no other one is needed. Without `trusted`
    no file counts as unchanged.
    """

    def __init__(
        self,
        store: Store,
        snapshot_id: str | None,
        *,
        packs: Collection[str] = (),
        twins: Path | None = None,
        trusted: bool = True,
    ) -> None:
        self.whole, self._trusted = False, trusted
        self._groups: Iterator[tuple[bytes, list[bytes], list[Hint]]] = iter(())
        self._tree: TreeLines | None = None
        root = None
        if snapshot_id is not None:
            try:
                root = store.read(snapshot_id).root
                hints = Hints(store.hints / f"{snapshot_id}.hints", store.cipher)
                if hints.root == root:
                    self._tree = TreeLines(store.tree_path(root), root, store.cipher)
                    self._groups = hints.groups()
                    self.whole = set(hints.packs) <= set(packs)
            except SnapshotError:
                self._tree = None
        self._twins = Twins(twins, root if twins else None)
        self._folder = self._last = b""
        self._files: dict[bytes, Hint] = {}
        self._more = True
        self._advance()

    def find(self, folder: bytes, name: bytes) -> Hint | None:
        """The file at this path."""
        if folder != self._folder or name > self._last:
            wanted = _steps(folder, name)
            while self._more and _steps(self._folder, self._last) < wanted:
                self._advance()
        return self._files.get(name) if folder == self._folder else None

    def unchanged(self, hint: Hint, folder: bytes, name: bytes, now: fs.Key) -> bool:
        """Whether the file that was found has, as it is `now`, all that it had then."""
        if not self._trusted:
            return False
        if hint[:4] == now:
            return True
        return self._twins.equal(folder, name, now, hint.key)

    def lines(self, hint: Hint) -> Iterator[bytes]:
        """The lines of a file in the tree, whole lines in pieces of limited length.

        Each file's at most once, in order. Raises Damaged.
        """
        assert self._tree is not None
        return self._tree.take(hint.at, hint.length)

    def lines_at_once(self, hint: Hint) -> bytes:
        """As `lines`, in one piece."""
        assert self._tree is not None
        return self._tree.at_once(hint.at, hint.length)

    def hashes(self, hint: Hint) -> list[bytes]:
        """Of the blocks of a file, in place of `lines`. Raises Damaged."""
        found: list[bytes] = []
        try:
            for lines in self.lines(hint):
                for line in lines.splitlines():
                    found += hashes_in(bytes.fromhex(json.loads(line).get("h", "")))
        except (ValueError, TypeError, AttributeError) as error:
            raise Damaged(f"the tree of the parent snapshot: {error}") from error
        return found

    def finish(self) -> None:
        """Damaged unless all that was taken over is what the snapshot's root says."""
        if self._tree is not None:
            self._tree.finish()

    def _advance(self) -> None:
        try:
            group = next(self._groups, None)
        except Damaged:
            group = None
        if group is None:
            self._more, self._files = False, {}
            return
        self._folder, names, hints = group
        self._last = names[-1]
        self._files = dict(zip(names, hints, strict=True))


def _steps(folder: bytes, name: bytes) -> list[bytes]:
    return [*folder.split(b"/"), name] if folder else [name]
