"""A command on the host: facts as JSON by its standard input, never a secret, output bounded."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from reconciler.gates.inside import judge_exit
from reconciler.gates.judging import Answer, unsure
from snapshots.drivers import ExecResult

MOST_OUTPUT = 64 << 10
"""Bytes of its output's end that are kept."""
_POLL_SECONDS = 0.05
_KEPT = ("HOME", "LANG", "LOGNAME", "PATH", "SHELL", "TMPDIR", "TZ", "USER", "VIRTUAL_ENV")
"""Of the environment, in which the stack's passphrase may be, a command gets only these, and
what begins with LC_ or DOCKER_."""


def ask_host(
    argv: Sequence[str],
    facts: Mapping[str, Any],
    folder: Path,
    timeout: float,
    unsure_codes: Collection[int],
    given_up: threading.Event,
) -> Answer:
    """Run it once."""
    try:
        result = run(argv, facts, folder, timeout, given_up)
    except OSError as error:
        return unsure(f"could not be run: {error.strerror}")
    return judge_exit(result, unsure_codes)


def run(
    argv: Sequence[str],
    facts: Mapping[str, Any],
    folder: Path,
    timeout: float,
    given_up: threading.Event,
) -> ExecResult:
    """A command's end; code 124 after `timeout` seconds or when it was given up, with all that it
    started killed. Raises OSError when it cannot be run."""
    with tempfile.TemporaryFile() as given:
        given.write(json.dumps(facts).encode())
        given.seek(0)
        child = subprocess.Popen(
            list(argv),
            cwd=folder,
            env=_environment(),
            stdin=given,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    kept = bytearray()
    reader = threading.Thread(target=_read, args=(child.stdout, kept), daemon=True)
    reader.start()
    try:
        code = _await(child, timeout, given_up)
    finally:
        _kill_all(child)
    reader.join(_POLL_SECONDS * 20)
    said = bytes(kept).decode(errors="replace")
    if code is None:
        return ExecResult(124, said, f"not finished after {timeout:g} s")
    return ExecResult(code, said, "")


def _read(stream: IO[bytes], kept: bytearray) -> None:
    with stream:
        while part := os.read(stream.fileno(), MOST_OUTPUT):
            kept += part
            del kept[:-MOST_OUTPUT]


def _await(child: subprocess.Popen[bytes], timeout: float, given_up: threading.Event) -> int | None:
    until = time.monotonic() + timeout
    while time.monotonic() < until and not given_up.is_set():
        with suppress(subprocess.TimeoutExpired):
            return child.wait(_POLL_SECONDS)
    return child.poll()


def _kill_all(child: subprocess.Popen[bytes]) -> None:
    """Also what it left behind in its session's group."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def _environment() -> dict[str, str]:
    return {
        name: value
        for name, value in os.environ.items()
        if name in _KEPT or name.startswith(("LC_", "DOCKER_"))
    }
