"""What the driver of SQLite adds to the contract of all."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from snapshots.compare import tree_equal
from snapshots.drivers import driver_for, sqlitefile
from snapshots.errors import EngineFailed, NotEnoughSpace
from tests.snapshots.engines import Container

DRIVER = driver_for("sqlite")
NOBODY = Container("lockstep-test-no-such-container")
ODD = b"od d\n?#%41 \xff.db"


def table(path: bytes, rows: int, mode: str = "delete") -> sqlite3.Connection:
    database = sqlite3.connect(path, isolation_level=None)
    database.execute(f"PRAGMA journal_mode = {mode}")
    database.execute('CREATE TABLE "t ""1" (a)')
    database.executemany('INSERT INTO "t ""1" VALUES (?)', [(n,) for n in range(rows)])
    return database


def test_odd_names_of_files_and_tables(tmp_path: Path) -> None:
    data = tmp_path / "data"
    (data / "deep").mkdir(parents=True)
    table(os.fsencode(data) + b"/deep/" + ODD, 3).close()
    table(os.fsencode(data) + b"/b", 4, "wal").close()
    (data / "letter.db").write_text("SQLite format 3, it says")
    (data / "link").symlink_to("b")
    os.mkfifo(data / "fifo")
    assert DRIVER.probe_path(data) == {
        'b.t "1': 4,
        'deep/od d\\n?#%41 \\xff.db.t "1': 3,
    }
    with DRIVER.live(NOBODY, data) as point:
        assert set(point.instead) == {b"b", b"deep/" + ODD}
        assert point.left_out(b"deep/" + ODD + b"-journal")
        assert point.left_out(b"b-wal")
        assert not point.left_out(b"letter.db")


@contextmanager
def killed_in_the_middle(path: Path, mode: str) -> Iterator[None]:
    """A database whose writer was killed: a hot journal, or a log that was not brought in."""
    script = f"""
import os, sqlite3
shop = sqlite3.connect({str(path)!r}, isolation_level=None)
shop.execute("PRAGMA journal_mode = {mode}")
shop.execute("CREATE TABLE t (a)")
shop.executemany("INSERT INTO t VALUES (?)", [(n,) for n in range(100)])
shop.execute("PRAGMA cache_size = 1")
shop.execute("BEGIN")
shop.executemany("INSERT INTO t VALUES (zeroblob(5000))", [() for n in range(50)])
os.kill(os.getpid(), 9)
"""
    done = subprocess.run([sys.executable, "-c", script], timeout=60, check=False)
    assert done.returncode == -signal.SIGKILL
    yield


@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_what_a_killed_writer_left_is_read_without_a_change(tmp_path: Path, mode: str) -> None:
    data = tmp_path / "data"
    data.mkdir()
    with killed_in_the_middle(data / "shop", mode):
        assert {entry.name for entry in data.iterdir()} > {"shop"}, "a log or a journal is left"
        shutil.copytree(data, tmp_path / "before")
        assert DRIVER.probe_path(data) == {"shop.t": 100}
        assert DRIVER.check_path(data) == []
        assert tree_equal(data, tmp_path / "before") == []


def test_a_wal_at_rest_is_read_without_a_change(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    table(os.fsencode(data / "shop"), 5, "wal").close()
    shutil.copytree(data, tmp_path / "before")
    assert DRIVER.probe_path(data) == {'shop.t "1': 5}
    assert tree_equal(data, tmp_path / "before") == []


def test_a_database_that_stays_locked_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlitefile, "BUSY_SECONDS", 0.3)
    data = tmp_path / "data"
    data.mkdir()
    database = table(os.fsencode(data / "shop"), 5)
    database.execute("BEGIN EXCLUSIVE")
    with pytest.raises(EngineFailed, match="locked"), DRIVER.live(NOBODY, data):
        pass
    database.execute("COMMIT")
    with DRIVER.live(NOBODY, data) as point:
        assert sorted(point.instead) == [b"shop"]
    database.close()


def test_copies_are_removed_also_those_of_a_killed_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with killed_in_the_middle(tmp_path / "shop", "wal"):
        (tmp_path / "lockstep-sqlite-killed").mkdir()
        (tmp_path / "lockstep-sqlite-killed" / "0").write_text("left")
        with DRIVER.live(NOBODY, tmp_path) as point:
            (copy,) = point.instead.values()
            assert copy.exists()
            assert not (tmp_path / "lockstep-sqlite-killed").exists()
            with DRIVER.live(NOBODY, tmp_path):
                assert copy.exists(), "it is in use"
    assert not list(tmp_path.glob("lockstep-sqlite-*"))


def test_too_little_room_for_copies_is_refused(tmp_path: Path) -> None:
    with (tmp_path / "shop").open("wb") as huge:
        huge.write(b"SQLite format 3\0")
        huge.truncate(1 << 43)
    with pytest.raises(NotEnoughSpace, match="TMPDIR"), DRIVER.live(NOBODY, tmp_path):
        pass


def test_the_version_is_in_the_file(tmp_path: Path) -> None:
    table(os.fsencode(tmp_path / "shop"), 5).close()
    assert DRIVER.version(tmp_path) == sqlite3.sqlite_version


def test_a_database_that_is_none_is_named(tmp_path: Path) -> None:
    (tmp_path / "shop").write_bytes(b"SQLite format 3\0" + b"\x07" * 5000)
    (problem,) = DRIVER.check_path(tmp_path)
    assert "shop" in problem
    with pytest.raises(EngineFailed, match="shop"):
        DRIVER.probe_path(tmp_path)
