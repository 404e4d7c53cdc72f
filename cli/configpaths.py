"""Paths into the structured values of a stack's config, and what `config set` makes of a text."""

from __future__ import annotations

import re
from typing import Any

from engine import paths
from engine.config import is_sealed
from engine.errors import EngineError


def parse_path(text: str) -> list[str | int]:
    """`obj.a.b[0]["x.y"]` as [obj, a, b, 0, "x.y"]. Raises EngineError if it is no path."""
    parts = paths.parse(text)
    if not parts or isinstance(parts[0], int):
        raise EngineError(f"config path {text!r} cannot be read: it is names and [places]")
    return list(parts)


def get_path(value: Any, path: list[str | int]) -> Any:
    """The value at the path. Raises KeyError if there is none."""
    for part in path:
        try:
            value = value[part]
        except (KeyError, IndexError, TypeError):
            raise KeyError(part) from None
    return value


def put_path(value: Any, path: list[str | int], new: Any, at: str = "") -> Any:
    """A copy of `value`, which is at the place `at`, with `new` at the path; missing objects and
    lists on the way are made, and a plain value of a whole key gives way.

    Raises EngineError if a list would get a gap or a plain value deeper inside is in the way.
    """
    if not path:
        return new
    part, rest = path[0], path[1:]
    wanted: type[Any] = list if isinstance(part, int) else dict
    inner: Any = value
    if is_sealed(value) or not isinstance(value, dict | list):
        if value is not None and re.search(r"[.\[]", at):
            kind = "an array" if wanted is list else "a map"
            raise EngineError(f"could not set config: {at}: expected {kind}")
        inner = wanted()
    if not isinstance(inner, wanted):
        kind = "an array must be an int" if wanted is dict else "a map must be a string"
        raise EngineError(f"could not set config: {_below(at, part)}: key for {kind}")
    if isinstance(part, int):
        if part > len(inner):
            raise EngineError(f"could not set config: {at}[{part}]: array index out of range")
        old = inner[part] if part < len(inner) else None
        return [*inner[:part], put_path(old, rest, new, _below(at, part)), *inner[part + 1 :]]
    return {**inner, part: put_path(inner.get(part), rest, new, _below(at, part))}


def _below(at: str, part: str | int) -> str:
    if isinstance(part, int):
        return f"{at}[{part}]"
    return f"{at}.{part}" if re.fullmatch(r"\w+", part) else f'{at}["{part}"]'


def drop_path(value: Any, path: list[str | int]) -> Any:
    """A copy of `value` without what is at the path; unchanged if nothing is there."""
    part, rest = path[0], path[1:]
    try:
        inner = value[part]
    except (KeyError, IndexError, TypeError):
        return value
    copy: Any = dict(value) if isinstance(value, dict) else list(value)
    if rest:
        copy[part] = drop_path(inner, rest)
    else:
        del copy[part]
    return copy


def scalar(text: str) -> Any:
    """What `config set --path` stores: true, false and whole numbers as such, all else as text."""
    if text in ("true", "false"):
        return text == "true"
    return int(text) if re.fullmatch(r"-?(0|[1-9]\d*)", text) else text
