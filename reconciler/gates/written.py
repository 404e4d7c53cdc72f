"""Gates as they are written in the compose file and in the config: one, a list, mostly none.

Their models take longer to build than all other settings together, so they are built for those
who have a gate.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

from pydantic_core import PydanticCustomError, ValidationError, core_schema

if TYPE_CHECKING:
    from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
    from pydantic.json_schema import JsonSchemaValue

    from reconciler.gates.model import Gate


class _Written:
    """How pydantic treats a field with gates."""

    @classmethod
    def __get_pydantic_core_schema__(
        cls, _source: object, _handler: GetCoreSchemaHandler
    ) -> core_schema.CoreSchema:
        return core_schema.no_info_plain_validator_function(
            _read, serialization=core_schema.plain_serializer_function_ser_schema(_plain)
        )

    @classmethod
    def __get_pydantic_json_schema__(
        cls, _schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        from reconciler.gates.model import WRITTEN

        return handler(WRITTEN.core_schema)


if TYPE_CHECKING:
    Gates = tuple[Gate, ...]
else:
    Gates = Annotated[Any, _Written]


def insist_on_place(service: str, gates: Gates) -> None:
    """See `model.insist_on_place`."""
    if gates:
        from reconciler.gates import model

        model.insist_on_place(service, gates)


def place(problem: Mapping[str, Any]) -> list[str]:
    """Where a problem of validation stands, also inside of a gate."""
    inside = (problem.get("ctx") or {}).get("inside", ())
    return [str(part) for part in (*problem["loc"], *inside)]


def _read(value: Any) -> Gates:
    if value in (None, (), []):
        return ()
    from reconciler.gates import model

    try:
        read = model.WRITTEN.validate_python(value)
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False)
        # A key that nobody knows is most likely the one that is missed elsewhere.
        worst = next((p for p in found if p["type"] == "extra_forbidden"), found[0])
        inside = [part for part in worst["loc"] if part not in model.FORMS]
        told = {"problem": worst["msg"], "inside": inside}
        raise PydanticCustomError("gate", "{problem}", told) from None
    return read if isinstance(read, tuple) else (read,)


def _plain(gates: Gates) -> list[dict[str, Any]]:
    return [gate.model_dump(mode="json") for gate in gates]
