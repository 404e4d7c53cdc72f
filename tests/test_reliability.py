"""The table of faults and attacks is complete, and its page is what the tests make of it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests import reliability
from tests.chaos import test_kills
from tests.reconciler import test_switch_crash

ROOMS = "switch|ingress|ledger|journal|catalog|store|worlds|data|debts|engine|helper"


def test_every_fault_has_a_test_or_a_reason() -> None:
    assert reliability.complaints(reliability.plan(), reliability.trials()) == []


def test_the_page_is_up_to_date() -> None:
    made = reliability.page(reliability.plan(), reliability.trials())
    assert reliability.PAGE.read_text() == made, "run `python -m tests.reliability --write`"


def test_failpoints_are_named_by_their_room() -> None:
    strange = [n for n in reliability.failpoints() if not re.fullmatch(rf"({ROOMS})\.[a-z-]+", n)]
    assert strange == []


def test_the_switch_is_killed_at_each_of_its_steps() -> None:
    steps = {name for name in reliability.failpoints() if name.startswith("switch.")}
    crashes = test_switch_crash
    lists = (crashes.BEFORE_COMMIT, crashes.AFTER_COMMIT, crashes.WHILE_REVERTING, ["early"])
    killed = {f"switch.{step}" for steps in lists for step in steps}
    killed |= set(re.findall(r"switch\.[a-z-]+", Path(test_kills.__file__).read_text()))
    assert steps <= killed, steps - killed


def test_names_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "test_x.py").write_text(
        '@pytest.mark.chaos\ndef test_fault_1_20_both():\n    "Done."\n'
        'def test_attack_lock_stolen():\n    "Steal it: refused."\n'
        "def test_default():\n    pass\n"
    )
    monkeypatch.setattr(reliability, "ROOT", tmp_path)
    monkeypatch.setattr(reliability, "HERE", tmp_path)
    both, stolen = reliability.trials()
    assert (both.faults, both.attack, both.long, both.says) == ((1, 20), None, True, "Done.")
    assert (stolen.faults, stolen.attack, stolen.long) == ((), "lock", False)
