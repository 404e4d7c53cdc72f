"""Secret values must not leave in a text: whatever a container or a command said is masked.

A process that has read a stack's config knows its secrets; what it then says, writes to a log or
ends with goes through `masked`.
"""

from __future__ import annotations

import base64
import json
import re
import threading
import urllib.parse
from collections.abc import Iterable

MASK = "***"
SHORTEST = 6
"""Values shorter than this occur by chance: names and numbers must stay readable."""

# Control characters but newline and tab, and marks that turn the direction of text.
_STEERING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")

_guard = threading.Lock()
_hidden: tuple[str, ...] = ()


def hide(values: Iterable[str]) -> None:
    """From now on no text of this process shows these values."""
    global _hidden
    with _guard:
        _hidden = _ordered({*_hidden, *forms(v for v in values if len(v) >= SHORTEST)})


def masked(text: str) -> str:
    """The text without any value that was given to `hide`, and without what steers a terminal."""
    return _STEERING.sub("?", without(text, _hidden))


def without(text: str, hidden: Iterable[str]) -> str:
    """The text without these values; the longest first, where one is part of another."""
    for value in hidden:
        if value in text:
            text = text.replace(value, MASK)
    return text


def forms(values: Iterable[str]) -> tuple[str, ...]:
    """The values as programs print them: as they are, line by line, in JSON, in URLs, in base64."""
    found = set()
    for value in filter(None, values):
        found |= {value, json.dumps(value)[1:-1], repr(value)[1:-1]}
        found |= {urllib.parse.quote(value), urllib.parse.quote(value, safe="")}
        found |= {line for line in value.splitlines() if len(line) >= SHORTEST}
        if len(value) >= SHORTEST:
            found.add(base64.b64encode(value.encode()).decode().rstrip("="))
    return _ordered(found)


def _ordered(values: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(values, key=lambda value: (-len(value), value)))
