"""Work on a store that dies by SIGKILL, before each single step that changes something on disk."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

_KILLER = """
import os, shutil, signal, sys
from pathlib import Path
from snapshots.store import Store

def changes(event, arguments):
    if event == "open":
        return bool((arguments[2] or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
    return event in ("os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.truncate")

def killed(path, last):
    count = 0
    def step(event, arguments):
        nonlocal count
        if changes(event, arguments) and str(arguments[0]).startswith(str(path)):
            count += 1
            if count == last:
                os.kill(os.getpid(), signal.SIGKILL)
    store = Store.open(path)
    sys.addaudithook(step)
    work(store)

base, prefix = Path(sys.argv[1]), sys.argv[2]
step = 1
while True:
    path = base / f"{prefix}-{step}"
    shutil.copytree(base / "store", path)
    child = os.fork()
    if child == 0:
        killed(path, step)
        os._exit(0)
    if os.waitpid(child, 0)[1] == 0:
        break
    step += 1
print(step)
"""


def kill_at_each_step(base: Path, prefix: str, work: str, *arguments: str) -> int:
    """Work on one copy of `base`/store after the other, killed before step 1, 2, 3 ... of those
    that change something in it, until one copy was done without dying: the number of that one.

    The copies are `base`/`prefix`-1 and so on. `work`: Python that defines `work(store)`; it finds
    `arguments` from sys.argv[3] on.
    """
    done = subprocess.run(
        [sys.executable, "-c", work + _KILLER, str(base), prefix, *arguments],
        capture_output=True,
        text=True,
        timeout=240,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    return int(done.stdout)
