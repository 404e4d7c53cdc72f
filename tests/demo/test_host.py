from __future__ import annotations

import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from demo import host


@pytest.fixture
def foreign_container() -> Iterator[str]:
    """A container of a compose project that is called like a world of the demo."""
    name = f"lockstep-test-{uuid.uuid4().hex[:8]}"
    label = f"{host.COMPOSE_PROJECT}=shop-prod-997"
    docker("create", "--name", name, "--label", label, "lockstep-base/redis:7")
    yield name
    docker("rm", "--force", "--volumes", name)


def docker(*arguments: str) -> str:
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_somebody_elses_project_of_that_name_stops_the_demo(
    foreign_container: str, tmp_path: Path
) -> None:
    before = docker("ps", "--all", "--quiet", "--no-trunc")
    with pytest.raises(host.NotTheDemo, match="shop-prod-997"):
        host.remove_all(tmp_path)
    assert docker("inspect", "--format", "{{.State.Status}}", foreign_container) == "created"
    assert set(before.split()) <= set(docker("ps", "--all", "--quiet", "--no-trunc").split())


@pytest.mark.parametrize(
    ("name", "text", "found"),
    [
        ("shop-prod-001", '{"world": "shop-prod-001"}', True),
        ("shop-prod-001", '{"world": "shop-prod-0011"}', False),
        ("shop_db-data_g1", "shop_db-data_g12", False),
        ("shop-web:prod-001", "my-shop-web:prod-001", False),
        ("shop.web", "shopxweb", False),
    ],
)
def test_a_name_is_looked_up_whole(name: str, text: str, found: bool) -> None:
    assert host.mentioned(name, text) is found
