from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from demo.accounting import (
    Attempt,
    Gap,
    acknowledged,
    between,
    downtime,
    gaps,
    missing,
    read_record,
)


def good(at: float, version: str = "v1") -> Attempt:
    return Attempt(f"good-{at}", "cup", 390, at, at, 7, version, None)


def bad(at: float) -> Attempt:
    return Attempt(f"bad-{at}", "cup", 390, at, at, None, None, "ConnectionRefusedError")


@pytest.mark.parametrize(
    ("attempts", "expected"),
    [
        ([], []),
        ([bad(1)], []),
        ([good(1), good(1.1)], []),
        ([good(1), good(1.5)], [Gap(1, 1.5, 0)]),
        ([good(1), bad(1.02), good(1.04)], [Gap(1, 1.04, 1)]),
        ([good(1), bad(2), bad(3), good(4), good(4.1)], [Gap(1, 4, 2)]),
        (
            [bad(0), good(1), bad(2), good(3), bad(3.5), good(4), bad(5)],
            [Gap(1, 3, 1), Gap(3, 4, 1)],
        ),
        ([good(4), bad(3), good(1)], [Gap(1, 4, 1)]),
    ],
)
def test_gaps(attempts: list[Attempt], expected: list[Gap]) -> None:
    assert gaps(attempts) == expected


attempts_strategy = st.lists(
    st.builds(lambda at, ok: good(at) if ok else bad(at), st.integers(0, 1000), st.booleans())
)


@given(attempts_strategy)
def test_gaps_hold_every_failure_between_good_answers_and_never_overlap(
    attempts: list[Attempt],
) -> None:
    answers = [attempt.answered_at for attempt in attempts if attempt.acknowledged]
    found = gaps(attempts, longer_than=1)
    if answers:
        inside = [
            attempt
            for attempt in attempts
            if not attempt.acknowledged and min(answers) <= attempt.sent_at < max(answers)
        ]
        assert sum(gap.failures for gap in found) == len(inside)
        assert downtime(attempts) <= max(answers) - min(answers)
    for earlier, later in itertools.pairwise(found):
        assert earlier.first_good <= later.last_good
    for gap in found:
        assert not any(gap.last_good < answer < gap.first_good for answer in answers)


def test_missing_counts_only_what_was_acknowledged() -> None:
    attempts = [good(1), good(2), bad(3)]
    assert missing(attempts, {"good-1"}) == [attempts[1]]
    assert missing(attempts, {"good-1", "good-2"}) == []


def test_acknowledged_by_version_and_time() -> None:
    attempts = [good(1, "v1"), good(2, "v2"), bad(2.5), good(3, "v2")]
    assert acknowledged(attempts, "v2") == [attempts[1], attempts[3]]
    assert len(acknowledged(attempts)) == 3
    assert between(attempts, 2, 3) == [attempts[1], attempts[2]]


def test_a_record_is_read_back_without_a_torn_last_line(tmp_path: Path) -> None:
    path = tmp_path / "orders.jsonl"
    path.write_text(f"{good(1).as_line()}\n{bad(2).as_line()}\n{good(3).as_line()[:20]}")
    assert read_record(path) == [good(1), bad(2)]
    assert read_record(tmp_path / "none") == []
