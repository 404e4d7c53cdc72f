"""preview, up, refresh and destroy: from the lock to the history entry."""

from __future__ import annotations

import os
import platform
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

from . import planner, program
from .deployment import Deployment, Step
from .display import Display, property_lines
from .errors import Cancelled, EngineError
from .snapshot import STACK_TYPE, VERSION, Resource, Snapshot
from .stack import Stack
from .values import Props, masked

EXIT_FAILED, EXIT_UNEXPECTED_CHANGES, EXIT_TERMINATED = 1, 7, 8
PENDING_ADVICE = """\
These resources are in an unknown state because the Pulumi CLI was interrupted while waiting for \
changes to these resources to complete. You should confirm whether or not the operations listed \
completed successfully by checking the state of the appropriate provider.

Once you have confirmed the status of the interrupted operations, you can repair your stack using \
`pulumi refresh` which will refresh the state from the provider you are using and clear the \
pending operations if there are any."""


@dataclass
class Result:
    """What came of an operation, or would come of it."""

    exit_code: int
    changes: dict[str, int]  # step kind -> number of resources
    steps: list[Step] = field(default_factory=list)
    outputs: dict[str, Any] = field(default_factory=dict)  # secrets as [secret]
    error: str | None = None

    @property
    def changed(self) -> bool:
        """Whether anything but `same` is among the changes."""
        return any(count for kind, count in self.changes.items() if kind != "same")


def preview(stack: Stack, *, display: Display, refresh: bool = False, diff: bool = False) -> Result:
    """What an update would do. Nothing is changed and nothing is locked. `diff` shows properties.

    Raises EngineError for what is wrong before the program starts.
    """
    stack.validate()
    run = _Run(stack, display, "update", dry_run=True, diff=diff)
    return run.result(lambda: run.update(refresh))


def up(
    stack: Stack,
    *,
    display: Display,
    message: str | None = None,
    skip_preview: bool = False,
    confirm: Callable[[Result], bool] | None = None,
    refresh: bool = False,
    expect_no_changes: bool = False,
) -> Result:
    """Preview, ask, update. `confirm` gets the preview and says yes or no; None is yes. A declined
    update gives the preview's result.

    Raises EngineError for what is wrong before the program starts, StackLocked if another process
    works on the stack.
    """
    stack.validate()
    if not skip_preview:
        planned = preview(stack, display=display, refresh=refresh)
        if planned.exit_code or (confirm is not None and not confirm(planned)):
            return planned
    with stack.backend.lock():
        run = _Run(stack, display, "update", dry_run=False, message=message)
        result = run.result(lambda: run.update(refresh))
    return _without_changes(result, expect_no_changes, "update")


def refresh(
    stack: Stack,
    *,
    display: Display,
    preview_only: bool = False,
    expect_no_changes: bool = False,
) -> Result:
    """Read every resource anew and write what was found to the state; the program is not run.
    `preview_only` writes nothing."""
    if preview_only:
        run = _Run(stack, display, "refresh", dry_run=True)
        return _without_changes(run.result(run.refresh), expect_no_changes, "refresh")
    with stack.backend.lock():
        run = _Run(stack, display, "refresh", dry_run=False)
        result = run.result(run.refresh)
    return _without_changes(result, expect_no_changes, "refresh")


def destroy(
    stack: Stack,
    *,
    display: Display,
    run_program: bool = False,
    confirm: Callable[[Result], bool] | None = None,
) -> Result:
    """Delete everything in the stack. With `run_program` the program runs for its delete hooks;
    without it a resource that has some is a refusal before anything is deleted. `confirm` gets
    what would be deleted."""
    if confirm is not None:
        planning = _Run(stack, display, "destroy", dry_run=True)
        planned = planning.result(lambda: planning.destroy(run_program))
        if planned.exit_code or not confirm(planned):
            return planned
    with stack.backend.lock():
        run = _Run(stack, display, "destroy", dry_run=False)
        return run.result(lambda: run.destroy(run_program))


def _without_changes(result: Result, expected: bool, kind: str) -> Result:
    if expected and result.changed and not result.exit_code:
        result.exit_code = EXIT_UNEXPECTED_CHANGES
        result.error = f"no changes were expected for {kind} but changes were proposed"
    return result


