"""What is told of a switch that was reverted."""

from __future__ import annotations

from typing import Any

import pytest

from reconciler.gates.results import GateResult, Result
from reconciler.records.ledger import (
    AnyEvent,
    Captured,
    Committed,
    GenerationMade,
    Reverted,
    State,
    WorldMade,
    add,
    fold,
)
from reconciler.switching import story

AT = "2026-01-01T12:00:00.000+00:00"
FAILED = GateResult(
    gate="checkout",
    service="web",
    kind="http",
    result=Result.FAILED,
    means="fail",
    tries=13,
    since="2026-01-01T12:01:03.000+00:00",
    seconds=4.04,
    said="answered 503",
    excerpt="503 in 0.002 s: no database\nsecond line",
    log=("starting", "cannot reach db"),
)
WARNED = GateResult(
    gate="its log", service="db", kind="log", result=Result.WARNED, means="warn", said="says ERROR"
)
PASSED = GateResult(gate="smoke", service="", kind="host", result=Result.PASSED, means="pass")


def world(number: int) -> list[AnyEvent]:
    name = f"shop-prod-00{number}"
    return [
        GenerationMade(
            at=AT, name=f"g{number}", dataset="db", number=number, parent=None, action="fork",
            world=name,
        ),
        WorldMade(
            at=AT, world=name, release=f"prod-00{number}", generations={"db": f"g{number}"},
            fingerprint="",
        ),
    ]  # fmt: skip


def history(**reverted: Any) -> State:
    """prod-001 is live, prod-002 was reverted as told."""
    said: dict[str, Any] = {
        "at": AT,
        "move": "forward",
        "from_world": "shop-prod-001",
        "to_world": "shop-prod-002",
        "reason": "web at its gate (checkout) answered 503, 13 tries\n    starting",
        "datasets": {"db": "fork"},
        "probes": {"db": {"orders": 12, "items": 3, "same": 1}},
        "touched": True,
        "quarantine": True,
        "written": {"db": {"orders": 15, "same": 1}},
        "sealed": {"db": "g2"},
        "gates": (FAILED, WARNED, PASSED),
        "downtime_seconds": 6.25,
    }
    return fold(
        [
            *world(1),
            Committed(at=AT, move="first", from_world=None, to_world="shop-prod-001"),
            *world(2),
            Reverted(**said | reverted),
        ]
    )


def told(state: State) -> dict[str, tuple[str, ...]]:
    found = story.last(state)
    assert found is not None
    return dict(found.parts)


def test_the_whole_story() -> None:
    found = story.last(history(incident="20260101-prod-002"))
    assert found is not None
    assert list(found.lines()) == [
        "prod-002 did not pass its proof",
        "  what failed    gate checkout of web: answered 503",
        "                 since 12:01:03 UTC, for 4.0 s, 13 tries",
        "                 it answered: 503 in 0.002 s: no database",
        "  it said last   starting",
        "                 cannot reach db",
        "  other gates    gate its log of db warned: says ERROR",
        "                 1 passed: gate smoke",
        "  put back       prod-001 is live again; nobody was served for 6.2 s",
        "                 db: never touched, the failed world had its own",
        "  what it wrote  db: orders 12 -> 15, items 3 -> 0; kept as generation g2",
        "  evidence       lockstep incident show 20260101-prod-002",
        "                 docker compose -p shop-prod-002 logs   its containers are kept, stopped",
        "  next           mend it, then   lockstep new   and   lockstep up",
        "                 or, where the fault lay outside of the release:",
        "                    lockstep config set retry shop-prod-002",
        "                 or declare what runs:   lockstep config set release prod-001",
    ]


@pytest.mark.parametrize(
    ("changes", "part", "lines"),
    [
        ({"gates": (), "quarantine": False, "reason": "interrupted at prove"},
         "what failed", ("interrupted at prove",)),
        ({"gates": (), "reason": "web ended\n    bye"}, "it said last", ("bye",)),
        ({"gates": (FAILED.model_copy(update={"kind": "ready", "since": "", "excerpt": ""}),)},
         "what failed", ("answered 503",)),
        ({"touched": False, "sealed": {}}, "what it wrote",
         ("nothing: none of its containers ran",)),
        ({"written": {}}, "what it wrote", ("db: not counted; kept as generation g2",)),
        ({"written": {"db": {"orders": 12, "items": 3, "same": 1}}, "sealed": {}},
         "what it wrote", ("db: nothing that is counted",)),
        ({"datasets": {"db": "restore"}, "sealed": {}}, "what it wrote",
         ("db: orders 15, same 1",)),
        ({"datasets": {"db": "in-place"}, "snapshots": {"db": "0123456789abcdef"}, "sealed": {}},
         "what it wrote", ("db: orders 12 -> 15, items 3 -> 0; kept as snapshot 0123456789ab",)),
        ({"datasets": {"db": "in-place", "shared": "leave"}, "downtime_seconds": None},
         "put back", ("prod-001 is live again", "db: changed in place, put back as it was",
                      "shared: shared, stays as others and the failed world left it")),
        ({"reason": "web ended; shop-prod-001 was started again, but not proved: no"},
         "put back", ("shop-prod-001 was started again, but not proved: no",
                      "db: never touched, the failed world had its own")),
        ({"from_world": None}, "put back",
         ("nothing was live before, and nothing is live now",)),
        ({"quarantine": False}, "next",
         ("lockstep up   tries again: the release itself was not at fault",
          "or declare what runs:   lockstep config set release prod-001")),
    ],
)  # fmt: skip
def test_parts(changes: dict[str, Any], part: str, lines: tuple[str, ...]) -> None:
    assert told(history(**changes))[part] == lines


def test_it_follows_what_became_of_it() -> None:
    state = history()
    events = [Captured(at=AT, generation="g2", sealing=state.seq, snapshot="f" * 64, bytes=1)]
    assert story.last(state, "prod-001") is None, "its own switch was committed"
    assert story.last(state, "prod-009") is None
    assert story.last(fold([])) is None
    state = add(state, state.seq + 1, events[0])
    (wrote,) = told(state)["what it wrote"]
    assert wrote.endswith(f"generation g2 and snapshot {'f' * 12}")
    retried = Committed(at=AT, move="forward", from_world="shop-prod-001", to_world="shop-prod-002")
    assert story.last(add(state, state.seq + 1, retried)) is None
