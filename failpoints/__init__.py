"""Named places where a test makes the product crash, fail, wait or meet a full disk.

Free when off: one look at an empty variable. The variable LOCKSTEP_FAILPOINTS names a folder with a
file `wanted`, one failpoint a line: `NAME ACTION [NTH]`, for instance `switch.seal kill` or
`store.pack.fsync full 3` (at the third time that the place is passed). Every name may be `*`: any
place, counted together. What was wanted happens once, in the first process that comes there, so a
recovery that passes the same place goes through it. The folder's file `hits` gets the name of every
place that is passed, with the process, a line each.

Actions: `kill` (SIGKILL to this process), `error` (an OSError: input/output error), `full` (an
OSError: no space left), `wait SECONDS` and `stop` (SIGSTOP: the test looks around, then goes on).
"""

from __future__ import annotations

import errno
import os
import signal
import threading
import time
from dataclasses import dataclass
from pathlib import Path

VARIABLE = "LOCKSTEP_FAILPOINTS"


@dataclass
class _Wanted:
    name: str
    action: str
    argument: str
    nth: int
    mark: Path
    passed: int = 0


def _read(folder: Path) -> list[_Wanted]:
    """The wanted failures of a folder; a line that means nothing raises ValueError."""
    found = []
    for number, line in enumerate((folder / "wanted").read_text().splitlines()):
        name, action, *rest = line.split()
        argument = rest.pop(0) if action == "wait" else ""
        nth = int(rest.pop(0)) if rest else 1
        if action not in ("kill", "error", "full", "wait", "stop") or rest:
            raise ValueError(f"{folder / 'wanted'}: {line}")
        found.append(_Wanted(name, action, argument, nth, folder / f"done-{number}"))
    return found


_FOLDER = Path(os.environ[VARIABLE]) if os.environ.get(VARIABLE) else None
_WANTED = _read(_FOLDER) if _FOLDER else []
_GUARD = threading.Lock()


def failpoint(name: str) -> None:
    """A place at which a test may have something happen. `name`: `room.step`, "switch.seal"."""
    if _FOLDER is not None:
        _passed(_FOLDER, name)


def _passed(folder: Path, name: str) -> None:
    with _GUARD:
        with (folder / "hits").open("a") as file:
            file.write(f"{name} {os.getpid()}\n")
        due = [w for w in _WANTED if w.name in (name, "*")]
        for wanted in due:
            wanted.passed += 1
        due = [w for w in due if w.passed == w.nth and _first(w.mark)]
    for wanted in due:
        _happen(wanted, name)


def _first(mark: Path) -> bool:
    """Whether nobody has done it yet."""
    try:
        os.close(os.open(mark, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    except FileExistsError:
        return False
    return True


def _happen(wanted: _Wanted, name: str) -> None:
    if wanted.action == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif wanted.action == "stop":
        os.kill(os.getpid(), signal.SIGSTOP)
    elif wanted.action == "wait":
        time.sleep(float(wanted.argument))
    else:
        number = errno.ENOSPC if wanted.action == "full" else errno.EIO
        raise OSError(number, os.strerror(number), f"failpoint {name}")
