"""The catalog that the bench makes up is one that Lockstep reads as good, and whole."""

from __future__ import annotations

import uuid
from pathlib import Path

from bench.catalog import IMAGE, Ground, Size
from reconciler.catalog import Catalog
from reconciler.config import Settings, Stack
from reconciler.docker import connect
from reconciler.records import trust
from tests.reconciler.trial import docker_cli


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


def test_the_containers_of_its_live_world_are_what_a_world_has_and_are_removed(
    tmp_path: Path,
) -> None:
    docker, size = connect(), Size(3, services=3, datasets=2, running=True)
    project = f"bench{uuid.uuid4().hex[:6]}"
    ground = Ground(tmp_path, size, project, docker.image_ids()[IMAGE])
    try:
        for volume in ground.live_volumes():
            docker_cli("volume", "create", volume)
        ground.start_containers()
        found = docker.containers(project=f"{project}-prod-002")
        assert [c.state for c in found] == ["running"] * 3
        assert {c.service for c in found} == {f"service-{n}" for n in range(3)}
        assert {v for c in found for v in c.volumes.values()} == {*ground.live_volumes()}
    finally:
        ground.remove_containers()
        docker_cli("volume", "rm", *ground.live_volumes())
    assert docker.containers(project=f"{project}-prod-002") == ()
