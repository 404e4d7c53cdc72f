"""What pruning removes, and what it must never remove."""

from __future__ import annotations

import time
from pathlib import Path

from reconciler.catalog import Catalog
from reconciler.plan import Action
from reconciler.upkeep import debts
from snapshots.capture import capture
from snapshots.store import Store
from tests.reconciler.hostmodel import Host
from tests.reconciler.trial import Trial, web
from tests.snapshots.reads import Read


def test_fault_84_pruning_leaves_the_snapshots_of_others_in_a_shared_store(tmp_path: Path) -> None:
    """A release is pruned from a store that other stacks and projects use: its own snapshots go,
    all others stay, also those of releases with the same name."""
    host = Host(window=1)
    for _ in range(2):
        host.new()
        host.up(pays=False)
    host.new()
    host.up(pays=False)
    plan = host.plan()
    assert plan.prune == ("prod-001",)
    stack = host.stack().model_copy(update={"root": tmp_path})
    catalog = Catalog(stack)
    catalog.root.mkdir()
    store = Store.open(stack.store)
    data = tmp_path / "data"
    data.mkdir()

    def snapshot(release: str, world: str) -> str:
        (data / "file").write_text(world)
        return capture(data, store, dataset="db", tags={"release": release, "world": world}).id

    ours = [
        snapshot("prod-001", "shop-prod-001"),
        snapshot("prod-001", "shop-prod-001_2"),
        snapshot("prod-000", "shop"),
    ]
    others = [
        snapshot("staging-001", "shop-staging-001"),
        snapshot("prod-001", "blog-prod-001"),
        snapshot("prod-001", "shop-prod-prod-001"),
    ]
    debts._prune(stack, catalog, store, plan, lambda _: None)
    left = set(store.ids())
    assert left == set(others)
    assert not left & set(ours)


def test_data_that_was_forked_or_restored_is_not_read_again(trial: Trial, read: Read) -> None:
    store = Store.open(trial.stack.store)

    def captured() -> set[bytes]:
        read.clear()
        debts.capture_sealed(trial.catalog, trial.docker, store, trial.say)
        return set(read)

    trial.write({"web": web()})
    trial.new()
    trial.up()
    trial.exec(trial.world(1), "web", "sh", "-c", "for i in 1 2 3; do echo > /data/still$i; done")
    trial.note("one")
    time.sleep(0.1)
    trial.new(VERSION="2")
    trial.up()
    everything = captured()
    assert {b"still1", b"still2", b"still3"} < everything
    trial.note("two")
    changed = everything - {b"still1", b"still2", b"still3"}

    trial.new(VERSION="3")
    trial.up()
    assert captured() == changed, "a fork knows its source"

    trial.settings["restore"] = {"release": "prod-002", "at": "arrival"}
    assert trial.up("prod-002").datasets["notes"].action is Action.RESTORE
    assert captured() <= changed, "a fork of a fork knows its source"
    trial.note("three")
    time.sleep(0.1)
    trial.up("prod-003")
    assert captured() == changed, "a restored volume knows its snapshot"
