"""What commands print with `--json`, held against the schemas that are published."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import jsonschema
from jsonschema.exceptions import best_match

from cli import schemas
from cli.main import common_first
from tests import reference


def insist(arguments: Sequence[str], document: Any) -> None:
    """Raises when a document is not what the schema of the command that printed it says."""
    name = command(arguments)
    wrong = best_match(jsonschema.Draft202012Validator(_schema(name)).iter_errors(document))
    if wrong is not None:
        raise AssertionError(f"{name} --json, {wrong.json_path}: {wrong.message}")


@cache
def _schema(name: str) -> Any:
    return _closed(schemas.of(name))


def _closed(schema: Any) -> Any:
    """A schema by which nothing may be there that it does not name: readers bear a new member, but
    none may be left out of what is published."""
    if isinstance(schema, list):
        return [_closed(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    found = {key: _closed(part) for key, part in schema.items()}
    if isinstance(found.get("properties"), dict) and found.get("type") == "object":
        found.setdefault("additionalProperties", False)
    return found


def command(arguments: Sequence[str]) -> str:
    """`("snapshot", "list", "--json")` -> `snapshot list`."""
    waiting, found = [*common_first(arguments)], ""
    while waiting and waiting[0] not in _commands():
        waiting.pop(0)
    while waiting and f"{found} {waiting[0]}".strip() in _commands():
        found = f"{found} {waiting.pop(0)}".strip()
    return "snapshot live" if found == "snapshot" else found


@cache
def _commands() -> frozenset[str]:
    return frozenset(" ".join(words) for words, _ in reference.every_command() if words)


def with_json() -> set[str]:
    """Every command that prints a document."""
    return {
        " ".join(words)
        for words, command in reference.every_command()
        if "--json" in reference.options(command)
    }
