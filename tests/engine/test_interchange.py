"""Settings, secrets and state of the official CLI are read, and written as it writes them."""

from __future__ import annotations

import io
import json
import re
import shutil
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli import configpaths, stackconfig
from cli.display import PlainDisplay
from engine import secrets
from engine.errors import EngineError
from engine.operations import preview, refresh, up
from engine.options import Options
from engine.project import Project
from engine.secrets import Passphrase
from engine.stack import Stack
from engine.values import Secret, annotate, decode, encode, from_state, plain, to_state
from tests.engine.replay import GOLDEN

# Made by the official CLI: passphrase `golden`.
OFFICIAL = GOLDEN / "backend-layout"


@pytest.fixture
def official(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stack:
    shutil.copytree(OFFICIAL, tmp_path / "project")
    monkeypatch.setenv("PULUMI_BACKEND_URL", f"file://{tmp_path / 'project/backend'}")
    return Stack(Project.find(tmp_path / "project"), "dev", "golden")


def test_config_of_the_official_cli_is_read(official: Stack) -> None:
    assert official.config() == {
        "golden:flag": "true",
        "golden:list": ["one", "two"],
        "golden:num": "8080",
        "golden:obj": {"key": "k3y", "name": "web", "on": True, "port": 8080},
        "golden:plain": "hello",
        "golden:pw": "s3cret",
        "other:key": "ns",
    }
    assert official.secret_keys() == {"golden:pw", "golden:obj"}
    assert stackconfig.get(official, "obj.key", path=True) == "k3y"
    assert official.project.stacks() == ["dev"]


def test_state_of_the_official_cli_is_read_and_written_back_equal(official: Stack) -> None:
    before = official.backend.load()
    assert before is not None
    assert official.outputs(show_secrets=True)["b"]
    official.save(official.snapshot())
    after = official.backend.load()
    assert after is not None

    def comparable(deployment: dict[str, object]) -> object:
        return json.loads(re.sub(r'"v1:[^"]*"', '"sealed"', json.dumps(deployment["resources"])))

    assert comparable(after) == comparable(before)
    assert after["secrets_providers"] == before["secrets_providers"]
    assert after["manifest"]["magic"] == before["manifest"]["magic"]


def test_a_stack_of_the_official_cli_is_continued_without_a_change(
    official: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = official.project.root
    shutil.copy(GOLDEN / "s00/program.txt", root / "__main__.py")
    shutil.copy(GOLDEN / "gold.txt", root / "gold.py")
    sys.modules.pop("gold", None)
    things = [r for r in official.snapshot().resources if r.id and not r.is_provider]
    world = {r.id: {k: v for k, v in plain(r.outputs).items() if k[0] != "_"} for r in things}
    (tmp_path / "world").write_text(json.dumps(world))
    for name, value in (
        ("GOLDEN_STEP", "3"),
        ("GOLDEN_WORLD", str(tmp_path / "world")),
        ("GOLDEN_CALLS", str(tmp_path / "calls")),
    ):
        monkeypatch.setenv(name, value)
    quiet = PlainDisplay(io.StringIO())
    before = {r.urn for r in official.snapshot().resources}
    assert set(preview(official, quiet).changes) == {"same"}
    assert set(refresh(official, quiet, Options(skip_preview=True)).changes) == {"same"}
    assert set(up(official, quiet).changes) == {"same"}
    assert {r.urn for r in official.snapshot().resources} == before


def test_a_changed_value_leaves_the_rest_of_the_file(official: Stack) -> None:
    text = official.path.read_text().replace(
        "  golden:plain: hello\n", "  # who is greeted\n  golden:plain: hello  # for now\n"
    )
    official.path.write_text(text)
    stackconfig.put(official, "num", "9090")
    stackconfig.put(official, "new", "true")
    written = official.path.read_text()
    assert written == text.replace('"8080"', '"9090"', 1) + '  golden:new: "true"\n'
    stackconfig.remove(official, "new", path=False)
    assert official.path.read_text() == text.replace('"8080"', '"9090"', 1)


def test_a_passphrase_of_another_stack_is_refused(official: Stack) -> None:
    with pytest.raises(EngineError, match="incorrect passphrase"):
        Stack(official.project, "dev", "other").config()


def test_no_key_is_derived_before_a_secret_is_asked_for(official: Stack) -> None:
    secrets._key.cache_clear()
    stack = Stack(official.project, "dev", "golden")
    assert stack.exists()
    assert stack.secret_keys() == {"golden:pw", "golden:obj"}
    assert secrets._key.cache_info().misses == 0
    for _ in range(2):
        stack.begin()
    assert stack.config()["golden:pw"] == "s3cret"
    assert secrets._key.cache_info().misses == 1


def test_an_altered_ciphertext_is_refused() -> None:
    ours = Passphrase("p")
    head, _, body = ours.encrypt("word").rpartition(":")
    altered = f"{head}:{'B' if body[0] == 'A' else 'A'}{body[1:]}"
    with pytest.raises(EngineError):
        ours.decrypt(altered)
    assert Passphrase("p", ours.salt).decrypt(ours.encrypt("word")) == "word"


def test_other_backends_are_refused_by_name(
    official: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PULUMI_BACKEND_URL", "s3://bucket")
    with pytest.raises(EngineError, match=r"s3://bucket is not in the embedded engine"):
        Stack(official.project, "dev")


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("a", ["a"]),
        ("a.b[0]", ["a", "b", 0]),
        ('a["b.c"].d', ["a", "b.c", "d"]),
        ("a[0][1]", ["a", 0, 1]),
    ],
)
def test_config_paths(text: str, path: list[str | int]) -> None:
    assert configpaths.parse_path(text) == path


@pytest.mark.parametrize("text", ["", "[0]", "a[", "a[x]"])
def test_texts_that_are_no_config_path(text: str) -> None:
    with pytest.raises(EngineError):
        configpaths.parse_path(text)


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=5), inner, max_size=3)
        | inner.map(lambda v: Secret(plain(v)))
    ),
    max_leaves=12,
)
properties = st.dictionaries(st.text(min_size=1, max_size=5), values, max_size=4)


@given(properties)
def test_values_survive_the_wire_and_the_state_file(props: dict[str, object]) -> None:
    assert decode(encode(props)) == props
    sealed = json.loads(json.dumps(to_state(props, lambda text: text[::-1])))
    assert from_state(sealed, lambda text: text[::-1]) == props


@given(properties)
def test_no_secret_is_lost_on_the_way_through_a_provider(props: dict[str, object]) -> None:
    returned = annotate(plain(props), props)
    assert plain(returned) == plain(props)
    for key, value in props.items():
        if isinstance(value, Secret):
            assert isinstance(returned[key], Secret)
