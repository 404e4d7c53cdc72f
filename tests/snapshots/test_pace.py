"""A copy goes as fast as the host bears it, between floor and cap."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snapshots.capture import capture
from snapshots.compare import tree_equal
from snapshots.content import free_memory
from snapshots.fork import Fork
from snapshots.pace import GROWTH, UNNOTICED, AtRest, Look, Pace, next_rate
from snapshots.restore import restore
from snapshots.store import Store
from tests.snapshots.trees import MIB

RATES = st.integers(1, 10**10)


@given(RATES, RATES, RATES, st.booleans())
def test_the_rate_stays_within_floor_and_cap(
    rate: int, floor: int, more: int, strained: bool
) -> None:
    cap = floor + more
    assert floor <= next_rate(rate, floor, cap, strained=strained) <= cap
    assert next_rate(rate, floor, 0, strained=False) == max(rate + GROWTH, floor)
    assert next_rate(rate, floor, 0, strained=False, ever=False) >= rate * 1.19
    assert next_rate(rate, floor, 0, strained=True) == max(rate // 2, floor)


REST = AtRest(latency=0.001, waiting=0.1)


@pytest.mark.parametrize(
    ("rest", "look", "strained"),
    [
        (REST, Look(0.001, 0.1), False),
        (REST, Look(0.0024, 0.29), False),  # slower, but who would notice
        (REST, Look(0.0026, 0.1), True),
        (REST, Look(0.001, 0.31), True),
        (AtRest(0.010, 0.0), Look(0.019, 0.0), False),
        (AtRest(0.010, 0.0), Look(0.021, 0.0), True),
        (AtRest(None, 0.0), Look(None, 0.19), False),
        (AtRest(None, 0.0), Look(5.0, 0.21), True),
        (REST, Look(None, 0.1), False),
    ],
)
def test_strain_is_what_clearly_differs_from_rest(rest: AtRest, look: Look, strained: bool) -> None:
    assert rest.is_strained(look) is strained


def test_rest_is_the_middle_of_what_was_seen() -> None:
    looks = [Look(0.5, 0.9), Look(0.001, 0.0), Look(None, 0.1), Look(0.002, 0.2), Look(0.001, 0.2)]
    assert AtRest.of(looks) == AtRest(0.002, 0.2)
    assert AtRest.of([Look(None, 0.0)]) == AtRest(None, 0.0)
    assert AtRest.of([]) == AtRest(None, 0.0)


def test_a_paced_fork_is_complete_and_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seconds of waiting are counted, not measured: the machine may be slow in any case."""
    waited: list[float] = []
    monkeypatch.setattr("snapshots.pace.time.sleep", waited.append)
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    target.mkdir()
    (source / "large").write_bytes(os.urandom(UNNOTICED + 36 * MIB))
    (source / "small").write_bytes(os.urandom(1000))
    pace = Pace(floor=10 * MIB, cap=10 * MIB)
    Fork(source, target, index=tmp_path / "index", pace=pace).first_pass()
    assert tree_equal(source, target) == []
    assert pace.rate == 10 * MIB
    assert sum(waited) > 2, "36 MiB at 10 MiB/s, less what the copying itself took"
    assert not [t for t in threading.enumerate() if t.name == "pace"]


def test_little_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def sleep(_: float) -> None:
        raise AssertionError("waited")

    monkeypatch.setattr("snapshots.pace.time.sleep", sleep)
    pace = Pace(floor=1)
    with pace.watching(tmp_path):
        pace.spend(UNNOTICED)


def test_a_folder_without_nameless_files_is_watched_by_pressure_alone(tmp_path: Path) -> None:
    pace = Pace(floor=1 << 30)
    with pace.watching(tmp_path / "is not there"):
        pace.spend(UNNOTICED + 1)
    assert pace.rate >= 1 << 30


def test_only_copying_threads_give_way() -> None:
    def priority() -> int:
        return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

    before, inside = priority(), []

    def copying() -> None:
        Pace().yield_to_others()
        inside.append(priority())

    thread = threading.Thread(target=copying)
    thread.start()
    thread.join()
    assert priority() == before
    assert inside == [max(10, before)]


def test_a_paced_capture_and_restore_wait(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[float] = []
    source = tmp_path / "source"
    source.mkdir()
    (source / "large").write_bytes(os.urandom(UNNOTICED + 20 * MIB))
    time.sleep(0.1)
    monkeypatch.setattr("snapshots.pace.time.sleep", waited.append)
    pace = Pace(floor=MIB, cap=MIB)
    record = capture(source, store, dataset="db", pace=pace)
    assert sum(waited) > 10, "20 MiB at 1 MiB/s, less what the capture itself took"
    waited.clear()
    capture(source, store, dataset="db", parent=record.id, pace=pace)
    assert waited == [], "nothing was read"

    restore(store, record.id, tmp_path / "again", pace=pace)
    assert sum(waited) > 10
    assert tree_equal(source, tmp_path / "again") == []


def test_copies_do_not_fill_a_small_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert free_memory() > MIB
    monkeypatch.setattr("snapshots.content.free_memory", lambda: 0)
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    target.mkdir()
    (source / "large").write_bytes(os.urandom(8 * MIB))
    Fork(source, target, index=tmp_path / "index", pace=Pace(1 << 30)).first_pass()
    with open(target / "large", "rb") as file, pytest.raises(BlockingIOError):
        os.preadv(file.fileno(), [bytearray(4096)], 4 * MIB, os.RWF_NOWAIT)
    assert tree_equal(source, target) == []
