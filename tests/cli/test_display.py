"""How an operation's outputs are told."""

from __future__ import annotations

from cli.display import LONG, output_lines


def test_what_was_before_is_told_by_its_beginning_and_what_is_now_in_full() -> None:
    before, after = "old " * LONG, "new " * LONG
    lines = output_lines({"impact": {"says": before}}, {"impact": {"says": after}})
    (told,) = (line for line in lines if "says" in line)
    was, now = told.split(" => ")
    assert now == f'"{after}"'
    assert was.endswith("…")
    assert len(was) < LONG + 20
    assert output_lines({"a": 1}, {"a": 2}) == ["~ a: 1 => 2"]
