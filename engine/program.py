"""Running the user's program against the engine, once, in this process and on this thread."""

from __future__ import annotations

import asyncio
import contextvars
import importlib
import logging
import os
import runpy
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from .deployment import Deployment
from .errors import EngineError
from .stack import Stack

SHUTDOWN_POLL_SECONDS = 0.02


def import_sdk(packages: Iterable[str]) -> None:
    """Import what the program will import: the SDK, and its part for each provider package."""
    from . import monitor  # noqa: F401

    for package in packages:
        with suppress(ImportError):  # it may declare nothing of it any more
            importlib.import_module(f"pulumi_{package}")


def run(deployment: Deployment, stack: Stack) -> None:
    """Run the project's __main__.py; what goes wrong is told and noted in the deployment.

    Raises EngineError if there is no program.
    """
    main = stack.project.program / "__main__.py"
    if not main.is_file():
        raise EngineError(f"there is no program: {main} does not exist")
    # The SDK's settings are context variables: a context of its own keeps two runs apart.
    contextvars.copy_context().run(_run, deployment, stack)


def _run(deployment: Deployment, stack: Stack) -> None:
    from pulumi import runtime
    from pulumi.runtime.settings import SETTINGS, Settings

    from .monitor import Callbacks, Monitor

    root, program = str(stack.project.root), stack.project.program
    monitor = Monitor(deployment, root)
    runtime.set_all_config(stack.texts(), sorted(stack.secret_keys()))
    runtime.configure(
        Settings(
            project=deployment.project,
            stack=deployment.stack,
            monitor=monitor,
            engine=monitor,
            parallel=deployment.parallel,
            dry_run=deployment.dry_run,
            organization="organization",
            root_directory=root,
        )
    )
    loop = asyncio.new_event_loop()
    # One thread per resource under way, and one for the deletions at the end.
    executor = ThreadPoolExecutor(max(deployment.parallel, 4) + 1)
    loop.set_default_executor(executor)
    asyncio.set_event_loop(loop)
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    monitor.callbacks = Callbacks(monitor, loop)
    SETTINGS.callbacks = monitor.callbacks

    def main() -> None:
        try:
            runpy.run_path(str(program), run_name="__main__")
        except BaseException:
            # Known before the stack's outputs are registered: they are then added, not replaced.
            deployment.program_failed = True
            raise

    with _own_interrupts():
        try:
            loop.run_until_complete(runtime.run_in_stack(main))
        except BaseException as error:
            deployment.program_failed = deployment.ended = True
            # The SDK hands one exception through several futures, and on its way to us it may have
            # lost the user's frames. The failed call that noted it whole may still be under way.
            with suppress(Exception):
                loop.run_until_complete(asyncio.sleep(SHUTDOWN_POLL_SECONDS))
            noted = SETTINGS.rpc_manager
            whole = noted.exception_traceback if noted.unhandled_exception is error else None
            _tell(error, whole, deployment, program)
        finally:
            _wind_down(loop, executor, deployment)


def _wind_down(
    loop: asyncio.AbstractEventLoop, executor: ThreadPoolExecutor, deployment: Deployment
) -> None:
    """Let running steps end; the loop must turn meanwhile, their after hooks run on it."""
    while deployment.busy:
        with suppress(Exception):
            loop.run_until_complete(asyncio.sleep(SHUTDOWN_POLL_SECONDS))
    pending = asyncio.all_tasks(loop)
    for task in pending:
        task.cancel()
    if pending:
        with suppress(BaseException):
            loop.run_until_complete(asyncio.gather(*pending, return_exceptions=True))
    executor.shutdown(wait=True)
    asyncio.set_event_loop(None)
    loop.close()


def _tell(
    error: BaseException, whole: TracebackType | None, deployment: Deployment, program: Path
) -> None:
    """An exception of the program in Pulumi's words. After a failed step the exception is only the
    program's end, and everything has been said."""
    from pulumi import RunError

    if deployment.failed or deployment.cancelled:
        return
    tell, code = deployment.tell, 1
    if isinstance(error, SystemExit):
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
        if isinstance(error.code, str):
            tell.diagnostic("", "info#err", error.code)
        if code == 0:
            deployment.program_failed = False
            return
    elif isinstance(error, RunError):
        tell.diagnostic("", "error", str(error))
    elif hasattr(error, "exit_code"):
        # An error class of the project: its message is made for the reader as it is.
        tell.diagnostic("", "error", str(error))
        return
    else:
        shown = "".join(_user_traceback(error, whole, program))
        tell.diagnostic("", "error", f"Program failed with an unhandled exception:\n{shown}")
        return
    text = f"an unhandled error occurred: program exited with non-zero exit code: {code}"
    tell.diagnostic("", "error", text)


def _user_traceback(error: BaseException, whole: TracebackType | None, program: Path) -> list[str]:
    """The traceback from the first frame that is the user's, all of it if there is none."""
    for trace in (error.__traceback__, whole):
        while trace is not None and not _is_users(trace.tb_frame.f_code.co_filename, program):
            trace = trace.tb_next
        if trace is not None:
            return traceback.format_exception(type(error), error, trace)
    return traceback.format_exception(error)


def _is_users(filename: str, program: Path) -> bool:
    return filename.startswith(f"{program}{os.sep}") and "site-packages" not in filename


@contextmanager
def in_folder(program: Path) -> Iterator[None]:
    """The program's folder as working directory and first on the module path: the dynamic
    providers in the state are classes of its modules, and hooks may import late."""
    before = os.getcwd()
    os.chdir(program)
    sys.path.insert(0, str(program))
    try:
        yield
    finally:
        with suppress(ValueError):
            sys.path.remove(str(program))
        os.chdir(before)


@contextmanager
def _own_interrupts() -> Iterator[None]:
    """Programs written for the official engine, where they run in a process of their own, end that
    process in a SIGINT handler. Here it would be the engine's: SIGINT stays ours."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    original: Callable[..., Any] = signal.signal

    def guarded(number: int, handler: Any) -> Any:
        if number == signal.SIGINT:
            return signal.getsignal(signal.SIGINT)
        return original(number, handler)

    signal.signal = guarded  # type: ignore[assignment]
    try:
        yield
    finally:
        signal.signal = original
