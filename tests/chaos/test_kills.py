"""kill -9 of the command and of its switch under a writer's load. Each round ends with the next up,
which must converge, and with everything that tests/chaos/host.py and model.py insist on: old or
new, no acknowledged note lost but what the move set aside, nothing left over, the store sound."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests import reliability
from tests.chaos.kills import Tally
from tests.chaos.rounds import Rounds
from tests.chaos.stage import Writer, chaos_project

pytestmark = pytest.mark.timeout(900)

EACH = 5
"""Kills at every failpoint, in the long form."""
MOST_ROUNDS = 300
KILLS_OF_A_ROUND = 3


@pytest.fixture(scope="module")
def rounds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rounds]:
    """One stack for all rounds, its first release live."""
    project = chaos_project(tmp_path_factory.mktemp("chaos") / "stack")
    try:
        with Writer(project.port) as writer:
            made = Rounds(project, writer, Tally(), seed=5)
            made.first()
            yield made
    finally:
        project.remove()


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
    """kill -9 once a release is pruned in the ledger, and while its snapshots go: what is kept
    can be restored, the rest goes with the next prune."""
    at = rounds.killer.at
    while len(rounds.model.arrived) < 3:
        rounds.round("forward")
    rounds.round("forward", at("debts.pruned"))
    rounds.round("forward", at("debts.forgotten"))
    rounds.round("forward")


@pytest.mark.chaos
@pytest.mark.timeout(3 * 3600)
def test_fault_1_9_10_killed_at_every_failpoint(rounds: Rounds) -> None:
    """Moves of every kind, forward, back, undone, restored, failing, stopped, killed at least five
    times at each failpoint that they pass: after every round all that is promised holds."""
    rare = rounds.killer.at_the_rarest
    for kind in ("forward", "fail", "rollback", "undo", "forward", "forward", "restore", "stop"):
        rounds.round(kind)
    for _ in range(MOST_ROUNDS):
        rare_in = rounds.kind_with_fewer(EACH, rounds.tally.at)
        if rare_in is None:
            break
        kills = [rare] * rounds.chance.randint(1, KILLS_OF_A_ROUND)
        rounds.round(rare_in, *kills, kill_new=rare)
    steps = {n: c for n, c in rounds.tally.at.items() if n.startswith("switch.")}
    assert len(steps) >= 20, steps
    assert min(steps.values()) >= EACH, steps


@pytest.mark.chaos
@pytest.mark.timeout(3 * 3600)
def test_fault_11_13_16_an_error_at_every_failpoint(rounds: Rounds) -> None:
    """The same moves, and at each failpoint once an I/O error or a full disk: every command ends
    with a message, the next up converges, and after every round all that is promised holds."""
    fails = rounds.killer.failing_at_the_rarest
    for _ in range(MOST_ROUNDS):
        kind = rounds.kind_with_fewer(1, rounds.tally.failed)
        if kind is None:
            break
        rounds.round(kind, *[fails] * KILLS_OF_A_ROUND, kill_new=fails)
    assert len(rounds.tally.failed) >= 60, rounds.tally.failed


@pytest.mark.chaos
@pytest.mark.timeout(3 * 3600)
def test_fault_2_killed_two_hundred_times_at_random(rounds: Rounds) -> None:
    """The same moves, and 200 kills of the command, of the switch or of both at random times: after
    every round all that is promised holds."""
    while rounds.tally.after.total() < reliability.WANTED_AT_RANDOM:
        kills = [rounds.killer.at_random] * rounds.chance.randint(1, KILLS_OF_A_ROUND)
        rounds.round(rounds.any_kind(), *kills)
    rounds.tally.write(reliability.HITS)
    for name, count in sorted((rounds.tally.at + rounds.tally.after).items()):
        print(f"{count:5} {name}")
