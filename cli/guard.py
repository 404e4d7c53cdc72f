"""`lockstep guard`: a small service that brings the live world back after a crash or a reboot."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated

import typer

from cli import failures, moves
from cli.context import Context
from reconciler import clock
from reconciler.errors import BadInput, Busy, Exit
from reconciler.notifications import look_at_disk

if TYPE_CHECKING:
    from reconciler.switching.guard import Pace

INTERVAL = 10.0
_DISK_SECONDS = 600.0
"""Between two looks at the disk, for which the whole config is read."""


def guard(
    context: typer.Context,
    once: Annotated[
        bool, typer.Option("--once", help="Look once, put right what has to be, end: for cron.")
    ] = False,
    interval: Annotated[
        float, typer.Option("--interval", min=1, help="Seconds between two looks.")
    ] = INTERVAL,
    print_unit: Annotated[
        bool, typer.Option("--print-unit", help="Print a systemd unit for this stack, and end.")
    ] = False,
    print_container: Annotated[
        bool,
        typer.Option("--print-container", help="Print a compose file that runs it, and end."),
    ] = False,
    as_json: Annotated[
        bool,
        typer.Option(
            "--json", help="Print JSON lines (schema 1), one for each thing that it finds or does."
        ),
    ] = False,
) -> None:
    """Bring the live world back: after a crash, a reboot, or when somebody stopped containers.

    It finishes or reverts what a crash left, starts what stands still, makes what is missing, and
    never goes to another release. What `lockstep stop` stopped stays down.
    """
    from cli import guardforms

    here = Context.of(context)
    if print_unit and print_container:
        raise BadInput("either --print-unit or --print-container")
    if as_json and (print_unit or print_container):
        raise BadInput("what is printed is a file, and no JSON: leave --json out")
    if print_unit:
        typer.echo(guardforms.unit(here.project.root, here.stack_name, here.project.name), nl=False)
    elif print_container:
        text = guardforms.container(here.project.root, here.stack, here.docker.info.root)
        typer.echo(text, nl=False)
    elif once:
        raise typer.Exit(_Guard(here, as_json=as_json).look_once())
    else:
        _Guard(here, as_json=as_json).watch(interval)


class _Guard:
    """One line on standard output for each thing that it does or that keeps it from doing it;
    of JSON where a program reads it."""

    def __init__(self, here: Context, *, as_json: bool) -> None:
        from reconciler.catalog import Catalog
        from reconciler.switching import guard

        self.common, self.as_json = here.common, as_json
        self.name = f"{here.project.name}/{here.stack_name}"
        bare = guard.bare_stack(here.project.name, here.stack_name, here.project.root)
        self.catalog = Catalog(bare)
        self.pace = guard.PaceFile(self.catalog)
        self.said = ""
        self._disk_next = time.monotonic()

    def watch(self, interval: float) -> None:
        """Look again and again, until SIGTERM or SIGINT; what is being done then is done to its
        end first."""
        ended = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: ended.set())
        self._say("watching", f"watching, every {interval:g} s")
        while not ended.is_set():
            self.look()
            ended.wait(interval)
        self._say("ended", "ended")

    def look_once(self) -> int:
        """As `look`; a program gets a line even where all is well."""
        code = self.look()
        if self.as_json and not self.said:
            self._say("well", "nothing to do")
        return code

    def look(self) -> int:
        """Look once and put right what has to be; returns an exit code."""
        self._look_at_disk()
        try:
            return self._look()
        except Exception as error:
            code = failures.exit_code(error)
            text = str(error) if code is not None else failures.unexpected(error)
            code = Exit.FAILED if code is None else code
            self._say("failed", text, code=code, again=False)
            return code

    def _look(self) -> int:
        from reconciler import docker
        from reconciler.switching import guard

        pace = self.pace.read()
        what = guard.needed(self.catalog, docker.connect())
        if what is None:
            self._note(pace, pace.stands(guard.uptime()))
            self.said = ""
            return Exit.OK
        left = pace.left(guard.uptime())
        if left:
            self._say(
                "waiting",
                f"{what}; it did not last {pace.attempts} times: not before {left:.0f} s",
                found=what,
                code=Exit.FAILED,
                again=False,
            )
            return Exit.FAILED
        return self._act()

    def _look_at_disk(self) -> None:
        """Tell whoever wants to know of a disk that is nearly full; it keeps the guard from
        nothing."""
        if time.monotonic() < self._disk_next:
            return
        self._disk_next = time.monotonic() + _DISK_SECONDS
        with suppress(Exception):  # whoever has to act reads the same, and says so
            here = Context(self.common)
            look_at_disk(here.stack, self.catalog)

    def _act(self) -> int:
        from reconciler.host.hostlock import HostLock
        from reconciler.switching import guard

        # Read anew: the config may have changed since the last time.
        here = Context(self.common)
        try:
            lock = HostLock.acquire("guard", self.name)
        except Busy:
            return Exit.OK  # somebody works on the host: what he leaves is looked at afterwards
        with lock:
            what = guard.what_is_wrong(self.catalog, here.docker)
            if what is None:
                return Exit.OK
            pace = self.pace.read()
            self._note(pace, pace.acted(guard.uptime()))
            done = guard.put_right(
                here.stack, here.catalog, here.docker, here.compose, lock, lambda _: None,
                anchor=moves.last_head(here),
            )  # fmt: skip
        text = f"{what}: {'; '.join(done) or 'nothing was to be done any more'}"
        self._say("repaired", text, found=what, done=done)
        return Exit.OK

    def _note(self, before: Pace, pace: Pace) -> None:
        if pace != before:
            self.pace.write(pace)

    def _say(
        self,
        event: str,
        text: str,
        *,
        found: str | None = None,
        done: Sequence[str] = (),
        code: int = Exit.OK,
        again: bool = True,
    ) -> None:
        """One line; `again`: also when it was the last one said."""
        line = "; ".join(part.strip() for part in text.splitlines() if part.strip())
        if again or line != self.said:
            shown = f"guard {self.name}: {line}"
            if self.as_json:
                shown = json.dumps({
                    "schema": 1,
                    "at": clock.now(),
                    "stack": self.name,
                    "event": event,
                    "found": found,
                    "done": list(done),
                    "says": line,
                    "exit_code": code,
                }, ensure_ascii=False)  # fmt: skip
            print(shown, flush=True)
        self.said = line
