"""preview, up, refresh and destroy: from the lock to the history entry."""

from __future__ import annotations

import io
import os
import platform
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from dataclasses import dataclass, field, replace
from types import FrameType
from typing import Any

from . import program
from .deployment import Deployment
from .options import Options
from .refreshing import refresh as read_anew
from .snapshot import VERSION
from .stack import Stack
from .steps import Display, Step
from .values import mapped, masked

EXIT_FAILED, EXIT_UNEXPECTED_CHANGES, EXIT_TERMINATED = 1, 7, 8
# Words of what is refused. Only a program that has one is worth a run to see whether it is used.
SUSPECT = re.compile(
    r"\b(aliases|deleted_with|import_|replace_with|replacement_trigger|transforms)="
    r"|O(ption)?s?\([^()]*\bid="
    r"|\bpulumi_(?!docker\b)\w+|\bdocker\.(?!RemoteImage\b|Tag\b|Provider\b)[A-Z]\w+\("
    r"|\b(StackReference|ErrorHook|runtime\.invoke|runtime\.call|register_stack_transform)\b"
)
TERMINATED_SECONDS = 3
CANCELLING = """\
^C received; cancelling. If you would like to terminate immediately, press ^C again.
Note that terminating immediately may lead to orphaned resources and other inconsistencies."""
PENDING_ADVICE = """\
These resources are in an unknown state because the Pulumi CLI was interrupted while waiting for \
changes to these resources to complete. You should confirm whether or not the operations listed \
completed successfully by checking the state of the appropriate provider. For example, if you are \
using AWS, you can confirm using the AWS Console.

Once you have confirmed the status of the interrupted operations, you can repair your stack using \
`pulumi refresh` which will refresh the state from the provider you are using and clear the \
pending operations if there are any.

Note that `pulumi refresh` will need to be run interactively to clear pending CREATE operations."""
DEFAULT = Options()
NEEDS_PROGRAM = "You must run with the `--run-program` flag to use delete hooks during destroy."


@dataclass
class Result:
    """What came of an operation, or would come of it."""

    exit_code: int = 0
    changes: dict[str, int] = field(default_factory=dict)  # step kind -> number of resources
    steps: list[Step] = field(default_factory=list)
    outputs: dict[str, Any] = field(default_factory=dict)  # secrets as [secret]
    error: str | None = None
    seconds: float = 0.0
    diagnostics: list[dict[str, str]] = field(default_factory=list)  # urn, message, severity
    last_word: str = ""  # an error that concerns the call, not a resource: shown nowhere else

    @property
    def changed(self) -> bool:
        """Whether anything but `same` is among the changes."""
        return any(count for kind, count in self.changes.items() if kind != "same")


def up(stack: Stack, display: Display, options: Options = DEFAULT) -> Result:
    """Preview, ask, update. A preview that failed or was declined gives its own result.

    Raises EngineError for what is wrong before the program starts, StackLocked if another process
    works on the stack.
    """
    return _operate("update", stack, display, options)


def preview(stack: Stack, display: Display, options: Options = DEFAULT) -> Result:
    """What an update would do. Nothing is changed and nothing is locked. Raises as `up`."""
    return _operate("update", stack, display, replace(options, preview_only=True))


def refresh(stack: Stack, display: Display, options: Options = DEFAULT) -> Result:
    """Read every resource anew and write what was found to the state. The program is not run."""
    return _operate("refresh", stack, display, options)


def destroy(stack: Stack, display: Display, options: Options = DEFAULT) -> Result:
    """Delete everything in the stack. A resource with delete hooks is a refusal before anything is
    deleted, unless the program runs."""
    return _operate("destroy", stack, display, options)


def _operate(kind: str, stack: Stack, display: Display, options: Options) -> Result:
    if kind == "update" or options.run_program:
        program.import_sdk(stack.backend.packages())  # while the key is derived
    if kind == "update" and options.validate:
        stack.validate()
    if options.preview_only or not options.skip_preview:
        planned = _Run(stack, display, kind, options, dry_run=True).result()
        if options.preview_only:
            return _expected(planned, kind, options)
        if planned.exit_code or (options.confirm and not options.confirm(planned)):
            return planned
    elif kind == "update":
        _survey(stack)
    with stack.backend.lock():
        return _expected(_Run(stack, display, kind, options, dry_run=False).result(), kind, options)


