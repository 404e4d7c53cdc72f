"""Finding project, stack and engine; what is wrong with a name, said with the nearest ones."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from cli import context, engines
from cli.context import check_release, choose_stack, find_root, nearest, own_values, replace_file
from reconciler.errors import BadInput, Unavailable


def test_the_project_is_found_from_below(tmp_path: Path) -> None:
    (tmp_path / "Pulumi.yaml").write_text("name: shop\nruntime: python\n")
    below = tmp_path / "a" / "b"
    below.mkdir(parents=True)
    assert find_root(below) == tmp_path.resolve()


def test_without_a_project_the_way_to_one_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"no Pulumi.yaml in .*(?s:.)*lockstep init"):
        find_root(tmp_path)
    with pytest.raises(BadInput, match="is not a folder"):
        find_root(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("asked", "environment", "chosen", "known", "wanted"),
    [
        (None, None, None, ["prod"], "prod"),
        ("test", "prod", "prod", ["prod", "test"], "test"),
        ("organization/shop/test", None, None, ["prod", "test"], "test"),
        (None, "test", "prod", ["prod", "test"], "test"),
        (None, None, "test", ["prod", "test"], "test"),
        (None, None, "gone", ["prod"], "prod"),
        (None, "", None, ["prod"], "prod"),
    ],
)
def test_which_stack(
    asked: str | None, environment: str | None, chosen: str | None, known: list[str], wanted: str
) -> None:
    assert choose_stack(asked, environment, chosen, known) == wanted


@pytest.mark.parametrize(
    ("asked", "known", "text"),
    [
        ("prdo", ["prod", "test"], "there is no stack prdo in this project; the nearest is prod"),
        (None, [], "lockstep init"),
        (None, ["prod", "test"], "several stacks: prod, test"),
    ],
)
def test_which_stack_cannot_be_told(asked: str | None, known: list[str], text: str) -> None:
    with pytest.raises(BadInput) as caught:
        choose_stack(asked, None, None, known)
    assert text in str(caught.value)


def test_stacks_are_known_also_where_the_state_is_kept_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from engine.project import Project

    monkeypatch.delenv("PULUMI_BACKEND_URL", raising=False)
    for url in ("file://.", "s3://bucket"):
        (tmp_path / "Pulumi.yaml").write_text(
            f"name: shop\nruntime: python\nbackend: {{url: '{url}'}}\n"
        )
        for stack in ("prod", "test"):
            (tmp_path / f"Pulumi.{stack}.yaml").write_text("")
        assert context.known_stacks(Project.find(tmp_path)) == ["prod", "test"]


def test_the_stack_that_pulumi_selected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PULUMI_HOME", str(tmp_path / "home"))
    root = tmp_path / "shop"
    digest = hashlib.sha1(str(root / "Pulumi.yaml").encode()).hexdigest()
    path = tmp_path / "home" / "workspaces" / f"shop-{digest}-workspace.json"
    assert context.selected("shop", root) is None
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"stack": "organization/shop/test"}))
    assert context.selected("shop", root) == "test"
    path.write_text("{")
    assert context.selected("shop", root) is None


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("prod-01", "the nearest are prod-010, prod-001"),
        ("prod-011", "there is no release prod-011; the nearest are prod-010, prod-001"),
        ("prod-000", "prod-000 was pruned"),
        ("test-001", "test-001 is not a release of stack prod"),
        ("../../etc", "is not a release name"),
        ("", "is not a release name"),
        ("prod-" + "9" * 70, "is not a release name"),
    ],
)
def test_an_unknown_release(name: str, text: str) -> None:
    with pytest.raises(BadInput) as caught:
        check_release(name, "prod", ["prod-001", "prod-010"], ["prod-000"])
    assert text in str(caught.value)
    assert "lockstep list" in str(caught.value)


def test_a_known_release_passes() -> None:
    check_release("prod-001", "prod", ["prod-001"], [])


def test_nearest() -> None:
    assert nearest("windw", ["window", "store"]) == "; the nearest is window"
    assert nearest("zzz", ["window", "store"]) == ""


def test_own_values_are_read_from_their_text() -> None:
    config = {
        "shop:release": "prod-001",
        "shop:window": "3",
        "shop:gates": '{"web": {"tcp": 80}}',
        "shop:profiles": ["a"],
        "shop:dropped": '["x"]',
        "shop:retry": "{not json",
        "docker:host": "x",
    }
    assert own_values("shop", config) == {
        "release": "prod-001",
        "window": "3",
        "gates": {"web": {"tcp": 80}},
        "profiles": ["a"],
        "dropped": ["x"],
        "retry": "{not json",
    }


def test_a_file_is_replaced_with_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "Pulumi.prod.yaml"
    path.write_text("old")
    path.chmod(0o640)
    replace_file(path, b"new")
    assert path.read_text() == "new"
    assert path.stat().st_mode & 0o777 == 0o640
    assert [p.name for p in tmp_path.iterdir()] == ["Pulumi.prod.yaml"]


# which engine ------------------------------------------------------------------------------------


def a_pulumi(folder: Path, version: str) -> Path:
    """A program called pulumi that answers `pulumi version`."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "pulumi"
    path.write_text(f"#!/bin/sh\necho {version}\n" if version else "#!/bin/sh\nexit 1\n")
    path.chmod(0o755)
    return path


