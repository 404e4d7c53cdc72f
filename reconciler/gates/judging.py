"""What an answer is worth, and when enough was asked. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from reconciler.gates.model import Expected, Gate, JsonExpected, retries

_STEP = re.compile(r"""\.?([^.\[\]"']+)|\[(-?\d+)\]|\[["']([^"']*)["']\]""")
_SHOWN = 80


class Verdict(Enum):
    """What one try came to."""

    PASSED = "passed"
    FAILED = "failed"
    SILENT = "did not answer"
    UNSURE = "inconclusive"


@dataclass(frozen=True)
class Answer:
    """One try: what it came to, why, and what was answered. `final`: no other try would differ."""

    verdict: Verdict
    said: str = ""
    excerpt: str = ""
    final: bool = False


def passed(excerpt: str = "") -> Answer:
    """It is as it must be."""
    return Answer(Verdict.PASSED, "", excerpt)


def failed(said: str, excerpt: str = "", *, final: bool = False) -> Answer:
    """It answered, and wrongly."""
    return Answer(Verdict.FAILED, said, excerpt, final)


def silent(said: str) -> Answer:
    """Nobody answered (yet)."""
    return Answer(Verdict.SILENT, said)


def unsure(said: str, excerpt: str = "", *, final: bool = True) -> Answer:
    """It could not be found out."""
    return Answer(Verdict.UNSURE, said, excerpt, final)


class Counting:
    """The tries of one gate against its limits."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self._retries = retries(gate)
        self._wrong = self._failed = self._good = 0

    def after(self, answer: Answer) -> Verdict | None:
        """What is decided by one more answer: passed, failed or inconclusive; None: ask again."""
        if answer.verdict is Verdict.PASSED:
            self._good += 1
            return Verdict.PASSED if self._good >= self._gate.passes else None
        self._good = 0
        self._wrong += 1
        decided = Verdict.UNSURE if answer.verdict is Verdict.UNSURE else Verdict.FAILED
        if answer.verdict is Verdict.FAILED:
            self._failed += 1
            if self._gate.failure_limit is not None and self._failed > self._gate.failure_limit:
                return decided
        spent = self._retries is not None and self._wrong > self._retries
        return decided if answer.final or spent else None


def wrong(value: Any, expected: Expected) -> str | None:
    """Why a value is not what is expected; None if it is."""
    shown = _shown(value)
    if expected.equals is not None and not _same(value, expected.equals):
        return f"is {shown}, not {_shown(expected.equals)}"
    if expected.matches and not re.search(expected.matches, _text(value)):
        return f"is {shown}, without /{expected.matches}/ in it"
    if expected.greater is None and expected.less is None:
        return None
    number = _number(value)
    if number is None:
        return f"is {shown}, which is no number"
    if expected.greater is not None and not number > expected.greater:
        return f"is {shown}, not above {expected.greater:g}"
    if expected.less is not None and not number < expected.less:
        return f"is {shown}, not below {expected.less:g}"
    return None


def wrong_in_json(document: Any, expected: JsonExpected) -> str | None:
    """Why a value in a JSON document is not what is expected; None if it is."""
    try:
        value = at(document, expected.path)
    except LookupError:
        return f"{expected.path} is not there"
    said = wrong(value, expected)
    return f"{expected.path} {said}" if said else None


def at(document: Any, path: str) -> Any:
    """The value at a path like `items[0].id`. Raises LookupError."""
    rest = path.removeprefix("$")
    while rest:
        step = _STEP.match(rest)
        if step is None:
            raise LookupError(path)
        name, index, quoted = step.groups()
        if index is not None and isinstance(document, list):
            document = document[int(index)]
        elif index is None and isinstance(document, Mapping):
            document = document[quoted if quoted is not None else name]
        else:
            raise LookupError(path)
        rest = rest[step.end() :]
    return document


def rows_before(
    counts: Mapping[str, Mapping[str, int]], table: str, database: str
) -> tuple[int | None, str]:
    """(the rows that a table had by the data probes, "" ), or (None, why they are not known).

    `counts`: dataset -> name as the probe has it (`shop.public.orders`, `shop.orders`) -> rows.
    """
    wanted = table.replace('"', "")
    found = {
        name: rows
        for probes in counts.values()
        for name, rows in probes.items()
        if f".{name}".endswith(f".{wanted}") and name.startswith(f"{database}." if database else "")
    }
    if not found:
        return None, f"how many rows {table} had before is not known"
    if len(found) > 1:
        return None, f"{table} may be any of {', '.join(sorted(found)[:5])}"
    return next(iter(found.values())), ""


def _same(value: Any, wanted: Any) -> bool:
    if isinstance(value, bool) or isinstance(wanted, bool):
        return _text(value).lower() == _text(wanted).lower()
    if value == wanted or _text(value) == _text(wanted):
        return True
    one, other = _number(value), _number(wanted)
    return one is not None and one == other


def _number(value: Any) -> float | None:
    if isinstance(value, bool):
        return None
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _shown(value: Any) -> str:
    text = repr(value) if isinstance(value, str) else _text(value)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."
