"""Snapshots of a PostgreSQL that goes on."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from snapshots.capture import capture
from snapshots.drivers import driver_for, pgfiles, pglive
from snapshots.errors import EngineFailed, Unsupported
from snapshots.livecapture import capture_live
from snapshots.restore import restore
from snapshots.store import Store
from tests.snapshots.engines import POSTGRES, Container, insist, insist_on_images, sql

DRIVER = driver_for("postgres")
BALANCES = """
SELECT (SELECT sum(abalance) FROM pgbench_accounts), (SELECT sum(tbalance) FROM pgbench_tellers),
       (SELECT sum(bbalance) FROM pgbench_branches), (SELECT sum(delta) FROM pgbench_history),
       (SELECT count(*) FROM pgbench_history);
"""
SLOTS = "SELECT count(*) FROM pg_replication_slots;"
LEFT_OUT = ("postmaster.pid", "postmaster.opts", "global/pg_internal.init", "current_logfiles")
EMPTIED = ("pg_replslot", "pg_notify", "pg_stat_tmp", "pg_subtrans", "pg_dynshmem", "pg_snapshots")


@pytest.fixture(autouse=True)
def _root_and_image() -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can read and copy what an engine in a container wrote")
    insist_on_images(POSTGRES.image)


@contextmanager
def load(run: Container) -> Iterator[None]:
    """pgbench until the context is left."""
    argv = ["pgbench", "-n", "-c", "4", "-T", "120", "-U", "shop", "shop"]
    bench = threading.Thread(target=lambda: run(argv, timeout=150))
    bench.start()
    try:
        yield
    finally:
        run(["sh", "-c", "kill $(cat /proc/[0-9]*/stat | grep '(pgbench)' | cut -d' ' -f1)"])
        bench.join()


def log_position(run: Container) -> int:
    return pgfiles.position(sql(run, "SELECT pg_current_wal_lsn();").strip())


def test_fault_81_a_snapshot_under_load_is_sound_to_the_last_index_entry(
    store: Store, tmp_path: Path
) -> None:
    """A live snapshot of PostgreSQL under pgbench, its log recycled meanwhile: starts by itself,
    clean by amcheck, sums agree."""
    data, copy = tmp_path / "data", tmp_path / "copy"
    small = ("postgres", "-c", "max_wal_size=32MB", "-c", "min_wal_size=32MB")
    with POSTGRES.running(data, command=small) as old:
        insist(old(["pgbench", "-q", "-i", "-s", "2", "-U", "shop", "shop"]))
        sql(old, "CREATE UNLOGGED TABLE passing AS SELECT generate_series(1, 9) n;", "shop")
        with load(old), DRIVER.live(old, data) as point:
            before = DRIVER.probe(old)["shop.public.pgbench_history"]
            recycle_the_log(old, 64 << 20)
            record = capture(data, store, dataset="data", live=point)
        assert sql(old, SLOTS).strip() == "0"
    restore(store, record.id, copy)
    assert not any((copy / name).exists() for name in LEFT_OUT)
    assert not any(any((copy / name).iterdir()) for name in EMPTIED)
    assert DRIVER.check_path(copy) == []
    with POSTGRES.running(copy) as new:
        assert "consistent recovery state reached" in new.logs()
        accounts, tellers, branches, history, count = sql(new, BALANCES, "shop").split("|")
        assert accounts == tellers == branches == history
        assert int(count) >= before > 0
        assert sql(new, "SELECT count(*) FROM passing;", "shop").strip() == "0", "unlogged"
        assert DRIVER.check(new) == []
        amcheck = ["pg_amcheck", "-U", "shop", "--install-missing", "--heapallindexed", "shop"]
        insist(new(amcheck, timeout=120))


def recycle_the_log(run: Container, size: int) -> None:
    """Write so much that the log's files would be used again, were they not kept."""
    began = log_position(run)
    fill = "CREATE TABLE filler AS SELECT n, md5(n::text) FROM generate_series(1, 150000) n;"
    while log_position(run) < began + size:
        sql(run, f"{fill} DROP TABLE filler; CHECKPOINT;")


