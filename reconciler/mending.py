"""What a move will take from the store is proved before anything stops for it, and mended if it
can be: damage that shows when the old world is down would come too late."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from reconciler import places
from reconciler.errors import Refused
from reconciler.reach import repair
from snapshots.store import Store
from snapshots.verify import verify_all


def insist_on_whole(
    store: Store,
    snapshots: Sequence[str],
    folders: Callable[[], Mapping[str, Sequence[Path]]],
    say: Callable[[str], None],
) -> None:
    """Read every byte of these snapshots; what is damaged is mended from other packs, and from the
    folders (dataset -> where its content may still lie, asked for only then).

    Raises Refused, with the files, when a snapshot is still damaged then.
    """
    progress = places.in_mib("store", say)
    report = verify_all(store, snapshots, read_data=True, progress=progress)
    if not report.damages:
        return
    for finding in report.damages:
        say(f"the store is damaged: {finding}")
    say("mending the store")
    for mended in repair(store, folders(), progress).mended:
        say(f"mended: {mended}")
    left = verify_all(store, snapshots, read_data=True, progress=progress).damages
    if left:
        raise Refused(
            "; ".join(["the store is damaged where this move needs it", *map(str, left)]),
            next_step="lockstep verify --read-data   tells what else is damaged; "
            "lockstep config set data keep   goes back with the data as it is now",
        )
