"""Following a switch that another caller began."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from reconciler import switch
from reconciler.catalog import Catalog
from reconciler.host.hostlock import HostLock
from reconciler.records.journal import Intent, JournalFile
from tests.reconciler.hostmodel import Host


def test_a_number_that_became_another_process_is_not_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOCKSTEP_LOCK_DIR", str(tmp_path))
    catalog = Catalog(Host().stack().model_copy(update={"root": tmp_path}))
    catalog.root.mkdir()
    intent = Intent(
        head=1,
        move="forward",
        from_world="shop-prod-001",
        to_world="shop-prod-002",
        started="then",
        pid=os.getpid(),
        log=str(tmp_path / "log"),
    )
    JournalFile(catalog.journal).write(intent)
    assert not switch.follow_running(catalog, print)

    (tmp_path / "log").write_text('{"at": "then", "end": "done", "said": []}\n')
    with HostLock.acquire("switch", "shop/prod"):
        assert switch.follow_running(catalog, print)
