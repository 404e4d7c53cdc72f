"""Where something stands in the compose files: file and line, for messages."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import yaml

from reconciler.config import Stack
from reconciler.project import source

_NAMES = ("compose.yaml", "compose.yml", "docker-compose.yaml", "docker-compose.yml")
_OVERRIDES = tuple(name.replace("compose.", "compose.override.") for name in _NAMES)


def place(stack: Stack, *path: str, holding: str = "") -> str:
    """` (compose.yaml, line 7)`: where the compose files say `path`, or the entry of its list that
    holds a text; "" where no file that they name does (an anchor's merge may hide it)."""
    for file in _files(stack):
        line = _line(file, path, holding)
        if line is not None:
            return f" ({_shown(file, source.folder(stack))}, line {line})"
    return ""


def _files(stack: Stack) -> Iterator[Path]:
    """The compose files, then those that they include or extend, each once."""
    waiting: list[Path] = []
    for given in source.files(stack):
        if given.is_dir():
            waiting += [given / name for name in (*_NAMES, *_OVERRIDES)]
        else:
            waiting.append(given)
    seen: set[Path] = set()
    while waiting:
        file = waiting.pop(0)
        if file not in seen and file.is_file():
            seen.add(file)
            yield file
            waiting += [file.parent / other for other in _others(_tree(file))]


def _others(node: yaml.Node | None) -> Iterator[str]:
    """Files that `include`, or `extends` of a service, names."""
    _, included = _member(node, "include")
    for entry in included.value if isinstance(included, yaml.SequenceNode) else ():
        yield from _texts(
            entry if isinstance(entry, yaml.ScalarNode) else _member(entry, "path")[1]
        )
    _, services = _member(node, "services")
    for _, body in services.value if isinstance(services, yaml.MappingNode) else ():
        yield from _texts(_member(_member(body, "extends")[1], "file")[1])


def _texts(node: yaml.Node | None) -> Iterator[str]:
    if isinstance(node, yaml.ScalarNode):
        yield node.value
    for item in node.value if isinstance(node, yaml.SequenceNode) else ():
        yield from _texts(item)


def _tree(file: Path) -> yaml.Node | None:
    try:
        text = file.read_text(encoding="utf-8")
        tree: yaml.Node | None = yaml.compose(text, yaml.SafeLoader)
    except (OSError, ValueError, yaml.YAMLError):
        return None
    return tree


def _line(file: Path, path: Sequence[str], holding: str) -> int | None:
    node, line = _tree(file), None
    for step in path:
        line, node = _member(node, step)
        if line is None:
            return None
    for item in node.value if holding and isinstance(node, yaml.SequenceNode) else ():
        if holding in file.read_text()[item.start_mark.index : item.end_mark.index]:
            return int(item.start_mark.line) + 1
    return line


def _member(node: yaml.Node | None, name: str) -> tuple[int | None, yaml.Node | None]:
    """(its line, the value) of a mapping's member; (None, None) without one."""
    for key, value in node.value if isinstance(node, yaml.MappingNode) else ():
        if key.value == name:
            return int(key.start_mark.line) + 1, value
    return None, None


def _shown(file: Path, folder: Path) -> str:
    return str(file.relative_to(folder)) if file.is_relative_to(folder) else str(file)
