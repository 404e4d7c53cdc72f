"""What the driver of MariaDB and MySQL adds to the contract of all."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from snapshots.drivers import ExecResult, driver_for
from snapshots.errors import EngineFailed, Unsupported
from snapshots.livecapture import capture_live
from snapshots.restore import restore
from snapshots.store import Store
from tests.snapshots.contract.cases import MARIADB, maria
from tests.snapshots.engines import docker, insist, insist_on_images

DRIVER = driver_for("mysql")


def says(version: str) -> ExecResult:
    return ExecResult(0, f"mariadbd  Ver {version} for debian-linux-gnu on x86_64", "")


@pytest.mark.parametrize(
    ("wrote", "runs", "refused"),
    [
        ("10.11.6-MariaDB", "10.11.18-MariaDB-0+deb12u1", ""),
        ("10.11.18-MariaDB", "10.11.6-MariaDB", ""),
        ("10.6.4-MariaDB", "11.4.2-MariaDB", ""),
        ("11.4.2-MariaDB", "10.11.6-MariaDB", "older"),
        ("10.11.6-MariaDB", "8.0.36", "cannot read"),
        ("8.0.36", "11.4.2-MariaDB", "cannot read"),
        ("5.7.44", "8.0.36", ""),
        ("5.7.44", "10.6.4-MariaDB", ""),
        ("8.0.36", "8.0.35", "older"),
        ("8.0.36", "8.4.0", ""),
        ("8.4.0", "8.0.36", "older"),
    ],
)
def test_a_server_that_cannot_read_the_data_is_refused_before_it_starts(
    tmp_path: Path, wrote: str, runs: str, refused: str
) -> None:
    if wrote.startswith("8"):
        number = sum(int(part) * 100**n for n, part in enumerate(reversed(wrote.split("."))))
        (tmp_path / "mysql.ibd").write_bytes(struct.pack(">IIII", 0, 0, number, 1))
    else:
        (tmp_path / "mysql_upgrade_info").write_text(wrote + "\n")
    assert DRIVER.version(tmp_path) == wrote
    problems = DRIVER.unfit(tmp_path, lambda _argv: says(runs))
    assert [refused in problem for problem in problems] == ([True] if refused else [])


def test_what_is_unknown_is_not_refused(tmp_path: Path) -> None:
    assert DRIVER.unfit(tmp_path, lambda _argv: says("8.0.36")) == []
    (tmp_path / "mysql_upgrade_info").write_text("10.11.6-MariaDB")
    assert DRIVER.unfit(tmp_path, lambda _argv: ExecResult(127, "", "not found")) == []


def test_what_lies_outside_the_data_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").touch()
    assert "no ibdata1" in DRIVER.check_path(tmp_path)[0]
    (tmp_path / "ibdata1").write_bytes(b"1")
    assert DRIVER.check_path(tmp_path) == []
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "orders.isl").write_text("/fast/shop/orders.ibd")
    (problem,) = DRIVER.check_path(tmp_path)
    assert "shop.orders" in problem
    assert "/fast/shop/orders.ibd" in problem


def test_root_passwords_and_odd_names(tmp_path: Path) -> None:
    insist_on_images(MARIADB.image)
    data = tmp_path / "data"
    with MARIADB.running(data) as first:
        maria(
            first,
            "CREATE DATABASE `odd ``db`; USE `odd ``db`; CREATE TABLE `a\n'b\" \\\\ %s` (a INT);"
            "INSERT INTO `a\n'b\" \\\\ %s` VALUES (1), (2); CREATE VIEW seen AS SELECT 1;",
        )
        assert DRIVER.probe(first) == {"odd `db.a\n'b\" \\\\ %s": 2}
        assert DRIVER.check(first) == DRIVER.examine(first) == []
        secret = MARIADB.environment["MARIADB_ROOT_PASSWORD"]
        assert not any(secret in f"{argv}{stdin}" for argv, stdin in first.calls)
        first.stop()
    with MARIADB.running(data, {"MARIADB_ROOT_PASSWORD": "another"}) as second:
        with pytest.raises(EngineFailed, match="unix_socket"):
            DRIVER.align(second)
        maria(second, "ALTER USER root@localhost IDENTIFIED VIA unix_socket;")
        DRIVER.align(second)
        by_both = "VIA mysql_native_password USING 'invalid' OR unix_socket"
        insist(second(["mariadb"], stdin=f"ALTER USER root@localhost IDENTIFIED {by_both};"))
        DRIVER.align(second)
        insist(second(["mariadb"], stdin="INSTALL SONAME 'simple_password_check';"))
        with pytest.raises(EngineFailed, match="ERROR 1819") as refused:
            DRIVER.align(second)
        assert "another" not in str(refused.value)
        let_in = docker("exec", "--user", "nobody", "--env", "MYSQL_PWD=another", second.name,
                        "mariadb", "--user=root", "-e", "SELECT 1")  # fmt: skip
        insist(let_in)


def test_what_a_server_that_writes_its_log_once_a_second_acknowledged_is_captured(
    store: Store, tmp_path: Path
) -> None:
    insist_on_images(MARIADB.image)
    data, copy = tmp_path / "data", tmp_path / "copy"
    with MARIADB.running(data, command=("--innodb-flush-log-at-trx-commit=0",)) as run:
        MARIADB.write(run, 50)
        maria(run, "SET GLOBAL innodb_flush_log_at_timeout = 2700")
        maria(run, "DELETE FROM orders WHERE id = 1")
        record = capture_live(DRIVER, run, data, store, dataset="d")
        docker("kill", run.name)
    restore(store, record.id, copy)
    with MARIADB.running(copy) as run:
        assert DRIVER.probe(run) == {"shop.notes": 50, "shop.orders": 49}


def test_a_server_without_doublewrite_gives_no_live_point(tmp_path: Path) -> None:
    insist_on_images(MARIADB.image)
    with (
        MARIADB.running(tmp_path / "data", command=("--skip-innodb-doublewrite",)) as run,
        pytest.raises(Unsupported, match="doublewrite"),
        DRIVER.live(run, tmp_path / "data"),
    ):
        pass
