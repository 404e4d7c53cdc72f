"""Pulumi.yaml and Pulumi.<stack>.yaml, read as Pulumi reads them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, ClassVar

from .errors import EngineError

_loader: Any = None


def _plain_loader() -> Any:
    """YAML 1.2's core types only: `on` and `no` are texts, dates are texts."""
    global _loader
    if _loader is None:
        import yaml

        base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

        class Loader(base):  # type: ignore[misc]
            yaml_implicit_resolvers: ClassVar[dict[str, Any]] = {}

        tag = "tag:yaml.org,2002:"
        Loader.add_implicit_resolver(tag + "bool", re.compile(r"(true|false)$"), list("tf"))
        Loader.add_implicit_resolver(tag + "null", re.compile(r"(null|~|)$"), ["n", "~", ""])
        digits = list("-+0123456789")
        Loader.add_implicit_resolver(tag + "int", re.compile(r"[-+]?(0|[1-9][0-9]*)$"), digits)
        real = r"[-+]?[0-9]+(\.[0-9]*([eE][-+]?[0-9]+)?|[eE][-+]?[0-9]+)$"
        Loader.add_implicit_resolver(tag + "float", re.compile(real), digits)
        _loader = Loader
    return _loader


def read(path: Path) -> dict[str, Any]:
    """The file's top mapping, empty if the file is missing or empty.

    Raises EngineError if it is not a mapping or not YAML.
    """
    import yaml

    try:
        text = path.read_text()
    except FileNotFoundError:
        return {}
    try:
        found = yaml.load(text, Loader=_plain_loader())
    except yaml.YAMLError as error:
        place = str(getattr(error, "problem_mark", "")).strip()
        reason = getattr(error, "problem", None) or "it cannot be read"
        raise EngineError(f"{path} is not valid YAML: {reason} {place}".rstrip()) from None
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise EngineError(f"{path} must hold a mapping of keys to values")
    return found
