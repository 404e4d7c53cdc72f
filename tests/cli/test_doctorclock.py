"""What `lockstep doctor` says of the clock."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from cli import doctorclock

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("ahead", "kept", "level", "said"),
    [
        (None, True, "ok", "not behind"),
        (None, None, "ok", "not behind"),
        (-3600, True, "ok", "not behind"),
        (59, True, "ok", "not behind"),
        (7200, True, "warning", "120 min in the future"),
        (7200, False, "warning", "120 min in the future"),
        (-3600, False, "warning", "nothing synchronises it"),
    ],
)
def test_the_clock_is_judged(ahead: int | None, kept: bool | None, level: str, said: str) -> None:
    newest = None if ahead is None else NOW + timedelta(seconds=ahead)
    found = doctorclock.judged(newest, NOW, kept)
    assert (found.check, found.level) == ("clock", level)
    assert said in found.text
    assert bool(found.remedy) is (level != "ok")


def test_the_kernel_can_be_asked() -> None:
    assert doctorclock.kept_right() in (True, False)
