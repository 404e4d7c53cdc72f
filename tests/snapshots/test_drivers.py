"""What the drivers of PostgreSQL and Redis add to the contract of all."""

from __future__ import annotations

import os
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from reconciler.docker import connect
from reconciler.reaching.inside import Inside
from snapshots.compare import tree_equal
from snapshots.drivers import driver_for, way_in
from snapshots.errors import EngineFailed
from snapshots.fork import Fork
from tests.snapshots.engines import (
    FILES,
    POSTGRES,
    REDIS,
    REDIS_AOF,
    Engine,
    docker,
    insist,
    insist_on_images,
    login,
    sql,
)


def needs(engine: Engine) -> Engine:
    if os.geteuid() != 0:
        pytest.skip("only root can read and copy what an engine in a container wrote")
    insist_on_images(engine.image)
    return engine


# -- postgres ------------------------------------------------------------------------------------

ODD_PASSWORD = """p'a"ss\\word $(touch /tmp/x) `id` ;:role %s -- é"""


def test_the_password_follows_the_environment(tmp_path: Path) -> None:
    engine, driver = needs(POSTGRES), driver_for("postgres")
    with engine.running(tmp_path / "data") as first:
        assert login(first, "first password")
    loud = ("postgres", "-c", "log_statement=all", "-c", "log_min_duration_statement=0")
    with engine.running(
        tmp_path / "data", {"POSTGRES_PASSWORD": ODD_PASSWORD}, command=loud
    ) as second:
        assert login(second, "first password")
        assert not login(second, ODD_PASSWORD)
        driver.align(second)
        assert login(second, ODD_PASSWORD)
        assert not login(second, "first password")
        driver.align(second)
        assert login(second, ODD_PASSWORD)
        assert "touch /tmp/x" not in second.logs()
        assert not any("touch /tmp/x" in f"{argv}{stdin}" for argv, stdin in second.calls)
        assert second(["test", "-e", "/tmp/x"]).code != 0
    secret = tmp_path / "data" / "secret"
    secret.write_text("from a file\n")
    with engine.running(
        tmp_path / "data",
        {"POSTGRES_PASSWORD": "", "POSTGRES_PASSWORD_FILE": "/var/lib/postgresql/data/secret"},
    ) as third:
        driver.align(third)
        assert login(third, "from a file")
    with engine.running(tmp_path / "data", {"POSTGRES_PASSWORD": ""}) as none_given:
        driver.align(none_given)
        assert login(none_given, "from a file")


def test_peer_authentication_is_no_obstacle(tmp_path: Path) -> None:
    """Debian's own clusters let in only the system user postgres through the socket."""
    engine, driver = needs(POSTGRES), driver_for("postgres")
    with engine.running(tmp_path / "data", {"POSTGRES_USER": "postgres"}) as first:
        insist(
            first(["sh", "-c", "sed -i 's/^local.*trust$/local all all peer/' $PGDATA/pg_hba.conf"])
        )
        insist(
            first(
                [
                    "sh",
                    "-c",
                    "su postgres -c 'pg_ctl reload -D /var/lib/postgresql/data' || kill -HUP 1",
                ]
            )
        )
        assert first(["psql", "-U", "postgres", "-c", "select 1"]).code != 0
        assert driver.check(first) == []
        driver.before_stop(first)


BALANCES = """
SELECT (SELECT sum(abalance) FROM pgbench_accounts), (SELECT sum(tbalance) FROM pgbench_tellers),
       (SELECT sum(bbalance) FROM pgbench_branches), (SELECT sum(delta) FROM pgbench_history),
       (SELECT count(*) FROM pgbench_history);
"""


