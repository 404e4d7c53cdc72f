"""What the engine refuses or cannot do, as sentences for the person in front of it."""

from __future__ import annotations


class EngineError(Exception):
    """A failure that was foreseen. Its message names the thing, the reason and the next command."""

    exit_code = 1


class StackLocked(EngineError):
    """Another process holds the stack; the message says which, and how to clear a stale lock."""


class StackMissing(EngineError):
    """There is no stack of the name."""


class NotInEngine(EngineError):
    """The program, the state or the call uses something that only the official engine has."""

    def __init__(self, what: str, where: str = "") -> None:
        suffix = f" (used by {where})" if where else ""
        super().__init__(f"{what} is not in the embedded engine{suffix}; use the Pulumi CLI")
