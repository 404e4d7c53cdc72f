"""Acts that wait for each other."""

from __future__ import annotations

import threading
import time
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.errors import BadInput
from reconciler.host.graph import Act, perform


@settings(max_examples=50, deadline=None)
@given(st.lists(st.frozensets(st.integers(0, 11)), min_size=1, max_size=12))
def test_every_act_is_done_once_and_after_what_it_waits_for(waits: list[frozenset[int]]) -> None:
    done: list[str] = []
    acts = [
        Act(str(n), partial(done.append, str(n)), frozenset(str(i) for i in after if i < n))
        for n, after in enumerate(waits)
    ]
    perform(acts, threading.Event())
    assert sorted(done) == sorted(a.name for a in acts)
    for act in acts:
        assert all(done.index(name) < done.index(act.name) for name in act.after)


def test_what_can_be_done_at_once_is() -> None:
    together = threading.Barrier(8, timeout=5)

    def meet() -> None:
        together.wait()

    perform([Act(str(n), meet) for n in range(8)], threading.Event())


def test_a_failure_ends_what_waits_and_begins_nothing_more() -> None:
    abandoned = threading.Event()
    done: list[str] = []

    def fail() -> None:
        time.sleep(0.05)
        raise ValueError("first")

    def wait() -> None:
        assert abandoned.wait(5)
        done.append("given up")
        raise RuntimeError("second")

    def never() -> None:
        done.append("never")

    acts = [
        Act("fails", fail),
        Act("waits", wait),
        Act("after both", never, frozenset({"waits"})),
        Act("after failure", never, frozenset({"fails"})),
    ]
    with pytest.raises(ValueError, match="first"):
        perform(acts, abandoned)
    assert done == ["given up"]


def test_unknown_names_count_as_done_and_circles_are_refused() -> None:
    done: list[str] = []
    perform([Act("a", partial(done.append, "a"), frozenset({"gone"}))], threading.Event())
    assert done == ["a"]
    circle = [
        Act("start a", partial(done.append, "a"), frozenset({"start b"})),
        Act("start b", partial(done.append, "b"), frozenset({"start a"})),
    ]
    with pytest.raises(BadInput, match="wait for each other in a circle: start"):
        perform(circle, threading.Event())
    assert done == ["a"]


def test_nothing_to_do() -> None:
    perform([], threading.Event())
