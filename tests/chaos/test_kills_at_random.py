"""kill -9 at random times of the moves of a stack under load."""

from __future__ import annotations

import pytest

from tests import reliability
from tests.chaos.rounds import Rounds

KILLS_OF_A_ROUND = 6


@pytest.mark.chaos
@pytest.mark.timeout(3 * 3600)
def test_fault_2_killed_two_hundred_times_at_random(rounds: Rounds) -> None:
    """Moves of every kind, and 200 kills of the command, of the switch or of both at random times:
    after every round all that is promised holds."""
    with rounds.tally.kept("random"):
        while rounds.tally.after.total() < reliability.WANTED_AT_RANDOM:
            kills = [rounds.killer.at_random] * rounds.chance.randint(1, KILLS_OF_A_ROUND)
            rounds.round(rounds.any_kind(), *kills)
