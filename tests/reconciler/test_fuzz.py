"""Ledger, journal, records and manifest with anything in them: taken, or an error of ours."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reconciler.errors import CatalogDamaged
from reconciler.records.journal import JournalFile
from reconciler.records.ledger import Ledger, _link
from tests.reconciler.test_bad_disk import a_release, an_intent, catalog_in
from tests.reconciler.test_ledger import filled
from tests.snapshots.test_fuzz import ANYTHING, Change

EXAMPLES = settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow], database=None
)
LONG = settings(EXAMPLES, max_examples=1000)
LENGTHS = [pytest.param(LONG, marks=pytest.mark.chaos), EXAMPLES]
VALUE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=2),
    max_leaves=4,
)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("project")
    catalog = catalog_in(folder)
    filled(catalog.ledger.path)
    catalog.write(*a_release(1))
    JournalFile(catalog.journal).write(an_intent("stop"))
    catalog.fingerprint({})
    return folder


def reads_all(folder: Path) -> None:
    """As every command begins."""
    catalog = catalog_in(folder)
    with suppress(CatalogDamaged):
        catalog.state()
    with suppress(CatalogDamaged):
        JournalFile(catalog.journal).read()
    good, damaged = catalog.records()
    for release in good.values():
        for config in release.configs.values():
            with suppress(CatalogDamaged):
                catalog.content(release.name, config.sha256)
    assert set(good) | set(damaged) == {"prod-001"}
    with suppress(CatalogDamaged):
        catalog.mend_manifest()


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("length", LENGTHS, ids=["long", "short"])
def test_fault_27_any_bytes_in_a_file_of_the_catalog(
    length: Callable[..., Any], project: Path, tmp_path: Path
) -> None:
    """Any file of the catalog gets random or changed bytes: each is read, or named as damaged, and
    no other error comes."""
    folder = tmp_path / "project"
    shutil.copytree(project, folder)
    files = sorted(path for path in folder.rglob("*") if path.is_file())

    @length
    @given(change=ANYTHING, which=st.integers(0, len(files) - 1))
    def run(change: Change, which: int) -> None:
        good = files[which].read_bytes()
        files[which].write_bytes(change(good))
        try:
            reads_all(folder)
        finally:
            files[which].write_bytes(good)
            manifest = folder / "releases" / "manifest.json"
            shutil.copy(project / "releases" / "manifest.json", manifest)

    run()


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("length", LENGTHS, ids=["long", "short"])
def test_fault_27_any_event_in_a_sound_chain(length: Callable[..., Any], tmp_path: Path) -> None:
    """A field of an event in the ledger gets any value, with the chain made right for it: the
    ledger is read, or named as damaged, and no other error comes."""
    ledger = filled(tmp_path / "ledger.jsonl")
    good = ledger.path.read_text()
    events = [json.loads(line) for line in good.splitlines()]

    @length
    @given(data=st.data())
    def run(data: st.DataObject) -> None:
        changed = [dict(event) for event in events]
        which = data.draw(st.integers(0, len(changed) - 1))
        field = data.draw(st.sampled_from([k for k in changed[which] if k not in ("seq", "chain")]))
        if data.draw(st.booleans()):
            changed[which][field] = data.draw(VALUE)
        else:
            changed[which][field] = data.draw(st.sampled_from(["w1", "w2", "w9", "g1", "g9", ""]))
        chain, lines = "0" * 64, []
        for event in changed:
            event.pop("chain")
            seq = event.pop("seq")
            chain = _link(chain, event)
            lines.append({"seq": seq, "chain": chain, **dict(sorted(event.items()))})
        form = data.draw(st.sampled_from([(",", ":"), (", ", ": ")]))
        ledger.path.write_text("".join(json.dumps(e, separators=form) + "\n" for e in lines))
        try:
            with suppress(CatalogDamaged):
                Ledger(ledger.path).read()
        finally:
            ledger.path.write_text(good)

    run()
