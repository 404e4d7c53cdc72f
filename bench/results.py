"""Everything that was measured, one line per measurement, appended as soon as it is known.

A file has the parts of the bench as they were measured last, each with its own date and commit.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from bench.errors import BenchError


@dataclass(frozen=True)
class Series:
    """What is measured again in each round: seconds, bytes or a ratio, by what its name says."""

    chapter: str
    subject: str
    who: str
    what: str


@dataclass(frozen=True)
class Figure:
    """The median of a series; `at_least`: it was ended at a limit, so it is more than this."""

    value: float
    n: int
    at_least: bool = False


class Results:
    """The file of one run. What belongs to a round that did not end is not counted."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.facts: dict[str, Any] = {}
        self.parts: dict[str, dict[str, Any]] = {}
        self.ended: set[str] = set()  # of the parts
        self._values: dict[Series, list[float]] = {}
        self._limited: set[Series] = set()
        self._whole: set[tuple[str, str, int]] = set()
        self._pending: list[tuple[Series, float, bool]] = []

    @classmethod
    def begin(cls, path: Path, facts: dict[str, Any]) -> Results:
        """A new file; what it held before is kept beside it."""
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            path.replace(path.with_suffix(".before.jsonl"))
        results = cls(path)
        results.facts = facts
        results._append({"facts": facts})
        return results

    @classmethod
    def load(cls, path: Path) -> Results:
        """The file of an earlier run, killed or not. Raises BenchError when there is none."""
        results = cls(path)
        try:
            text = path.read_text()
        except FileNotFoundError:
            raise BenchError(f"there is no earlier run to go on with: {path}") from None
        *lines, torn = text.split("\n")
        if torn:  # what a machine's death left of a line
            os.truncate(path, len(text.encode()) - len(torn.encode()))
        for line in lines:
            results._take(json.loads(line))
        results._pending.clear()
        return results

    def begin_part(self, name: str, covered: Sequence[tuple[str, str]], **facts: str | int) -> None:
        """Measure a part, for the first time or anew: what there was of it counts no more.

        `covered`: the chapters and subjects that are in it. `facts`: date, commit, rounds.
        """
        document = {"part": name, "covers": [list(pair) for pair in covered], "facts": facts}
        self._append(document)
        self._take(document)

    def end_part(self, name: str) -> None:
        """All of it that there was time for was measured."""
        self._append({"ended": name})
        self._take({"ended": name})

    def add(self, series: Series, value: float, *, at_least: bool = False) -> None:
        """One measurement; it counts once its round is whole."""
        limited = {"limited": True} if at_least else {}
        document = {"series": asdict(series), "value": value, **limited}
        self._append(document)
        self._take(document)

    @contextmanager
    def round(self, chapter: str, subject: str, number: int) -> Iterator[None]:
        """A round: what is added in it counts when it has ended."""
        for word in ("begun", "whole"):
            document = {word: [chapter, subject, number]}
            self._append(document)
            self._take(document)
            if word == "begun":
                yield

    def has(self, chapter: str, subject: str, number: int) -> bool:
        """Whether that round is there already."""
        return (chapter, subject, number) in self._whole

    def figure(self, series: Series) -> Figure | None:
        """The median of a series; None when nothing was measured."""
        values = self._values.get(series)
        if not values:
            return None
        return Figure(median(values), len(values), series in self._limited)

    def spent(self, chapter: str, subject: str, who: str) -> float:
        """Seconds that this one took so far, this round's included."""
        whole = [(s, v) for s, values in self._values.items() for v in values]
        pending = [(s, v) for s, v, _ in self._pending]
        wanted = (chapter, subject, who)
        return sum(
            v
            for s, v in [*whole, *pending]
            if (s.chapter, s.subject, s.who) == wanted and s.what.startswith("seconds")
        )

    def values(self) -> Iterator[tuple[Series, list[float]]]:
        yield from self._values.items()

    def _take(self, document: dict[str, Any]) -> None:
        if "part" in document:
            self.parts[document["part"]] = document["facts"]
            self.ended.discard(document["part"])
            self._drop({(chapter, subject) for chapter, subject in document["covers"]})
        elif "ended" in document:
            self.ended.add(document["ended"])
        elif "facts" in document:
            self.facts = document["facts"]
        elif "series" in document:
            series = Series(**document["series"])
            self._pending.append((series, document["value"], document.get("limited", False)))
        elif "begun" in document:
            self._pending.clear()
        else:
            chapter, subject, number = document["whole"]
            self._whole.add((chapter, subject, number))
            for series, value, limited in self._pending:
                self._values.setdefault(series, []).append(value)
                if limited:
                    self._limited.add(series)
            self._pending.clear()

    def _drop(self, covered: set[tuple[str, str]]) -> None:
        self._values = {s: v for s, v in self._values.items() if not _in(s, covered)}
        self._limited = {s for s in self._limited if not _in(s, covered)}
        self._whole = {whole for whole in self._whole if whole[:2] not in covered}

    def _append(self, document: dict[str, Any]) -> None:
        # One write per line: a run that is killed leaves whole lines.
        fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            os.write(fd, (json.dumps(document) + "\n").encode())
        finally:
            os.close(fd)


def _in(series: Series, covered: set[tuple[str, str]]) -> bool:
    return (series.chapter, series.subject) in covered