def _survey(stack: Stack) -> None:
    """Preview unseen, so that what is not here is refused before something is changed. Raises
    NotInEngine."""
    files = stack.project.program.glob("*.py")
    if not any(SUSPECT.search(path.read_text(errors="replace")) for path in files):
        return
    run = _Run(stack, _Nobody(), "update", DEFAULT, dry_run=True)
    with redirect_stdout(io.StringIO()):
        run.result()
    if run.deployment.refusal:
        raise run.deployment.refusal


class _Nobody:
    """A display that shows nothing."""

    def __getattr__(self, _: str) -> Any:
        return lambda *_: None


def _expected(result: Result, kind: str, options: Options) -> Result:
    if options.expect_no_changes and result.changed and not result.exit_code:
        result.exit_code = EXIT_UNEXPECTED_CHANGES
        result.last_word = f"no changes were expected for {kind} but changes were proposed"
        result.error = result.last_word
    return result


class _Run:
    """One pass over a stack, in preview or for real. Tells the display, hiding config secrets."""

    def __init__(
        self, stack: Stack, display: Display, kind: str, options: Options, *, dry_run: bool
    ) -> None:
        self.stack, self.kind, self.dry_run = stack, kind, dry_run
        self._display, self._options = display, options
        self._hidden = stack.masked_texts()
        self._errors: list[str] = []
        self._result = Result()
        self._begun, self._clock = int(time.time()), time.monotonic()
        self._snapshot = stack.snapshot()
        # Kept aside: outputs are shown as old => new.
        self._old_outputs = dict(self._snapshot.root.outputs) if self._snapshot.root else {}
        self.deployment = Deployment(
            project=stack.project.name,
            stack=stack.name,
            config=stack.provider_inputs(),
            snapshot=self._snapshot,
            save=stack.save,
            listener=self,
            dry_run=dry_run,
            removing=kind == "destroy",
            options=options,
        )

    def result(self) -> Result:
        """Do the work, then save, record, show the outputs and the summary."""
        title = {"update": "Updating", "refresh": "Refreshing", "destroy": "Destroying"}[self.kind]
        title = f"Previewing {self.kind}" if self.dry_run else title
        self._display.begin(title, self.stack.name, self.dry_run, self._options.diff)
        try:
            with self._interruptible(), program.in_folder(self.stack.project.program):
                self._work()
            return self._finished()
        finally:
            self._display.end()

    # ---- the operations ------------------------------------------------------------------------

    def _work(self) -> None:
        of = self.deployment
        if self._refuse_unknown():
            return
        if self.kind == "refresh":
            self._forget_pending()
            read_anew(of, report_changes=True)
            return
        if not (self.dry_run or self._options.refresh):
            self._warn_of_pending()
        self._forget_pending()
        if self._options.refresh:
            read_anew(of, report_changes=False)
        if of.failed or of.cancelled:
            return
        if of.check_targets(of.replacing):
            of.failed = True
            return
        if self.kind == "update" or self._options.run_program:
            program.run(of, self.stack)
        elif self._refuse_hooks():
            self._give_up(NEEDS_PROGRAM)
        else:
            of.finish()

    def _refuse_unknown(self) -> bool:
        """Whether a target of an operation without the program is unknown; the first is told."""
        known = {r.urn for r in self._snapshot.resources}
        unknown = [urn for urn in self.deployment.targets.literal if urn not in known]
        if self.kind == "update" or not unknown:
            return False
        self._give_up(f"no resource named '{unknown[0]}' found")
        return True

    def _give_up(self, last_word: str) -> None:
        self.deployment.failed, self._result.last_word = True, last_word
        self._errors.append(last_word)

    def _refuse_hooks(self) -> bool:
        """Reports resources whose delete hooks nobody could run; True if there are any."""
        for resource in self._snapshot.resources:
            names = [n for w in ("BeforeDelete", "AfterDelete") for n in resource.hooks.get(w, ())]
            if names:
                text = "Resource has delete hooks registered, but the program is not running. "
                self.deployment.fail(resource.urn, f"{text}Hooks: {', '.join(names)}")
        return self.deployment.failed

    def _forget_pending(self) -> None:
        # Of a begun create nobody knows what it made; all others are of resources with an entry.
        keep_creates = not self._options.clear_pending_creates
        left = self._snapshot.left_over
        self._snapshot.left_over = [p for p in left if keep_creates and p.operation == "creating"]

    def _warn_of_pending(self) -> None:
        pending = self._snapshot.left_over
        if not pending:
            return
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

    def _finished(self) -> Result:
        of = self.deployment
        failed = of.failed or of.cancelled or of.program_failed or of.blocked
        if of.cancelled:
            what = "preview" if self.dry_run else self.kind
            self.diagnostic("", "error", f"{what} canceled")
        elif of.last_word:
            self.diagnostic("", "error", of.last_word)
        of.close()
        found = self._result
        found.exit_code, found.steps = EXIT_FAILED if failed else 0, of.steps
        found.error = "\n".join(self._errors) if failed else None
        found.changes, found.seconds = of.counted, time.monotonic() - self._clock
        outputs = self._snapshot.root.outputs if self._snapshot.root else {}
        found.outputs = self._clean(masked(outputs))
        if not self.dry_run:
            self.stack.save(self._snapshot, durable=True)
            self._record(failed=failed)
        if outputs or self._old_outputs:
            before = self._clean(masked(self._old_outputs))
            self._display.outputs(before, found.outputs, self.dry_run)
        self._display.summary(found.changes, found.seconds, self.dry_run, failed)
        return found

    def _record(self, *, failed: bool) -> None:
        git = _git_facts(self.stack)
        subject, message = git.pop("message", ""), self._options.message
        entry: dict[str, Any] = {
            "kind": self.kind,
            "startTime": self._begun,
            "message": subject if message is None else message,
            "environment": {**_environment(), **git},
            "config": self.stack.own(),
            "version": 0,
            "result": "failed" if failed else "succeeded",
            "endTime": int(time.time()),
            "resourceChanges": self.deployment.counted,
        }
        self.stack.backend.record(entry)

    @contextmanager
    def _interruptible(self) -> Iterator[None]:
        """^C once: finish what runs, begin nothing new. Twice: save, unlock and go at once."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def interrupted(_: int, __: FrameType | None) -> None:
            if not self.deployment.cancelled:
                self.deployment.cancelled = True
                print(CANCELLING, flush=True)
                return
            # Every finished step is in the file already. Whatever holds up the rest, it ends.
            threading.Timer(TERMINATED_SECONDS, os._exit, [EXIT_TERMINATED]).start()
            with suppress(Exception):
                self.diagnostic("", "error", "update failed")
                self._record(failed=True)
                self.stack.backend.release()
                print("error: update cancelled", file=sys.stderr)
            os._exit(EXIT_TERMINATED)

        before = signal.signal(signal.SIGINT, interrupted)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)

    # ---- listening to the deployment -----------------------------------------------------------

    def step(self, phase: str, step: Step, dry_run: bool) -> None:
        if phase == "outputs" and step.op != "same":
            old, new = ((r and self._clean(masked(r.inputs))) or {} for r in (step.old, step.new))
            step.shown = old, new
        self._display.step(phase, step, dry_run)

    def diagnostic(self, urn: str, severity: str, text: str, ephemeral: bool = False) -> None:
        text = self._clean(text)
        if severity == "error":
            self._errors.append(text)
        if not ephemeral:
            prefix = "" if severity.startswith("info") else f"{severity}: "
            told = {"urn": urn, "message": f"{prefix}{text}\n", "severity": severity}
            self._result.diagnostics.append({k: v for k, v in told.items() if v})
        self._display.diagnostic(urn, severity, text, ephemeral)

    def _clean(self, value: Any) -> Any:
        def clean(part: Any) -> Any:
            for secret in self._hidden if isinstance(part, str) else ():
                part = part.replace(secret, "[secret]")
            return part

        return mapped(value, clean)


def _environment() -> dict[str, str]:
    machine = platform.machine()
    return {
        "exec.kind": "embedded",
        "pulumi.arch": {"x86_64": "amd64", "aarch64": "arm64"}.get(machine, machine),
        "pulumi.os": sys.platform,
        "pulumi.version": VERSION,
        "runtime.executable": sys.executable,
        "runtime.name": "python",
        "runtime.version": platform.python_version(),
    }


def _git_facts(stack: Stack) -> dict[str, str]:
    """Who stands behind the program, by Pulumi's names; empty where there is no repository."""

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(stack.project.root), *arguments],
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        ).stdout.strip()

    names = ("head", "author", "author.email", "committer", "committer.email")
    try:
        asked = "--format=%H%x00%an%x00%ae%x00%cn%x00%ce%x00%s"
        *facts, subject = git("log", "-1", asked).split("\0")
        found = {f"git.{name}": fact for name, fact in zip(names, facts, strict=True)}
        found["git.headName"] = git("rev-parse", "--symbolic-full-name", "HEAD")
        found["git.dirty"] = str(bool(git("status", "--porcelain", "-uno"))).lower()
    except (OSError, subprocess.SubprocessError):
        return {}
    return {**found, "message": subject}
