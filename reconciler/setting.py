"""What every part of the stack's settings is made of."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field


class Setting(BaseModel):
    """A part of the stack's settings: a key nobody knows is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def _as_text(value: Any) -> Any:
    """Fractions are left alone, and so refused: 1.10 would become 1.1."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, int) else value


Word = Annotated[str, BeforeValidator(_as_text)]
"""A text that may look like a number, or like true: `config set --path` stores it as such."""


def _can_be_read(hooks: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    if hooks:
        from reconciler.hooks import hooksettings

        hooksettings.parsed(hooks)
    return hooks


def _described(schema: dict[str, Any]) -> None:
    from reconciler.hooks import hooksettings

    schema["additionalProperties"] = hooksettings.schema()


Hooks = Annotated[
    dict[str, dict[str, Any]],
    AfterValidator(_can_be_read),
    Field(json_schema_extra=_described),
]
"""The user's hooks as they are written: name -> what `hooksettings.parsed` makes a Hook of. Who has
none does not pay for what they may be."""
