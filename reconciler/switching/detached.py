"""Work in a process and session of its own, which nobody's Ctrl-C, hang-up or death interrupts.

The parent hands over one JSON document by standard input and the host lock by inheritance, then
follows a file of JSON lines to which the child appends: `{"at", "say"}` for each sentence,
`{"at", "step"}` where a step begins, and `{"at", "end", ...}` last.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn

from reconciler import errors
from reconciler.errors import LockstepError
from reconciler.host import process
from reconciler.host.hostlock import HostLock
from reconciler.masking import masked

_POLL_SECONDS = 0.05
_MODULE = "reconciler.switch"

Say = Callable[[str], None]


class Killed(LockstepError):
    """The child ended without saying how: somebody or something killed it."""


class ProgressLog:
    """The child's end of the file."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._guard = threading.Lock()

    def say(self, text: str) -> None:
        """One sentence for a person."""
        self._write({"say": masked(text)})

    def end(self, error: Exception | None, said: list[str]) -> None:
        """The last line: how it ended, and what is to be told the caller."""
        if error is None:
            self._write({"end": "done", "said": [masked(text) for text in said]})
            return
        message = getattr(error, "message", None) or str(error)
        said = [masked(text) for text in said]
        self._write(
            {
                "end": type(error).__name__,
                "message": masked(message),
                "next_step": getattr(error, "next_step", ""),
                "said": said,
            }
        )

    def _write(self, line: Mapping[str, Any]) -> None:
        text = json.dumps({"at": datetime.now(UTC).isoformat(), **line}) + "\n"
        # Whoever follows may miss a word on a full disk; the work goes on.
        with self._guard, suppress(OSError):
            os.write(self._descriptor, text.encode())


def log_path(folder: Path, operation: str, world: str = "") -> Path:
    """A new progress file's path: `deploy-20261121T101500.081734-2113-shop-prod-003.jsonl`.

    To the microsecond: whoever tries again at once must not read how the first try ended.
    """
    words = [operation, f"{datetime.now(UTC):%Y%m%dT%H%M%S.%f}", str(os.getpid()), world]
    return folder / f"{'-'.join(filter(None, words))}.jsonl"


def log_step(log: str, step: str) -> None:
    """Write into a progress file that a step begins; nothing where it is not there."""
    line = json.dumps({"at": datetime.now(UTC).isoformat(), "step": step}) + "\n"
    with suppress(OSError):
        descriptor = os.open(log, os.O_WRONLY | os.O_APPEND)
        try:
            os.write(descriptor, line.encode())
        finally:
            os.close(descriptor)


def carry_out(document: Mapping[str, Any], lock: HostLock, log: Path, progress: Say) -> list[str]:
    """Do what the document says in a child, and follow it to its end; what it has to say.

    Raises what the child ended with, or Killed.
    """
    child = _begin({**document, "lock": lock.fileno(), "log": str(log)}, lock, log)
    try:
        said = follow(log, progress, lambda: child.poll() is None)
    except LockstepError:
        _reap(child, log)
        raise
    _reap(child, log)
    return said


def follow(log: Path, progress: Say, alive: Callable[[], bool]) -> list[str]:
    """Pass on what a child says until it has ended; what it has to say in the end."""
    for line in _lines(log, alive):
        if "say" in line:
            progress(line["say"])
        elif line["end"] == "done":
            return list(line["said"])
        else:
            raise _error(line)
    raise Killed(
        f"the process that does the work was killed; {log} is its log",
        next_step="lockstep up   puts it right",
    )


def ignore_signals() -> None:
    """Nothing but its own end, SIGKILL and the machine's end stop this process."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)


def serve(work: Callable[[dict[str, Any], Say], list[str]]) -> NoReturn:
    """The child: read the document, do the work, write how it ended, exit."""
    ignore_signals()
    document: dict[str, Any] = json.load(sys.stdin)
    sys.stdin.close()
    lock = HostLock.inherited(document["lock"])
    with suppress(LockstepError):  # that nobody can be told who holds it must not stop the work
        stack = document["stack"]
        lock.describe(document["do"], f"{stack['project']}/{stack['name']}")
    log = ProgressLog(Path(document["log"]))
    said: list[str] = []
    failure: Exception | None = None
    try:
        said = work(document, log.say)
    except Exception as error:
        failure = error
        if not hasattr(error, "exit_code"):
            print(masked(traceback.format_exc()), file=sys.stderr, flush=True)
            failure = LockstepError(
                f"the switch met an error that nobody foresaw: {type(error).__name__}: {error}",
                next_step="lockstep recover   finishes or reverts it",
            )
    # Whoever reads the end may take the lock at once.
    lock.release()
    log.end(failure, said)
    # Threads that wait for a hanging engine must not keep the process.
    os._exit(0 if failure is None else 1)


def _begin(document: Mapping[str, Any], lock: HostLock, log: Path) -> subprocess.Popen[bytes]:
    errors_to = os.open(_errors_of(log), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        child = subprocess.Popen(
            [sys.executable, "-m", _MODULE],
            stdin=subprocess.PIPE,
            stdout=errors_to,
            stderr=errors_to,
            env=process.environment_of_ours(),
            start_new_session=True,
            pass_fds=(lock.fileno(),),
        )
    finally:
        os.close(errors_to)
    assert child.stdin is not None
    try:
        child.stdin.write(json.dumps(document).encode())
        child.stdin.close()
    except BrokenPipeError:
        pass  # it died at once; following it says so
    return child


def _lines(log: Path, alive: Callable[[], bool]) -> Iterator[dict[str, Any]]:
    """Whole lines as they come, until the child is gone and everything was read."""
    position = 0
    while True:
        # Looked at before reading: what it wrote before its end is still passed on.
        lives = alive()
        try:
            with log.open("rb") as file:
                file.seek(position)
                read = file.read()
        except FileNotFoundError:
            read = b""
        whole = read.rpartition(b"\n")[0]
        if whole:
            position += len(whole) + 1
            yield from _readable(whole.split(b"\n"))
        elif not lives:
            return
        else:
            time.sleep(_POLL_SECONDS)


def _readable(lines: Iterable[bytes]) -> Iterator[dict[str, Any]]:
    """A line that a full disk cut short is passed over."""
    for line in lines:
        with suppress(ValueError):
            found = json.loads(line)
            if isinstance(found, dict) and found.keys() & {"say", "end"}:
                yield found


def _errors_of(log: Path) -> Path:
    """Where the child's own standard error goes."""
    return log.with_suffix(".err")


def _reap(child: subprocess.Popen[bytes], log: Path) -> None:
    """The child has said its last word."""
    child.wait()
    path = _errors_of(log)
    if path.exists() and path.stat().st_size == 0:
        path.unlink()


def _error(line: Mapping[str, Any]) -> LockstepError:
    kind = getattr(errors, line["end"], LockstepError)
    if not (isinstance(kind, type) and issubclass(kind, LockstepError)):
        kind = LockstepError
    return kind(line["message"], next_step=line["next_step"])
