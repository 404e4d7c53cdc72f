"""The demo's shop as a project under test: a real Postgres, a real Redis, a writer that counts."""

from __future__ import annotations

import json
import shutil
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from demo import writer
from demo.accounting import Attempt, acknowledged, read_record
from tests.stacks.harness import ROOT, Project, base_image, docker

PASSWORD = "first-password"


class Shop(Project):
    """The shop, in a folder of its own, on a port of its own."""

    def develop(self, version: str) -> None:
        """What a developer does for the next version."""
        self._env(APP_VERSION=version)

    def _env(self, **values: str) -> None:
        path = self.folder / ".env"
        lines = dict(line.split("=", 1) for line in path.read_text().splitlines() if "=" in line)
        lines.update(values)
        path.write_text("".join(f"{k}={v}\n" for k, v in lines.items()))

    def release(self, text: str = "a release") -> str:
        """new + up of the version that is developed."""
        return super().release(text)

    def orders(self) -> dict[str, Any]:
        return dict(json.loads(self.get("/orders")))

    def order(self, token: str) -> None:
        url = f"http://127.0.0.1:{self.port}/orders"
        body = json.dumps({"token": token, "item": "cup", "amount": 390}).encode()
        request = urllib.request.Request(url, data=body, method="POST")
        with urllib.request.urlopen(request, timeout=5) as answer:
            assert answer.status == 201

    def tokens(self) -> set[str]:
        """The tokens of all orders in the live database, but for the one it opens with."""
        return set(self.sql("SELECT token FROM orders").splitlines()) - {"opening-day"}

    def sql(self, query: str, *, user: str = "shop") -> str:
        return docker(
            "exec", self.container("postgres"), "psql", "-U", user, "-d", "shop", "-XqtAc", query
        )

    def container(self, service: str) -> str:
        """The running container of a service."""
        found = docker(
            "ps",
            "--format",
            "{{.Names}}",
            "--filter",
            f"label=com.docker.compose.service={service}",
        ).split()
        (name,) = [n for n in found if n.startswith(f"{self.name}-")]
        return name

    @contextmanager
    def written_to(self, record: Path) -> Iterator[Path]:
        """A writer posts an order every 20 ms, and records every acknowledged one."""
        with writer.running(f"http://127.0.0.1:{self.port}", record):
            until = time.monotonic() + 20
            while len(acknowledged(read_record(record))) < 25 and time.monotonic() < until:
                time.sleep(0.1)
            yield record


def shop_project(folder: Path) -> Shop:
    shutil.copytree(
        ROOT / "demo" / "shop", folder, ignore=shutil.ignore_patterns(".env", "__pycache__")
    )
    shop = Shop(folder)
    values = {
        "APP_VERSION": "v1",
        "DB_PASSWORD": PASSWORD,
        "SHOP_PORT": str(shop.port),
        "POSTGRES_IMAGE": base_image("postgres:15"),
        "REDIS_IMAGE": base_image("redis:7"),
        "PYTHON_IMAGE": base_image("python:3.11-slim"),
    }
    (folder / ".env").write_text("".join(f"{k}={v}\n" for k, v in values.items()))
    return shop


def by_version(record: Path, version: str) -> list[Attempt]:
    return acknowledged(read_record(record), version)
