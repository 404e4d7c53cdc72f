"""What is measured of ours: one capture, restore or fork by the library, in a process of its own.

python -m bench.product capture STORE SOURCE
python -m bench.product restore STORE TARGET [--in-place]
python -m bench.product fork SOURCE TARGET
"""

from __future__ import annotations

import sys
from pathlib import Path


def main(argv: list[str]) -> int:
    match argv:
        case ["capture", store, source]:
            capture_next(Path(store), Path(source))
        case ["restore", store, target]:
            restore_last(Path(store), Path(target), in_place=False)
        case ["restore", store, target, "--in-place"]:
            restore_last(Path(store), Path(target), in_place=True)
        case ["fork", source, target]:
            fork(Path(source), Path(target))
        case _:
            print(__doc__, file=sys.stderr)
            return 2
    return 0


def capture_next(store: Path, source: Path) -> None:
    """Capture with the store's newest snapshot as parent; its id is noted beside the store."""
    from snapshots.capture import capture
    from snapshots.store import Store

    record = capture(source, Store.open(store), dataset="bench", parent=_last(store))
    _note(store).write_text(record.id)


def restore_last(store: Path, target: Path, *, in_place: bool) -> None:
    from snapshots.restore import restore
    from snapshots.store import Store

    newest = _last(store)
    if newest is None:
        raise SystemExit(f"nothing was captured into {store}")
    restore(Store.open(store), newest, target, in_place=in_place)


def fork(source: Path, target: Path) -> None:
    """Both passes, over a source at rest."""
    from snapshots.fork import Fork

    target.mkdir()
    work = Fork(source, target, index=target.with_suffix(".index"))
    work.first_pass()
    work.final_pass()


def _note(store: Path) -> Path:
    return store.with_suffix(".newest")


def _last(store: Path) -> str | None:
    note = _note(store)
    return note.read_text() if note.exists() else None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
