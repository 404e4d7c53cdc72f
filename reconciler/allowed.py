"""Dangers in a stack's compose files and records, against what its config allows."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import yaml

from reconciler import compose, dangers, source
from reconciler.config import Stack
from reconciler.dangers import Danger
from reconciler.errors import Refused
from reconciler.release import Release


def insist_on_files(stack: Stack, model: compose.Model) -> None:
    """Raises Refused, with service, file and line, where the compose files ask for what the
    config does not allow."""
    found = _refused(stack, model)
    if found:
        files = list(_files(stack))
        raise Refused(
            "\n".join(f"service {d.service} {d.what}{_place(files, d)}" for d in found),
            next_step=_next_step(stack, found),
        )


def insist_on_record(stack: Stack, release: Release) -> None:
    """The same for a world that is about to be made: links may have changed since the record."""
    found = [d for d in _refused(stack, release.model) if d.place != "build"]
    if found and not release.adopted:
        raise Refused(
            "\n".join(f"service {d.service} of {release.name} {d.what}" for d in found),
            next_step=_next_step(stack, found),
        )


def own_folders(stack: Stack) -> tuple[str, ...]:
    """Where the stack's state lies, which no container may see."""
    folders = (stack.releases, stack.store, stack.root / ".lockstep", stack.root / ".pulumi")
    return tuple(str(folder) for folder in folders)


def _refused(stack: Stack, model: compose.Model) -> list[Danger]:
    found = dangers.find(model, own=own_folders(stack), resolve=os.path.realpath)
    return dangers.refused(found, stack.settings.allow)


def _next_step(stack: Stack, found: list[Danger]) -> str:
    commands = dangers.remedy(found, stack.settings.allow)
    return f"take it out of the compose file, or, if it is meant:\n  {commands}"


def _files(stack: Stack) -> Iterator[Path]:
    names = ("compose.yaml", "compose.yml", "docker-compose.yaml", "docker-compose.yml")
    for given in source.files(stack):
        if given.is_dir():
            yield from (given / name for name in names if (given / name).is_file())
        else:
            yield given


def _place(files: list[Path], danger: Danger) -> str:
    """` (compose.yaml, line 7)`; nothing where an include or extension says it."""
    for file in files:
        line = _line_of(file, danger)
        if line is not None:
            return f" ({file.name}, line {line})"
    return ""


def _line_of(file: Path, danger: Danger) -> int | None:
    try:
        node: yaml.Node | None = yaml.compose(file.read_text(encoding="utf-8"), yaml.SafeLoader)
    except (OSError, ValueError, yaml.YAMLError):
        return None
    for step in ("services", danger.service, danger.place):
        if not isinstance(node, yaml.MappingNode):
            return None
        mark, node = next(
            ((key.start_mark, value) for key, value in node.value if key.value == step),
            (None, None),
        )
        if mark is None:
            return None
    wanted = danger.key.partition(":")[2]
    for item in node.value if isinstance(node, yaml.SequenceNode) else ():
        if wanted and wanted in file.read_text()[item.start_mark.index : item.end_mark.index]:
            return int(item.start_mark.line) + 1
    return int(mark.line) + 1 if mark is not None else None
