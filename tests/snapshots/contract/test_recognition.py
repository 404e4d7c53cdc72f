"""Which driver is taken, for every driver: by name, by image and mount target, by content."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from snapshots.drivers import DRIVERS, detect, driver_for, looks_like
from snapshots.errors import Unsupported
from tests.snapshots.contract.cases import CASES, Case


@pytest.mark.parametrize(
    ("image", "target", "name"),
    [
        ("postgres:15", "/var/lib/postgresql/data", "postgres"),
        ("postgres:18-alpine", "/var/lib/postgresql", "postgres"),
        ("docker.io/library/postgres@sha256:0123", "/var/lib/postgresql/data", "postgres"),
        ("registry.example:5000/bitnami/postgresql:16", "/bitnami/postgresql", "postgres"),
        ("postgis/postgis:16-3.4", "/var/lib/postgresql/data", "postgres"),
        ("timescale/timescaledb-ha:pg16", "/home/postgres/pgdata/data", "postgres"),
        ("postgres:15", "/backups", "directory"),
        ("prometheuscommunity/postgres-exporter", "/var/lib/postgresql", "directory"),
        ("prodrigestivill/postgres-backup-local", "/var/lib/postgresql/data", "directory"),
        ("redis:7", "/data", "redis"),
        ("redis", "/data/", "redis"),
        ("valkey/valkey:8", "/data", "redis"),
        ("redis:7", "/etc/certs", "directory"),
        ("oliver006/redis_exporter", "/data", "directory"),
        ("mariadb:11.4", "/var/lib/mysql", "mysql"),
        ("mysql:8.0@sha256:0123", "/var/lib/mysql", "mysql"),
        ("mysql/mysql-server", "/var/lib/mysql/", "mysql"),
        ("bitnami/mariadb:10.11", "/bitnami/mariadb", "mysql"),
        ("percona/percona-server:8.0", "/var/lib/mysql", "mysql"),
        ("mariadb:11.4", "/docker-entrypoint-initdb.d", "directory"),
        ("prom/mysqld-exporter", "/var/lib/mysql", "directory"),
        ("phpmyadmin", "/var/lib/mysql", "directory"),
        ("databack/mysql-backup", "/var/lib/mysql", "directory"),
        ("questdb/questdb:9.3.4", "/var/lib/questdb", "questdb"),
        ("questdb/questdb", "/root/.questdb/", "questdb"),
        ("questdb/questdb:9.3.4", "/import", "directory"),
        ("questdb/kafka-questdb-connector", "/var/lib/questdb", "directory"),
        ("keinos/sqlite3", "/db", "sqlite"),
        ("myshop/web:1", "/data", "directory"),
        ("", "", "directory"),
    ],
)
def test_an_image_and_a_target_tell_the_driver(image: str, target: str, name: str) -> None:
    assert detect(image, target).name == name


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_the_images_of_the_contract_are_recognised(case: Case) -> None:
    known = case.engine.driver not in ("sqlite", "command")
    found = detect(case.engine.image, case.engine.target)
    assert found is driver_for(case.engine.driver) or not known
    assert detect("lockstep-base/unheard-of:1", case.engine.target).name == "directory"


def test_content_tells_the_driver_where_the_image_does_not(tmp_path: Path) -> None:
    assert looks_like(tmp_path / "nowhere").name == "directory"
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "looks like.sqlite").write_text("SQLite format 3, it says")
    assert detect("myshop/web:1", "/data", tmp_path).name == "directory"
    with sqlite3.connect(tmp_path / "deep" / "any name") as database:
        database.execute("CREATE TABLE t (a)")
    assert detect("myshop/web:1", "/data", tmp_path).name == "sqlite"
    assert detect("redis:7", "/data", tmp_path).name == "redis"


def test_an_unknown_driver_is_refused_with_the_known_ones() -> None:
    with pytest.raises(Unsupported, match="command, directory, mysql, postgres, questdb, redis"):
        driver_for("oracle")
    assert driver_for("mariadb") is driver_for("mysql")


def test_an_empty_folder_is_no_problem(tmp_path: Path) -> None:
    for driver in DRIVERS.values():
        assert driver.check_path(tmp_path) == []
        assert driver.version(tmp_path) is None
        assert driver.probe_path(tmp_path) == {"files": 0, "bytes": 0}
        assert "no folder" in driver.check_path(tmp_path / "nowhere")[0]