@pytest.mark.parametrize("attempt", range(2))
def test_fault_81_a_fork_made_under_load_is_sound_to_the_last_index_entry(
    attempt: int, tmp_path: Path
) -> None:
    """PostgreSQL is forked while pgbench writes: clean by amcheck, sums agree, nothing
    acknowledged is missing."""
    engine, driver = needs(POSTGRES), driver_for("postgres")
    data, copy = tmp_path / "data", tmp_path / "copy"
    copy.mkdir()
    with engine.running(data) as old:
        insist(old(["pgbench", "-q", "-i", "-s", "3", "-U", "shop", "shop"]))
        load = ["pgbench", "-c", "4", "-T", "120", "-U", "shop", "shop"]
        pgbench = threading.Thread(target=lambda: old(load, timeout=150))
        pgbench.start()
        try:
            fork = Fork(data, copy, index=tmp_path / "index")
            fork.first_pass()
            time.sleep(1)
            driver.before_stop(old)
            for _ in range(attempt):
                fork.catch_up()
            before = driver.probe(old)["shop.public.pgbench_history"]
        finally:
            old.stop()
            pgbench.join()
        fork.final_pass()
        assert tree_equal(data, copy) == []
    with engine.running(copy) as new:
        accounts, tellers, branches, history, count = sql(new, BALANCES, "shop").split("|")
        assert accounts == tellers == branches == history
        assert int(count) >= before > 0
        insist(
            new(
                ["pg_amcheck", "-U", "shop", "--install-missing", "--heapallindexed", "shop"],
                timeout=120,
            )
        )


def test_odd_names_are_counted(tmp_path: Path) -> None:
    engine, driver = needs(POSTGRES), driver_for("postgres")
    with engine.running(tmp_path / "data") as run:
        sql(run, 'CREATE DATABASE "host=evil dbname=x";')
        sql(
            run,
            """
            CREATE SCHEMA "sch""ema";
            CREATE TABLE "sch""ema"."new
line 'quoted' :var \\ %s" (a int);
            INSERT INTO "sch""ema"."new
line 'quoted' :var \\ %s" VALUES (1), (2);
            CREATE TABLE parted (a int) PARTITION BY LIST (a);
            CREATE TABLE part_1 PARTITION OF parted FOR VALUES IN (1);
            INSERT INTO parted VALUES (1);
            CREATE TEMP TABLE passing (a int);
            """,
            "shop",
        )
        assert driver.probe(run) == {
            "shop.public.part_1": 1,
            "shop.sch\"ema.new\nline 'quoted' :var \\ %s": 2,
        }
        assert driver.check(run) == []


def test_large_tables_are_estimated(tmp_path: Path) -> None:
    engine, driver = needs(POSTGRES), driver_for("postgres")
    with engine.running(tmp_path / "data") as run:
        sql(
            run,
            "CREATE TABLE large AS SELECT n, repeat('x', 500) AS t "
            "FROM generate_series(1, 150000) n; ANALYZE large;",
            "shop",
        )
        estimate = driver.probe(run)["shop.public.large"]
        assert abs(estimate - 150_000) < 7_500
        sql(run, "DELETE FROM large WHERE n = 1;", "shop")
        assert driver.probe(run)["shop.public.large"] == estimate, "not counted, as it is large"


def test_a_data_folder_below_the_mount(tmp_path: Path) -> None:
    engine, driver = needs(POSTGRES), driver_for("postgres")
    where = "/var/lib/postgresql/data/pgdata"
    with engine.running(tmp_path / "data", {"PGDATA": where}) as run:
        engine.write(run, 10)
        run.stop()
    assert driver.version(tmp_path / "data") == "15"
    assert driver.check_path(tmp_path / "data") == []
    (tmp_path / "data" / "pgdata" / "global" / "pg_control").unlink()
    assert "pg_control" in driver.check_path(tmp_path / "data")[0]


def test_what_lies_outside_the_volume_is_named(tmp_path: Path) -> None:
    engine, driver = needs(POSTGRES), driver_for("postgres")
    with engine.running(tmp_path / "data") as run:
        insist(run(["sh", "-c", "mkdir /fast && chown postgres /fast"]))
        sql(run, "CREATE TABLESPACE fast LOCATION '/fast';")
        run.stop()
    (problem,) = driver.check_path(tmp_path / "data")
    assert "tablespace" in problem
    assert "/fast" in problem
    (tmp_path / "data" / "pg_wal").rename(tmp_path / "wal")
    (tmp_path / "data" / "pg_wal").symlink_to(tmp_path / "wal")
    assert any("write-ahead log" in problem for problem in driver.check_path(tmp_path / "data"))


