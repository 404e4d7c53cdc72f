"""The shop under plain compose, with the writer's load: what the story and the tests rely on."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from demo.accounting import (
    acknowledged,
    downtime,
    gaps,
    missing,
    read_record,
    tokens_in_container,
    tokens_in_volume,
)
from demo.writer import running

SHOP = Path(__file__).resolve().parents[2] / "demo" / "shop"


def docker(*arguments: str) -> list[str]:
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@dataclass
class Shop:
    project: str
    port: int
    images: set[str] = field(default_factory=set)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def compose(self, *arguments: str, version: str = "v1") -> str:
        settings = {
            "APP_VERSION": version,
            "SHOP_PORT": str(self.port),
            "DB_PASSWORD": "only-for-this-test",
            "POSTGRES_IMAGE": "lockstep-base/postgres:15",
            "REDIS_IMAGE": "lockstep-base/redis:7",
            "PYTHON_IMAGE": "lockstep-base/python:3",
        }
        done = subprocess.run(
            ["docker", "compose", "-p", self.project, *arguments],
            cwd=SHOP,
            env={**os.environ, **settings},
            capture_output=True,
            text=True,
            timeout=180,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def get(self, path: str) -> tuple[int, Any]:
        try:
            with urllib.request.urlopen(self.url + path, timeout=5) as answer:
                status, body = answer.status, answer.read()
        except urllib.error.HTTPError as error:
            status, body = error.code, error.read()
        return status, json.loads(body)

    def start(self, version: str) -> tuple[int, Any]:
        """Bring a version up; what /health says once it answers."""
        self.compose("up", "-d", "--build", version=version)
        for service in ("web", "worker"):
            image = f"{self.project}-{service}"
            docker("tag", image, f"{image}:{version}")
            self.images.update((image, f"{image}:{version}"))
        deadline = time.monotonic() + 30
        while True:
            try:
                return self.get("/health")
            except OSError:
                assert time.monotonic() < deadline, self.compose("logs", "web")
                time.sleep(0.05)


@pytest.fixture
def shop() -> Iterator[Shop]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    shop = Shop(f"shoptest{uuid.uuid4().hex[:8]}", port)
    yield shop
    shop.compose("down", "--volumes", "--timeout", "3")
    # By name, never by id: another test's stack may have the same image.
    docker("image", "rm", *shop.images)


def test_three_versions_under_load(shop: Shop, tmp_path: Path) -> None:
    record = tmp_path / "orders.jsonl"
    healthy = {"status": "ok", "version": "v1", "database": "ok", "cache": "ok"}
    assert shop.start("v1") == (200, healthy)
    with running(shop.url, record):
        time.sleep(1)
        status, health = shop.start("v2")
        assert (status, health["version"]) == (200, "v2")
        time.sleep(1)
        status, health = shop.start("v3")
        assert status == 503
        assert "amount of 0 or less" in health["reason"]
        time.sleep(1)

    attempts = read_record(record)
    for version in ("v1", "v2", "v3"):
        assert len(acknowledged(attempts, version)) > 10
    assert any(gap.failures for gap in gaps(attempts))
    assert downtime(attempts) > 0.2

    stored = tokens_in_container(f"{shop.project}-postgres-1")
    assert missing(attempts, stored) == []
    some = acknowledged(attempts)[-1]
    assert shop.get(f"/orders?token={some.token}")[1]["id"] == some.order_id
    assert shop.get("/orders?token=never-sent")[0] == 404
    status, orders = shop.get("/orders")
    assert orders["count"] >= len(acknowledged(attempts)) + 1
    assert "teapot" not in shop.compose("exec", "-T", "web", "cat", "/uploads/terms.txt")
    assert shop.compose("exec", "-T", "web", "ls", "/uploads/invoices").count(".txt") > 0

    before = time.monotonic()
    shop.compose("stop")
    assert time.monotonic() - before < 4, "a service ignores its stop signal"
    volume = f"{shop.project}_db-data"
    assert tokens_in_volume(volume, "lockstep-base/postgres:15") == stored


def test_the_worker_ships_every_order(shop: Shop, tmp_path: Path) -> None:
    record = tmp_path / "orders.jsonl"
    shop.start("v1")
    with running(shop.url, record):
        time.sleep(1)
    expected = len(acknowledged(read_record(record)))
    assert expected > 10
    query = ["psql", "--username=shop", "-qtAc", "SELECT count(*) FROM shipments"]
    deadline = time.monotonic() + 10
    while int(shop.compose("exec", "-T", "postgres", *query)) < expected:
        assert time.monotonic() < deadline, shop.compose("logs", "worker")
        time.sleep(0.2)
