"""Gates as they are written in the compose file and in the config: one, a list, mostly none.

Their models take longer to build than all other settings together, so they are built for those
who have a gate.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

from pydantic_core import PydanticCustomError, ValidationError, core_schema

if TYPE_CHECKING:
    from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
    from pydantic.json_schema import JsonSchemaValue

    from reconciler.gates.model import Gate


class Unfinished(tuple[Any, ...]):
    """Gates of the config that say too little yet: no gate can be asked of them."""

    written: Any
    """As they stand there."""
    lacks: str
    """Where, and what another key has to say."""

    @classmethod
    def of(cls, written: Any, lacks: str) -> Unfinished:
        """Without a gate."""
        made = cls()
        made.written, made.lacks = written, lacks
        return made


class _Written:
    """How pydantic treats a field with gates; `key_by_key`: they may be unfinished."""

    def __init__(self, *, key_by_key: bool = False) -> None:
        self._key_by_key = key_by_key

    def __get_pydantic_core_schema__(
        self, _source: object, _handler: GetCoreSchemaHandler
    ) -> core_schema.CoreSchema:
        return core_schema.no_info_plain_validator_function(
            partial(_read, key_by_key=self._key_by_key),
            serialization=core_schema.plain_serializer_function_ser_schema(_plain),
        )

    def __get_pydantic_json_schema__(
        self, _schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        from reconciler.gates.model import WRITTEN

        return handler(WRITTEN.core_schema)


if TYPE_CHECKING:
    Gates = tuple[Gate, ...]
    SetGates = tuple[Gate, ...]
else:
    Gates = Annotated[Any, _Written()]
    SetGates = Annotated[Any, _Written(key_by_key=True)]


def lacking(gates: Mapping[str, Gates], of_stack: Gates) -> Iterator[str]:
    """What gates of the config lack that were set key by key, with the key of each."""
    for service, found in gates.items():
        if isinstance(found, Unfinished):
            yield f"gates.{service}{found.lacks}"
    if isinstance(of_stack, Unfinished):
        yield f"stackGates{of_stack.lacks}"
    elif of_stack:
        from reconciler.gates import model

        for gate in of_stack:
            if not gate.service and (inside := model.inside(gate)):
                yield f"stackGates: say which `service` {inside[0]} asks"


def insist_on_place(service: str, gates: Gates) -> None:
    """See `model.insist_on_place`."""
    if gates:
        from reconciler.gates import model

        model.insist_on_place(service, gates)


def place(problem: Mapping[str, Any]) -> list[str]:
    """Where a problem of validation stands, also inside of a gate."""
    inside = (problem.get("ctx") or {}).get("inside", ())
    return [str(part) for part in (*problem["loc"], *inside)]


def _read(value: Any, *, key_by_key: bool) -> Gates:
    if value in (None, (), []) or isinstance(value, Unfinished):
        return value or ()
    from reconciler.gates import model

    try:
        read = model.WRITTEN.validate_python(value)
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False)
        # A key that nobody knows is most likely the one that is missed elsewhere.
        worst = next((p for p in found if p["type"] == "extra_forbidden"), found[0])
        inside = [part for part in worst["loc"] if part not in model.FORMS]
        if key_by_key and all(p["type"] in ("missing", model.UNFINISHED) for p in found):
            where = "".join(f".{part}" for part in inside)
            return Unfinished.of(value, f"{where}: {worst['msg']}")
        told = {"problem": worst["msg"], "inside": inside}
        raise PydanticCustomError("gate", "{problem}", told) from None
    return read if isinstance(read, tuple) else (read,)


def _plain(gates: Gates) -> Any:
    if isinstance(gates, Unfinished):
        return gates.written
    return [gate.model_dump(mode="json") for gate in gates]
