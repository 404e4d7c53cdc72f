"""The fence: Compose itself refuses to work in the folder, but for who goes round it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from cli import fence
from reconciler.docker.composeplugin import FENCE_KEY, FENCE_VARIABLE, Compose

COMPOSE = "services:\n  app: {image: debian}\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "docker-compose.yml").write_text(COMPOSE)
    return tmp_path


def config(folder: Path, **env: str) -> subprocess.CompletedProcess[str]:
    """`docker compose config`, as anybody types it."""
    known = {k: v for k, v in os.environ.items() if k != FENCE_VARIABLE}
    return subprocess.run(
        ["docker", "compose", "-p", "lsfence", "config"],
        cwd=folder,
        env={**known, **env},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("before", [None, "", "services:\n  app: {init: true}", "# nothing yet\n"])
def test_compose_refuses_with_what_to_type_instead(folder: Path, before: str | None) -> None:
    override = fence.override_of(folder, folder / "docker-compose.yml")
    assert override.name == "docker-compose.override.yml"
    if before is not None:
        override.write_text(before)
    assert fence.may_stand(override)
    assert not fence.stands(override)
    fence.build(override)
    assert fence.stands(override)
    refused = config(folder)
    assert refused.returncode != 0
    assert "Lockstep runs this project: `lockstep up`" in refused.stderr
    assert config(folder, LOCKSTEP_FENCE="off").returncode == 0

    model = Compose().model([folder], project="lsfence", env={})
    assert FENCE_KEY not in model
    assert model["services"]["app"].get("init", False) == bool(before and "init" in before)


def test_an_override_file_in_another_form_is_left_alone(folder: Path) -> None:
    override = folder / "compose.override.yaml"
    for text in ("{services: {app: {init: true}}}", "- a list\n", "services: [\n"):
        override.write_text(text)
        assert fence.override_of(folder, folder / "docker-compose.yml") == override
        assert not fence.may_stand(override)
