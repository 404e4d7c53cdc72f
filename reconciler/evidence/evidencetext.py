"""What evidence says of releases, worlds and containers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from reconciler.records.ledger import State
from reconciler.records.release import Release

BEFORE, FAILING, AFTER = "before", "failing", "after"
"""The moments of a look."""


def told(record: Release) -> dict[str, Any]:
    """What a reader knows a release by."""
    return {
        "description": record.description,
        "created": record.created,
        "created_by": record.created_by,
        "git": record.git.model_dump(mode="json"),
        "images": {s: f"{i.source or i.tag} ({i.id})" for s, i in record.images.items()},
    }


def named(state: State, world: str | None) -> dict[str, str | None]:
    """A world with its release."""
    known = state.worlds.get(world or "")
    return {"world": world, "release": known.release if known else None}


def tables(draft: Path) -> str:
    """`docker compose ps` of each world at each moment."""
    parts = []
    for moment, title in ((BEFORE, "before anything was stopped"),
                          (FAILING, "when it had failed"), (AFTER, "in the end")):  # fmt: skip
        with suppress(OSError, ValueError):
            said = json.loads((draft / f"{moment}.json").read_text(encoding="utf-8"))
            for world, containers in said["worlds"].items():
                rows = [(c["name"], c["service"], c["image"], c["status"], c["ports"])
                        for c in containers]  # fmt: skip
                parts.append(f"{world}, {title} ({said['at']})\n{_table(rows)}")
    return "\n".join(parts)


def _table(rows: Sequence[tuple[str, ...]]) -> str:
    lines = [("NAME", "SERVICE", "IMAGE", "STATUS", "PORTS"), *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(5)]
    return "".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        + "\n"
        for line in lines
    )