class _Run:
    """One pass over a stack, in preview or for real. Tells the display, hiding config secrets."""

    def __init__(
        self,
        stack: Stack,
        display: Display,
        kind: str,
        *,
        dry_run: bool,
        diff: bool = False,
        message: str | None = None,
    ) -> None:
        self.stack, self.kind, self.dry_run = stack, kind, dry_run
        self._display, self._diff, self._message = display, diff, message
        self._hidden = stack.masked_texts()
        self._errors: list[str] = []
        self._begun, self._clock = int(time.time()), time.monotonic()
        # The old state is kept aside: outputs are shown as old => new.
        self._snapshot = stack.snapshot()
        self._old_outputs = dict(_root_outputs(self._snapshot))
        self.deployment = Deployment(
            project=stack.project.name,
            stack=stack.name,
            config=stack.provider_inputs(),
            snapshot=self._snapshot,
            save=stack.save,
            listener=self,
            dry_run=dry_run,
            removing=kind == "destroy",
        )

    # ---- the operations ------------------------------------------------------------------------

    def update(self, refresh: bool) -> None:
        self._warn_of_pending()
        if refresh:
            self.deployment.refresh(report_changes=False)
        if not self._stopped:
            self._program()

    def refresh(self) -> None:
        self.deployment.refresh(report_changes=True)
        if not self._stopped:
            left = self._snapshot.left_over
            # A begun create cannot be looked up, it has no id yet; all others were just read.
            self._snapshot.left_over = [p for p in left if p.operation == "creating"]

    def destroy(self, run_program: bool) -> None:
        self._warn_of_pending()
        resources = self._snapshot.resources
        if run_program:
            self._program()
        elif not self.deployment.refuse_hooks_without_program(resources):
            self.deployment.delete(planner.condemned(resources, set()))

    def _program(self) -> None:
        program.run(
            self.deployment,
            self,
            program=self.stack.project.program,
            root=self.stack.project.root,
            config=self.stack.texts(),
            secret_keys=self.stack.secret_keys(),
        )

    @property
    def _stopped(self) -> bool:
        return self.deployment.failed or self.deployment.cancelled

    def _warn_of_pending(self) -> None:
        pending = self._snapshot.left_over
        if pending:
            listed = "\n".join(
                f"  * {p.resource.urn}, interrupted while {p.operation}" for p in pending
            )
            self.diagnostic(
                "",
                "warning",
                f"Attempting to deploy or update resources with {len(pending)} pending operations "
                f"from previous deployment.\n{listed}\n{PENDING_ADVICE}",
            )

    # ---- around them ---------------------------------------------------------------------------

    def result(self, work: Callable[[], None]) -> Result:
        """Do the work, then save, record, show the outputs and the summary."""
        title = {"update": "Updating", "refresh": "Refreshing", "destroy": "Destroying"}[self.kind]
        if self.dry_run and self.kind == "update":
            title = "Previewing update"
        self._display.begin(title, self.stack.name, self.dry_run, self._diff)
        try:
            with self._interruptible(), program.in_folder(self.stack.project.program):
                work()
            return self._finished()
        finally:
            self._display.end()

    def _finished(self) -> Result:
        of = self.deployment
        failed = of.failed or of.cancelled or of.program_failed or of.blocked
        if of.cancelled:
            self.diagnostic("", "error", str(Cancelled("preview" if self.dry_run else self.kind)))
        elif of.last_word:
            self.diagnostic("", "error", of.last_word)
        of.close(self._old_outputs)
        outputs = _root_outputs(self._snapshot)
        changes = dict(sorted(of.changes.items()))
        seconds = time.monotonic() - self._clock
        if not self.dry_run:
            self.stack.save(self._snapshot, durable=True)
            self._record(changes, failed)
        if outputs or self._old_outputs:
            self._display.outputs(
                self._clean(masked(self._old_outputs)), self._clean(masked(outputs)), self.dry_run
            )
        self._display.summary(changes, seconds, self.dry_run, failed)
        return Result(
            exit_code=EXIT_FAILED if failed else 0,
            changes=changes,
            steps=of.steps,
            outputs=self._clean(masked(outputs)),
            error="\n".join(self._errors) if failed else None,
        )

    def _record(self, changes: dict[str, int], failed: bool) -> None:
        git = _git_facts(self.stack)
        entry: dict[str, Any] = {
            "kind": self.kind,
            "startTime": self._begun,
            "message": self._message if self._message is not None else git.pop("message", ""),
            "environment": {**_environment(), **{k: v for k, v in git.items() if k != "message"}},
            "config": self.stack._settings().get("config") or {},
            "version": 0,
            "result": "failed" if failed else "succeeded",
            "endTime": int(time.time()),
            "resourceChanges": changes,
        }
        self.stack.backend.record(entry)
        self.stack.backend.backup()

    @contextmanager
    def _interruptible(self) -> Iterator[None]:
        """^C once: finish what runs, begin nothing new. Twice: save, unlock and go at once."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def interrupted(_: int, __: FrameType | None) -> None:
            if not self.deployment.cancelled:
                self.deployment.cancelled = True
                print(
                    "^C received; cancelling. If you would like to terminate immediately, press ^C "
                    "again.\nNote that terminating immediately may lead to orphaned resources and "
                    "other inconsistencies.",
                    file=sys.stderr,
                )
                return
            # No lock may be waited for here; every finished step is in the file already.
            self.stack.backend.release()
            os._exit(EXIT_TERMINATED)

        before = signal.signal(signal.SIGINT, interrupted)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)

    # ---- listening to the deployment -----------------------------------------------------------

    def step(self, phase: str, step: Step, dry_run: bool) -> None:
        if self._diff and phase == "outputs":
            step.lines = property_lines(step, self._clean)
        self._display.step(phase, step, dry_run)

    def diagnostic(self, urn: str, severity: str, text: str, ephemeral: bool = False) -> None:
        text = self._clean(text)
        if severity == "error":
            self._errors.append(text)
        self._display.diagnostic(urn, severity, text, ephemeral)

    def _clean(self, value: Any) -> Any:
        if isinstance(value, str):
            for secret in self._hidden:
                value = value.replace(secret, "[secret]")
            return value
        if isinstance(value, dict):
            return {k: self._clean(v) for k, v in value.items()}
        return [self._clean(v) for v in value] if isinstance(value, list) else value


def _root_outputs(snapshot: Snapshot) -> Props:
    root: Resource | None = next((r for r in snapshot.resources if r.type == STACK_TYPE), None)
    return root.outputs if root else {}


def _environment() -> dict[str, str]:
    return {
        "exec.kind": "embedded",
        "pulumi.arch": {"x86_64": "amd64", "aarch64": "arm64"}.get(
            platform.machine(), platform.machine()
        ),
        "pulumi.os": sys.platform,
        "pulumi.version": VERSION,
        "runtime.executable": sys.executable,
        "runtime.name": "python",
        "runtime.version": platform.python_version(),
    }


def _git_facts(stack: Stack) -> dict[str, str]:
    """Who stands behind the program, by Pulumi's names; empty where there is no repository."""
    asked = "%H%x00%an%x00%ae%x00%cn%x00%ce%x00%s"
    git = ["git", "-C", str(stack.project.root)]
    try:
        log = subprocess.run(
            [*git, "log", "-1", f"--format={asked}"], capture_output=True, text=True, timeout=10
        )
        if log.returncode:
            return {}
        names = ("git.head", "git.author", "git.author.email", "git.committer")
        found = dict(
            zip(
                (*names, "git.committer.email", "message"),
                log.stdout.strip().split("\0"),
                strict=False,
            )
        )
        branch = subprocess.run(
            [*git, "rev-parse", "--symbolic-full-name", "HEAD"],
            capture_output=True,
            text=True,
            timeout=10,
        )
        dirty = subprocess.run(
            [*git, "status", "--porcelain", "-uno"], capture_output=True, text=True, timeout=30
        )
    except (OSError, subprocess.TimeoutExpired):
        return {}
    found["git.headName"] = branch.stdout.strip()
    found["git.dirty"] = "true" if dirty.stdout.strip() else "false"
    return found


__all__ = ["EngineError", "Result", "destroy", "preview", "refresh", "up"]
