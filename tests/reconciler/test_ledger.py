"""The ledger's file: durable, chained, forgiving only of a last line that was never promised."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.errors import CatalogDamaged
from reconciler.records.ledger import (
    GENESIS,
    Committed,
    GenerationMade,
    Ledger,
    State,
    Stopped,
    WorldMade,
    fold,
    written,
)
from tests.failing import Failing
from tests.reconciler import ledgers

AT = "2026-01-01T00:00:00+00:00"


def world(number: int) -> list[GenerationMade | WorldMade]:
    generation = f"g{number}"
    return [
        GenerationMade(
            at=AT,
            name=generation,
            dataset="db",
            number=number,
            parent=None,
            action="create",
            world=f"w{number}",
        ),
        WorldMade(
            at=AT,
            world=f"w{number}",
            release=f"prod-{number:03d}",
            generations={"db": generation},
            fingerprint="",
        ),
    ]


def commit(before: int | None, number: int) -> Committed:
    return Committed(
        at=AT,
        move="forward",
        from_world=f"w{before}" if before else None,
        to_world=f"w{number}",
        sealed={"db": f"g{before}"} if before else {},
    )


def filled(path: Path, count: int = 3) -> Ledger:
    ledger = Ledger(path)
    for number in range(1, count + 1):
        ledger.append(*world(number), commit(number - 1 or None, number))
    return ledger


@lru_cache
def filled_once() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        return filled(Path(folder) / "ledger.jsonl").path.read_bytes()


def copy_of_filled(folder: Path) -> Ledger:
    """As `filled`, for who does it a hundred times."""
    (folder / "ledger.jsonl").write_bytes(filled_once())
    return Ledger(folder / "ledger.jsonl")


def test_what_was_appended_is_read_back(tmp_path: Path) -> None:
    ledger = filled(tmp_path / "ledger.jsonl")
    state = ledger.read()
    assert (state.live, state.previous, state.seq) == ("w3", "w2", 9)
    assert [d.generations["db"] for d in state.departures] == ["g1", "g2"]
    assert [g for _, g in state.debts()] == ["db", "db"]
    assert oct(ledger.path.stat().st_mode & 0o777) == "0o600"


def test_a_ledger_without_the_fields_of_today_is_read_and_continued(tmp_path: Path) -> None:
    """The chain is over the lines as they stand, not over what they mean today."""
    ledger, older = filled(tmp_path / "ledger.jsonl"), Ledger(tmp_path / "older.jsonl")
    chain = GENESIS
    lines = []
    for line in ledger.path.read_text().splitlines():
        body = json.loads(line)
        seq = body.pop("seq")
        del body["chain"]
        for name in ("incident", "operator_reason"):
            body.pop(name, None)
        text = json.dumps(body, sort_keys=True, separators=(",", ":"))
        chain = hashlib.sha256(f"{chain}\n{text}".encode()).hexdigest()
        lines.append(json.dumps({"seq": seq, "chain": chain, **body}) + "\n")
    older.path.write_text("".join(lines))
    older.append(*world(4), commit(3, 4).model_copy(update={"operator_reason": "too slow"}))
    outcomes = older.read().outcomes
    assert [outcome.operator_reason for _, outcome in outcomes] == ["", "", "", "too slow"]
    assert outcomes[0][1].incident == ""


def test_an_empty_ledger_is_an_empty_state(tmp_path: Path) -> None:
    assert Ledger(tmp_path / "none.jsonl").read() == State() == fold([])


@given(cut=st.integers(1, 400))
def test_a_torn_last_line_is_left_out_and_overwritten(tmp_path_factory, cut: int) -> None:  # type: ignore[no-untyped-def]
    ledger = copy_of_filled(tmp_path_factory.mktemp("ledger"))
    whole = ledger.path.read_bytes()
    last = whole.rstrip(b"\n").rpartition(b"\n")[2]
    ledger.path.write_bytes(whole[: -min(cut, len(last) + 1)])
    assert ledger.read().seq == 8
    ledger.append(commit(2, 3))
    assert ledger.read().live == "w3"


def test_zeros_are_a_torn_line_only_at_the_end(tmp_path: Path) -> None:
    ledger = filled(tmp_path / "ledger.jsonl")
    whole = ledger.path.read_bytes()
    lines = whole.splitlines(keepends=True)
    torn = lines[-1][:40] + bytes(len(lines[-1]) - 41) + b"\n"
    ledger.path.write_bytes(b"".join(lines[:-1]) + torn)
    assert ledger.read().seq == 8
    ledger.append(commit(2, 3))
    assert ledger.path.read_bytes() == whole
    ledger.path.write_bytes(b"".join(lines[:-2]) + bytes(len(lines[-2]) - 1) + b"\n" + lines[-1])
    with pytest.raises(CatalogDamaged, match="line 8 is not text"):
        ledger.read()


@pytest.mark.parametrize("line", range(9))
def test_fault_24_an_altered_line_is_found_and_named(tmp_path: Path, line: int) -> None:
    """One field of any line of the ledger is changed: the line is named, nothing is believed."""
    ledger = filled(tmp_path / "ledger.jsonl")
    lines = ledger.path.read_text().splitlines()
    body = json.loads(lines[line])
    body["who"] = "mallory"
    lines[line] = json.dumps(body)
    ledger.path.write_text("\n".join(lines) + "\n")
    with pytest.raises(CatalogDamaged, match=f"line {line + 1} was altered"):
        ledger.read()


@given(data=st.data())
def test_fault_25_26_removed_swapped_and_replayed_lines_are_found(tmp_path_factory, data) -> None:  # type: ignore[no-untyped-def]
    """Lines of the ledger are removed, swapped or appended again: the chain shows it."""
    ledger = copy_of_filled(tmp_path_factory.mktemp("ledger"))
    lines = ledger.path.read_text().splitlines()
    what = data.draw(st.sampled_from(["remove", "swap", "replay"]))
    at = data.draw(st.integers(0, len(lines) - 2))
    if what == "remove":
        del lines[at]
    elif what == "swap":
        lines[at], lines[at + 1] = lines[at + 1], lines[at]
    else:
        lines.append(lines[at])
    ledger.path.write_text("\n".join(lines) + "\n")
    with pytest.raises(CatalogDamaged):
        ledger.read()


def test_a_killed_writer_leaves_whole_lines(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    code = (
        "import sys; from pathlib import Path\n"
        "from tests.reconciler.test_ledger import Ledger, world, commit\n"
        "ledger = Ledger(Path(sys.argv[1]))\n"
        "for n in range(1, 10000):\n"
        "    ledger.append(*world(n), commit(n - 1 or None, n))\n"
    )
    for _ in range(3):
        path.unlink(missing_ok=True)
        writer = subprocess.Popen([sys.executable, "-c", code, str(path)], cwd=os.getcwd())
        deadline = time.monotonic() + 30
        while (not path.exists() or path.stat().st_size < 4000) and time.monotonic() < deadline:
            time.sleep(0.01)
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        state = Ledger(path).read()
        assert state.seq >= 3
        assert state.live is not None


FULL = """
import resource, signal, sys
from pathlib import Path
from reconciler.records.ledger import Ledger, Stopped
ledger = Ledger(Path(sys.argv[1]))
ledger.append(Stopped(at="then"))
size = ledger.path.stat().st_size
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (size + 10, size + 10))
try:
    ledger.append(Stopped(at="then"))
