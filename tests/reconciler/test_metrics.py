"""Figures of the switches: against histories whose figures are counted by hand."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from prometheus_client.parser import text_string_to_metric_families as older_text

from cli.metrics import document
from reconciler.figures import openmetrics
from reconciler.figures.metrics import Spread, duration, measure, written
from reconciler.records.ledger import Committed, Reverted
from tests.reconciler.ledgers import History, a_dozen

AT = "2026-01-01T00:00:10.500+00:00"


def parsed(said: str) -> dict[str, Metric]:
    return {f.name: f for f in text_string_to_metric_families(said)}  # type: ignore[no-untyped-call]


@pytest.mark.parametrize(
    ("planned", "started", "seconds"),
    [
        ("2026-01-01T00:00:00+00:00", "2026-01-01T00:00:08+00:00", 10.5),
        ("", "2026-01-01T00:00:08+00:00", 2.5),
        ("", "", None),
        ("2026-01-01T00:00:11+00:00", "", None),
    ],
    ids=["from the plan", "older entry", "unknown", "the clock was set back"],
)
def test_a_switch_takes_from_its_plan_to_its_end(
    planned: str, started: str, seconds: float | None
) -> None:
    outcome = Committed(
        at=AT, move="back", from_world=None, to_world="w", planned=planned, started=started
    )
    assert duration(outcome) == seconds


@pytest.mark.parametrize(
    ("action", "before", "after", "more"),
    [
        ("fork", {"rows": 10}, {"rows": 13, "files": 0}, {"db": {"rows": 3}}),
        ("fork", {"rows": 10}, {"rows": 9}, {}),
        ("fork", {}, {"rows": 9}, {}),
        ("attach", {"rows": 10}, {"rows": 13}, {}),
    ],
    ids=["more", "less", "never counted", "other data than was left"],
)
def test_what_a_failed_world_wrote_is_what_its_fork_has_more(
    action: str, before: dict[str, int], after: dict[str, int], more: dict[str, dict[str, int]]
) -> None:
    outcome = Reverted(
        at=AT,
        move="forward",
        from_world="v",
        to_world="w",
        touched=True,
        quarantine=True,
        datasets={"db": action},
        probes={"db": before} if before else {},
        written={"db": after},
    )
    assert written(outcome) == more


def test_nothing_measured_is_nothing() -> None:
    found = measure(History().state)
    assert (found.all.switches, found.all.success_rate, found.all.downtime) == (0, None, None)
    assert found.since is None
    assert Spread.of([]) is None


def test_the_figures_of_a_history_counted_by_hand() -> None:
    history = History()
    history.forward()
    history.forward()
    history.forward(fails="web never healthy")
    history.forward(again=True)
    history.back("prod-002")
    history.repaired()
    history.crashed()
    found = measure(history.state)
    assert list(found.moves) == ["first", "forward", "back", "repair"]
    forward, back = found.moves["forward"], found.rollback
    assert (forward.switches, forward.committed, forward.reverted) == (3, 2, 1)
    assert forward.success_rate == 0.6667
    assert forward.repeats == 1
    assert forward.written == {"db-data": {"rows": 3}, "uploads": {"rows": 3}}
    assert back.seconds == Spread(1, 8.0, 8.0, 8.0)
    assert back.success_rate == 1.0
    (commit,) = [o for _, o in history.state.outcomes if o.move == "back"]
    assert back.set_aside == commit.set_aside
    assert commit.set_aside, "what prod-003 had more"
    assert back.missed_estimate == Spread.of([abs(float(commit.downtime_seconds or 0) - 1.4)])
    assert found.moves["repair"].success_rate is None
    assert found.interrupted == 1
    assert found.all.switches == 6


def test_only_what_ended_after_a_moment_counts() -> None:
    history = History()
    history.forward()
    history.now += timedelta(days=3)
    since = history.now
    history.forward(fails="web never healthy")
    found = measure(history.state, since)
    assert (found.all.switches, found.all.reverted) == (1, 1)
    assert found.all.downtime == measure(history.state).moves["forward"].downtime


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from(["forward", "fails", "again", "back", "repair"]), max_size=12))
def test_the_parts_always_make_the_whole(steps: list[str]) -> None:
    history = History()
    for step in steps:
        previous = history.state.previous
        if step == "back" and previous:
            history.back(history.state.worlds[previous].release)
        elif step == "again" and history.state.quarantined:
            history.forward(again=True)
        elif step == "repair" and history.state.live:
            history.repaired()
        elif step == "fails" and history.state.live:
            history.forward(fails="it does not start")
        else:
            history.forward()
    found = measure(history.state)
    parts = found.moves.values()
    for name in ("switches", "committed", "reverted", "recovered", "repeats"):
        assert sum(getattr(part, name) for part in parts) == getattr(found.all, name)
    assert found.all.switches == len(history.state.outcomes)
    for figures in (*parts, found.all):
        for spread in (figures.seconds, figures.downtime):
            assert spread is None or spread.median <= spread.worst <= spread.total + 0.001


def test_a_strict_parser_reads_the_same_figures() -> None:
    history = a_dozen()
    found = measure(history.state)
    said = openmetrics.text(found, history.state, project='a "shop"\\', stack="prod")
    families = parsed(said)
    switches = {
        (s.labels["move"], s.labels["result"]): s.value
        for s in families["lockstep_switches"].samples
    }
    assert switches["back", "committed"] == found.rollback.committed
    assert sum(switches.values()) == found.all.switches
    down = {
        s.labels["quantile"]: s.value
        for s in families["lockstep_downtime_seconds"].samples
        if s.labels["move"] == "back" and "quantile" in s.labels
    }
    assert found.rollback.downtime is not None
    assert down == {"0.5": found.rollback.downtime.median, "1.0": found.rollback.downtime.worst}
    live = families["lockstep_live_release"].samples[0].labels
    assert live["release"] == history.state.live_release
    assert live["project"] == 'a "shop"\\'
    items = families["lockstep_set_aside_items"].samples
    assert sum(s.value for s in items) == sum(
        count for counts in found.all.set_aside.values() for count in counts.values()
    )
    assert said.endswith("# EOF\n")
    older = [sample for family in older_text(said) for sample in family.samples]
    assert {s.name for s in older} == {s.name for f in families.values() for s in f.samples}


def test_a_strict_parser_reads_an_empty_stack_as_well() -> None:
    state = History().state
    said = openmetrics.text(measure(state), state, project="shop", stack="prod")
    families = parsed(said)
    assert families["lockstep_captures_owed"].samples[0].value == 0
    assert "lockstep_switches" not in families


def test_the_document_is_a_contract() -> None:
    history = a_dozen()
    said = document(measure(history.state), history.state, "prod")
    assert list(said) == [
        "schema", "stack", "live", "since", "until", "rollback_seconds", "interrupted",
        "captures_owed", "all", "moves",
    ]  # fmt: skip
    assert list(said["all"]) == [
        "switches", "committed", "reverted", "recovered", "success_rate", "repeats", "seconds",
        "downtime_seconds", "missed_estimate_seconds", "set_aside_switches", "set_aside",
        "written_by_failed",
    ]  # fmt: skip
    assert list(said["rollback_seconds"]) == ["count", "median", "worst", "total"]
    assert said["rollback_seconds"] == said["moves"]["back"]["seconds"]
