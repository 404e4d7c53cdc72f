"""What pruning removes, and what it must never remove."""

from __future__ import annotations

from pathlib import Path

from reconciler import debts
from reconciler.catalog import Catalog
from snapshots.capture import capture
from snapshots.store import Store
from tests.reconciler.hostmodel import Host


def test_pruning_leaves_the_snapshots_of_others_in_a_shared_store(tmp_path: Path) -> None:
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
