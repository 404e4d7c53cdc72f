"""The tables of docs/gates.md: what a gate may say, read off its model.

python -m tests.docs.gates --write     writes them into the page
"""

from __future__ import annotations

import re
import sys
import types
import typing
from collections.abc import Iterator, Mapping

from pydantic import BaseModel, ByteSize
from pydantic.fields import FieldInfo

from reconciler.gates.model import KINDS, Expected, Gate
from tests.stacks.harness import ROOT

PAGE = ROOT / "docs" / "gates.md"
_MARK = re.compile(r"(<!-- made from the code by [^\n]* -->\n)(.*?)(?=\n## )", re.DOTALL)
_WORDS: Mapping[object, str] = {
    str: "text", int: "number", float: "number", bool: "true or false", ByteSize: "bytes",
    dict: "names with values",
}  # fmt: skip


def tables() -> str:
    """What is asked, then what each kind says, then the limits of all."""
    kinds = ((n, f) for n, f in Gate.model_fields.items() if n in KINDS)
    parts = [
        "\n".join(
            ["| key | asks for | a try takes at most |", "| --- | --- | --- |"]
            + [f"| `{n}` | {_cell(f.description)} | {KINDS[n]:g} s |" for n, f in kinds]
        )
    ]
    for name in KINDS:
        model = _model(Gate.model_fields[name].annotation)
        if model is not None:
            common = Expected.model_fields if issubclass(model, Expected) else {}
            own = {n: f for n, f in model.model_fields.items() if n not in common}
            parts.append(f"**`{name}`** says\n\n{_table(own)}")
    parts.append(
        "**`sql`, `redis` and each of `http.values`** judge their value by\n\n"
        + _table(Expected.model_fields)
    )
    limits = {n: f for n, f in Gate.model_fields.items() if n not in KINDS}
    parts.append(f"**Every gate** may also say\n\n{_table(limits)}")
    return "\n\n".join(parts) + "\n"


def _table(fields: Mapping[str, FieldInfo]) -> str:
    rows = ["| key | is | if not said | means |", "| --- | --- | --- | --- |"]
    for name, field in fields.items():
        default = "needed" if field.is_required() else _default(field.default)
        rows.append(f"| `{name}` | {_is(field)} | {default} | {_cell(field.description)} |")
    return "\n".join(rows)


def _is(field: FieldInfo) -> str:
    words = list(dict.fromkeys(_words(field.annotation)))
    least = [
        f"{word} {getattr(limit, sign)}"
        for limit in field.metadata
        for sign, word in (("gt", "above"), ("ge", "from"))
        if hasattr(limit, sign)
    ]
    return ", ".join([" or ".join(words), *least])


def _words(kind: object) -> Iterator[str]:
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if kind is type(None):
        return
    if origin in (typing.Union, types.UnionType):
        for one in inner:
            yield from _words(one)
    elif origin is typing.Literal:
        yield from (f"`{str(value).lower() if value is True else value}`" for value in inner)
    elif origin is typing.Annotated:
        yield from _words(inner[0])
    elif origin in (tuple, list):
        yield "a list"
    elif origin is dict or kind is dict:
        yield _WORDS[dict]
    elif isinstance(kind, type) and issubclass(kind, BaseModel):
        yield "an object"
    else:
        yield _WORDS[kind]


def _default(value: object) -> str:
    if not value and not isinstance(value, int | float):
        return ""
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _cell(text: str | None) -> str:
    return (text or "").replace("|", "\\|")


def _model(kind: object) -> type[BaseModel] | None:
    for one in (kind, *typing.get_args(kind)):
        if isinstance(one, type) and issubclass(one, BaseModel):
            return one
    return None


def written(page: str) -> str:
    """The page with today's tables. Raises ValueError where the page has no place for them."""
    made = tables()
    done, times = _MARK.subn(lambda found: f"{found[1]}\n{made}", page)
    if times != 1:
        raise ValueError(f"{PAGE} has no place for the tables")
    return done


if __name__ == "__main__" and "--write" in sys.argv:
    PAGE.write_text(written(PAGE.read_text()))
