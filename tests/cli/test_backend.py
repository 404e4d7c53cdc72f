"""What the commands say to Pulumi, and what they make of its answers."""

from __future__ import annotations

import os
from contextlib import suppress

import pytest

from cli import backend
from cli.backend import Steadfast


def test_options_never_follow_the_arguments() -> None:
    """What stands after `--` is a value, even if it looks like an option."""
    given = ("config", "set", "--secret", "--", "key")
    assert backend.options_first(given, ["--stack", "prod"]) == [
        "config", "set", "--secret", "--stack", "prod", "--", "key",
    ]  # fmt: skip
    assert backend.options_first(("up",), ["--stack", "prod"]) == ["up", "--stack", "prod"]


@pytest.mark.parametrize(
    ("entry", "value"),
    [
        ({"value": "8080", "secret": False}, "8080"),
        ({"value": '["one"]', "objectValue": ["one"], "secret": False}, ["one"]),
        ({"value": '{"key":"k3y"}', "objectValue": {"key": "k3y"}, "secret": True}, {"key": "k3y"}),
        ({"secret": True}, ""),
    ],
)
def test_config_values_as_the_official_cli_prints_them(
    entry: dict[str, object], value: object
) -> None:
    assert backend.value_of(entry) == value


@pytest.mark.parametrize(
    ("pulumi", "known", "code"),
    [(0, None, 0), (0, 4, 0), (1, None, 1), (1, 4, 4), (255, None, 1), (7, None, 1), (8, 6, 6)],
)
def test_exit_codes_of_pulumi_become_ours(pulumi: int, known: int | None, code: int) -> None:
    assert backend.exit_code(pulumi, known) == code


def test_an_update_outlives_the_reader_of_its_output() -> None:
    reading, writing = os.pipe()
    stream = os.fdopen(writing, "w")
    steadfast = Steadfast(stream)
    assert steadfast.write("first\n") == 6
    assert os.read(reading, 100) == b"first\n"
    os.close(reading)
    assert steadfast.write("second\n") == 7
    assert steadfast.write("third\n") == 6
    steadfast.flush()
    with suppress(BrokenPipeError):
        stream.close()
