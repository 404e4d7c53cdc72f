"""The stack's settings file: paths into structured values, and what the program gets to see."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

from . import paths
from .errors import EngineError

SECURE = "secure"
Crypt = Callable[[str], str]


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


def put_path(value: Any, path: list[str | int], new: Any) -> Any:
    """A copy of `value` with `new` at the path; missing objects and lists on the way are made.

    Raises EngineError if a list would get a gap or a plain value is in the way.
    """
    if not path:
        return new
    part, rest = path[0], path[1:]
    if isinstance(part, int):
        items = list(value) if isinstance(value, list) else [] if value is None else None
        if items is None or part > len(items):
            raise EngineError(f"config path: there is no list with a place [{part}]")
        tail = put_path(items[part] if part < len(items) else None, rest, new)
        return [*items[:part], tail, *items[part + 1 :]]
    if value is not None and (not isinstance(value, dict) or is_sealed(value)):
        raise EngineError(f"config path: a plain value is where an object with {part!r} should be")
    return {**(value or {}), part: put_path((value or {}).get(part), rest, new)}


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


def is_sealed(value: Any) -> bool:
    """Whether the value is `{secure: ciphertext}`."""
    return isinstance(value, dict) and list(value) == [SECURE] and isinstance(value[SECURE], str)


def holds_secret(value: Any) -> bool:
    """Whether an encrypted value is anywhere inside."""
    if is_sealed(value):
        return True
    if isinstance(value, dict):
        return any(holds_secret(v) for v in value.values())
    return isinstance(value, list) and any(holds_secret(v) for v in value)


def opened(value: Any, decrypt: Crypt) -> Any:
    """The value with its encrypted parts decrypted."""
    if is_sealed(value):
        return decrypt(value[SECURE])
    if isinstance(value, dict):
        return {k: opened(v, decrypt) for k, v in value.items()}
    return [opened(v, decrypt) for v in value] if isinstance(value, list) else value


def as_text(value: Any) -> str:
    """A config value as the program's SDK gets it: texts as they are, everything else as JSON."""
    if isinstance(value, str):
        return value
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False, sort_keys=True)
