"""What the last checks of the store found, for whoever asks whether its content is still whole."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from reconciler.catalog import Catalog, write_durably

WHOLE_STORE = ""


@dataclass(frozen=True)
class Check:
    """One check. `release` is WHOLE_STORE where all was checked; `when` is UTC, ISO 8601."""

    when: str
    release: str
    read_data: bool
    snapshots: int
    bytes_read: int
    seconds: float
    damages: int
    damaged: tuple[str, ...] = ()
    """Releases that the damage touches, or that miss a snapshot."""

    @property
    def sound(self) -> bool:
        """Whether all that was checked was as it had been captured."""
        return not self.damages and not self.damaged


def note(
    catalog: Catalog,
    *,
    release: str | None,
    read_data: bool,
    snapshots: int,
    bytes_read: int,
    seconds: float,
    damages: int,
    damaged: Sequence[str],
) -> None:
    """Remember that this check has just ended; a full disk must not make it fail."""
    check = Check(
        when=datetime.now(UTC).isoformat(timespec="seconds"),
        release=release or WHOLE_STORE,
        read_data=read_data,
        snapshots=snapshots,
        bytes_read=bytes_read,
        seconds=round(seconds, 3),
        damages=damages,
        damaged=tuple(sorted(damaged)),
    )
    # Of each scope the last look at all, and the last that read every byte.
    others = [c for c in read(catalog) if c.release != check.release or c.read_data != read_data]
    there = [c for c in others if not c.release or (catalog.root / c.release).is_dir()]
    with suppress(OSError):
        document = [asdict(c) for c in (*there, check)]
        write_durably(_path(catalog), json.dumps(document, indent=2).encode())


def read(catalog: Catalog) -> list[Check]:
    """The last checks, oldest first. Nothing depends on them: a damaged book is begun anew."""
    with suppress(OSError, ValueError, TypeError, KeyError):
        found = json.loads(_path(catalog).read_bytes())
        return [Check(**{**entry, "damaged": tuple(entry["damaged"])}) for entry in found]
    return []


def of_release(checks: Sequence[Check], release: str) -> Check | None:
    """The newest check that a release was part of."""
    part_of = [c for c in checks if c.release in (WHOLE_STORE, release)]
    return max(part_of, key=lambda c: c.when, default=None)


def is_sound(check: Check, release: str) -> bool:
    """Whether a check found the release's own data whole: damage of the store itself is all's."""
    return check.sound or (bool(check.damaged) and release not in check.damaged)


def _path(catalog: Catalog) -> Path:
    return catalog.root / f"verified-{catalog.stack.name}.json"
