"""What of a long output a reader of the story needs. Nothing is altered; long gaps are marked."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator

Keep = Callable[[str], bool]
"""Whether a line is shown; asked for every line, in their order."""

MARKED = 6
"""A gap of so many lines is marked: a reader may want to know that there was more."""

_HEADING = re.compile(r"(Previewing update|Updating|Outputs|Resources|Diagnostics)\b.*:$")
_RESOURCE = re.compile(r" [ +~-]{2} \S+:\S+ ")
_OF_LOCKSTEP = re.compile(r"lockstep:(World|Live|Kept) ")
_DONE = re.compile(r" (created|updated|deleted) \(| failed\*\*")
_SMALL = re.compile(r"    (fork of \S+: copy,|bringing the fork of )")


def excerpt(lines: Iterable[str], keep: Keep) -> Iterator[str]:
    """The lines that are kept, with a mark for each longer gap and no blank line at its edges."""
    left_out = 0
    for line in lines:
        if not keep(line):
            left_out += bool(line.strip())
            continue
        if left_out >= MARKED:
            yield f"  … {left_out} lines"
        left_out = 0
        yield line


def whole(_line: str) -> bool:
    return True


def nothing(_line: str) -> bool:
    return False


def of_new() -> Keep:
    """`lockstep new` without the steps of the image build."""
    building = True

    def keep(line: str) -> bool:
        nonlocal building
        building = building and line.startswith("  ")
        return not building or line.startswith("  building ")

    return keep


def of_engine() -> Keep:
    """`lockstep up`, `rollback`, `undo`: the impact, Lockstep's own resources when they are done,
    and each step of the work; without images, tags, counts and the stack's outputs."""
    section = ""

    def keep(line: str) -> bool:
        nonlocal section
        if heading := _HEADING.match(line):
            section = heading[1]
            return section == "Updating"
        if section and not line.strip():
            return False
        if section in ("Outputs", "Resources"):
            return not line.startswith(" ") and not line.startswith("Duration")
        if _RESOURCE.match(line):
            return bool(section == "Updating" and _OF_LOCKSTEP.search(line) and _DONE.search(line))
        return not (line.startswith("  pulumi:pulumi:Stack (") or _SMALL.match(line))

    return keep