except OSError:
    sys.exit(7)
"""


def test_fault_13_a_line_that_fits_only_in_part_is_never_taken_for_written(tmp_path: Path) -> None:
    """A full disk takes a part of a ledger's line: its writer is told, and nobody reads it."""
    path = tmp_path / "ledger.jsonl"
    done = subprocess.run([sys.executable, "-c", FULL, str(path)], timeout=60)
    assert done.returncode == 7
    assert Ledger(path).read().seq == 1


UNSURE = """
import sys
from pathlib import Path
from reconciler.records.ledger import Ledger, Stopped
ledger = Ledger(Path(sys.argv[1]))
try:
    ledger.append(Stopped(at="then"))
except OSError:
    sys.exit(7)
"""


def test_a_line_that_could_not_be_made_durable_is_taken_back(tmp_path: Path) -> None:
    """Nobody was told that it is there, so it must not turn up after a power cut."""
    path = tmp_path / "ledger.jsonl"
    ledger = filled(path)
    before = path.read_bytes()
    points = Failing(tmp_path / "points", "ledger.fsync error")
    words = [sys.executable, "-c", UNSURE, str(path)]
    done = subprocess.run(words, timeout=60, env={**os.environ, **points.env})
    assert done.returncode == 7
    assert path.read_bytes() == before
    assert ledger.append(Stopped(at=AT)).seq == 10


