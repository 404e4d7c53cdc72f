"""Moments of stacks, from histories made event by event."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from cli.report.material import Held, Material, StoreFacts
from reconciler.config import Window
from reconciler.figures.metrics import measure
from reconciler.planning import retention
from reconciler.records.ledger import Captured, fold
from reconciler.upkeep.verifybook import Check
from tests.reconciler.ledgers import REASONS, History

HOSTILE = (
    "</title></style></script><script>document.title='ran'</script>"
    "<img src=x onerror=\"document.title='ran'\">\" onload='x' {{ 7*7 }} \u202egnp.exe"
)
"""What somebody might write where a person is to read."""


def moment(history: History, window: int = 5, hours: float = 7) -> Material:
    """The material as it would be gathered some hours after the history's end."""
    state = history.state
    records = {name: r for name, r in history.records.items() if name not in state.pruned}
    made = history.now + timedelta(hours=hours)
    captures = [event for event in history.events if isinstance(event, Captured)]
    return Material(
        project="shop",
        stack="prod",
        made=made,
        state=state,
        events=history.events,
        metrics=measure(state),
        records=records,
        kept=retention.as_it_stands(
            Window(last=window, pinned=("prod-003",)), records, state, made.timestamp()
        ),
        declared=state.live_release,
        chain="5eed" * 16,
        host="web-1",
        store=StoreFacts(
            history.store_bytes,
            91 << 30,
            tuple(
                Held(c.snapshot, state.generations[c.generation].dataset, c.at, c.bytes, "")
                for c in captures[-8:]
            ),
        ),
        drills={
            name: {
                "when": (history.now - timedelta(days=number)).isoformat(),
                "at": "departure",
                "passed": number != 3,
                "seconds": 4.25,
            }
            for number, name in enumerate(list(records)[-4:], start=1)
        },
        checks=(
            Check(
                when=(history.now - timedelta(days=2)).isoformat(),
                release="",
                read_data=True,
                snapshots=8,
                bytes_read=1 << 28,
                seconds=3.25,
                damages=0,
            ),
        ),
        incidents=(
            {
                "folder": "20260412T101500-prod-009",
                "at": "2026-04-12T10:15:00+00:00",
                "kind": "reverted",
                "subject": {"release": "prod-009"},
                "who": "ana",
                "reason": REASONS[0],
                "operator_reason": "ticket 4711: the checkout is slow",
                "remarks": [{"at": "2026-04-12T11:00:00+00:00", "who": "ben", "text": "a typo"}],
            },
        ),
    )


def hostile() -> Material:
    """A stack in which whoever could write something wrote markup."""
    history = History()
    for _ in range(3):
        history.forward(who=HOSTILE, description=HOSTILE)
    history.forward(fails=f"{HOSTILE}\n{HOSTILE}", description=HOSTILE)
    history.back("prod-002", who=HOSTILE)
    events = [
        event.model_copy(
            update={
                "operator_reason": HOSTILE,
                "probes": {d: {HOSTILE: 3} for d in event.datasets},
                "set_aside": {d: {HOSTILE: 2} for d in event.datasets},
            }
        )
        if event.kind in ("committed", "reverted")
        else event
        for event in history.events
    ]
    history.events, history.state = events, fold(events)
    found = moment(history)
    return replace(
        found,
        project=HOSTILE,
        host=HOSTILE,
        kept=dict.fromkeys(found.records, (HOSTILE,)),
        damaged={"prod-007": HOSTILE},
        interrupted=HOSTILE,
        store=replace(found.store, problem=HOSTILE),
        incidents=({**dict.fromkeys(found.incidents[0], HOSTILE), "remarks": [{"text": HOSTILE}]},),
    )
