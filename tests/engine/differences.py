"""Where a replay may differ from its recording, in which parts, and why. Everything else is equal.

docs/engine.md shows these tables; a test compares the two.
"""

from __future__ import annotations

TIMING = "the failure is immediate; which independent resources came before it is timing"
TRACE = "what failed is one sentence with its place; the official CLI prints a traceback"
ONCE = "what failed is told once, without the SDK's own traceback"
WORDS = "the same refusal with the next command added"
SECOND = "two resources have one name; which of them comes first is timing"

# (scenario, operations): (parts, reason)
DIFFERENCES: dict[tuple[str, str], tuple[str, str]] = {
    ("s04", "10"): ("said", "`preview --diff` of the official CLI logs a secret to standard error"),
    ("s07", "4"): ("errors", "the SDK's own traceback after a failed dependency has other frames"),
    ("s07", "6-8"): ("calls, history, steps", TIMING),
    ("s07", "10"): (
        "calls, errors, history, steps",
        "the SDK passes an exception of an apply on through several futures; on some ways the "
        "user's frames are lost, and the traceback shows the SDK's",
    ),
    ("s07", "13"): ("calls, history, state, steps", SECOND),
    ("s07", "14"): ("state", "it still has the one of the two that came first in 13"),
    ("s11", "17, 33-34, 41"): ("said", WORDS),
    ("s12", "3, 10"): ("said", "names `lockstep cancel` too, and the lock's file without a URL"),
    ("s12", "30"): ("calls, history, steps", TIMING),
    ("s12", "29"): ("said", "a lock that somebody else removed is not complained of"),
    ("s18", "5-8"): ("calls, history, state, steps", TIMING),
    ("s19", "5-6"): ("calls, history, steps", TIMING),
    ("s20", "11-12, 17-19"): ("calls, history, outputs, state, steps", TIMING),
    ("s22", "1, 4, 7"): ("errors", ONCE),
    ("s24", "48-50, 71-72"): ("said", WORDS),
    ("s25", "26"): ("said", WORDS),
    ("s26", "9-11"): ("calls, errors, history, state, steps", TIMING),
    ("s27", "2, 10"): ("errors", ONCE),
}

# (scenario, operations): what is refused, by the name in the message; of several, the one that the
# program comes to first
REFUSED: dict[tuple[str, str], str] = {
    ("s08", "1-5, 18"): "deleted_with",
    ("s08", "6-7"): "aliases, deleted_with",
    ("s08", "8-10, 17"): "aliases",
    ("s08", "12-13"): "aliases, import_",
    ("s08", "14-16"): "aliases, reading a resource",
    ("s08", "20"): "--ignore-protect",
    ("s09", "3-4, 6-8, 10-15, 17-18, 20-22"): "docker:index/",
}
# These only show what a refused operation would have left behind.
AFTER_REFUSED: dict[tuple[str, str], str] = {("s08", "19, 21"): "", ("s09", "9, 23"): ""}


def numbers(text: str) -> set[int]:
    """`1-3, 7` as {1, 2, 3, 7}."""
    found: set[int] = set()
    for part in text.split(","):
        first, _, last = part.strip().partition("-")
        found.update(range(int(first), int(last or first) + 1))
    return found


def entries(table: dict[tuple[str, str], object], scenario: str) -> dict[int, object]:
    """What a table says of a scenario's operations, by number."""
    return {
        number: what
        for (name, operations), what in table.items()
        if name == scenario
        for number in numbers(operations)
    }
