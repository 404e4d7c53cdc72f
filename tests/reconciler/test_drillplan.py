"""What a drill takes and starts, and what damage means for which release: by tables."""

from __future__ import annotations

from typing import Any

import pytest

from reconciler.errors import BadInput
from reconciler.records.release import Dataset, Image, Kind, Mount, Release
from reconciler.trials import drillplan
from reconciler.upkeep import integrity
from snapshots.capture import capture
from snapshots.store import Store
from tests.reconciler.hostmodel import AT, Host


@pytest.fixture
def host() -> Host:
    """prod-001 and prod-002 were left, prod-003 is live, prod-004 was never up."""
    host = Host(window=5)
    for _ in range(3):
        host.new()
        host.up()
        host.write()
    host.new()
    return host


def present(host: Host) -> dict[str, str]:
    return {snapshot: dataset for snapshot, (dataset, _) in host.snapshots.items()}


def taken(host: Host, release: str, at: str) -> dict[str, tuple[str | None, dict[str, int]]]:
    found = drillplan.wanted(host.state, host.records[release], at, present(host))
    return {w.dataset.name: (w.snapshot, dict(w.recorded)) for w in found}


def test_a_release_is_drilled_as_it_was_left_or_as_it_began(host: Host) -> None:
    left = {d.release: d for d in host.state.departures}
    one, two = left["prod-001"], left["prod-002"]
    for release, at, content in (
        ("prod-001", "departure", one),
        ("prod-002", "departure", two),
        ("prod-002", "arrival", one),
        ("prod-003", "arrival", two),
    ):
        assert taken(host, release, at) == {
            dataset: (snapshot, content.probes[dataset])
            for dataset, snapshot in content.snapshots.items()
        }
        assert any(content.probes.values()), "there is something to compare with"


def test_one_snapshot_is_drilled_alone(host: Host) -> None:
    (departure,) = [d for d in host.state.departures if d.release == "prod-001"]
    snapshot = departure.snapshots["db"]
    assert taken(host, "prod-001", snapshot) == {"db": (snapshot, departure.probes["db"])}


def test_what_is_not_in_the_store_is_wanted_all_the_same(host: Host) -> None:
    (departure,) = [d for d in host.state.departures if d.release == "prod-001"]
    del host.snapshots[departure.snapshots["db"]]
    assert taken(host, "prod-001", "departure")["db"][0] is None
    assert taken(host, "prod-001", "departure")["files"][0] is not None


@pytest.mark.parametrize(
    ("release", "at", "says"),
    [
        ("prod-003", "departure", "has not been left yet"),
        ("prod-004", "departure", "has not been left yet"),
        ("prod-001", "arrival", "started from no data"),
        ("prod-001", "0" * 32, "no snapshot"),
        ("prod-001", "../etc", "no snapshot"),
    ],
)
def test_what_cannot_be_drilled(host: Host, release: str, at: str, says: str) -> None:
    with pytest.raises(BadInput, match=says):
        taken(host, release, at)


def record(datasets: list[Dataset], **services: dict[str, Any]) -> Release:
    return Release(
        name="prod-001",
        parent=None,
        created=AT,
        model={"services": services},
        images={s: Image(service=s, tag=f"shop-{s}:1", id="x", source=s) for s in services},
        datasets={d.name: d for d in datasets},
    )


def dataset(name: str, driver: str, *mounts: Mount) -> Dataset:
    return Dataset(name=name, kind=Kind.VOLUME, driver=driver, mounts=mounts)


def test_the_engine_is_the_service_that_the_driver_knows() -> None:
    backup = Mount(service="backup", target="/var/lib/postgresql/data", read_only=True)
    shell = Mount(service="shell", target="/pg")
    server = Mount(service="postgres", target="/var/lib/postgresql/data")
    of = record([], backup={}, shell={}, postgres={})

    def known(image: str, target: str) -> bool:
        return image == "postgres" and "postgresql" in target

    def engine(driver: str, *mounts: Mount) -> str | None:
        found = drillplan.engine_of(dataset("db", driver, *mounts), of, known)
        return found.service if found else None

    assert engine("postgres", backup, shell, server) == "postgres"
    assert engine("postgres", backup, shell) == "shell", "whoever writes, where none is known"
    assert engine("postgres", backup) is None
    assert engine("directory", server) is None
    assert engine("sqlite", shell) is None
    assert engine("postgres") is None


