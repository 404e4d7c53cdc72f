"""URNs as `--target` and `--replace` name them: `*` is a part of one segment, `**` is anything."""

from __future__ import annotations

import re
from collections.abc import Iterable


class Targets:
    """A set of URNs and patterns; false when it is empty, so that everything is meant."""

    def __init__(self, named: Iterable[str]) -> None:
        found = list(named)
        self.literal = [urn for urn in found if "*" not in urn]
        patterns = (re.escape(urn) for urn in found if "*" in urn)
        self._patterns = [
            re.compile(p.replace(r"\*\*", ".*").replace(r"\*", "[^:]*")) for p in patterns
        ]

    def __bool__(self) -> bool:
        return bool(self.literal or self._patterns)

    def __contains__(self, urn: object) -> bool:
        return isinstance(urn, str) and (
            urn in self.literal or any(p.fullmatch(urn) for p in self._patterns)
        )
