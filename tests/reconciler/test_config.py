"""The stack's settings: what is accepted, and how what is not is explained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler import config, names
from reconciler.errors import BadInput


def read(**values: Any) -> config.Stack:
    return config.read("shop", "prod", Path("/srv/shop"), values)


def test_defaults() -> None:
    stack = read()
    assert stack.settings.release is None
    assert stack.settings.window.last == 3
    assert stack.store == Path("/srv/shop/releases/store")


@pytest.mark.parametrize(
    ("values", "field", "expected"),
    [
        ({"window": 5}, "window", config.Window(last=5)),
        ({"window": "5"}, "window", config.Window(last=5)),
        ({"compose": "demo/shop"}, "compose", ("demo/shop",)),
        ({"environment": {"PORT": 80, "ON": True}}, "environment", {"PORT": "80", "ON": "true"}),
        ({"release": "", "retry": ""}, "release", None),
    ],
)
def test_short_forms(values: dict[str, Any], field: str, expected: object) -> None:
    assert getattr(read(**values).settings, field) == expected


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"windw": 3}, "config windw"),
        ({"window": {"last": 0}}, "config window.last"),
        ({"data": "maybe"}, "config data"),
        ({"release": "latest"}, "is not a release name"),
        ({"release": "test-001"}, "is not a release of stack prod"),
        ({"release": "prod-1"}, "is not a release name"),
        ({"release": "../../etc"}, "is not a release name"),
        ({"release": "-rf"}, "is not a release name"),
        ({"release": "prod-001\n"}, "is not a release name"),
        ({"release": ".."}, "is not a release name"),
        ({"release": "prod-" + "1" * 10_000}, "is not a release name"),
        ({"release": "prod-\u202e100"}, "is not a release name"),
        ({"release": "prod-\u0661\u0662\u0663"}, "is not a release name"),
        ({"release": "prod-001/../prod-002"}, "is not a release name"),
        ({"release": "$(id)"}, "is not a release name"),
        ({"datasets": {"../../etc": {}}}, "dataset name"),
        ({"datasets": {"-rf": {}}}, "dataset name"),
        ({"datasets": {"a\nb": {}}}, "dataset name"),
        ({"datasets": {"x" * 10_000: {}}}, "dataset name"),
        ({"datasets": {"a/b": {}}}, "dataset name"),
        ({"deadline": 0}, "config deadline"),
        ({"datasets": {"d": {"commands": {"dmp": "x"}}}}, "config datasets.d.commands.dmp"),
        ({"datasets": {"d": {"commands": {}, "driver": "redis"}}}, "only for driver: command"),
        ({"groups": {"all": []}}, "groups.all: a group has at least one"),
        ({"groups": {"a": ["db", "db"]}}, "groups.a: dataset db is in group a already"),
        ({"groups": {"a": ["x", "y"], "b": ["z", "y"]}}, "dataset y is in group a already"),
        ({"groups": {"a": ["x", "y/z"]}}, "dataset name"),
    ],
)
def test_fault_62_63_66_what_is_wrong_is_named(values: dict[str, Any], says: str) -> None:
    """Releases called .., -rf, $(id), with 10 000 characters, newlines or right-to-left marks,
    datasets that are paths, settings that nobody knows: refused with the name, cut to a length."""
    with pytest.raises(BadInput, match=says):
        read(**values)


@pytest.mark.parametrize(
    ("named", "missing"),
    [
        ((), None),
        (("probe", "check"), None),
        (("freeze", "thaw"), None),
        (("dump", "restore"), None),
        (("freeze",), "thaw"),
        (("thaw", "probe"), "freeze"),
        (("dump",), "restore"),
        (("restore",), "dump"),
    ],
)
def test_a_command_without_its_counterpart_is_noticed(
    named: tuple[str, ...], missing: str | None
) -> None:
    settings = read(datasets={"d": {"commands": dict.fromkeys(named, "true")}}).settings
    commands = settings.datasets["d"].commands
    assert commands is not None
    assert commands.incomplete == missing


def test_commands_imply_their_driver_and_are_its_options() -> None:
    settings = read(datasets={"d": {"commands": {"probe": "echo a 1", "timeout": 5}}}).settings
    assert settings.datasets["d"].named_driver == "command"
    assert settings.commands("d") == {"probe": "echo a 1", "timeout": "5.0", "freeze_limit": "30"}
    assert settings.commands("e") == {}


def test_a_group_is_known_by_each_of_its_datasets() -> None:
    settings = read(groups={"orders": ["db", "uploads"]}).settings
    assert settings.together_with("uploads") == ("db", "uploads")
    assert settings.together_with("cache") == ("cache",)


@given(st.integers(0, 999_999))
def test_release_names_round_trip(number: int) -> None:
    assert names.release_number(names.release_name("prod", number)) == number


@given(st.text(max_size=20))
def test_no_text_breaks_the_name_check(text: str) -> None:
    try:
        number = names.release_number(text)
    except BadInput:
        return
    assert text.endswith(f"-{number:03d}")


@pytest.mark.parametrize(
    "stack",
    ["Prod", "", "a-b", "x" * 40, "prod/1", "..", "-rf", "$(id)", "a b", "a\n", "é", "\u202ea"],
)
def test_fault_62_66_a_stack_name_that_cannot_prefix_is_refused(stack: str) -> None:
    """A stack whose name is no plain word of 31 small letters, digits and _: refused."""
    with pytest.raises(BadInput, match="stack name"):
        config.read("shop", stack, Path("/srv"), {})


@pytest.mark.parametrize(
    ("value", "floor", "cap"),
    [
        ({}, 20 << 20, 0),
        ({"floor": "5MiB"}, 5 << 20, 0),
        ({"floor": "1 MB", "cap": "1GiB"}, 10**6, 1 << 30),
        ({"cap": 50 << 20}, 20 << 20, 50 << 20),
        ({"cap": "0"}, 20 << 20, 0),
    ],
)
def test_the_rate_of_copies(value: dict[str, Any], floor: int, cap: int) -> None:
    stack = read(copyRate=value)
    assert (stack.settings.copyRate.floor, stack.settings.copyRate.cap) == (floor, cap)
    again = config.Stack.model_validate(stack.model_dump(mode="json"))
    assert again.settings.copyRate == stack.settings.copyRate


@pytest.mark.parametrize(
    "value", [{"floor": "0"}, {"cap": "1MiB"}, {"floor": "fast"}, {"floor": -5}, {"speed": "1MiB"}]
)
def test_an_impossible_rate_of_copies_is_named(value: dict[str, Any]) -> None:
    with pytest.raises(BadInput, match="copyRate"):
        read(copyRate=value)
