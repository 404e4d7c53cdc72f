"""Says which Pulumi will run the stack: the official CLI on PATH, or the embedded engine."""

from __future__ import annotations

import re
import shutil

from setup.steps import answer, say

FIRST_WITH_HOOKS = (3, 182, 0)


def announce() -> None:
    path = shutil.which("pulumi")
    version = answer([path, "version"]) if path else None
    say(verdict(path, version))


def verdict(path: str | None, version: str | None) -> str:
    """One line for the user. `version` is what `pulumi version` printed, None if it failed."""
    if path is None:
        return "Pulumi: the embedded engine (no pulumi CLI on PATH)"
    number = parse(version or "")
    if number is None:
        return f"Pulumi: the embedded engine ({path} does not tell its version)"
    text = ".".join(map(str, number))
    if number < FIRST_WITH_HOOKS:
        first = ".".join(map(str, FIRST_WITH_HOOKS))
        return (
            f"Pulumi: the embedded engine ({path} is {text} and has no resource hooks; "
            f"{first} or newer has them: curl -fsSL https://get.pulumi.com | sh)"
        )
    return f"Pulumi: the official CLI {text} ({path})"


def parse(version: str) -> tuple[int, int, int] | None:
    """(3, 260, 0) from `v3.260.0` or `v3.261.0-alpha.1+dirty`."""
    match = re.search(r"v?(\d+)\.(\d+)\.(\d+)", version)
    return (int(match[1]), int(match[2]), int(match[3])) if match else None
