"""A snapshot of what a running engine keeps: the point that its driver gives, captured."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from snapshots.capture import capture
from snapshots.drivers.base import Driver, Exec
from snapshots.progress import Progress
from snapshots.store import SnapshotRecord, Store


def capture_live(
    driver: Driver,
    run: Exec,
    source: Path,
    store: Store,
    *,
    dataset: str,
    parent: str | None = None,
    tags: Mapping[str, str] = {},
    progress: Progress | None = None,
) -> SnapshotRecord:
    """Capture the folder `source` (on this host) while the engine in `run` works on it.

    Raises Unsupported where only a stop gives a point, EngineFailed, and what `capture` raises;
    there is no snapshot then.
    """
    record: SnapshotRecord | None = None
    try:
        with driver.live(run, source) as point:
            record = capture(
                source,
                store,
                dataset=dataset,
                parent=parent,
                tags=tags,
                live=point,
                streams=driver.is_stream,
                progress=progress,
            )
    except BaseException:
        if record is not None:  # what was captured turned out to be no point
            store.forget(record.id)
        raise
    return record
