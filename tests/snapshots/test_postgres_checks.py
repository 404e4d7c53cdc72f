"""What a PostgreSQL is asked about its data: sums, damage, and text in another order."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest

from snapshots.drivers import driver_for
from tests.snapshots.engines import (
    LABEL,
    POSTGRES,
    Container,
    docker,
    insist,
    insist_on_images,
    sql,
)

DRIVER = driver_for("postgres")
PAGE = 8192
MAKE = """
CREATE TABLE orders (id int PRIMARY KEY, note text, at timestamptz, amount numeric, raw bytea);
INSERT INTO orders SELECT n, 'note ' || n, '2026-11-21 10:00+00'::timestamptz + n * interval '1 s',
  n / 7.0, decode(md5(n::text), 'hex') FROM generate_series(1, 5000) n;
CREATE SCHEMA "o'dd"; CREATE TABLE "o'dd"."t,""x" (lockstep_row int, t text);
INSERT INTO "o'dd"."t,""x" VALUES (1, 'a'), (1, 'a'), (2, NULL);
CREATE TABLE nothing (a int);
CREATE TABLE parted (a int) PARTITION BY LIST (a);
CREATE TABLE part_1 PARTITION OF parted FOR VALUES IN (1);
INSERT INTO parted VALUES (1);
"""
ODD = "shop.o'dd.t,\"x"


@pytest.fixture(autouse=True)
def _root_and_image() -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can read and copy what an engine in a container wrote")
    insist_on_images(POSTGRES.image)


def file_of(run: Container, relation: str) -> str:
    return sql(run, f"SELECT pg_relation_filepath('{relation}');", "shop").strip()


def insist_on_sums_of_content(run: Container) -> None:
    first = DRIVER.data_sums(run)
    assert set(first) == {
        "shop.public.orders", ODD, "shop.public.nothing", "shop.public.part_1",
    }  # fmt: skip
    assert first["shop.public.nothing"] == 0
    assert all(first[name] > 0 for name in first if not name.endswith("nothing"))
    sql(run, "UPDATE orders SET note = note WHERE id % 2 = 0; VACUUM FULL orders;", "shop")
    sql(run, "ALTER DATABASE shop SET TimeZone = 'Asia/Tokyo';", "shop")
    sql(run, "ALTER DATABASE shop SET DateStyle = 'German';", "shop")
    assert DRIVER.data_sums(run) == first, "where and how rows are shown is not their content"
    sql(run, "UPDATE orders SET amount = amount + 0.001 WHERE id = 77;", "shop")
    assert DRIVER.data_sums(run)["shop.public.orders"] != first["shop.public.orders"]
    sql(run, 'DELETE FROM "o\'dd"."t,""x" WHERE ctid = \'(0,1)\';', "shop")
    assert DRIVER.data_sums(run)[ODD] != first[ODD], "rows that are equal count"


def insist_on_advice_about_another_order(run: Container) -> None:
    icu = "LOCALE_PROVIDER icu ICU_LOCALE 'en-US' ENCODING 'UTF8' TEMPLATE template0"
    sql(run, f'CREATE DATABASE "by ""icu" {icu};')
    assert DRIVER.advise(run) == []
    sql(run, "UPDATE pg_database SET datcollversion = '2.1' WHERE datname ~ 'icu';")
    (advice,) = DRIVER.advise(run)
    remedy = 'REINDEX DATABASE "by ""icu"; ALTER DATABASE "by ""icu" REFRESH COLLATION VERSION;'
    assert "collation version 2.1" in advice
    assert remedy in advice
    assert DRIVER.check(run) == []
    sql(run, remedy, 'by "icu')
    assert DRIVER.advise(run) == []
    sql(run, 'DROP DATABASE "by ""icu";')


def exchange_a_key(file: Path) -> None:
    """Give one entry of an index's first leaf another key than its place says."""
    content = bytearray(file.read_bytes())
    for at in range(PAGE, 2 * PAGE, 8):
        if content[at + 8 : at + 16] == struct.pack("<IxxxxI", 200, 0)[:8]:
            content[at + 8 : at + 12] = struct.pack("<I", 999_999)
            file.write_bytes(content)
            return
    raise AssertionError("there is no key 200 on the first page")


def test_sums_damage_and_order(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with POSTGRES.running(data) as run:
        sql(run, MAKE, "shop")
        insist_on_sums_of_content(run)
        insist_on_advice_about_another_order(run)
        assert DRIVER.examine(run) == []
        index, table = file_of(run, "orders_pkey"), file_of(run, "orders")
        run.stop()
    exchange_a_key(data / index)
    with POSTGRES.running(data) as run:
        (problem,) = DRIVER.examine(run)
        assert problem.startswith("amcheck of shop: orders_pkey: ")
        assert "invariant violated" in problem
        extensions = "SELECT count(*) FROM pg_extension WHERE extname = 'amcheck';"
        assert sql(run, extensions, "shop").strip() == "0", "nothing is left in the database"
        assert DRIVER.check(run) == []
        run.stop()
    enable = "su postgres -s /bin/sh -c 'pg_checksums --enable -D /var/lib/postgresql/data'"
    volume = ("--volume", f"{data}:/var/lib/postgresql/data", "--label", LABEL)
    insist(docker("run", "--rm", *volume, "--entrypoint", "sh", POSTGRES.image, "-c", enable))
    with (data / table).open("r+b") as file:
        file.seek(4000)
        file.write(b"\xff")
    with POSTGRES.running(data) as run:
        assert DRIVER.check(run) == []
        assert run(["psql", "-U", "shop", "-d", "shop", "-c", "TABLE orders"]).code != 0
        (problem,) = DRIVER.check(run)
        assert "wrong checksum (shop)" in problem
