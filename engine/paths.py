"""Property paths (`a.b[0]["c.d"]`, `list[*].x`) of ignoreChanges and replaceOnChanges."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from .values import Props, Secret, mapped, secret

Path = tuple[str | int, ...]
_PART = re.compile(r'\.?(?:\["((?:\\"|[^"])*)"\]|\[(\*|\d+)\]|([^.\[]+))')


class _Missing(Exception):
    """The path leads through something that was added or removed."""


def parse(text: str) -> Path | None:
    """The parts of a path, `*` for all of a level; None for what is no path."""
    parts: list[str | int] = []
    at = 0
    while at < len(text):
        found = _PART.match(text, at)
        if found is None or (at == 0 and text[0] == "."):
            return None
        quoted, index, name = found.groups()
        if index is not None and index != "*":
            parts.append(int(index))
        else:
            parts.append(quoted.replace('\\"', '"') if quoted is not None else index or name)
        at = found.end()
    return tuple(parts)


def contains(path: Path, other: Path) -> bool:
    """Whether `other` is the place that `path` names, or below it."""
    return len(other) >= len(path) and all(
        part in ("*", there) for part, there in zip(path, other, strict=False)
    )


def replaces(key: str, paths: Sequence[str]) -> bool:
    """Whether a changed key is at or below one of the paths."""
    there = parse(key)
    found = [parse(path) for path in paths]
    return there is not None and any(p is not None and contains(p, there) for p in found)


def keep_ignored(news: Props, olds: Props, paths: Iterable[str]) -> tuple[Props, list[str]]:
    """`news` with the old value at every path, and the paths that lead through something that was
    added or removed, where nothing is kept."""
    result, wrong = copied(news), []
    for text in paths:
        path = parse(text)
        if path is None:
            continue
        try:
            _keep(path, olds, result)
        except _Missing:
            wrong.append(text)
    return result, wrong


def copied(value: Any) -> Any:
    """A copy that shares nothing that can be changed."""
    return mapped(value, lambda v: Secret(copied(v.value)) if isinstance(v, Secret) else v)


def _keep(path: Path, old: Any, new: Any, sealed: bool = False, seals: bool = False) -> None:
    """Set the place inside `new` to what is there in `old`; `sealed`, `seals`: the one or the other
    is part of a secret. Raises _Missing where the place is in one of them only."""
    sealed, seals = sealed or isinstance(old, Secret), seals or isinstance(new, Secret)
    old, new = (v.value if isinstance(v, Secret) else v for v in (old, new))
    first, rest = path[0], path[1:]

    def keep(at: Any) -> None:
        if rest:
            _keep(rest, old[at], new[at], sealed, seals)
        else:
            new[at] = secret(old[at]) if sealed and not seals else old[at]

    if first == "*":
        _keep_all(old, new, leaf=not rest, keep=keep)
    elif isinstance(first, int):
        has = [first < len(value) for value in (old, new) if isinstance(value, list)]
        if has == [True, True]:
            keep(first)
        elif has and (rest or any(has) or len(has) == 1):
            raise _Missing
    else:
        _keep_member(first, old, new, leaf=not rest, keep=keep)
        if rest and isinstance(old, dict) and first not in old and first in new:
            _keep(rest, None, new[first], sealed, seals)


def _keep_member(key: str, old: Any, new: Any, leaf: bool, keep: Callable[[Any], None]) -> None:
    before = isinstance(old, dict) and key in old
    after = isinstance(new, dict) and key in new
    if leaf and after and not before:
        del new[key]
    elif before and (after or (leaf and isinstance(new, dict))):
        keep(key)
    elif before or (not leaf and isinstance(old, dict) != isinstance(new, dict)):
        raise _Missing


def _keep_all(old: Any, new: Any, leaf: bool, keep: Callable[[Any], None]) -> None:
    if isinstance(old, dict) and isinstance(new, dict):
        if leaf:
            for key in new.keys() - old.keys():
                del new[key]
        elif not old.keys() <= new.keys():
            raise _Missing
        for key in old:
            keep(key)
    elif isinstance(old, list) and isinstance(new, list):
        for at in range(min(len(old), len(new))):
            keep(at)
        if len(old) != len(new):
            raise _Missing
    elif not (leaf and isinstance(new, dict | list)):
        raise _Missing
