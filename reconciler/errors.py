"""What can go wrong, as classes: each message names the thing, the reason and the next command."""

from __future__ import annotations

from enum import IntEnum

EXIT_CODE_FILE = "LOCKSTEP_EXIT_CODE_FILE"
"""Set by a caller in another process: a file for the exit code of what ends the program."""


class Exit(IntEnum):
    """Exit codes of the `lockstep` command, documented in docs/exit-codes.md."""

    OK = 0
    FAILED = 1
    BAD_INPUT = 2
    REFUSED = 3
    REVERTED = 4
    DEBTS = 5
    BUSY = 6
    DAMAGED = 7
    UNAVAILABLE = 8


class LockstepError(Exception):
    """Base of every foreseen failure; `str()` is the whole text for a person."""

    exit_code: Exit = Exit.FAILED

    def __init__(self, message: str, *, next_step: str = "") -> None:
        self.message = message
        self.next_step = next_step
        super().__init__(f"{message}\n  {next_step}" if next_step else message)


class BadInput(LockstepError):
    """Something the user wrote (config, compose file, name) cannot be used."""

    exit_code = Exit.BAD_INPUT


class Refused(LockstepError):
    """The operation is possible but would break a promise; nothing was changed."""

    exit_code = Exit.REFUSED


class Damage(Refused):
    """The store cannot give what a move needs; nothing was changed."""


class Reverted(LockstepError):
    """The new release did not pass its proof; the old world is live again."""

    exit_code = Exit.REVERTED


class DebtsUnpaid(LockstepError):
    """The switch is committed, but sealed data is not yet safe in the store."""

    exit_code = Exit.DEBTS


class Busy(LockstepError):
    """Another operation holds the host lock."""

    exit_code = Exit.BUSY


class WorldChanged(LockstepError):
    """The ledger moved on after the plan was made."""

    exit_code = Exit.BUSY


class StoreDamaged(LockstepError):
    """The store holds content that could not be restored as it is."""

    exit_code = Exit.DAMAGED


class Unavailable(LockstepError):
    """Docker or Compose cannot be reached or is missing."""

    exit_code = Exit.UNAVAILABLE


class DockerFailed(LockstepError):
    """Docker or Compose answered a request with an error."""


class CatalogDamaged(LockstepError):
    """A record, the ledger or the manifest under releases/ cannot be trusted."""