def test_fault_80_81_what_gives_no_point_leaves_no_snapshot(store: Store, tmp_path: Path) -> None:
    """A live PostgreSQL that cannot give one point (log lost, tablespace elsewhere, wal_level
    minimal): refused by name, and no snapshot is left."""
    data, other = tmp_path / "data", tmp_path / "other"
    other.mkdir()

    def lose_a_part_of_the_log(run: Container) -> None:
        with DRIVER.live(run, data) as point:
            recycle_the_log(run, 96 << 20)
            capture(data, store, dataset="data", live=point)

    stingy = ("postgres", "-c", "max_wal_size=32MB", "-c", "max_slot_wal_keep_size=16MB")
    with POSTGRES.running(data, command=stingy) as run:
        with pytest.raises(EngineFailed, match="max_slot_wal_keep_size"):
            lose_a_part_of_the_log(run)
        with pytest.raises(Unsupported, match="elsewhere"):
            capture_live(DRIVER, run, other, store, dataset="data")
        insist(run(["sh", "-c", "mkdir /fast && chown postgres /fast"]))
        sql(run, "CREATE TABLESPACE fast LOCATION '/fast';")
        with pytest.raises(Unsupported, match="/fast"):
            capture_live(DRIVER, run, data, store, dataset="data")
        sql(run, "DROP TABLESPACE fast;")
        assert sql(run, SLOTS).strip() == "0"
        run.stop()
    minimal = ("postgres", "-c", "wal_level=minimal", "-c", "max_wal_senders=0")
    with (
        POSTGRES.running(data, command=minimal) as run,
        pytest.raises(Unsupported, match="wal_level = minimal"),
    ):
        capture_live(DRIVER, run, data, store, dataset="data")
    assert store.ids() == []


@pytest.mark.parametrize(
    ("state", "says"),
    [
        ((9, False, "replica", 10), "older than 10"),
        ((15, True, "replica", 10), "standby"),
        ((15, False, "minimal", 10), "wal_level = minimal"),
        ((15, False, "replica", 0), "max_replication_slots = 0"),
    ],
)
def test_servers_that_give_no_point(state: tuple[int, bool, str, int], says: str) -> None:
    with pytest.raises(Unsupported, match=says) as refused:
        pglive.insist_on_possible(*state)
    assert "stop it" in str(refused.value), "the way out"
    pglive.insist_on_possible(10, False, "logical", 1)


def test_a_running_and_a_frozen_server_below_the_mount(store: Store, tmp_path: Path) -> None:
    data, frozen = tmp_path / "data", tmp_path / "frozen"
    below = {"PGDATA": "/var/lib/postgresql/data/pgdata"}
    with POSTGRES.running(data, below) as old:
        insist(old(["pgbench", "-q", "-i", "-s", "1", "-U", "shop", "shop"]))
        (data / "beside").write_text("not of the database")
        with load(old):
            while (before := DRIVER.probe(old)["shop.public.pgbench_history"]) == 0:
                pass
            sql(old, "ALTER ROLE shop SET idle_session_timeout = '100ms';")
            with DRIVER.live(old, data) as point:
                time.sleep(0.5)
                running = capture(data, store, dataset="data", live=point)
            with DRIVER.still(old, data, 60) as point, old.frozen(60):
                record = capture(data, store, dataset="data", parent=running.id, live=point)
    assert record.skipped == [], "nothing changed meanwhile"
    restore(store, running.id, tmp_path / "copy")
    assert (tmp_path / "copy" / "pgdata" / "backup_label").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "copy" / "beside").exists()
    restore(store, record.id, frozen)
    assert not (frozen / "pgdata" / "postmaster.pid").exists()
    with POSTGRES.running(frozen, below) as new:
        accounts, tellers, branches, history, count = sql(new, BALANCES, "shop").split("|")
        assert accounts == tellers == branches == history
        assert int(count) >= before
        assert DRIVER.check(new) == []


@pytest.mark.parametrize(
    ("first", "last", "size", "names"),
    [
        ("0/2000028", "0/2000100", 16 << 20, ["000000010000000000000002"]),
        ("0/2000028", "0/3000000", 16 << 20, ["000000010000000000000002"]),
        (
            "0/FF000028",
            "1/1000001",
            16 << 20,
            ["0000000100000000000000FF", "000000010000000100000000", "000000010000000100000001"],
        ),
        ("5/40000000", "5/80000000", 1 << 30, ["000000010000000500000001"]),
        ("0/2000028", "0/2000028", 16 << 20, ["000000010000000000000002"]),
    ],
)
def test_the_files_of_a_part_of_the_log(first: str, last: str, size: int, names: list[str]) -> None:
    positions = pgfiles.position(first), pgfiles.position(last)
    assert pgfiles.segments("00000001", *positions, size) == names
