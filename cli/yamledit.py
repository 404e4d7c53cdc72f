"""Pulumi.<stack>.yaml, written so that people's comments and the order of their keys stay."""

from __future__ import annotations

import re
from io import StringIO
from pathlib import Path
from typing import Any

from cli.context import replace_file

# Words that YAML 1.1 readers take for booleans or null; the official CLI writes them quoted.
_QUOTED = re.compile(
    r"(?i:y|n|yes|no|on|off|true|false|null|~|)$|[-+]?[0-9][0-9_.eE+-]*$|[-+]?\.[0-9]+$|0[xo][0-9a-fA-F]+$"
)


def edit(path: Path, changes: dict[str, Any], config: dict[str, Any]) -> None:
    """Rewrite the file so that top keys have the values of `changes` and `config:` holds `config`.

    Keys keep their place, new ones go to the end, comments stay.
    """
    from ruamel.yaml import YAML
    from ruamel.yaml.comments import CommentedMap

    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 1 << 20
    yaml.indent(mapping=2, sequence=4, offset=2)
    tree: Any = yaml.load(path) if path.exists() else None
    if tree is None:
        tree = CommentedMap()
    for key, value in changes.items():
        if key not in tree:
            tree.insert(0, key, value) if key == "encryptionsalt" else tree.update({key: value})
        tree[key] = value
    if config or "config" in tree:
        if not isinstance(tree.get("config"), dict):
            tree["config"] = CommentedMap()
        _merge(tree["config"], config)
    if not tree.get("config", True):
        del tree["config"]
    text = StringIO()
    if tree:
        yaml.dump(tree, text)
    replace_file(path, text.getvalue().encode())


def _merge(tree: Any, wanted: dict[str, Any]) -> None:
    for key in [key for key in tree if key not in wanted]:
        del tree[key]
    for key, value in wanted.items():
        if isinstance(value, dict) and isinstance(tree.get(key), dict):
            _merge(tree[key], value)
        elif key not in tree or _plain(tree[key]) != value:
            tree[_quoted(key)] = _styled(value)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_plain(v) for v in value]
    return str(value) if isinstance(value, str) else value


def _styled(value: Any) -> Any:
    if isinstance(value, dict):
        return {_quoted(k): _styled(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_styled(v) for v in value]
    return _quoted(value) if isinstance(value, str) else value


def _quoted(text: str) -> Any:
    from ruamel.yaml.scalarstring import (
        DoubleQuotedScalarString,
        LiteralScalarString,
        SingleQuotedScalarString,
    )

    if "\n" in text:
        return LiteralScalarString(text)
    if re.search(r": | #|:$", text) and text.isprintable():
        return SingleQuotedScalarString(text)
    return DoubleQuotedScalarString(text) if _QUOTED.match(text) else text
