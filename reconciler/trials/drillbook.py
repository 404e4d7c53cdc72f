"""The last drill of each release, for whoever asks whether its data would come back."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

from reconciler import clock
from reconciler.catalog import Catalog, write_durably
from reconciler.trials.drill import Drill


def note(catalog: Catalog, drill: Drill) -> None:
    """Remember that this drill has just ended."""
    entries = _read(catalog)
    entries[drill.release] = {
        "when": clock.now(),
        "at": drill.at,
        "passed": drill.passed,
        "seconds": drill.seconds,
    }
    there = {r: e for r, e in entries.items() if (catalog.root / r).is_dir()}
    write_durably(_path(catalog), json.dumps(there, indent=2).encode())


def last(catalog: Catalog, release: str) -> dict[str, Any] | None:
    """`when` (UTC), `at`, `passed` and `seconds` of a release's last drill, if there was one."""
    return _read(catalog).get(release)


def _path(catalog: Catalog) -> Path:
    return catalog.root / f"drills-{catalog.stack.name}.json"


def _read(catalog: Catalog) -> dict[str, dict[str, Any]]:
    """Nothing depends on it: one that cannot be read is begun anew."""
    with suppress(OSError, ValueError):
        found = json.loads(_path(catalog).read_bytes())
        if isinstance(found, dict):
            return found
    return {}
