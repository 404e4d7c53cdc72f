from __future__ import annotations

import tomllib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from setup import steps, test_images
from setup.base_images import IMAGES, RECIPES
from setup.docker_engine import Facts, Step, next_step
from setup.shop_env import VARIABLES
from setup.steps import ROOT, SetupError, run
from setup.virtualenv import fingerprint

BARE_ROOT = Facts(
    answers=False,
    client=False,
    daemon=False,
    root=True,
    apt=True,
    systemd=False,
    socket_exists=False,
    docker_host=None,
)


@pytest.mark.parametrize(
    ("changes", "step"),
    [
        ({}, Step.INSTALL),
        ({"answers": True}, Step.USE),
        ({"answers": True, "root": False, "docker_host": "tcp://10.0.0.1:2375"}, Step.USE),
        ({"client": True}, Step.INSTALL),
        ({"client": True, "daemon": True}, Step.START_DAEMON),
        ({"client": True, "daemon": True, "apt": False}, Step.START_DAEMON),
        ({"client": True, "daemon": True, "systemd": True}, Step.START_SERVICE),
        # a socket that an earlier daemon left behind does not matter to root
        ({"client": True, "daemon": True, "socket_exists": True}, Step.START_DAEMON),
    ],
)
def test_docker_engine_next_step(changes: dict[str, bool], step: Step) -> None:
    assert next_step(replace(BARE_ROOT, **changes)) is step  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"root": False}, "install Docker Engine"),
        ({"apt": False}, "install Docker Engine"),
        ({"root": False, "client": True, "socket_exists": True}, "usermod -aG docker"),
        ({"docker_host": "tcp://10.0.0.1:2375"}, "DOCKER_HOST=tcp://10.0.0.1:2375"),
    ],
)
def test_docker_engine_is_left_to_the_user(changes: dict[str, object], named: str) -> None:
    with pytest.raises(SetupError, match=named.replace("(", r"\(")):
        next_step(replace(BARE_ROOT, **changes))  # type: ignore[arg-type]


def test_what_fails_beside_another_step_shows_its_own_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steps, "LOG", tmp_path / "setup.log")
    with ThreadPoolExecutor() as pool:
        works = pool.submit(run, ["sh", "-c", "echo of one; sleep 0.2; echo of one"], timeout=20)
        fails = pool.submit(run, ["sh", "-c", "sleep 0.1; echo of two; exit 1"], timeout=20)
    works.result()
    with pytest.raises(SetupError, match=r"`sh` failed:\n  of two\nAll of it: "):
        fails.result()
    assert "\nof one\nof one\n" in steps.LOG.read_text()


def test_the_environment_is_made_anew_only_when_it_must_be() -> None:
    project = '[project]\nname = "x"\n[tool.setuptools]\n[tool.ruff]\nline-length = 100\n'
    now = fingerprint("a==1", project, "3.11.7")
    assert fingerprint("a==1", project.replace("100", "99"), "3.11.7") == now
    assert fingerprint("a==2", project, "3.11.7") != now
    assert fingerprint("a==1", project.replace('"x"', '"y"'), "3.11.7") != now
    assert fingerprint("a==1", project, "3.12.0") != now


def test_every_base_image_has_a_recipe_and_the_shop_a_variable_for_its_own() -> None:
    for image in IMAGES:
        assert (RECIPES / image.recipe / "Dockerfile").is_file()
    compose = (ROOT / "demo" / "shop" / "compose.yaml").read_text()
    for official, variable in VARIABLES.items():
        assert f"${{{variable}:-{official}}}" in compose
    assert {image.official for image in IMAGES} >= VARIABLES.keys()


def test_every_test_image_has_a_recipe() -> None:
    for image in test_images.IMAGES:
        assert (RECIPES / image.recipe / "Dockerfile").is_file()


def test_a_download_that_is_not_the_pinned_one_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(test_images, "TOOLS", tmp_path)
    (tmp_path / "some.jar").write_bytes(b"something else")
    with pytest.raises(SetupError, match="sha256"):
        test_images.download("org/some.jar", "00")
    assert not (tmp_path / "some.jar").exists()


def test_every_dependency_is_locked_with_hashes_and_explained() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = project["dependencies"] + project["optional-dependencies"]["dev"]
    lock = (ROOT / "requirements.lock").read_text()
    explained = (ROOT / "docs" / "dependencies.md").read_text()
    blocks = {block.split("==")[0]: block for block in lock.replace("\\\n", " ").splitlines()}
    for requirement in wanted:
        name = requirement.split("[")[0].split("=")[0].rstrip(">")
        assert "--hash=sha256:" in blocks[name.replace(".", "-")], name
        assert name in explained, f"{name} has no line in docs/dependencies.md"
