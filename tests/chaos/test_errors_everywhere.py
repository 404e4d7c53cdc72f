"""An I/O error or a full disk at every failpoint that the moves of a stack under load pass."""

from __future__ import annotations

import pytest

from tests.chaos.rounds import Rounds

FAILURES_OF_A_ROUND = 5


@pytest.mark.chaos
@pytest.mark.timeout(3 * 3600)
def test_fault_11_13_16_an_error_at_every_failpoint(rounds: Rounds) -> None:
    """Moves of every kind, and at each failpoint once an I/O error or a full disk: every command
    ends with a message, the next up converges, and after every round all that is promised holds."""
    fails = rounds.killer.failing_at_the_rarest
    with rounds.tally.kept("errors"):
        rounds.everywhere(rounds.tally.failed, fails, lambda: FAILURES_OF_A_ROUND)
    assert len(rounds.tally.failed) >= 60, rounds.tally.failed
