"""What a driver's probe counts."""

from __future__ import annotations


class Counts(dict[str, int]):
    """Name -> number: rows of a table, keys, files, bytes."""

    estimated: frozenset[str] = frozenset()
    """Names whose number the engine guesses, for counting would take long."""
