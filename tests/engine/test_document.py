"""The tables of docs/engine.md, made from the code (`python -m tests.engine.test_document`)."""

from __future__ import annotations

import argparse
import dataclasses
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from cli import pulumi
from engine import monitor, providers, snapshot, values
from engine.planner import Op
from tests.engine.differences import AFTER_REFUSED, DIFFERENCES, REFUSED

PAGE = Path(__file__).parents[2] / "docs" / "engine.md"
# What a state entry says of how a resource came to be, rather than what the program wants.
KNOWN = {
    "urn",
    "type",
    "custom",
    "id",
    "inputs",
    "outputs",
    "created",
    "modified",
    "rest",
    "delete",
}


def rows(header: Iterable[str], body: Iterable[Iterable[str]]) -> str:
    lines = [list(header), *[list(row) for row in body]]
    lines.insert(1, ["---"] * len(lines[0]))
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def calls(parser: argparse.ArgumentParser, before: str = "") -> Iterator[tuple[str, str]]:
    """Every call with its own flags."""
    shared = {"--help", "--stack", "--cwd", "--non-interactive", "--color"}
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            seen = set()
            for name, inner in action.choices.items():
                if id(inner) in seen:
                    continue
                seen.add(id(inner))
                flags = {s for a in inner._actions for s in a.option_strings if s[:2] == "--"}
                own = " ".join(f"`{flag}`" for flag in sorted(flags - shared))
                deeper = list(calls(inner, f"{before}{name} "))
                if not deeper or name == "config":
                    yield f"`{before}{name}`", own
                yield from deeper


def tables() -> dict[str, str]:
    """Each table by the name of its place in the page."""
    wants = [f.name for f in dataclasses.fields(snapshot.Resource) if f.name not in KNOWN]
    has = [
        ("steps", ", ".join(Op)),
        ("of a resource", ", ".join(wants)),
        ("hooks", ", ".join(monitor.HOOKS)),
        ("packages", ", ".join(providers.PACKAGES)),
        ("types of pulumi-docker", ", ".join(sorted(providers.DOCKER_TYPES))),
    ]
    refused = [
        ("in a program", *sorted({*monitor.REFUSED.values(), *values.UNSUPPORTED.values()})),
        ("calls of the program", *sorted(monitor.REFUSED_CALLS)),
        ("in a state", *sorted(snapshot.REFUSED.values())),
        ("around it", "another backend than file://", "another secrets provider than passphrase"),
        ("", "another runtime than python", "the old state layout without projects"),
    ]
    different = [(s, n, parts, reason) for (s, n), (parts, reason) in DIFFERENCES.items()]
    turned_down = [(s, n, f"`{name}`") for (s, n), name in REFUSED.items()]
    turned_down += [(s, n, "only what those would have left") for s, n in AFTER_REFUSED]
    return {
        "has": rows(("what", "here"), has),
        "refused": rows(("where", "what"), [(where, "; ".join(what)) for where, *what in refused]),
        "calls": rows(("call", "flags"), calls(pulumi.parser())),
        "differences": rows(("scenario", "operations", "parts", "reason"), different),
        "refusals": rows(("scenario", "operations", "refused"), turned_down),
    }


def page(text: str) -> str:
    """The page with its tables as the code has them now."""
    for name, table in tables().items():
        begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
        found = re.search(f"{begin}.*?{end}", text, re.DOTALL)
        assert found, f"docs/engine.md has no place for the table {name}"
        text = text.replace(found[0], f"{begin}\n{table}\n{end}")
    return text


def test_the_tables_of_the_page_are_those_of_the_code() -> None:
    text = PAGE.read_text()
    assert page(text) == text, "python -m tests.engine.test_document   writes them anew"


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text()))
