"""Values of a stack's settings file: what is encrypted in them, what the program gets to see."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from .values import anywhere, mapped

SECURE = "secure"
Crypt = Callable[[str], str]


def is_sealed(value: Any) -> bool:
    """Whether the value is `{secure: ciphertext}`."""
    return isinstance(value, dict) and list(value) == [SECURE] and isinstance(value[SECURE], str)


def holds_secret(value: Any) -> bool:
    """Whether an encrypted value is anywhere inside."""
    return anywhere(value, is_sealed)


def opened(value: Any, decrypt: Crypt) -> Any:
    """The value with its encrypted parts decrypted."""
    return mapped(value, lambda v: decrypt(v[SECURE]) if is_sealed(v) else v)


def as_text(value: Any) -> str:
    """A config value as the program's SDK gets it: texts as they are, everything else as JSON."""
    if isinstance(value, str):
        return value
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False, sort_keys=True)
