"""What is said to go is what the next up removes, and all the rest stays."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from hypothesis import given
from hypothesis import strategies as st

from reconciler.config import Window
from reconciler.planning.pruning import BACKUP, Fate, fates, reasons
from reconciler.records.ledger import World
from tests.reconciler.hostmodel import Host


@dataclass
class Stored:
    dataset: str
    bytes: int = 1
    tags: dict[str, str] = field(default_factory=dict)


def allowed(_world: World) -> str | None:
    return None


def told(host: Host) -> list[Fate]:
    stored = {
        snapshot: Stored("db", tags={"release": d.release, "world": d.world})
        for d in host.state.departures
        for snapshot in d.snapshots.values()
        if snapshot in host.snapshots
    }
    facts = host.facts()
    return fates(
        host.stack(), host.state, host.plan(), facts.records, facts.volumes, stored, allowed
    )


def going(found: list[Fate], kind: str) -> set[str]:
    return {fate.name for fate in found if fate.goes and fate.kind == kind}


STEPS = st.lists(st.sampled_from(["new", "fails", "back", "pin", "unpaid"]), max_size=12)


@given(steps=STEPS, last=st.integers(1, 3))
def test_what_goes_is_what_up_removes(steps: list[str], last: int) -> None:
    """After any history, with a window made smaller at its end: the next up, which moves
    nothing, removes exactly what was said to go."""
    host = Host(window=9)
    host.new()
    host.up()
    for step in steps:
        live = str(host.state.live_release)
        if step == "new":
            host.new()
            host.up()
        elif step == "fails":
            host.new()
            host.up(fails=True)
        elif step == "unpaid":
            host.new()
            host.up(pays=False)
        elif step == "back":
            host.release = next(r for r in host.records if host.state.was_live(r))
            host.up()
        else:
            host.window = host.window.model_copy(update={"pinned": (live,)})
    host.release = host.state.live_release
    host.window = host.window.model_copy(update={"last": last})
    found = told(host)
    before, records = host.state, set(host.records)
    snapshots = set(host.snapshots)
    assert all(fate.why for fate in found)
    host.up()
    after = host.state
    assert going(found, "release") == set(after.pruned) - set(before.pruned)
    assert going(found, "world") == {
        w.name for w in after.worlds.values() if w.removed and not before.worlds[w.name].removed
    }
    assert going(found, "generation") == {
        g.name
        for g in after.generations.values()
        if g.removed and not before.generations[g.name].removed
    }
    assert going(found, "image") == {
        f"shop-web:{release}" for release in records - set(host.records)
    }
    assert going(found, "snapshot") <= snapshots - set(host.snapshots)


def test_each_snapshot_has_its_reason() -> None:
    host = Host()
    for _ in range(3):
        host.new()
        host.up()
    stack, kept = host.stack(), ["prod-002", "prod-003"]
    left = {d.release: d.snapshots["db"] for d in host.state.departures}
    why = reasons(stack, host.state, kept)
    own = {"release": "prod-002", "world": "shop-prod-002"}
    assert why(left["prod-002"], own) == "what prod-002 left"
    assert why(left["prod-001"], {}) == "what prod-002 started from"
    assert why("asked-for", {**own, "kind": BACKUP}) == "a backup of prod-002"
    assert why("advance", {**own, "kind": "advance"}) is None
    assert why("alone", {"of": "volume wiki"}) == "of no release of this stack"
    gone = {"release": "prod-001", "world": "shop-prod-001", "kind": BACKUP}
    assert why("old", gone) is None


def test_snapshots_that_nobody_needs_wait_for_a_release_to_be_pruned() -> None:
    host = Host()
    host.new()
    host.up()
    stored = {"x": Stored("db", tags={"release": "prod-001", "world": "shop-prod-001"})}
    (fate,) = [
        f
        for f in fates(host.stack(), host.state, host.plan(), {}, {}, stored, allowed)
        if f.kind == "snapshot"
    ]
    assert (fate.goes, "next release that is pruned" in fate.why) == (False, True)


def test_the_guard_has_the_last_word() -> None:
    host = Host(window=9)
    for _ in range(4):
        host.new()
        host.up(pays=False)
    stack, plan, state = host.stack(), host.plan(), host.state
    assert plan.leftovers
    found = fates(stack, state, plan, {}, {}, {}, lambda _: "its container runs")
    assert going(found, "world") == going(found, "generation") == set()
    assert {f.why for f in found if f.name in plan.leftovers} == {"its container runs"}


def test_a_smaller_window_is_shown_before_it_acts() -> None:
    host = Host(window=9)
    for _ in range(4):
        host.new()
        host.up()
    assert going(told(host), "release") == set()
    host.window = Window(last=1)
    found = told(host)
    assert going(found, "release") == {"prod-001", "prod-002"}
    stays = {f.name: f.why for f in found if f.kind == "release" and not f.goes}
    assert stays["prod-003"] == "previous"
    assert replace(found[0], why="") == Fate("release", "prod-003", False, "")
