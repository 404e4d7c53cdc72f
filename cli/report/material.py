"""All that the report is made from, read once: the ledger, the records, the books, the store."""

from __future__ import annotations

import platform
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from reconciler.evidence import incidents
from reconciler.figures.metrics import Metrics, measure
from reconciler.planning import retention
from reconciler.records.journal import JournalFile
from reconciler.records.ledger import AnyEvent, Captured, State, fold
from reconciler.records.release import Release
from reconciler.trials import drillbook
from reconciler.upkeep import verifybook
from reconciler.upkeep.verifybook import Check
from snapshots.errors import SnapshotError

if TYPE_CHECKING:
    from reconciler.catalog import Catalog
    from reconciler.config import Stack

NEWEST_INCIDENTS = 200


@dataclass(frozen=True)
class Held:
    """A snapshot in the store. `bytes`: of file data."""

    id: str
    dataset: str
    created: str
    bytes: int
    kind: str
    """backup where somebody asked for it, else ""."""


@dataclass(frozen=True)
class StoreFacts:
    """What the store takes and holds now; `problem`: why that cannot be told."""

    bytes: int | None = None
    free: int | None = None
    snapshots: tuple[Held, ...] = ()
    encrypted: bool = False
    problem: str = ""


@dataclass(frozen=True)
class Material:
    """One moment of a stack."""

    project: str
    stack: str
    made: datetime
    state: State
    events: Sequence[AnyEvent]
    metrics: Metrics
    records: Mapping[str, Release] = field(default_factory=dict)
    damaged: Mapping[str, str] = field(default_factory=dict)
    kept: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    declared: str | None = None
    interrupted: str | None = None
    """The world that a switch which was interrupted was to make live, or what is wrong with its
    journal."""
    chain: str = ""
    host: str = ""
    store: StoreFacts = StoreFacts()
    drills: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    checks: tuple[Check, ...] = ()
    incidents: tuple[Mapping[str, Any], ...] = ()

    @property
    def captures(self) -> list[Captured]:
        """Every capture of what a switch sealed, in order."""
        return [event for event in self.events if isinstance(event, Captured)]


def gather(stack: Stack, catalog: Catalog) -> Material:
    """Read everything; changes nothing. Raises CatalogDamaged when the ledger is."""
    events, chain = catalog.ledger.events()
    state = fold(events)
    records, damaged = catalog.records(state)
    return Material(
        project=stack.project,
        stack=stack.name,
        made=datetime.now(UTC),
        state=state,
        events=events,
        metrics=measure(state),
        records=records,
        damaged=damaged,
        kept=retention.as_it_stands(stack.settings.window, records, state, time.time()),
        declared=stack.settings.release,
        interrupted=_interrupted(catalog),
        chain=chain,
        host=platform.node(),
        store=_store(stack),
        drills={r: d for r in records if (d := drillbook.last(catalog, r)) is not None},
        checks=tuple(verifybook.read(catalog)),
        incidents=_incidents(catalog),
    )


def _interrupted(catalog: Catalog) -> str | None:
    """None as well while it runs: there is nothing to recover then."""
    if not catalog.journal.exists():
        return None
    from reconciler import switch
    from reconciler.errors import CatalogDamaged

    try:
        intent = JournalFile(catalog.journal).read()
        running = switch.running(catalog) is not None
    except CatalogDamaged as error:
        return error.message
    return intent.to_world if intent is not None and not running else None


def _store(stack: Stack) -> StoreFacts:
    if not stack.store.exists():
        return StoreFacts()
    try:
        store = stack.open_store(create=False)
        found = []
        for name in store.ids():
            with suppress(SnapshotError):
                record = store.read(name)
                kind = record.tags.get("kind", "")
                found.append(Held(name, record.dataset, record.created, record.bytes, kind))
        return StoreFacts(store.size(), store.free(), tuple(found), store.encrypted)
    except (SnapshotError, OSError) as error:
        return StoreFacts(problem=str(error))


def _incidents(catalog: Catalog) -> tuple[Mapping[str, Any], ...]:
    """The newest incidents' own documents, with the folder's name and what people remarked."""
    good, _ = incidents.every(catalog)
    return tuple(
        {**found.document, "folder": found.id, "remarks": found.remarks}
        for found in good[:NEWEST_INCIDENTS]
    )
