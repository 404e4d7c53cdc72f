"""The host at one moment, for evidence: disk, memory, load. Bytes, and per cent of pressure."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

_PROC = Path("/proc")
_MEMORY = {
    "MemTotal": "total_bytes",
    "MemAvailable": "available_bytes",
    "SwapTotal": "swap_total_bytes",
    "SwapFree": "swap_free_bytes",
}


def look(places: Mapping[str, Path]) -> dict[str, Any]:
    """Free space of `places` (by what they hold), memory, load, pressure; what cannot be read is
    left out."""
    return {
        "disk": {name: space for name, path in places.items() if (space := _space(path))},
        "memory": _memory(),
        "load": list(os.getloadavg()),
        "processors": os.cpu_count(),
        "pressure": {name: _pressure(name) for name in ("cpu", "io", "memory")},
    }


def _space(path: Path) -> dict[str, Any]:
    """Of the nearest folder that is there."""
    there = next((p for p in (path, *path.parents) if p.exists()), path)
    with suppress(OSError):
        state = os.statvfs(there)
        return {
            "path": str(path),
            "total_bytes": state.f_blocks * state.f_frsize,
            "free_bytes": state.f_bavail * state.f_frsize,
            "free_files": state.f_favail,
        }
    return {}


def _memory() -> dict[str, int]:
    found = {}
    with suppress(OSError, ValueError):
        for line in (_PROC / "meminfo").read_text().splitlines():
            name, _, rest = line.partition(":")
            if name in _MEMORY:
                found[_MEMORY[name]] = int(rest.split()[0]) * 1024
    return found


def _pressure(of: str) -> float | None:
    """Per cent of the last ten seconds in which something waited for it; None where the kernel
    does not tell."""
    with suppress(OSError, ValueError, IndexError):
        return float((_PROC / "pressure" / of).read_text().split("avg10=")[1].split()[0])
    return None
