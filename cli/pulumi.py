"""A `pulumi` for hosts without the official one: its calls that the embedded engine has.

Set-up puts it into .venv/bin only where PATH has no official CLI, and it steps aside as soon as
there is one. What it prints is what the official CLI prints for the same call.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from engine.operations import Result
    from engine.project import Project
    from engine.stack import Stack
    from engine.steps import Display

HERE = (
    "This is Lockstep's embedded engine, not the official Pulumi CLI. It has: "
    "up, preview, refresh, destroy, cancel, version, config [get|set|rm], "
    "stack [ls|init|select|output|export|import|history|rm]"
)
UNCONFIRMED, STACK_MISSING = 2, 6  # the official CLI's exit codes
OPERATIONS = ("up", "preview", "refresh", "destroy")
SHARED = {"stack": None, "cwd": Path(), "non_interactive": False, "color": "auto"}
Calls = Any  # what argparse gives for a parser's sub-commands; it has no public name


class Parser(argparse.ArgumentParser):
    """One that refuses what it does not know with a sentence of ours."""

    def error(self, message: str) -> NoReturn:
        from engine.errors import EngineError, NotInEngine

        unknown = re.search(r"unrecognized arguments: (.+)|invalid choice: '(.+?)'", message)
        if unknown is None:
            raise EngineError(f"{message}; `pulumi --help` shows what can be said")
        print(HERE, file=sys.stderr)
        raise NotInEngine(unknown[1] or unknown[2])


def parser() -> Parser:
    """All calls with their options, by the official CLI's names."""
    # Left out of what a call gives unless said, so that they may stand before or after the call.
    shared = Parser(add_help=False, allow_abbrev=False, argument_default=argparse.SUPPRESS)
    shared.add_argument("--stack", "-s")
    shared.add_argument("--cwd", "-C", type=Path)
    shared.add_argument("--non-interactive", action="store_true")
    shared.add_argument("--color", choices=("always", "never", "raw", "auto"))
    root = Parser(prog="pulumi", description=HERE, allow_abbrev=False, parents=[shared])
    calls: Calls = root.add_subparsers(dest="call", required=True, metavar="CALL")

    def add(group: Calls, name: str, about: str, *flags: str, alias: str = "") -> Parser:
        made: Parser = group.add_parser(
            name, help=about, parents=[shared], allow_abbrev=False, aliases=[alias] * bool(alias)
        )
        for flag in flags:
            made.add_argument(flag, action="store_true")
        made.set_defaults(act=" ".join([*group._prog_prefix.split()[1:], name]))
        return made

    _operations(calls, add)
    _stacks(calls, add)
    _config(calls, add)
    add(calls, "cancel", "remove the stack's lock", "--yes").add_argument("name", nargs="?")
    add(calls, "version", "which engine this is")
    return root


def _operations(calls: Calls, add: Callable[..., Parser]) -> None:
    doing = {
        "up": add(calls, "up", "make the stack as the program declares it", alias="update"),
        "preview": add(calls, "preview", "show what up would do", alias="pre"),
        "refresh": add(calls, "refresh", "read every resource anew"),
        "destroy": add(calls, "destroy", "delete everything in the stack", alias="down"),
    }
    for name, made in doing.items():
        made.add_argument("--event-log", type=Path)
        made.add_argument("--parallel", "-p", type=int, default=16)
        made.add_argument("--message", "-m")
        made.add_argument("--diff", action="store_true")
        made.add_argument("--json", "-j", action="store_true")
        made.add_argument("--target", "-t", action="append", default=[])
        made.add_argument("--expect-no-changes", action="store_true")
        if name in ("up", "preview"):
            made.add_argument("--replace", action="append", default=[])
            made.add_argument("--config", "-c", action="append", default=[])
            made.add_argument("--config-path", action="store_true")
            made.add_argument("--skip-config-validation", action="store_true")
        if name != "refresh":
            made.add_argument("--refresh", "-r", nargs="?", const="true", default="false")
        if name != "preview":
            made.add_argument("--continue-on-error", action="store_true")
            made.add_argument("--yes", "-y", action="store_true")
            made.add_argument("--skip-preview", "-f", action="store_true")
    for name in ("refresh", "destroy"):
        doing[name].add_argument("--preview-only", action="store_true")
    doing["refresh"].add_argument("--clear-pending-creates", action="store_true")
    doing["destroy"].add_argument("--run-program", action="store_true")


def _stacks(calls: Calls, add: Callable[..., Parser]) -> None:
    made = add(calls, "stack", "the project's stacks")
    group: Calls = made.add_subparsers(dest="call", required=True, metavar="CALL")
    add(group, "ls", "list them", "--json")
    add(group, "init", "make one", "--no-select").add_argument("name", nargs="?")
    add(group, "select", "choose one", "--create").add_argument("name", nargs="?")
    output = add(group, "output", "what the program exported", "--json", "--show-secrets")
    output.add_argument("name", nargs="?")
    add(group, "export", "print the state", "--show-secrets").add_argument("--file", type=Path)
    add(group, "import", "replace the state", "--force").add_argument("--file", type=Path)
    history = add(group, "history", "past operations", "--json", "--full-dates", "--show-secrets")
    history.add_argument("--page-size", type=int, default=10)
    history.add_argument("--page", type=int, default=1)
    gone = add(group, "rm", "remove one", "--yes", "--force", "--preserve-config")
    gone.add_argument("name", nargs="?")


