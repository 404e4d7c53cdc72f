"""What the person who asks for a switch says of it, on its way from the command to the ledger.

The program may run in another process (the official CLI's), so the command leaves it in the
environment: never a secret, for whatever looks like one of the stack's is masked before.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from reconciler.masking import masked

_COMMAND, _REASON = "LOCKSTEP_ASKED", "LOCKSTEP_REASON"
_LONGEST = 2000


@dataclass(frozen=True)
class Asked:
    """A command that asks for a switch, and the reason that was given; both may be empty."""

    command: str = ""
    reason: str = ""

    def leave(self) -> Asked:
        """For the program that this process runs or starts; returns what was left."""
        left = Asked(self.command, masked(self.reason).strip()[:_LONGEST])
        os.environ[_COMMAND], os.environ[_REASON] = left.command, left.reason
        return left


def found() -> Asked:
    """What was left."""
    reason = masked(os.environ.get(_REASON, ""))
    return Asked(os.environ.get(_COMMAND, ""), reason[:_LONGEST])
