"""What the disk itself takes for as many bytes: nothing is packed, checked, named or kept.

python -m bench.floor write FILE BYTES     in order, past the page cache, until it is durable
python -m bench.floor read FOLDER          every file in it, in order

The least that any restore or capture could take here.
"""

from __future__ import annotations

import mmap
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from snapshots import fs

PIECE = 4 << 20
TOGETHER = 2  # pieces under way: the disk never waits for the next


def main(argv: list[str]) -> int:
    match argv:
        case ["write", path, size]:
            write(Path(path), int(size))
        case ["read", folder]:
            read(Path(folder))
        case _:
            print(__doc__, file=sys.stderr)
            return 2
    return 0


def write(path: Path, size: int) -> None:
    """One new file of `size` bytes, up to the next multiple of a piece."""
    memory = memoryview(mmap.mmap(-1, PIECE))  # direct writes begin at a page
    memory[:] = os.urandom(PIECE)
    with open(path, "xb", buffering=0) as file:
        past = fs.past_the_cache(file.fileno())
        target = file.fileno() if past is None else past
        fs.preallocate(file.fileno(), 0, size)
        with ThreadPoolExecutor(TOGETHER) as pool:
            places = range(0, size, PIECE)
            list(pool.map(lambda at: fs.write_all(target, memory, at), places))
        os.fsync(file.fileno())
        if past is not None:
            os.close(past)
    fs.sync_folder(path.parent)


def read(folder: Path) -> None:
    """All files below a folder; what was not in the page cache is not kept there."""
    buffer = memoryview(bytearray(PIECE))
    for parent, _, names in os.walk(folder):
        for name in names:
            with open(Path(parent) / name, "rb", buffering=0) as file:
                at = 0
                while count := fs.read_through(file.fileno(), buffer, at):
                    at += count


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
