"""A snapshot of what a running engine keeps: the point that its driver gives, captured."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from snapshots.capture import capture
from snapshots.drivers.base import Driver, Exec
from snapshots.livepoint import LivePoint
from snapshots.pace import Pace
from snapshots.progress import Progress
from snapshots.store import SnapshotRecord, Store

ADVANCE = {"kind": "advance"}
"""Tags of a snapshot that is no point: what only a killed run leaves in the store."""


def capture_live(
    driver: Driver,
    run: Exec,
    source: Path,
    store: Store,
    *,
    dataset: str,
    parent: str | None = None,
    tags: Mapping[str, str] = {},
    pace: Pace | None = None,
    progress: Progress | None = None,
) -> SnapshotRecord:
    """Capture the folder `source` (on this host) while the engine in `run` works on it.

    `pace`: of the reading, but for what an engine stands still for.

    Raises Unsupported where only a stop gives a point, EngineFailed, and what `capture` raises;
    there is no snapshot then.
    """
    record: SnapshotRecord | None = None
    advance: SnapshotRecord | None = None
    try:
        if driver.stands_still:
            # No point by itself: it lets the one that follows read only what changed since.
            advance = capture(
                source, store, dataset=dataset, parent=parent, live=LivePoint(), tags=ADVANCE,
                pace=pace,
            )  # fmt: skip
        with driver.live(run, source) as point:
            record = capture(
                source,
                store,
                dataset=dataset,
                parent=advance.id if advance else parent,
                tags=tags,
                live=point,
                streams=driver.is_stream,
                pace=None if driver.stands_still else pace,
                progress=progress,
            )
    except BaseException:
        if record is not None:  # what was captured turned out to be no point
            store.forget(record.id)
        raise
    finally:
        if advance is not None:
            store.forget(advance.id)
    return record
