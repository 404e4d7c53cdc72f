"""Property values: secrets, unknowns, and their three spellings (wire, state file, plain Python).

Inside the engine a property is a plain Python value (None, bool, int, float, str, list, dict), a
`Secret` around one, or `UNKNOWN`, which stands for an output that a preview cannot know.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from .errors import NotInEngine

if TYPE_CHECKING:
    from google.protobuf.struct_pb2 import Struct, Value

SIGNATURE: Final = "4dabf18193072939515e22adb298388d"
SECRET_SIGNATURE: Final = "1b47061264138c4ac30d75fd1eb44270"
OUTPUT_SIGNATURE: Final = "d0e6a833031e9bbcd3f4e8bde6ca49a4"
UNSUPPORTED: Final = {
    "c44067f5952c0a294b673a41bacd8c17": "an asset property",
    "0def7320c3a5731c473e5ecbe6d01bc7": "an archive property",
}
UNKNOWN_TEXT: Final = "04da6b54-80e4-46f7-96ec-b56ff0331ba9"
UNKNOWN_TEXTS: Final = frozenset(
    {
        UNKNOWN_TEXT,
        "1c4a061d-8072-4f0a-a4cb-0ff528b18fe7",
        "3eeb2bf0-c639-47a8-9e75-3b44932eb421",
        "6a19a0b0-7e62-4c92-b797-7f8e31da9cc2",
        "030794c1-ac77-496b-92df-f27374a8bd58",
        "e48ece36-62e2-4504-bad9-02848725956a",
        "dd056dcd-154b-4c76-9bd3-c8f88648b5ff",
    }
)

Props = dict[str, Any]


class Unknown:
    """The type of `UNKNOWN`; there is one value of it."""

    def __repr__(self) -> str:
        return "[unknown]"


UNKNOWN: Final = Unknown()


@dataclass(frozen=True)
class Secret:
    """A value that is written to the state encrypted and shown as [secret]."""

    value: Any

    def __repr__(self) -> str:
        return "[secret]"


def is_secret(value: Any) -> bool:
    """Whether a secret is anywhere inside the value."""
    return anywhere(value, lambda v: isinstance(v, Secret))


def is_unknown(value: Any) -> bool:
    """Whether an unknown is anywhere inside the value."""
    return anywhere(value, lambda v: v is UNKNOWN)


def anywhere(value: Any, test: Callable[[Any], bool]) -> bool:
    """Whether the test holds for the value or for anything inside it."""
    if test(value):
        return True
    if isinstance(value, Secret):
        return anywhere(value.value, test)
    inner = value.values() if isinstance(value, dict) else value
    return isinstance(value, dict | list) and any(anywhere(v, test) for v in inner)


def mapped(value: Any, change: Callable[[Any], Any]) -> Any:
    """A copy of the value. `change` is asked of every part, the whole first; what it gives for one
    stands as it is, and of what it gives back untouched the members are asked."""
    changed = change(value)
    if changed is not value:
        return changed
    if isinstance(value, dict):
        return {k: mapped(v, change) for k, v in value.items()}
    return [mapped(v, change) for v in value] if isinstance(value, list) else value


def plain(value: Any) -> Any:
    """The value with every secret unwrapped."""
    return mapped(value, lambda v: plain(v.value) if isinstance(v, Secret) else v)


def secret(value: Any) -> Secret:
    """The value as one secret; secrets inside it are merged into the outer one."""
    return Secret(plain(value))


def masked(value: Any, unknown: str = "[unknown]") -> Any:
    """The value for display: secrets as text [secret], unknowns as the text given."""
    texts = {Secret: "[secret]", Unknown: unknown}
    return mapped(value, lambda v: texts.get(type(v), v))


def annotate(outs: Props, ins: Mapping[str, Any]) -> Props:
    """What a provider returned, with the secrets of the inputs of the same name put back.

    Providers receive and return plain values. A list with one secret element becomes secret as a
    whole; an object keeps the secret at its key.
    """
    result = dict(outs)
    for key, given in ins.items():
        if key not in result or isinstance(result[key], Secret):
            continue
        if isinstance(result[key], dict) and isinstance(given, dict):
            result[key] = annotate(result[key], given)
        elif is_secret(given):
            result[key] = secret(result[key])
    return result


def decode(struct: Struct) -> Props:
    """A property map from the wire."""
    return {key: _decode(value) for key, value in sorted(struct.fields.items())}


def _decode(value: Value) -> Any:
    kind = value.WhichOneof("kind")
    if kind == "struct_value":
        return _decode_object(value.struct_value)
    if kind == "list_value":
        return [_decode(v) for v in value.list_value.values]
    if kind == "number_value":
        number = value.number_value
        return int(number) if number.is_integer() and abs(number) < 2**53 else number
    if kind == "string_value":
        return UNKNOWN if value.string_value in UNKNOWN_TEXTS else value.string_value
    return value.bool_value if kind == "bool_value" else None


def _decode_object(struct: Struct) -> Any:
    fields = struct.fields
    signature = fields[SIGNATURE].string_value if SIGNATURE in fields else ""
    if signature == SECRET_SIGNATURE:
        return secret(_decode(fields["value"]))
    if signature == OUTPUT_SIGNATURE:
        inner = _decode(fields["value"]) if "value" in fields else UNKNOWN
        return secret(inner) if fields["secret"].bool_value else inner
    if signature in UNSUPPORTED:
        raise NotInEngine(UNSUPPORTED[signature])
    return decode(struct)


def encode(props: Mapping[str, Any]) -> Struct:
    """A property map for the wire."""
    from google.protobuf import struct_pb2

    struct = struct_pb2.Struct()
    for key, value in props.items():
        _encode(value, struct.fields[key])
    return struct


def _encode(value: Any, into: Value) -> None:
    if isinstance(value, Secret):
        into.struct_value.fields[SIGNATURE].string_value = SECRET_SIGNATURE
        _encode(value.value, into.struct_value.fields["value"])
    elif value is UNKNOWN:
        into.string_value = UNKNOWN_TEXT
    elif isinstance(value, dict):
        into.struct_value.SetInParent()
        for key, item in value.items():
            _encode(item, into.struct_value.fields[key])
    elif isinstance(value, list):
        into.list_value.SetInParent()
        for item in value:
            _encode(item, into.list_value.values.add())
    elif isinstance(value, bool):
        into.bool_value = value
    elif isinstance(value, int | float):
        into.number_value = value
    elif isinstance(value, str):
        into.string_value = value
    else:
        into.null_value = 0  # type: ignore[assignment]


def to_state(value: Any, encrypt: Callable[[str], str] | None) -> Any:
    """The value as it stands in the state file: secrets encrypted (in plain text for an export
    that shows them, where `encrypt` is None), unknowns by their marker."""

    def spelled(part: Any) -> Any:
        if isinstance(part, Secret):
            text = json.dumps(part.value, separators=(",", ":"), ensure_ascii=False)
            how = {"ciphertext": encrypt(text)} if encrypt else {"plaintext": text}
            return {SIGNATURE: SECRET_SIGNATURE, **how}
        return UNKNOWN_TEXT if part is UNKNOWN else part

    return mapped(value, spelled)


def from_state(value: Any, decrypt: Callable[[str], str]) -> Any:
    """The reverse of `to_state`; also reads a secret that an export left in plain text."""

    def read(part: Any) -> Any:
        signature = part.get(SIGNATURE) if isinstance(part, dict) else None
        if signature in UNSUPPORTED:
            raise NotInEngine(UNSUPPORTED[signature])
        if signature != SECRET_SIGNATURE:
            return part
        sealed = part.get("ciphertext")
        return Secret(json.loads(decrypt(sealed) if sealed else part["plaintext"]))

    return mapped(value, read)
