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


PLAIN = """\
config:
  # releases that are kept
  shop:window: "3"
"""
TOLD = """\
encryptionsalt: v1:abc=:v1:def
config:
  # releases that are kept
  shop:secrets:
    DB_PASSWORD:
      secure: v1:ghi
  shop:window: "3"
  shop:release: prod-005
  shop:restore:
    release: prod-005
"""


@pytest.mark.parametrize("text", [PLAIN, TOLD])
def test_the_settings_lose_what_the_story_set_and_nothing_else(text: str) -> None:
    assert host.plain_settings(text) == PLAIN


def test_the_settings_in_the_repository_are_plain() -> None:
    committed = subprocess.run(
        ["git", "show", f"HEAD:{host.SETTINGS}"],
        cwd=Path(host.__file__).parent,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert committed.returncode == 0, committed.stderr
    assert host.plain_settings(committed.stdout) == committed.stdout


def test_a_passphrase_stays_while_a_stack_needs_it(tmp_path: Path) -> None:
    path = tmp_path / host.PASSPHRASE
    path.parent.mkdir()
    path.write_text("words")
    settings = tmp_path / "Pulumi.other.yaml"
    settings.write_text(TOLD)
    assert host.forget_passphrase(tmp_path) == []
    assert path.exists()
    settings.write_text(PLAIN)
    assert host.forget_passphrase(tmp_path) == [host.PASSPHRASE]
    assert not path.exists()


@pytest.mark.parametrize(
    ("tag", "found"),
    [
        ("shop-redis:latest", True),
        ("shop-redis:prod-000", True),
        ("shop-web:latest", False),
        ("redis:latest", False),
    ],
)
def test_a_tag_is_ours_when_a_release_tagged_its_repository(tag: str, found: bool) -> None:
    assert (
        host.tagged_by(tag, '"redis": "shop-redis:prod-002", "web": "my/shop-web:prod-1"') is found
    )
