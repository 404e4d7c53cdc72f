"""The `lockstep` command without what Python takes to read it, which is most of what a short
command costs: a process that has read it is forked for every command, and the fork runs it as
`python -m cli.main` does, with arguments, folder, environment and output of its own.

What a process has from its start is not shown, nor that a command finds all that it imports:
`Project.warm` is off in tests of that and in tests/cli/test_live.py, test_commands.py and
test_integrity.py of this folder, and what README and docs say to type is started as it is typed.
An environment of its own (LOCKSTEP_FAILPOINTS is read at the start) and `Project.start` start a
command as well.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import pkgutil
import runpy
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from functools import cache
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
PROGRAM = "cli.main"
OURS = ("LOCKSTEP_", "PULUMI_")
# What the command imports where it is needed.
LATER = (
    "docker",
    "grpc.aio",
    "pulumi.provider.experimental.server",
    "pulumi_docker",
    "requests",
    "rich.table",
    "ruamel.yaml",
)


def run(
    arguments: Sequence[str], folder: Path, environment: Mapping[str, str], seconds: float
) -> subprocess.CompletedProcess[str]:
    """What subprocess.run of the command gives, without input; killed after `seconds`."""
    with tempfile.TemporaryDirectory() as streams:
        out, err = Path(streams, "out"), Path(streams, "err")
        given = (list(arguments), str(folder), dict(environment), str(out), str(err))
        command = _server().Process(target=_command, args=given)
        command.start()
        command.join(seconds)
        if command.exitcode is None:
            command.kill()
            command.join()
            raise subprocess.TimeoutExpired(list(arguments), seconds)
        return subprocess.CompletedProcess(
            list(arguments), command.exitcode, out.read_text(), err.read_text()
        )


@cache
def _server() -> ForkServerContext:
    """The process that is forked; it starts with the first command, and ends with this one."""
    server = multiprocessing.get_context("forkserver")
    ours = [
        module.name
        for package in ("cli", "engine", "reconciler", "snapshots")
        for module in pkgutil.walk_packages([str(ROOT / package)], f"{package}.")
        if module.name != PROGRAM
    ]
    server.set_forkserver_preload([__name__, *LATER, *ours])
    # What a test has set meanwhile for its commands is none of the process's that is forked.
    hidden = {name: os.environ.pop(name) for name in list(os.environ) if name.startswith(OURS)}
    try:
        forkserver.ensure_running()
    finally:
        os.environ.update(hidden)
    return server


def _command(
    arguments: list[str],
    folder: str,
    environment: dict[str, str],
    out: str,
    err: str,
) -> None:
    """In the fork."""
    for stream, path, flags in (
        (0, os.devnull, os.O_RDONLY),
        (1, out, os.O_WRONLY | os.O_CREAT),
        (2, err, os.O_WRONLY | os.O_CREAT),
    ):
        os.dup2(os.open(path, flags), stream)
    sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w"), open(2, "w")  # noqa: SIM115
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = [str(ROOT / "cli" / "main.py"), *arguments]
    try:
        runpy.run_module(PROGRAM, run_name="__main__", alter_sys=True)
    finally:
        atexit._run_exitfuncs()
