"""kill -9 of the command and of its switch under a writer's load. Each round ends with the next up,
which must converge, and with everything that tests/chaos/host.py and model.py insist on: old or
new, no acknowledged note lost but what the move set aside, nothing left over, the store sound."""

from __future__ import annotations

import pytest

from tests.chaos.rounds import Rounds

pytestmark = pytest.mark.timeout(900)


def test_fault_1_killed_on_the_way_to_a_new_release(rounds: Rounds) -> None:
    """kill -9 while the record and the world are made, at the seal, and between store and ledger:
    each next up goes on, the last arrives with every acknowledged note."""
    at = rounds.killer.at
    rounds.round(
        "forward",
        at("worlds.containers"),
        at("switch.seal"),
        at("debts.captured"),
        kill_new=at("catalog.record"),
    )


def test_fault_1_killed_on_the_way_back(rounds: Rounds) -> None:
    """kill -9 of a rollback before its stop, within it and after its commit: it arrives with the
    data that the release left."""
    at = rounds.killer.at
    rounds.round("rollback", at("switch.early"), at("switch.stop"), at("switch.committed"))


def test_fault_9_killed_while_a_failed_release_is_reverted(rounds: Rounds) -> None:
    """A release writes into all its data and fails; kill -9 within the way back, twice: the old
    world is back with its own data, the release is quarantined."""
    at = rounds.killer.at
    rounds.round("fail", at("switch.revert-stopped"), at("switch.revert-written"))


def test_fault_1_killed_while_it_is_stopped_and_repaired(rounds: Rounds) -> None:
    """kill -9 of the emergency stop when all stands still, and of the up that starts it again: both
    can be repeated, and the live world runs again with every acknowledged note."""
    at = rounds.killer.at
    rounds.round("stop", at("switch.all-stopped"), at("switch.repaired"))


def test_fault_2_killed_at_random_times(rounds: Rounds) -> None:
    """kill -9 of the command, of the switch or of both at random times of a move: old or new, and
    the next up converges."""
    rounds.round("forward", rounds.killer.at_random, rounds.killer.at_random)


def test_fault_10_killed_while_releases_are_pruned(rounds: Rounds) -> None:
    """kill -9 once a release is pruned in the ledger, and while its record and snapshots go: what
    is kept can be restored, the rest goes with the next prune."""
    at = rounds.killer.at
    while len(rounds.model.arrived) < 3:
        rounds.round("forward")
    rounds.round("forward", at("debts.pruned"), at("catalog.record-gone"))
    rounds.round("forward", at("debts.forgotten"))
    rounds.round("forward")
