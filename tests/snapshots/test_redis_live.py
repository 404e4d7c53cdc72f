"""Snapshots of a Redis that goes on, and what its files can be read by."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from snapshots.capture import capture
from snapshots.drivers import ExecResult, driver_for
from snapshots.errors import EngineFailed
from snapshots.livecapture import capture_live
from snapshots.restore import restore
from snapshots.store import Store
from tests.snapshots.engines import (
    LABEL,
    REDIS,
    REDIS_AOF,
    Container,
    docker,
    insist,
    insist_on_images,
)

DRIVER = driver_for("redis")
EAGER = (
    "--auto-aof-rewrite-percentage", "20", "--auto-aof-rewrite-min-size", "64kb",
)  # fmt: skip


@pytest.fixture(autouse=True)
def _root_and_image() -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can read and copy what an engine in a container wrote")
    insist_on_images(REDIS.image)


def setting(run: Container) -> str:
    return insist(run(["redis-cli", "CONFIG", "GET", "auto-aof-rewrite-percentage"])).split()[1]


def rewrites(run: Container) -> int:
    lines = insist(run(["redis-cli", "INFO", "persistence"])).splitlines()
    return int(next(line for line in lines if line.startswith("aof_rewrites:")).split(":")[1])


def fill(run: Container, count: int) -> None:
    script = f"for i = 1, {count} do redis.call('SET', 'fill:' .. i, string.rep('x', 100)) end"
    insist(run(["redis-cli", "EVAL", script, "0"]))


def test_an_aof_is_not_rewritten_while_it_is_captured(store: Store, tmp_path: Path) -> None:
    data = tmp_path / "data"
    with REDIS_AOF.running(data, command=EAGER) as run:
        REDIS_AOF.write(run, 100)
        with DRIVER.live(run, data) as point:
            before = rewrites(run)
            for _ in range(4):
                fill(run, 2000)
                time.sleep(0.2)  # it looks ten times a second whether a rewrite is due
            assert rewrites(run) == before
            assert setting(run) == "0"
            record = capture(data, store, dataset="data", live=point, streams=DRIVER.is_stream)
        expected = DRIVER.probe(run)
        deadline = time.monotonic() + 30
        while rewrites(run) == before and time.monotonic() < deadline:
            fill(run, 2000)
        assert rewrites(run) > before
        assert setting(run) == "20"
    restore(store, record.id, tmp_path / "copy")
    with REDIS_AOF.running(tmp_path / "copy") as new:
        assert DRIVER.probe(new) == expected
        assert DRIVER.check(new) == []


def test_a_rewrite_by_hand_meanwhile_leaves_no_snapshot(store: Store, tmp_path: Path) -> None:
    data = tmp_path / "data"

    def take(run: Container) -> None:
        with DRIVER.live(run, data) as point:
            capture(data, store, dataset="data", live=point)
            insist(run(["redis-cli", "BGREWRITEAOF"]))
            while "type b" not in (manifest := read_manifest(data)) or manifest == before:
                time.sleep(0.05)

    with REDIS_AOF.running(data) as run:
        before = read_manifest(data)
        with pytest.raises(EngineFailed, match="rewrote its AOF"):
            take(run)
        assert capture_live(DRIVER, run, data, store, dataset="data").id in store.ids()


def read_manifest(data: Path) -> str:
    (manifest,) = (data / "appendonlydir").glob("appendonly*.manifest")  # not a rewrite's temp-
    return manifest.read_text()


def test_the_setting_comes_back_when_who_changed_it_is_killed(tmp_path: Path) -> None:
    with REDIS_AOF.running(tmp_path / "data") as run:
        was = setting(run)
        context = DRIVER.live(run, tmp_path / "data")
        context.__enter__()
        try:
            assert setting(run) == "0"
            # What is left of us after a kill -9: nobody holds the other end of the conversation.
            for held in list(run.talks):
                held.kill()
            deadline = time.monotonic() + 20
            while setting(run) == "0" and time.monotonic() < deadline:
                time.sleep(0.05)
            assert setting(run) == was == "100"
        finally:
            context.__exit__(None, None, None)


def test_a_snapshot_under_load_holds_what_was_there_before(store: Store, tmp_path: Path) -> None:
    data = tmp_path / "data"
    with REDIS.running(data) as run:
        REDIS.write(run, 300)
        stop = threading.Event()

        def keep_writing() -> None:
            while not stop.is_set():
                fill(run, 500)

        writer = threading.Thread(target=keep_writing)
        writer.start()
        try:
            record = capture_live(DRIVER, run, data, store, dataset="data")
        finally:
            stop.set()
            writer.join()
    assert not any("temp-" in note for note in record.skipped)
    restore(store, record.id, tmp_path / "copy")
    with REDIS.running(tmp_path / "copy") as new:
        assert DRIVER.probe(new)["db0"] >= 300
        assert DRIVER.probe(new)["db3"] == 1


def test_files_of_a_later_format_are_refused_before_anything_reads_them(tmp_path: Path) -> None:
    def ask(argv: Sequence[str]) -> ExecResult:
        options = ("--rm", "--label", LABEL, "--network", "none", "--entrypoint", argv[0])
        return docker("run", *options, REDIS.image, *argv[1:])

    with REDIS.running(tmp_path / "data") as run:
        REDIS.write(run, 5)
        run.stop()
    assert DRIVER.unfit(tmp_path / "data", ask) == []
    dump = tmp_path / "data" / "dump.rdb"
    content = dump.read_bytes()
    dump.write_bytes(b"REDIS0099" + content[9:])
    (problem,) = DRIVER.unfit(tmp_path / "data", ask)
    assert "REDIS0099" in problem
    assert "use an image of that version" in problem
    dump.write_bytes(b"VALKEY080" + content[9:])
    assert DRIVER.unfit(tmp_path / "data", ask) != []
    dump.unlink()
    assert DRIVER.unfit(tmp_path / "data", ask) == []


def test_a_draft_of_the_manifest_misses_nothing(tmp_path: Path) -> None:
    """A server that was killed in a rewrite leaves it, and what it names may be gone since."""
    folder = tmp_path / "appendonlydir"
    folder.mkdir()
    names = "file appendonly.aof.9.base.rdb seq 9 type b\n"
    (folder / "temp_appendonly.aof.manifest").write_text(names)
    assert DRIVER.check_path(tmp_path) == []
    (folder / "appendonly.aof.manifest").write_text(names)
    assert "appendonly.aof.9.base.rdb, which is missing" in DRIVER.check_path(tmp_path)[0]
