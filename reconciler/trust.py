"""Are records and ledger those that were written? Their heads lie in Pulumi's state as well.

Each record has the hash of the one before it, each event of the ledger that of all before it. Who
alters, removes, reorders or puts back an old one can make a chain whole again from there on, but
not the heads that the last `up` left in the stack's output `head`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from reconciler import names
from reconciler.catalog import Catalog
from reconciler.errors import CatalogDamaged
from reconciler.ledger import State
from reconciler.release import Release

OUTPUT = "head"


def head(catalog: Catalog) -> dict[str, Any]:
    """What the stack's output says: the ledger's last event and chain, and each record's hash.

    Raises CatalogDamaged.
    """
    state = catalog.state()
    records = {path.parent.name: _digest(path) for path in catalog.record_paths()}
    return {"events": state.seq, "ledger": state.chain, "records": records}


def broken(catalog: Catalog, state: State, records: Mapping[str, Release]) -> dict[str, str]:
    """Release -> why its record is not the one that was written, as far as the records tell.

    `records`: those that can be read.
    """
    paths = {names.release_number(p.parent.name): p for p in catalog.record_paths()}
    paths.pop(names.ADOPTED_NUMBER, None)
    found: dict[str, str] = {}
    for number, path in paths.items():
        before, name = paths.get(number - 1), path.parent.name
        link = records[name].previous if name in records else ""
        if before is not None and link and link != _digest(before):
            found[before.parent.name] = (
                f"the record of {before.parent.name} is not the one that {name} was made after: "
                f"{before} was altered or exchanged"
            )
    for number in range(1, max(paths, default=0)):
        release = names.release_name(catalog.stack.name, number)
        if number not in paths and release not in state.pruned:
            found[release] = (
                f"the record of {release} is gone, and no up pruned it: "
                f"{catalog.root / release} was removed"
            )
    return found


def against(anchor: Mapping[str, Any] | None, catalog: Catalog) -> list[str]:
    """What is not as the last `up` left it, a sentence each; [] without an anchor.

    `anchor`: the stack's output `head`. Raises CatalogDamaged when the ledger itself is not whole.
    """
    if not anchor:
        return []
    state = catalog.state()
    said = [*_ledger(anchor, catalog, state)]
    there = {path.parent.name: path for path in catalog.record_paths()}
    for name, digest in sorted(dict(anchor.get("records") or {}).items()):
        if name not in there:
            if name not in state.pruned:
                said.append(f"the record of {name} was removed since the last up, not pruned")
        elif _digest(there[name]) != digest:
            said.append(f"the record of {name} was altered or exchanged since the last up")
    return said


def _ledger(anchor: Mapping[str, Any], catalog: Catalog, state: State) -> list[str]:
    events, chain = int(anchor.get("events") or 0), anchor.get("ledger")
    if state.seq < events:
        return [
            f"the ledger {catalog.ledger.path} ends with event {state.seq}, but the last up left "
            f"it at event {events}: an older copy was put back, or its end was cut off"
        ]
    if chain != catalog.ledger.chain_at(events):
        return [
            f"the ledger {catalog.ledger.path} is not the one that the last up left: its first "
            f"{events} events were written anew"
        ]
    return []


def _digest(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise CatalogDamaged(f"{path} cannot be read: {error.strerror}") from None
