"""What is done to one resource, and who is told of it or asked for it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

from .planner import Change, Op
from .snapshot import Resource

# Steps that a summary counts; the others are parts of a replacement.
COUNTED = {Op.SAME, Op.CREATE, Op.UPDATE, Op.DELETE, Op.REPLACE}


class Terminated(Exception):
    """The operation goes on no further: a step failed or the person pressed ^C."""


class Refused(Exception):
    """This one step failed; the message is for the user."""


class Protected(Refused):
    """A protected resource was to be deleted. Nothing was done, so what else goes may go on."""


@dataclass
class Step:
    """One thing that is done, or in a preview would be done, to one resource."""

    op: Op
    urn: str
    type: str
    old: Resource | None = None
    new: Resource | None = None
    keys: tuple[str, ...] = ()
    diffs: tuple[str, ...] = ()
    detailed: dict[str, Any] | None = None
    logical: bool = True  # False for one part of what is done to a resource, and for a refresh
    keeps_old: bool = False  # a replacement that is created first: the original goes at the end
    skipped: bool = False  # only told: what is not wanted now is neither made nor kept in the state
    seconds: float = 0.0
    lines: list[str] = field(default_factory=list)  # properties to show, secrets hidden

    @property
    def name(self) -> str:
        return self.urn.rpartition("::")[2]

    @property
    def target(self) -> Resource:
        """The resource as it will be, or as it was where it goes."""
        found = self.new or self.old
        assert found is not None
        return found


def step(
    op: Op, old: Resource | None, new: Resource | None = None, change: Change | None = None
) -> Step:
    """A step of the kind; `change` says why."""
    found = new or old
    assert found is not None
    made = Step(op, found.urn, found.type, old, new, logical=op in COUNTED)
    if change:
        made.keys, made.diffs = change.replaces, change.keys
        made.detailed = change.detailed
    return made


class Listener(Protocol):
    """Who is told what happens."""

    def step(self, phase: str, step: Step, dry_run: bool) -> None: ...

    def diagnostic(self, urn: str, severity: str, text: str, ephemeral: bool = False) -> None: ...


class Hooks(Protocol):
    """Calls the program's resource hooks."""

    def hook_options(self, name: str, /) -> tuple[bool, bool] | None:
        """(on_dry_run, ignore_errors) of a registered hook, None if there is none of the name."""

    def call_hook(self, name: str, arguments: dict[str, Any], /) -> str:
        """Runs the hook; the text of its failure, empty if there was none."""
