"""Which entries of a snapshot are meant when only some of its paths are named."""

from __future__ import annotations

import os
from collections.abc import Iterable
from enum import Enum

from snapshots.errors import UnknownPath, shown

Names = tuple[bytes, ...]


class Part(Enum):
    """What a path is to a selection: in it, a folder that leads to something in it, or neither."""

    INSIDE = "inside"
    ABOVE = "above"
    OUTSIDE = "outside"


class Selection:
    """Files and folders (with all in them) by their paths below the root; none named: everything.

    Raises UnknownPath for a path that no entry of a snapshot can have.
    """

    def __init__(self, only: Iterable[str]) -> None:
        self._wanted = {_names(path) for path in only} or {()}
        self._above = {names[:end] for names in self._wanted for end in range(len(names))}
        self._missed = self._wanted - {()}

    def part(self, names: Names) -> Part:
        """What this path is, by itself: what lies in a folder that is INSIDE is so as well."""
        if names in self._wanted:
            self._missed.discard(names)
            return Part.INSIDE
        return Part.ABOVE if names in self._above else Part.OUTSIDE

    @property
    def complete(self) -> bool:
        """Whether every named path was asked for by `part`."""
        return not self._missed

    @property
    def missed(self) -> list[str]:
        """Named paths that were not asked for by `part` so far."""
        return sorted(shown(b"/".join(names)) for names in self._missed)


def _names(path: str) -> Names:
    names = tuple(name for name in os.fsencode(path).split(b"/") if name not in (b"", b"."))
    if b".." in names or any(b"\0" in name for name in names):
        raise UnknownPath(
            f"{path!r} cannot be in a snapshot: name paths relative to the folder it was made of"
        )
    return names
