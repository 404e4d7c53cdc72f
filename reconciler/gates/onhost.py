"""A command on the host: facts as JSON by its standard input, never a secret, output bounded."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from reconciler.gates.inside import judge_exit
from reconciler.gates.judging import Answer, unsure
from reconciler.host import hostcommand
from snapshots.drivers import ExecResult

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
    started killed; 127 when it is not there."""
    done = hostcommand.run(
        argv,
        stdin=json.dumps(facts),
        timeout=timeout,
        cwd=folder,
        env=_environment(),
        given_up=given_up,
    )
    if done.code is None:
        return ExecResult(124, done.output, f"not finished after {timeout:g} s")
    return ExecResult(done.code, done.output, "")


def _environment() -> dict[str, str]:
    return {
        name: value
        for name, value in os.environ.items()
        if name in _KEPT or name.startswith(("LC_", "DOCKER_"))
    }
