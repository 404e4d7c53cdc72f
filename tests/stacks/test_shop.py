"""The shop under its writer's load: every acknowledged order is accounted for, both ways."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from demo.accounting import acknowledged, missing, read_record, tokens_in_volume
from tests.stacks.harness import Project, base_image, docker
from tests.stacks.shop import PASSWORD, Shop, by_version, shop_project


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    project = shop_project(tmp_path / "shop")
    try:
        yield project
    finally:
        project.remove()


def plain_compose(shop: Shop) -> None:
    up = ["compose", "-p", shop.name, "--project-directory", str(shop.folder), "up", "-d"]
    # Docker's builder takes layers of equal images, which the end of another test may remove.
    try:
        docker(*up, "--build")
    except AssertionError:
        docker(*up, "--build")
    shop.wait_until_it_answers(40)


def test_adopted_forward_failed_and_back_under_load(shop: Shop, tmp_path: Path) -> None:
    """The demo's story in one test, counted: what is acknowledged is never lost, except what a
    way back sets aside, and that comes back with undo."""
    plain_compose(shop)
    shop.init()
    with shop.written_to(tmp_path / "orders.jsonl") as record:
        shop.new("v1")
        shop.up()
        shop.develop("v2")
        shop.release("v2, with a migration")
        time.sleep(0.5)
        shop.run("config", "set", "deadline", "6")
        shop.develop("v3")
        failed = shop.new("v3, which does not work")
        refused = shop.up(code=4)
        time.sleep(0.5)
    assert failed in refused.text
    assert "lockstep config set release prod-002" in refused.err
    assert shop.live() == "prod-002"
    attempts = read_record(record)
    good = [a for a in acknowledged(attempts) if a.version != "v3"]
    assert missing(good, shop.tokens()) == []
    assert len(good) > 100

    lost = by_version(record, "v3")
    world = f"{shop.name}-{failed}"
    info = shop.run("info", failed, "--json").json()
    volume = next(
        g
        for w in info["worlds"]
        if w["world"] == world
        for d, g in w["generations"].items()
        if d == "db-data"
    )
    kept = tokens_in_volume(volume, base_image("postgres:15"))
    assert missing(lost, kept) == [], "what the failed world acknowledged is still in it"
    assert shop.sql("SELECT count(*) FROM orders WHERE amount <= 0").strip() == "0"

    before = shop.tokens()
    shop.order("only in prod-002")
    preview_target = "prod-001"
    shop.declare(preview_target)
    told = shop.preview()
    aside = told["datasets"]["db-data"]["set_aside"]
    assert any("orders" in table and count > 0 for table, count in aside.items()), aside
    the_screen_tells_what_the_document_has(shop.run("preview", "--impact-only").out, told)
    shop.up()
    left_by_one = {a.token for a in by_version(record, "v1")}
    assert "only in prod-002" not in shop.tokens()
    assert shop.tokens() >= left_by_one - {a.token for a in by_version(record, "v2")}
    shop.nothing_to_do()

    shop.run("undo", "--yes")
    assert shop.tokens() == before | {"only in prod-002"}
    shop.nothing_to_do()
    measured = [e["downtime_seconds"] for e in shop.entries() if e["result"] == "committed"]
    assert all(0 < seconds < 30 for seconds in measured)


def test_fault_88_a_password_is_changed_then_rolled_back_across(shop: Shop) -> None:
    """The database's password is changed, then a rollback goes across the change: both worlds let
    the new password in and no other, and what was left before the change is whole in the store."""
    shop.init()
    shop.release("one")
    shop.order("a")
    shop.develop("v2")
    shop.release("two")
    shop.order("b")
    secret = "second-password'; DROP TABLE orders; --"
    shop.run("config", "set", "--secret", "--path", "secrets.DB_PASSWORD", secret)
    preview = shop.preview()
    assert preview["move"] == "refresh"
    shop.up()
    assert shop.tokens() == {"a", "b"}
    assert logs_in(shop, secret)
    assert not logs_in(shop, PASSWORD)
    shop.nothing_to_do()
    left = snapshots_left(shop, "prod-002")
    assert "db-data" in left
    shop.run("rollback", "--yes")
    assert (shop.live(), shop.tokens()) == ("prod-001", {"a"})
    assert logs_in(shop, secret)
    shop.nothing_to_do()
    assert snapshots_left(shop, "prod-002") == left
    shop.run("verify", "prod-002", "--read-data")
    for path in shop.folder.rglob("*"):
        if path.is_file() and path.name != ".env":
            assert secret.encode() not in path.read_bytes(), path
            assert PASSWORD.encode() not in path.read_bytes(), path


def snapshots_left(shop: Shop, release: str) -> dict[str, str]:
    """What a release left when it was first left, by dataset, as it is in the store."""
    departures = shop.run("info", release, "--json").json()["departures"]
    return dict(departures[0]["snapshots"])


def logs_in(shop: Shop, password: str) -> bool:
    """Whether a TCP login with the password works, from another container of the world."""
    code = (
        "import os, psycopg, sys\n"
        "try:\n"
        "    psycopg.connect(host='postgres', user='shop', dbname='shop', "
        "password=sys.argv[1]).close()\n"
        "except psycopg.OperationalError:\n"
        "    print('no')\n"
        "else:\n"
        "    print('yes')\n"
    )
    said = docker("exec", shop.container("web"), "python3", "-c", code, password)
    return said.strip() == "yes"


@pytest.fixture
def infra(shop: Shop) -> Iterator[str]:
    """The Redis of another compose project, used by others as well; its volume's name."""
    volume, name = f"{shop.name}infra", f"{shop.name}-infra-redis"
    label = f"lockstep.project={shop.name}"
    docker("volume", "create", "--label", label, volume)
    docker(
        "run", "-d", "--name", name, "--label", label, "-v", f"{volume}:/data",
        base_image("redis:7"), "redis-server", "--save", "",
    )  # fmt: skip
    yield volume
    docker("rm", "--force", name)


