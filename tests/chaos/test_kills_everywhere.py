"""kill -9 at every failpoint that the moves of a stack under load pass."""

from __future__ import annotations

import pytest

from tests.chaos.rounds import Rounds

AT_EACH, AT_EACH_STEP = 2, 5
"""Kills at every failpoint, and at those that are a step of the switch."""
MOST_ROUNDS = 300
KILLS_OF_A_ROUND = 6


@pytest.mark.chaos
@pytest.mark.timeout(3 * 3600)
def test_fault_1_9_10_killed_at_every_failpoint(rounds: Rounds) -> None:
    """Moves of every kind, forward, back, undone, restored, failing, stopped, killed at least five
    times at each step of the switch and twice at every other failpoint that they pass: after every
    round all that is promised holds."""
    rare = rounds.killer.at_the_rarest
    rounds.tally.wanted, rounds.tally.wanted_at_steps = AT_EACH, AT_EACH_STEP
    with rounds.tally.kept("everywhere"):
        rounds.one_of_each()
        for _ in range(MOST_ROUNDS):
            rare_in = rounds.unfinished_kind(rounds.tally.at)
            if rare_in is None:
                break
            kills = [rare] * rounds.chance.randint(1, KILLS_OF_A_ROUND)
            rounds.round(rare_in, *kills, kill_new=rare)
    steps = {n: c for n, c in rounds.tally.at.items() if n.startswith("switch.")}
    assert len(steps) >= 20, steps
    assert min(steps.values()) >= AT_EACH_STEP, steps
