"""The catalog that the bench makes up is one that Lockstep reads as good, and whole."""

from __future__ import annotations

from pathlib import Path

from bench.catalog import Ground, Size
from reconciler.catalog import Catalog
from reconciler.config import Settings, Stack
from reconciler.records import trust


def test_a_made_up_catalog_is_sound_and_owes_nothing(tmp_path: Path) -> None:
    Ground(tmp_path, Size(7, services=4, datasets=2), "shop", f"sha256:{1:064d}").make()
    catalog = Catalog(Stack(project="shop", name="prod", root=tmp_path, settings=Settings()))
    catalog.insist_private()
    state = catalog.state()
    records, damaged = catalog.records(state)
    assert len(records) == 7
    assert not damaged
    assert not trust.broken(catalog, state, records)
    assert state.live_release == "prod-006"
    assert state.debts() == []
    assert [d.release for d in state.departures] == [f"prod-{n:03d}" for n in range(1, 6)]
    assert sorted(records["prod-007"].datasets) == ["data-0", "data-1"]
