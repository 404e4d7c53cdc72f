"""How every failure leaves the command: its text on stderr, its exit code, never a traceback."""

from __future__ import annotations

import errno
import os
import sys
import tempfile
import traceback
from datetime import UTC, datetime
from pathlib import Path

import typer

from reconciler.errors import Exit, LockstepError
from reconciler.masking import masked

INTERRUPTED = 130
_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)  # no fault of ours, and named


class Declined(LockstepError):
    """The person was asked and said no."""


def report(error: BaseException) -> int:
    """Say what went wrong; returns the exit code."""
    if isinstance(error, typer.Exit):
        return error.exit_code
    if isinstance(error, SystemExit):
        return _code(error)
    if isinstance(error, KeyboardInterrupt | typer.Abort):
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    if isinstance(error, typer.TyperException):
        if error.format_message():
            print(usage(error), file=sys.stderr)
        return Exit.BAD_INPUT
    if isinstance(error, BrokenPipeError):
        return Exit.FAILED
    code = exit_code(error)
    if code is None:
        print(unexpected(error), file=sys.stderr)
        return Exit.FAILED
    print(masked(f"error: {error}"), file=sys.stderr)
    return code


def flush_output() -> None:
    """Write out what is left; where the reader went away (`| head`), without a word."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        # What cannot be written would be tried again, and complained of, when Python ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def usage(error: typer.TyperException) -> str:
    """What is wrong with the command line, and where its help is."""
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else "lockstep"
    return f"error: {error.format_message()}\n  {command} --help   shows what can be said"


def exit_code(error: BaseException) -> int | None:
    """The code of a foreseen error; None for one that nobody foresaw."""
    from engine.errors import EngineError, StackLocked
    from snapshots.errors import SnapshotError

    if isinstance(error, StackLocked):
        return Exit.BUSY
    if isinstance(error, LockstepError | SnapshotError | EngineError):
        return int(error.exit_code)
    if isinstance(error, OSError) and error.filename is not None:
        known = isinstance(error, PermissionError) or error.errno in _DISK
        return Exit.FAILED if known else None
    return None


def unexpected(error: BaseException) -> str:
    """One line that names a file with the traceback (which has no values of variables in it)."""
    name = f"lockstep-{datetime.now(UTC):%Y%m%dT%H%M%S}-"
    descriptor, path = tempfile.mkstemp(prefix=name, suffix=".txt")
    with os.fdopen(descriptor, "w") as file:
        file.write(masked("".join(traceback.format_exception(error))))
    return (
        f"error: unexpected {type(error).__name__}: {masked(_first_line(error))}\n"
        f"  this is a mistake in Lockstep; its traceback is in {Path(path)}"
    )


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), "")


def _code(error: SystemExit) -> int:
    return error.code if isinstance(error.code, int) else int(error.code is not None)
