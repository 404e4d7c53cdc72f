"""Retention: a partition with reasons, whatever the history."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.config import Window
from reconciler.planning.pruning import reasons
from reconciler.planning.retention import arrivals, needed_snapshots, retain
from reconciler.records.ledger import Imported
from tests.reconciler.hostmodel import Host

RELEASES = [f"prod-{n:03d}" for n in range(1, 9)]


def lived(count: int, window: int = 99) -> Host:
    host = Host(window)
    for _ in range(count):
        host.new()
        host.up()
    return host


@given(
    last=st.integers(1, 9),
    days=st.integers(0, 3),
    pinned=st.sets(st.sampled_from(RELEASES)),
    live=st.sampled_from(RELEASES),
    previous=st.none() | st.sampled_from(RELEASES),
    unfinished=st.sets(st.sampled_from(RELEASES), max_size=2),
    count=st.integers(1, 8),
)
def test_fault_84_live_previous_pinned_and_unfinished_are_kept(
    last: int,
    days: int,
    pinned: set[str],
    live: str,
    previous: str | None,
    unfinished: set[str],
    count: int,
) -> None:
    """Any window, pins and unfinished work: live, previous, pinned and unfinished releases are
    never pruned, each that is kept has its reasons, and every release is either."""
    host = lived(count)
    window = Window(last=last, days=days, pinned=tuple(pinned))
    kept, pruned = retain(
        window,
        RELEASES,
        host.state,
        live=live,
        previous=previous,
        unfinished=unfinished,
        now=1_800_000_000.0,
    )
    names = [k.release for k in kept]
    assert sorted([*names, *pruned]) == RELEASES
    assert all(k.reasons for k in kept)
    assert {live, *pinned, *unfinished, *([previous] if previous else [])} <= set(names)


@pytest.mark.parametrize(
    ("last", "kept"), [(1, ["prod-004"]), (2, ["prod-003", "prod-004"]), (9, RELEASES[:4])]
)
def test_the_window_counts_releases_that_were_live(last: int, kept: list[str]) -> None:
    host = lived(4)
    found, _ = retain(
        Window(last=last),
        RELEASES[:4],
        host.state,
        live="prod-004",
        previous=None,
        unfinished=(),
        now=0.0,
    )
    assert [k.release for k in found] == kept


def test_a_failed_release_does_not_push_a_good_one_out() -> None:
    host = lived(3, window=3)
    failed = host.new()
    host.up(fails=True)
    good = host.new()
    plan = host.up()
    assert plan.prune == ("prod-001",)
    assert {k.release: k.reasons for k in plan.keep}[failed] == (
        "failed, not older than the window",
    )
    assert good == "prod-005"


def test_a_release_younger_than_the_days_is_kept() -> None:
    host = lived(4)
    seconds_after = 1_767_225_600.0 + 86400  # the model's departures are at 2026-01-01
    kept, pruned = retain(
        Window(last=1, days=2),
        RELEASES[:4],
        host.state,
        live="prod-004",
        previous=None,
        unfinished=(),
        now=seconds_after,
    )
    assert pruned == ()
    assert "live within the last 2 days" in kept[0].reasons


def test_needed_snapshots_are_departures_and_arrivals() -> None:
    host = lived(3)
    left = {d.release: set(d.snapshots.values()) for d in host.state.departures}
    assert needed_snapshots(host.state, ["prod-002"]) == left["prod-001"] | left["prod-002"]
    assert needed_snapshots(host.state, ["prod-003"]) == left["prod-002"]


def test_what_came_with_an_import_is_needed_while_its_release_is_kept() -> None:
    """It is the release's departure and arrival, and it is pruned like any other although its
    tags are those of the stack that it comes from."""
    host = lived(1)
    came = Imported(
        at="2026-01-01T00:00:00+00:00",
        release="prod-002",
        origin="blog/live live-007",
        departure={"db": "left"},
        arrival={"db": "began"},
        probes={"db": {"rows": 7}},
    )
    host.apply(came)
    state = host.state
    (left,) = state.departures_of("prod-002")
    assert (left.snapshots, left.probes, left.world) == ({"db": "left"}, {"db": {"rows": 7}}, "")
    (began,) = arrivals(state, "prod-002").values()
    assert began.snapshots == {"db": "began"}
    assert needed_snapshots(state, ["prod-002"]) == {"left", "began"}
    assert not needed_snapshots(state, ["prod-001"]) & {"left", "began"}
    assert not state.debts()
    tags = {"release": "live-007", "world": "blog-live-007"}
    assert reasons(host.stack(), state, ["prod-002"])("began", tags) == "what prod-002 started from"
    assert reasons(host.stack(), state, ["prod-001"])("began", tags) is None
