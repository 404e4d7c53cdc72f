"""The JSON schema of `Pulumi.<stack>.yaml`, by which editors complete and check its keys."""

from __future__ import annotations

import json
from typing import Any

FILE = "lockstep.schema.json"
MODELINE = f"# yaml-language-server: $schema={FILE}"
_SECURE = {"type": "object", "required": ["secure"], "properties": {"secure": {"type": "string"}}}
_SHORT = {"type": ["string", "number", "boolean"]}
"""Pulumi writes numbers as text, and some keys have a short form."""


def document(project: str) -> dict[str, Any]:
    """Made from the settings' model; keys carry the project's name, as Pulumi writes them."""
    from reconciler.config import Settings

    model = Settings.model_json_schema()
    defined = model.pop("$defs", {})
    keys = {
        f"{project}:{name}": _as_written(said, secret=name in ("secrets", "encryption"))
        for name, said in model["properties"].items()
    }
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": f"What a stack of {project} declares",
        "type": "object",
        "properties": {
            "config": {"type": "object", "properties": keys},
            "encryptionsalt": {"type": "string"},
            "secretsprovider": {"type": "string"},
        },
        "$defs": defined,
    }


def text(project: str) -> str:
    """The document as a file has it."""
    return json.dumps(document(project), indent=2) + "\n"


def _as_written(said: dict[str, Any], *, secret: bool) -> dict[str, Any]:
    kept = {key: said[key] for key in ("description", "default") if said.get(key) is not None}
    if secret and said.get("type") == "object":
        return {**kept, "type": "object", "additionalProperties": {"anyOf": [_SECURE, _SHORT]}}
    return {**kept, "anyOf": [said, _SHORT, *([_SECURE] if secret else [])]}
