"""The table of faults and attacks is complete, and its page is what the tests make of it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests import reliability

ROOMS = "switch|ledger|journal|catalog|store|worlds|data|debts|engine|helper"


def test_failpoints_are_named_by_their_room() -> None:
    strange = [n for n in reliability.failpoints() if not re.fullmatch(rf"({ROOMS})\.[a-z-]+", n)]
    assert strange == []


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
