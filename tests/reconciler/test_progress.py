"""Byte counts as a person is told them."""

from __future__ import annotations

import re

import pytest

from reconciler.world import places

MIB = 1 << 20


def test_bytes_rate_and_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    told = places.in_mib("db", said.append)
    told("captured", 32 * MIB, 256 * MIB)
    assert said == [], "so soon nobody needs to hear"
    monkeypatch.setattr(places, "_PROGRESS_SECONDS", 0.0)
    told("captured", 64 * MIB, 256 * MIB)
    told("captured", 256 * MIB, 256 * MIB)
    assert re.fullmatch(r"db: captured, 64 of 256 MiB, \d+ MiB/s, \d+ s left", said[0])
    assert re.fullmatch(r"db: captured, 256 of 256 MiB, \d+ MiB/s", said[1])


def test_what_is_small_is_not_worth_a_word() -> None:
    said: list[str] = []
    places.in_mib("db", said.append)("captured", 1000, 1000)
    assert said == []
