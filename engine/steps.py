"""What is done to one resource, and who is told of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from .planner import UNCHANGED, Change, Op
from .snapshot import Resource
from .values import Props

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
    old: Resource | None
    new: Resource | None = None
    change: Change = UNCHANGED  # why
    keeps_old: bool = False  # a replacement that is created first: the original goes at the end
    skipped: bool = False  # only told: what is not wanted now is neither made nor kept in the state
    seconds: float = 0.0
    shown: tuple[Props, Props] = ({}, {})  # inputs before and after as texts may show them

    def __post_init__(self) -> None:
        # A refresh finds later what it is: its kind then says what was found.
        self.refreshes = self.op is Op.REFRESH
        self.logical = self.op in COUNTED  # or one part of what is done to a resource
        self.urn, self.type, self.name = self.target.urn, self.target.type, self.target.name

    @property
    def target(self) -> Resource:
        """The resource as it will be, or as it was where it goes."""
        found = self.new or self.old
        assert found is not None
        return found


class Listener(Protocol):
    """Who is told what happens. Called from several threads, also while hooks run."""

    def step(self, phase: str, step: Step, dry_run: bool, /) -> None:
        """`phase` is pre, outputs (done) or failed."""

    def diagnostic(self, urn: str, severity: str, text: str, ephemeral: bool = False, /) -> None:
        """A message of the program or the engine; urn is empty for the stack. Severity is info,
        warning or error. Ephemeral ones are progress and may be forgotten."""


class Display(Listener, Protocol):
    """Who shows an operation. No text that it is given holds a secret."""

    def begin(self, title: str, stack: str, dry_run: bool, diff: bool, /) -> None:
        """An operation, or its preview, starts; `diff`: show properties with their values."""

    def outputs(self, old: Props, new: Props, dry_run: bool, /) -> None:
        """The stack's outputs before and after."""

    def summary(
        self, changes: dict[str, int], seconds: float, dry_run: bool, failed: bool, /
    ) -> None:
        """The end: number of resources by step kind."""

    def end(self) -> None:
        """Nothing follows; also called if the operation broke off."""