def test_files_that_are_no_database_are_named(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").touch()
    assert "no PG_VERSION" in driver_for("postgres").check_path(tmp_path)[0]


def test_no_link_leads_to_a_version(tmp_path: Path) -> None:
    (tmp_path / "PG_VERSION").symlink_to("/etc/hostname")
    os.mkfifo(tmp_path / "dump.rdb")
    assert driver_for("postgres").version(tmp_path) is None
    assert driver_for("redis").version(tmp_path) is None


# -- redis ---------------------------------------------------------------------------------------


def test_the_version_is_in_the_file(tmp_path: Path) -> None:
    driver = driver_for("redis")
    for name, engine in (("rdb", needs(REDIS)), ("aof", needs(REDIS_AOF))):
        with engine.running(tmp_path / name) as run:
            engine.write(run, 5)
            told = insist(run(["redis-cli", "INFO", "server"]))
            run.stop()
        version = driver.version(tmp_path / name)
        assert version is not None
        assert f"redis_version:{version}" in told.splitlines()


def test_fault_76_an_aof_that_hides_the_data_is_noticed(tmp_path: Path) -> None:
    """Redis with an append-only file starts on files that hold an RDB alone: PING answers, and
    the check says how many keys are hidden."""
    driver = driver_for("redis")
    with needs(REDIS).running(tmp_path / "data") as run:
        REDIS.write(run, 50)
        run.stop()
    with REDIS_AOF.running(tmp_path / "data") as empty:
        assert driver.probe(empty) == {"db0": 0}
        (problem,) = driver.check(empty)
        assert "51 keys" in problem
    with REDIS_AOF.running(tmp_path / "fresh") as fresh:
        assert driver.check(fresh) == []


def test_what_was_worked_off_is_told_from_what_is_lost(tmp_path: Path) -> None:
    driver = driver_for("redis")
    (tmp_path / "elsewhere").mkdir()
    for name, engine in (("rdb", needs(REDIS)), ("aof", needs(REDIS_AOF))):
        left, lost = tmp_path / name, tmp_path / f"{name}-lost"
        with engine.running(left) as run:
            engine.write(run, 5)
            insist(run(["redis-cli", "FLUSHALL"]))
            run.stop()
        with engine.running(left) as run:
            assert driver.probe(run) == {"db0": 0}
            assert driver.truly_empty(run, left)
            assert not driver.truly_empty(run, tmp_path / "elsewhere")
        with engine.running(lost) as run:
            assert not driver.truly_empty(run, lost)


def test_fault_76_a_missing_part_of_an_aof_is_named(tmp_path: Path) -> None:
    """A part of Redis' append-only file is missing: named before these files are taken along."""
    driver = driver_for("redis")
    with needs(REDIS_AOF).running(tmp_path / "data") as run:
        REDIS_AOF.write(run, 5)
        run.stop()
    assert driver.check_path(tmp_path / "data") == []
    (incremental,) = (tmp_path / "data" / "appendonlydir").glob("*.incr.aof")
    incremental.unlink()
    (problem,) = driver.check_path(tmp_path / "data")
    assert incremental.name in problem
    (tmp_path / "data" / "dump.rdb").write_bytes(b"not a dump")
    assert len(driver.check_path(tmp_path / "data")) == 2


PASSWORD = "s p'a$ce"


CONFIG = "/etc/redis/redis.conf"


@pytest.mark.parametrize(
    ("command", "password"),
    [
        (["redis-server", "--appendonly", "yes", "--requirepass", "a b"], "a b"),
        (["docker-entrypoint.sh", "redis-server", "--requirepass", "x"], "x"),
        (["sh", "-c", "redis-server --requirepass 'a b' --save ''"], "a b"),
        (["docker-entrypoint.sh", "/bin/sh", "-ec", "redis-server --requirepass x"], "x"),
        (["sh", "-c", "redis-server --requirepass $REDIS_PASSWORD"], None),
        (["sh", "-c", "redis-server --requirepass 'a"], None),
        (["redis-server", "--requirepass"], None),
        (["redis-server", "/etc/redis.conf", "--requirepass", "x"], "x"),
        (["redis-server", "/etc/redis.conf"], None),
        (["redis-server"], None),
        ([], None),
        (["docker-entrypoint.sh", "redis-server", CONFIG], "from the file"),
        (["docker-entrypoint.sh", CONFIG], "from the file"),
        (["/usr/bin/valkey-server", CONFIG, "--save", ""], "from the file"),
        (["sh", "-c", f"exec redis-server {CONFIG} --requirepass $PW"], "from the file"),
        (["redis-server", CONFIG, "--requirepass", "later"], "later"),
        (["redis-server", "--include", CONFIG], None),
        (["redis-server", "/not/there.conf"], None),
        (["nginx", "-c", CONFIG], None),
    ],
)
def test_a_password_may_stand_in_the_command_alone(
    command: list[str], password: str | None
) -> None:
    files = {CONFIG: "port 0\nrequirepass 'from the file'\n"}
    found = way_in(command, lambda path: files.get(path, ""))
    assert found.get("REDISCLI_AUTH") == password


@pytest.mark.parametrize(
    ("config", "password"),
    [
        ("# requirepass old\nREQUIREPASS plain\n", "plain"),
        ('requirepass "a \\"b\\" \\x41"\n', 'a "b" A'),
        ("requirepass 'it\\'s'\n", "it's"),
        ("requirepass one\nrequirepass two\n", "two"),
        ("masterauth other\n", None),
        ('requirepass ""\n', None),
        ("user default on >secret ~* &* +@all\n", "secret"),
        ("user other on >secret ~* +@all\nrequirepass mine\n", "mine"),
        ("user default on nopass ~* +@all\nrequirepass mine\n", None),
        ("user default on #0123 ~* +@all\n", None),
        ("include /more.conf\nport 0\n", "included"),
        (f"include {CONFIG}\n", None),
        ("requirepass\n\n'\n", None),
    ],
)
def test_a_password_may_stand_in_the_config_file(config: str, password: str | None) -> None:
    files = {CONFIG: config, "/more.conf": "requirepass included\n"}
    found = way_in(["redis-server", CONFIG], lambda path: files.get(path, ""))
    assert found.get("REDISCLI_AUTH") == password


def redis_with_a_password(*words: str) -> Engine:
    """A server started with these words, which is ready as soon as it refuses or answers."""
    return replace(
        REDIS,
        command=("redis-server", *words),
        ready=lambda run: run(["redis-cli", "ping"]).stdout.startswith(("NOAUTH", "PONG")),
    )


@pytest.mark.parametrize("variable", ["REDISCLI_AUTH", "REDIS_PASSWORD", "REDIS_PASSWORD_FILE", ""])
def test_a_password_is_taken_from_the_environment(tmp_path: Path, variable: str) -> None:
    driver, locked = driver_for("redis"), redis_with_a_password("--requirepass", PASSWORD)
    data = tmp_path / "data"
    data.mkdir()
    (data / "secret").write_text(PASSWORD + "\n")
    given = {variable: "/data/secret" if variable.endswith("FILE") else PASSWORD}
    with needs(locked).running(data, given if variable else {}) as run:
        if not variable:
            with pytest.raises(EngineFailed, match="REDISCLI_AUTH"):
                driver.probe(run)
            # Docker knows the command; what the drivers are given in a stack reads it there.
            inside = Inside(connect(), docker("inspect", "-f", "{{.Id}}", run.name).stdout.strip())
            assert driver.probe(inside) == {"db0": 0}
            with driver.live(inside, data):
                pass
            return
        assert driver.probe(run) == {"db0": 0}
        with driver.live(run, data):
            pass
        assert (data / "dump.rdb").exists()
        assert not any(PASSWORD in f"{argv}{stdin}" for argv, stdin in run.calls)


@pytest.mark.parametrize("written", ["plain", '"s p a$c\'e"', "'quoted'"])
def test_a_password_may_stand_in_the_configuration_file_alone(tmp_path: Path, written: str) -> None:
    driver, locked = driver_for("redis"), redis_with_a_password("redis.conf")
    data = tmp_path / "data"
    data.mkdir()
    (data / "redis.conf").write_text(f"requirepass old\n  requirepass  {written} \nsave 60 1\n")
    with needs(locked).running(data, {}) as run:
        inside = Inside(connect(), docker("inspect", "-f", "{{.Id}}", run.name).stdout.strip())
        assert driver.probe(inside) == {"db0": 0}


def test_a_server_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with (
        needs(FILES).running(tmp_path / "data") as run,
        pytest.raises(EngineFailed, match="redis-cli"),
    ):
        driver_for("redis").probe(run)


def test_a_save_that_fails_is_an_error(tmp_path: Path) -> None:
    driver = driver_for("redis")
    elsewhere = ("--dbfilename", "taken")
    with needs(REDIS).running(tmp_path / "data", command=elsewhere) as run:
        REDIS.write(run, 5)
        (tmp_path / "data" / "taken").mkdir()
        with pytest.raises(EngineFailed, match="BGSAVE"), driver.live(run, tmp_path / "data"):
            pass
