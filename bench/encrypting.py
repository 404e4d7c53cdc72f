"""What encryption of the store costs: `python -m bench.encrypting FOLDER` on a quiet machine.

Captures, verifies and restores the same data into a plain and an encrypted store, in turn, and
prints the least seconds of each.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from itertools import pairwise
from pathlib import Path

from snapshots.capture import capture
from snapshots.restore import restore
from snapshots.store import Store
from snapshots.verify import verify_all

ROUNDS = 5
WORK = ("capture", "verify", "restore")
MIB = 1 << 20
DATA_MIB = 512


def build(folder: Path) -> None:
    """Half of each block is random, half of it compresses to nothing, as in many databases."""
    folder.mkdir(parents=True)
    for number in range(DATA_MIB // 64):
        with open(folder / f"file-{number}", "wb") as file:
            for _ in range(1024):
                file.write(os.urandom(32 << 10) + bytes(32 << 10))


def main(folder: Path) -> None:
    data = folder / "data"
    build(data)
    least: dict[tuple[str, str], float] = {}
    for _ in range(ROUNDS):
        for kind, passphrase in (("plain", None), ("encrypted", "correct horse battery")):
            store = Store.open(folder / "store", passphrase=passphrase)
            times = [time.monotonic()]
            snapshot = capture(data, store, dataset="data").id
            times.append(time.monotonic())
            verify_all(store, None, read_data=True)
            times.append(time.monotonic())
            restore(store, snapshot, folder / "back")
            times.append(time.monotonic())
            for work, (began, ended) in zip(WORK, pairwise(times), strict=True):
                took = ended - began
                least[work, kind] = min(took, least.get((work, kind), took))
            shutil.rmtree(folder / "store")
            shutil.rmtree(folder / "back")
    for work in WORK:
        plain, encrypted = least[work, "plain"], least[work, "encrypted"]
        print(f"{work:8} {DATA_MIB} MiB: {plain:.2f} s, encrypted {encrypted:.2f} s")
    shutil.rmtree(folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
