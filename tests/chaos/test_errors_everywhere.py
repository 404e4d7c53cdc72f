"""An I/O error or a full disk at every failpoint that the moves of a stack under load pass."""

from __future__ import annotations

import pytest

from tests.chaos.rounds import Rounds

MOST_ROUNDS = 300
FAILURES_OF_A_ROUND = 3


@pytest.mark.chaos
@pytest.mark.timeout(3 * 3600)
def test_fault_11_13_16_an_error_at_every_failpoint(rounds: Rounds) -> None:
    """Moves of every kind, and at each failpoint once an I/O error or a full disk: every command
    ends with a message, the next up converges, and after every round all that is promised holds."""
    fails = rounds.killer.failing_at_the_rarest
    with rounds.tally.kept("errors"):
        rounds.one_of_each()
        for _ in range(MOST_ROUNDS):
            kind_left = rounds.unfinished_kind(rounds.tally.failed)
            if kind_left is None:
                break
            rounds.round(kind_left, *[fails] * FAILURES_OF_A_ROUND, kill_new=fails)
    assert len(rounds.tally.failed) >= 60, rounds.tally.failed