@pytest.mark.parametrize(
    "line", [b"[1, 2]", b"null", b"\xff\xfe", b'{"seq": 2}', b'{"seq": 2, "chain": 1, "kind": []}']
)
def test_what_is_no_event_is_damage(tmp_path: Path, line: bytes) -> None:
    ledger = filled(tmp_path / "ledger.jsonl")
    with ledger.path.open("ab") as file:
        file.write(line + b"\n")
    with pytest.raises(CatalogDamaged, match="cannot be read"):
        ledger.read()


def test_the_chain_tells_which_ledger_it_is(tmp_path: Path) -> None:
    ledger = filled(tmp_path / "ledger.jsonl")
    state = ledger.read()
    assert ledger.chain_at(state.seq) == state.chain
    assert ledger.chain_at(state.seq + 1) is None
    assert ledger.chain_at(0) == State().chain


def test_the_events_are_those_whose_sum_is_the_state(tmp_path: Path) -> None:
    ledger = filled(tmp_path / "ledger.jsonl")
    events, chain = ledger.events()
    assert replace(fold(events), chain=chain) == ledger.read()
    text = ledger.path.read_text()
    ledger.path.write_text(text.replace("prod-002", "prod-003"))
    with pytest.raises(CatalogDamaged, match="line 5 was altered"):
        ledger.events()


def test_what_was_verified_once_is_compared_to_the_last_byte(tmp_path: Path) -> None:
    """A process that has read a ledger sees every later change of it, as one that has not."""
    ledger = filled(tmp_path / "ledger.jsonl")
    good = ledger.path.read_text()
    before = ledger.read()
    assert ledger.read() is before
    ledger.path.write_text(good.replace('"w1"', '"w9"', 1))
    with pytest.raises(CatalogDamaged):
        ledger.read()
    ledger.path.write_text(good)
    assert ledger.read() == before
    ledger.path.write_text("".join(good.splitlines(keepends=True)[:-1]))
    assert ledger.read().seq == before.seq - 1
    ledger.append(commit(2, 3))
    assert ledger.read().live == "w3"


@pytest.mark.parametrize("history", [ledgers.a_dozen(), ledgers.many(60)])
def test_a_whole_history_sums_up_as_event_by_event(history: ledgers.History) -> None:
    assert fold(history.events) == history.state


@pytest.mark.parametrize("spaced", [(), range(0, 1000, 3), range(1000)])
def test_lines_of_older_versions_say_the_same(tmp_path: Path, spaced: Sequence[int]) -> None:
    """Their events do not stand in the form that their hash is of; other lines may follow them."""
    history = ledgers.a_dozen()
    ledger, chain, lines = Ledger(tmp_path / "ledger.jsonl"), GENESIS, []
    for seq, event in enumerate(history.events, start=1):
        line, chain = written(event, seq, chain)
        older = json.dumps(json.loads(line)).encode() + b"\n"
        lines.append(older if seq in spaced else line)
    ledger.path.write_bytes(b"".join(lines))
    assert replace(ledger.read(), chain=GENESIS) == history.state
    assert ledger.chain_at(len(lines)) == chain == ledger.read().chain


@pytest.mark.parametrize("history", [ledgers.a_dozen(), ledgers.many(60)])
def test_what_is_asked_of_a_state_is_what_a_search_finds(history: ledgers.History) -> None:
    state = history.state
    for seq in range(state.seq + 2):
        found = [d for d in state.departures if d.seq == seq]
        assert state.departure_at(seq) == (found[0] if found else None)
    for departure in state.departures:
        for dataset, snapshot in departure.snapshots.items():
            same = [d for d in state.departures if d.snapshots.get(dataset) == snapshot]
            assert state.departure_with(dataset, snapshot) == same[0]
    for world in state.worlds:
        switches = [seq for seq, outcome in state.outcomes if outcome.to_world == world]
        assert state.first_outcome_to(world) == (switches[0] if switches else None)
    for release in history.records:
        assert state.was_pruned(release) == (release in state.pruned)
