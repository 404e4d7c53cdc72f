"""A command of the user's on this host: with a limit, output bounded, nothing left of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

KEPT = 64 << 10
"""Bytes of its output that are kept, the last ones."""
_DRAIN_SECONDS = 2.0
_POLL_SECONDS = 0.05
# The process that runs a switch ignores signals, and a shell could not undo that.
_AS_USUAL = """
import os, signal, sys
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGPIPE):
    signal.signal(number, signal.SIG_DFL)
try:
    os.execvp(sys.argv[1], sys.argv[1:])
except OSError as error:
    print(f"{sys.argv[1]}: {error.strerror}", flush=True)
    os._exit(127)
"""


@dataclass(frozen=True)
class Ended:
    """How it ended; `code` None: it was killed because its time was over."""

    code: int | None
    output: str
    seconds: float


def run(
    argv: Sequence[str],
    *,
    stdin: str,
    timeout: float,
    cwd: Path,
    env: Mapping[str, str],
    given_up: threading.Event | None = None,
) -> Ended:
    """Run it in a session of its own; both its outputs together. What it started and left running
    in its process group is killed. Code 127 when it is not there. `given_up`: ends it early."""
    began = time.monotonic()
    kept = bytearray()
    given = os.memfd_create("lockstep")
    try:
        os.write(given, stdin.encode())
        os.lseek(given, 0, os.SEEK_SET)
        child = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _AS_USUAL, *argv],
            stdin=given,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=cwd,
            env=dict(env),
            start_new_session=True,
        )
    finally:
        os.close(given)
    assert child.stdout is not None
    reader = threading.Thread(target=_keep_last, args=(child.stdout, kept), daemon=True)
    reader.start()
    code = _await(child, timeout, given_up)
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    reader.join(_DRAIN_SECONDS)
    return Ended(code, bytes(kept).decode(errors="replace"), time.monotonic() - began)


def _await(
    child: subprocess.Popen[bytes], timeout: float, given_up: threading.Event | None
) -> int | None:
    """Its code; None when its time is over or it was given up."""
    until = time.monotonic() + timeout
    while (left := until - time.monotonic()) > 0 and not (given_up and given_up.is_set()):
        with suppress(subprocess.TimeoutExpired):
            return child.wait(min(left, _POLL_SECONDS) if given_up else left)
    return child.poll()


def _keep_last(stream: IO[bytes], kept: bytearray) -> None:
    with suppress(ValueError, OSError):
        while part := os.read(stream.fileno(), 1 << 16):
            kept += part
            del kept[:-KEPT]