def test_a_backup_says_what_it_could_not_take(shop: Shop) -> None:
    shop.init()
    shop.release("one")
    docker("exec", shop.container("postgres"), "install", "-d", "-o", "postgres", "/fast")
    shop.sql("CREATE TABLESPACE fast LOCATION '/fast'")
    partial = shop.run("snapshot", code=1)
    assert "no snapshot of db-data" in partial.err
    assert "/fast" in partial.out
    assert shop.run("snapshot", "uploads").code == 0
    shop.sql("DROP TABLESPACE fast")
    shop.run("config", "set", "--path", "groups.orders[0]", "db-data")
    shop.run("config", "set", "--path", "groups.orders[1]", "uploads")
    group = shop.run("snapshot", "--group", "orders", "--freeze-limit", "60", "--json").json()
    assert set(group["datasets"]) == {"db-data", "uploads"}
    assert "no group" in shop.run("snapshot", "--group", "order", code=2).err
    shop.run("stop", "--yes")
    whole = shop.run("snapshot", "--json").json()["datasets"]
    assert all(taken["snapshot"] for taken in whole.values()), whole
    shop.up()
    shop.nothing_to_do()


def redis_says(shop: Shop, *words: str) -> str:
    return docker("exec", f"{shop.name}-infra-redis", "redis-cli", *words).strip()


def until_redis_answers(shop: Shop) -> None:
    until = time.monotonic() + 20
    while "PONG" not in docker(
        "exec", f"{shop.name}-infra-redis", "redis-cli", "ping", check=False
    ):
        assert time.monotonic() < until
        time.sleep(0.1)


def test_a_shared_redis_is_left_alone_unless_it_is_named(
    shop: Shop, infra: str, notes: Project
) -> None:
    shop.init()
    setting = "datasets.infra"
    for key, value in (("volume", infra), ("driver", "redis"), ("shared", "true")):
        shop.run("config", "set", "--path", f"{setting}.{key}", value)
    until_redis_answers(shop)
    redis_says(shop, "SET", "breaker", "CLOSED")
    shop.release("one")
    shop.order("a")
    shop.develop("v2")
    shop.release("two")
    redis_says(shop, "SET", "breaker", "OPEN")
    started = docker("inspect", "--format", "{{.State.StartedAt}}", f"{shop.name}-infra-redis")

    shop.run("rollback", "--yes")
    assert shop.tokens() == {"a"}
    assert redis_says(shop, "GET", "breaker") == "OPEN", "shared: left as it is"
    assert started == docker(
        "inspect", "--format", "{{.State.StartedAt}}", f"{shop.name}-infra-redis"
    )

    shop.run("config", "set", "--path", "restore.release", "prod-001")
    shop.run("config", "set", "--path", "restore.shared[0]", "infra")
    refused = shop.up(code=3)
    assert f"{shop.name}-infra-redis" in refused.text
    assert "stop_owner" in refused.text
    assert redis_says(shop, "GET", "breaker") == "OPEN"

    shop.run("config", "set", "--path", f"{setting}.stop_owner", "true")
    ran = shop.up()
    assert "restored for everybody" in ran.text
    until_redis_answers(shop)
    assert redis_says(shop, "GET", "breaker") == "CLOSED"
    assert "a" in shop.tokens()
    shop.nothing_to_do()

    # Another stack that uses it is told, until a switch of its own.
    for key, value in (("volume", infra), ("driver", "redis"), ("shared", "true")):
        notes.run("config", "set", "--path", f"{setting}.{key}", value)
    notes.new("one")
    said = f"shared {infra} was restored by stack {shop.name}/prod"
    (warning,) = [w for w in notes.preview()["warnings"] if "restored" in w]
    assert warning.startswith(said)
    assert "what it held before is snapshot" in warning
    assert notes.run("log", "--json").json()["restored_by_others"] == [warning]
    notes.up()
    assert [w for w in notes.preview()["warnings"] if "restored" in w] == []
    assert said in notes.run("log").text


def the_screen_tells_what_the_document_has(screen: str, told: dict[str, Any]) -> None:
    """The facts of one real move, in both of their forms."""
    assert screen.splitlines()[0] == told["says"]
    shown = " ".join(screen.split())
    for dataset, planned in told["datasets"].items():
        assert dataset in shown
        assert planned["counts"], dataset
    orders = told["datasets"]["db-data"]["counts"]["shop.public.orders"]
    assert orders["now"] > orders["then"] > 0
    assert orders["estimated"] is False
    assert f"(now {orders['now']}, then {orders['then']})" in shown
    assert {s["service"] for s in told["services"]} == {"web", "worker"}
    assert set(told["unchanged_services"]) == {"postgres", "redis"}
    for service in told["services"]:
        assert service["image"]["to"] in shown
    assert told["downtime"]["basis"] in shown
    assert told["migrations"] is None, "no folder of migrations was named"
