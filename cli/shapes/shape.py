"""What the models of documents share."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field


class Shape(BaseModel):
    """A part of a document: a member without a default is always there.

    `from_` is written `from`. Members may be added within schema 1, so readers ignore what they
    do not know; our own tests do not.
    """

    model_config = ConfigDict(alias_generator=lambda name: name.removesuffix("_"))


class Document(Shape):
    """A whole document."""

    schema_: Literal[1]


Bytes = Annotated[int, Field(ge=0, description="bytes")]
Number = Annotated[int, Field(ge=0)]
Seconds = Annotated[float, Field(description="seconds")]
At = Annotated[str, Field(description="UTC, ISO 8601")]
Counts = dict[str, int]
"""What was counted (rows of a table, keys, files, bytes) -> how many."""