@pytest.mark.parametrize(
    ("version", "official", "text"),
    [
        ("v3.260.0", True, "the official CLI 3.260.0"),
        ("3.182.0-alpha.1", True, "the official CLI 3.182.0"),
        ("v3.181.9", False, "3.181.9 and has no resource hooks; 3.182.0 or newer"),
        ("v2.25.2", False, "has no resource hooks"),
        ("", False, "does not tell its version"),
        ("nonsense", False, "does not tell its version"),
    ],
)
def test_the_official_cli_is_used_if_it_is_new_enough(
    tmp_path: Path, version: str, official: bool, text: str
) -> None:
    path = a_pulumi(tmp_path / "bin", version)
    choice = engines.choose({"PATH": str(path.parent)}, tmp_path)
    assert choice.official == (path if official else None)
    assert text in choice.says


def test_a_too_old_one_is_named_with_the_way_to_update(tmp_path: Path) -> None:
    path = a_pulumi(tmp_path / "bin", "v3.100.0")
    says = engines.choose({"PATH": str(path.parent)}, tmp_path).says
    assert str(path) in says
    assert "curl -fsSL https://get.pulumi.com | sh" in says


def test_without_one_the_embedded_engine_runs(tmp_path: Path) -> None:
    choice = engines.choose({"PATH": str(tmp_path)}, tmp_path)
    assert choice.official is None
    assert "no official pulumi CLI on PATH" in choice.says


def test_one_in_our_own_environment_does_not_count(tmp_path: Path) -> None:
    shim = a_pulumi(tmp_path / ".venv" / "bin", "v3.260.0")
    assert engines.choose({"PATH": str(shim.parent)}, tmp_path).official is None
    other = a_pulumi(tmp_path / "other", "v3.260.0")
    path = f"{shim.parent}:{other.parent}"
    assert engines.choose({"PATH": path}, tmp_path).official == other


def test_the_environment_overrides(tmp_path: Path) -> None:
    path = a_pulumi(tmp_path / "bin", "v3.260.0")
    found = {"PATH": str(path.parent)}
    assert engines.choose({**found, "LOCKSTEP_ENGINE": "embedded"}, tmp_path).official is None
    assert engines.choose({**found, "LOCKSTEP_ENGINE": "pulumi"}, tmp_path).official == path
    with pytest.raises(BadInput, match="embedded or pulumi"):
        engines.choose({**found, "LOCKSTEP_ENGINE": "terraform"}, tmp_path)
    with pytest.raises(Unavailable, match="LOCKSTEP_ENGINE=pulumi"):
        engines.choose({"PATH": "", "LOCKSTEP_ENGINE": "pulumi"}, tmp_path)