def test_nothing_in_use_is_within_reach_of_a_drill() -> None:
    model: dict[str, Any] = {
        "name": "shop-prod-drill",
        "services": {
            "web": {"image": "web"},
            "db": {
                "image": "shop-db:1",
                "ports": [{"published": 5432}],
                "networks": {"default": None},
                "depends_on": {"web": {}},
                "links": ["web"],
                "volumes_from": ["web"],
                "network_mode": "host",
                "pid": "service:web",
                "ipc": "shareable",
                "scale": 3,
                "deploy": {"replicas": 3, "resources": {"limits": {"memory": "1g"}}},
                "environment": {"POSTGRES_PASSWORD": "geheim"},
                "labels": {"lockstep.world": "x", "lockstep.stack": "prod", "mine": "1"},
                "volumes": [
                    {"type": "volume", "source": "db", "target": "/data"},
                    {"type": "bind", "source": "/srv/live", "target": "/live"},
                    {"type": "bind", "source": "/files/w/db.conf", "target": "/db.conf"},
                    {"type": "tmpfs", "target": "/run"},
                ],
            },
        },
        "volumes": {"db": {"name": "scratch", "external": True}, "other": {}},
        "networks": {"default": {}},
    }
    made = drillplan.alone(model, {"db"}, "shop/prod", "/files/w")
    assert made == {
        "name": "shop-prod-drill",
        "services": {
            "db": {
                "image": "shop-db:1",
                "network_mode": "none",
                "ipc": "shareable",
                "deploy": {"resources": {"limits": {"memory": "1g"}}},
                "environment": {"POSTGRES_PASSWORD": "geheim"},
                "labels": {"mine": "1", drillplan.LABEL: "shop/prod"},
                "volumes": [
                    {"type": "volume", "source": "db", "target": "/data"},
                    {"type": "bind", "source": "/srv/live", "target": "/live", "read_only": True},
                    {"type": "bind", "source": "/files/w/db.conf", "target": "/db.conf"},
                    {"type": "tmpfs", "target": "/run"},
                ],
            }
        },
        "volumes": {"db": {"name": "scratch", "external": True}},
    }
    assert model["services"]["db"]["deploy"]["replicas"] == 3, "the given model stays as it was"


def test_every_dataset_that_an_engine_mounts_gets_a_scratch_volume() -> None:
    db = dataset("db", "postgres", Mount(service="db", target="/data"))
    wal = dataset("wal", "directory", Mount(service="db", target="/wal"))
    files = dataset("files", "directory", Mount(service="web", target="/files"))
    assert drillplan.mounted(record([db, wal, files]), {"db"}) == {"db", "wal"}


@pytest.mark.parametrize(
    ("recorded", "found", "lost", "differing"),
    [
        ({}, {}, [], {}),
        ({"a": 5}, {"a": 5, "b": 1}, [], {}),
        ({"a": 5}, {"a": 7}, [], {"a": (5, 7)}),
        ({"a": 5, "b": 2}, {"a": 0, "c": 1}, ["a is empty", "b is missing"], {"a": (5, 0)}),
        ({"a": 0}, {}, [], {}),
    ],
)
def test_what_came_back_is_compared_with_what_was_left(
    recorded: dict[str, int],
    found: dict[str, int],
    lost: list[str],
    differing: dict[str, tuple[int, int]],
) -> None:
    said = drillplan.lost(recorded, found)
    assert [s.partition(",")[0] for s in said] == lost
    assert drillplan.differing(recorded, found) == differing


def test_damage_is_told_by_release(host: Host, tmp_path: Any) -> None:
    """With a store of its own: a backup, and a snapshot of something that is no release's."""
    store = Store.open(tmp_path / "store")
    (tmp_path / "folder").mkdir()

    def backup(**tags: str) -> str:
        return capture(tmp_path / "folder", store, dataset="db", tags=tags).id

    mine = backup(kind="backup", release="prod-003", world="shop-prod-003")
    alone = backup(kind="alone", of="/srv/wiki")
    left = {d.release: d.snapshots["db"] for d in host.state.departures}
    assert integrity.touched(host.state, store, [left["prod-001"]]) == {
        "prod-001": ["left"],
        "prod-002": ["started from"],
    }
    assert integrity.touched(host.state, store, [left["prod-002"], mine, alone]) == {
        "prod-002": ["left"],
        "prod-003": ["started from", "backup"],
        "": ["/srv/wiki"],
    }
    assert integrity.touched(host.state, store, []) == {}
    there, missing = integrity.snapshots_of(host.state, store, "prod-003")
    assert there == [mine]
    assert set(missing) == {s for d in host.state.departures[-1:] for s in d.snapshots.values()}


def test_only_sealed_volumes_still_have_what_was_captured(host: Host) -> None:
    departure = host.state.departures[-1]
    snapshots = set(departure.snapshots.values())
    assert set(integrity.still_in_volume(host.state, snapshots)) == set(
        departure.generations.values()
    )
    host.release = departure.release
    host.up()
    assert integrity.still_in_volume(host.state, snapshots) == [], "it is live again"
