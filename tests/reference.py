"""`python -m tests.reference`: docs/commands.md and docs/config.md, made from the code.

`--write` writes them; without, exits 1 when they are not what the code says.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from typer.main import get_command

ROOT = Path(__file__).resolve().parent.parent
COMMANDS = ROOT / "docs" / "commands.md"
CONFIG = ROOT / "docs" / "config.md"
_EXTERNAL = "What follows is Docker Compose's."


def every_command() -> Iterator[tuple[tuple[str, ...], Any]]:
    """The words of every command and group, found in the application itself, and the command."""
    from cli import main

    yield from _below(get_command(main.app), ())


def _below(command: Any, words: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    yield words, command
    for name, child in getattr(command, "commands", {}).items():
        yield from _below(child, (*words, name))


def options(command: Any) -> dict[str, Any]:
    """Each option by its longest spelling."""
    return {max(p.opts, key=len): p for p in command.params if p.param_type_name == "option"}


# docs/commands.md ---------------------------------------------------------------------------


def commands_page() -> str:
    return "\n".join([*_intro(), *(line for w, c in every_command() if w for line in _told(w, c))])


def _intro() -> Iterator[str]:
    from cli import main

    yield "# Every command"
    yield ""
    yield "Made from the code by `python -m tests.reference --write`, and kept true by a test."
    yield ""
    yield (
        "Results go to standard output, everything else to standard error. `--json` prints one "
        "document whose schema `lockstep schema NAME` prints ([json.md](json.md)). "
        "Exit codes are in [exit-codes.md](exit-codes.md). What asks first is answered by `--yes`, "
        "and refuses where there is no terminal to ask on. Commands that work on data show "
        "bytes, rate and time left on a terminal. With `--quiet` only results and errors are said: "
        "of `up`, `rollback` and `undo` with `--yes` one line. "
        "These options stand before or after any command:"
    )
    yield ""
    yield from _options(get_command(main.app))


def _told(words: tuple[str, ...], command: Any) -> Iterator[str]:
    from cli.examples import EXAMPLES

    name = " ".join(words)
    yield ""
    yield f"## lockstep {name}"
    yield ""
    yield _text(command.help or "")
    if words == ("compose",):
        yield f"{_EXTERNAL}"
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    if arguments:
        yield ""
        for argument in arguments:
            shown = argument.metavar or argument.name.upper()
            yield f"- `{shown}`: {_text(argument.help or '')}"
    if options(command):
        yield ""
        yield from _options(command)
    yield ""
    yield "```sh"
    yield from EXAMPLES.get(name, ())
    yield "```"


def _options(command: Any) -> Iterator[str]:
    yield "| option | |"
    yield "| --- | --- |"
    for option in options(command).values():
        value = "" if option.is_flag else f" {option.metavar or _value(option)}"
        ways = [*sorted(option.opts, key=len, reverse=True), *option.secondary_opts]
        spelled = ", ".join(f"`{o}{value}`" for o in ways)
        default = option.default
        plain = default not in (None, False, ()) and not callable(default)
        shown = f" Default: `{default}`." if plain and str(default) != "." else ""
        yield f"| {spelled} | {_cell(option.help or '')}{shown} |"


def _value(option: Any) -> str:
    kind = getattr(option.type_descriptor.annotation, "__name__", "value")
    return {"Path": "FILE", "int": "NUMBER", "float": "NUMBER", "str": "TEXT"}.get(kind, "TEXT")


def _text(said: str) -> str:
    """One line for each paragraph."""
    paragraphs = said.strip().split("\n\n")
    return "\n\n".join(" ".join(p.split()) for p in paragraphs)


def _cell(said: str) -> str:
    return _text(said).replace("\n\n", " ").replace("|", "\\|")


# docs/config.md -----------------------------------------------------------------------------


def config_page() -> str:
    from reconciler.config import Settings

    schema = Settings.model_json_schema()
    lines = [
        "# Every config key",
        "",
        "Made from the code by `python -m tests.reference --write`, and kept true by a test.",
        "",
        "They stand in `Pulumi.<stack>.yaml` below `config:`, each with the project's name before "
        "it (`shop:window`). `lockstep config set KEY VALUE` sets one, with a path for what lies "
        "inside (`window.last`, `'allow[0]'`), and refuses what cannot be used; `lockstep schema "
        "config` prints the JSON schema. `NAME` stands for a name of yours.",
        "",
        "| key | value | default | |",
        "| --- | --- | --- | --- |",
        *(
            f"| `{key}` | {kind} | {default} | {_cell(text)} |"
            for key, kind, default, text in keys(schema, schema, "")
        ),
    ]
    return "\n".join(lines)


def keys(
    schema: dict[str, Any], part: dict[str, Any], path: str
) -> Iterator[tuple[str, str, str, str]]:
    """(key, kind of value, default, what it is for) of every setting, in their order."""
    for name, field in part.get("properties", {}).items():
        key = f"{path}{name}"
        inner, kind = _kind(schema, field)
        default = _default(field)
        text = field.get("description") or (inner or {}).get("description", "")
        yield key, kind, default, text
        if inner is not None:
            between = {"NAME": ".NAME.", "list": "[N]."}.get(kind.split(":")[0].split(" ")[0], ".")
            below = f"{key}{between}"
            yield from keys(schema, inner, below)


def _kind(schema: dict[str, Any], field: dict[str, Any]) -> tuple[dict[str, Any] | None, str]:
    """(the part of the schema that tells what is inside, if anything is; the kind of value)."""
    field = _meant(schema, field)
    if "enum" in field:
        return None, ", ".join(f"`{value}`" for value in field["enum"])
    if "const" in field:
        return None, f"`{field['const']}`"
    if field.get("properties"):
        return field, "object"
    if field.get("type") == "array":
        items = field.get("items") or (field.get("prefixItems") or [{}])[0]
        inner, kind = _kind(schema, items)
        return inner, f"list of {kind}"
    if field.get("type") == "object":
        more = field.get("additionalProperties")
        inner, kind = _kind(schema, more) if isinstance(more, dict) else (None, "anything")
        return inner, f"NAME: {kind}"
    if "oneOf" in field:
        field = {"anyOf": field["oneOf"]}
    if "anyOf" in field:
        found = [_kind(schema, _meant(schema, some)) for some in field["anyOf"]]
        inner = next((inside for inside, _ in found if inside is not None), None)
        return inner, " or ".join(dict.fromkeys(kind for _, kind in found))
    limits = [
        f"{word} {field[key]:g}"
        for key, word in (
            ("minimum", "at least"), ("exclusiveMinimum", "above"), ("maximum", "at most"),
            ("minLength", "characters: at least"),
        )
        if key in field
    ]  # fmt: skip
    kind = {"integer": "whole number", "boolean": "true or false", "string": "text"}.get(
        str(field.get("type")), str(field.get("type", "anything"))
    )
    return None, ", ".join([kind, *limits])


def _meant(schema: dict[str, Any], field: dict[str, Any]) -> dict[str, Any]:
    """With references followed, and without `null`, which stands for what is not set."""
    while "$ref" in field or "anyOf" in field or "allOf" in field:
        if "$ref" in field:
            field = schema["$defs"][field["$ref"].rpartition("/")[2]]
            continue
        some = [f for f in field.get("anyOf") or field["allOf"] if f.get("type") != "null"]
        if len(some) > 1:
            return {"anyOf": some}
        field = some[0]
    return field


def _default(field: dict[str, Any]) -> str:
    found = field.get("default")
    if found is None or found in ("", [], {}) or isinstance(found, dict):
        return ""
    if isinstance(found, list):
        return ", ".join(f"`{value}`" for value in found)
    if isinstance(found, bool):
        return f"`{str(found).lower()}`"
    return f"`{found:g}`" if isinstance(found, float) else f"`{found}`"


PAGES = {COMMANDS: commands_page, CONFIG: config_page}


def main() -> None:
    stale = [path for path, page in PAGES.items() if not _is(path, page())]
    if "--write" in sys.argv[1:]:
        for path in stale:
            path.write_text(PAGES[path]() + "\n")
        return
    for path in stale:
        print(f"{path.relative_to(ROOT)} is not what the code says")
    sys.exit(bool(stale))


def _is(path: Path, page: str) -> bool:
    return path.exists() and path.read_text() == page + "\n"


if __name__ == "__main__":
    main()
