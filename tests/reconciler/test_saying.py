"""The move in one sentence says what becomes of each dataset: by tables."""

from __future__ import annotations

from dataclasses import replace

import pytest

from reconciler.decide import decide
from reconciler.facts import Deaf
from reconciler.plan import Action, DatasetPlan
from reconciler.planning import saying
from tests.reconciler.hostmodel import Host


def planned(name: str, action: Action, snapshot: str | None = None) -> DatasetPlan:
    return DatasetPlan(name, action, f"g-{name}", 1, new=False, snapshot=snapshot)


@pytest.mark.parametrize(
    ("plans", "said"),
    [
        ([], "it has no data"),
        ([("db", Action.FORK)], "the data goes along on a fork"),
        ([("db", Action.FORK), ("files", Action.FORK)], "the data goes along on a fork"),
        ([("db", Action.IN_PLACE)], "the data stays where it is"),
        ([("db", Action.IN_PLACE, "s")], "the data is put back in place"),
        ([("db", Action.CREATE)], "the data starts empty"),
        (
            [("db", Action.FORK), ("files", Action.IN_PLACE)],
            "db goes along on a fork; files stays where it is",
        ),
        (
            [("a", Action.FORK), ("b", Action.FORK), ("c", Action.LEAVE), ("d", Action.RESTORE)],
            "a, b go along on forks; c is shared, and left as it is; d comes back from the store",
        ),
    ],
)
def test_the_data_in_words(plans: list[tuple[str, Action]], said: str) -> None:
    found = {plan[0]: planned(*plan) for plan in plans}
    assert saying.data(found) == said


def test_each_move_in_words() -> None:
    host = Host()
    host.new()
    assert host.plan().says == "nothing is live: prod-001 becomes the first release"
    host.up()
    assert host.plan().says == "prod-001 is live; nothing to do"
    host.write()
    host.new()
    assert host.plan().says == "prod-001 -> prod-002: a new release; the data goes along on a fork"
    host.up(pays=False)
    owing = host.plan()
    assert owing.says == "prod-002 is live; nothing is switched"
    assert [d for d in owing.debts if "is not in the store yet" in d]
    host.release = "prod-001"
    assert host.plan().says == "prod-002 -> prod-001: back, with the data prod-001 left"
    host.data = "keep"
    assert host.plan().says == "prod-002 -> prod-001: back, with the data as it is now"


def test_a_guess_reckons_with_services_that_ignore_their_stop_signal() -> None:
    host = Host()
    host.new()
    host.up()
    host.new()
    facts = replace(host.facts(), deaf=(Deaf("web", "SIGTERM", 10.0), Deaf("db", "SIGTERM", 3.0)))
    heard, deaf = host.plan(), decide(host.stack(), host.state, facts)
    assert deaf.downtime_estimate_seconds == (heard.downtime_estimate_seconds or 0) + 10
    assert "grace periods" in deaf.downtime_basis


@pytest.mark.parametrize(
    ("ports", "grace", "seconds"),
    [((), 10.0, 1.0), (("8000",), 0.5, 1.0), (("8000",), 10.0, 11.0)],
)
def test_what_was_measured_counts_no_grace_period_that_clients_wait_for(
    ports: tuple[str, ...], grace: float, seconds: float
) -> None:
    host = Host()
    for _ in range(2):
        host.new()
        host.up()
    live = host.records["prod-002"]
    web = {"image": "x", "ports": [{"published": port, "target": 80} for port in ports]}
    host.records["prod-002"] = live.model_copy(update={"model": {"services": {"web": web}}})
    host.new()
    plan = decide(
        host.stack(), host.state, replace(host.facts(), deaf=(Deaf("web", "SIGTERM", grace),))
    )
    assert plan.downtime_estimate_seconds == seconds
    assert ("the grace period of web" in plan.downtime_basis) is (seconds > 1)
