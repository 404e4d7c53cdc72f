"""kill -9 at every failpoint that the moves of a stack under load pass."""

from __future__ import annotations

import pytest

from tests.chaos.rounds import Rounds

EACH = 5
"""Kills at every failpoint."""
KILLS_OF_A_ROUND = 8


@pytest.mark.chaos
@pytest.mark.timeout(3 * 3600)
def test_fault_1_9_10_killed_at_every_failpoint(rounds: Rounds) -> None:
    """Moves of every kind, forward, back, undone, restored, failing, stopped, killed at least five
    times at each failpoint that they pass: after every round all that is promised holds."""
    rare = rounds.killer.at_the_rarest
    rounds.tally.wanted = EACH
    with rounds.tally.kept("everywhere"):
        rounds.everywhere(rounds.tally.at, rare, lambda: rounds.chance.randint(1, KILLS_OF_A_ROUND))
    steps = {n: c for n, c in rounds.tally.at.items() if n.startswith("switch.")}
    assert len(steps) >= 20, steps
    assert min(steps.values()) >= EACH, steps