def _config(calls: Calls, add: Callable[..., Parser]) -> None:
    made = add(calls, "config", "the stack's config", "--json", "--show-secrets")
    group: Calls = made.add_subparsers(dest="call", metavar="CALL")
    add(group, "get", "print a value", "--json", "--path").add_argument("key")
    change = add(group, "set", "set a value", "--secret", "--plaintext", "--path")
    change.add_argument("key")
    change.add_argument("value", nargs="?")
    add(group, "rm", "remove a value", "--path").add_argument("key")


class Session:
    """What a call works on, found when it is asked for."""

    def __init__(self, given: argparse.Namespace) -> None:
        self.given = given
        self.live = not given.non_interactive and sys.stdin.isatty() and sys.stdout.isatty()

    @property
    def project(self) -> Project:
        from engine.project import Project

        return Project.find(self.given.cwd)

    def stack(self, name: str | None = None) -> Stack:
        """The stack that is meant. Raises EngineError if none is chosen or there is none."""
        from cli.context import offer_passphrase, selected
        from engine.errors import StackMissing
        from engine.stack import Stack

        project = self.project
        offer_passphrase(project.root)
        wanted = name or self.given.stack or os.environ.get("PULUMI_STACK")
        wanted = wanted or selected(project.name, project.root)
        if not wanted:
            raise StackMissing(
                "no stack selected; please use `pulumi stack select` or `pulumi stack init` to "
                "choose one"
            )
        return Stack(project, wanted.rpartition("/")[2])

    def existing(self, name: str | None = None) -> Stack:
        """The stack, which must have a state."""
        from engine.errors import StackMissing

        stack = self.stack(name)
        if not stack.exists():
            raise StackMissing(f"no stack named '{stack.name}' found")
        return stack


def operate(here: Session) -> int:
    """up, preview, refresh or destroy; gives the exit code."""
    from engine.errors import EngineError

    given, call = here.given, here.given.act
    stack = here.existing()
    asked = getattr(given, "yes", False) or getattr(given, "skip_preview", False)
    only = call == "preview" or getattr(given, "preview_only", False)
    if only and call != "preview" and asked:
        raise EngineError("--preview-only excludes --yes and --skip-preview")
    if not (only or asked or here.live):
        refused = EngineError(
            "--yes or --skip-preview must be passed in to proceed when running in "
            "non-interactive mode"
        )
        refused.exit_code = UNCONFIRMED
        raise refused
    stack.begin()  # before the rest is read
    from engine import operations
    from engine.options import Options

    for assignment in getattr(given, "config", []):
        from cli import stackconfig

        key, _, value = assignment.partition("=")
        stackconfig.put(stack, key, value, path=given.config_path)
    options = Options(
        message=given.message,
        refresh=call != "refresh" and given.refresh == "true",
        diff=given.diff,
        parallel=given.parallel,
        targets=tuple(given.target),
        replacing=tuple(getattr(given, "replace", ())),
        continue_on_error=getattr(given, "continue_on_error", False),
        expect_no_changes=given.expect_no_changes,
        validate=not getattr(given, "skip_config_validation", False),
        clear_pending_creates=getattr(given, "clear_pending_creates", False),
        run_program=getattr(given, "run_program", False),
        preview_only=only,
        skip_preview=getattr(given, "skip_preview", False),
        confirm=None if asked else ask,
    )
    result: Result = getattr(operations, call)(stack, _display(here, stack), options)
    if given.json:
        from cli import pulumicalls

        told = pulumicalls.digest(result, _shown_config(stack))
        print(json.dumps(told, indent=4, ensure_ascii=False))
    if result.last_word:
        print(f"error: {result.last_word}", file=sys.stderr)
    return result.exit_code


def _display(here: Session, stack: Stack) -> Display:
    from cli import display as displays
    from cli.eventlog import EventLog

    given = here.given
    live = here.live and given.color != "never" and not given.json
    display = displays.make_display(live, open(os.devnull, "w") if given.json else None)  # noqa: SIM115
    if given.event_log is None:
        return display
    return EventLog(display, given.event_log, _shown_config(stack))


def _shown_config(stack: Stack) -> dict[str, str]:
    secret = stack.secret_keys()
    return {k: "[secret]" if k in secret else v for k, v in stack.texts().items()}


def ask(planned: Result) -> bool:
    """The person's yes to what the preview showed; `details` shows it with all values. Raises
    EngineError for a no."""
    from cli.display import details
    from engine.errors import EngineError

    while True:
        print("Do you want to perform this? [yes/no/details] ", end="", flush=True)
        said = sys.stdin.readline().strip().lower()
        if said in ("details", "d"):
            print(details(planned))
        elif said in ("yes", "y"):
            return True
        elif said in ("no", "n", ""):
            raise EngineError("confirmation declined, nothing was changed")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the call, or hand it to the official CLI if there is one; gives the exit code."""
    from cli import engines

    given = list(sys.argv[1:] if arguments is None else arguments)
    official = engines.find(os.environ.get("PATH", ""), Path.cwd())
    if official is not None and os.environ.get("LOCKSTEP_ENGINE") != "embedded":
        os.execv(official, [str(official), *given])
    from engine.errors import EngineError, StackMissing
    from reconciler.errors import LockstepError

    try:
        return call(parser().parse_args(given, argparse.Namespace(**SHARED)))
    except (EngineError, LockstepError) as error:
        print(f"error: {error}", file=sys.stderr)
        return STACK_MISSING if isinstance(error, StackMissing) else error.exit_code
    except KeyboardInterrupt:
        return 130


def call(given: argparse.Namespace) -> int:
    """Carry out one parsed call."""
    here = Session(given)
    if given.act in OPERATIONS:
        return operate(here)
    from cli import pulumicalls

    pulumicalls.CALLS[given.act](here)
    return 0


if __name__ == "__main__":
    sys.exit(main())
