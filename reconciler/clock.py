"""What time it is, for people: order never comes from it."""

from __future__ import annotations

from datetime import UTC, datetime


def now(timespec: str = "seconds") -> str:
    """UTC, ISO 8601. `timespec` as datetime.isoformat takes it."""
    return datetime.now(UTC).isoformat(timespec=timespec)
