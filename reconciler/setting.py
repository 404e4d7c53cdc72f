"""What every part of the stack's settings is made of."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Setting(BaseModel):
    """A part of the stack's settings: a key nobody knows is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")
