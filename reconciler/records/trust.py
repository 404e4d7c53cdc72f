"""Are records and ledger those that were written? Their heads lie in Pulumi's state as well.

Each record has the hash of the one before it, each event of the ledger that of all before it. Who
alters, removes, reorders or puts back an old one can make a chain whole again from there on, but
not the heads that the last `up` left in the stack's output `head`. The program asks the engine for
them, so that a plain `pulumi up` compares as well.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from reconciler import names
from reconciler.catalog import Catalog
from reconciler.plan import Plan, Refusal
from reconciler.records.ledger import State
from reconciler.records.release import Release

OUTPUT = "head"


@dataclass(frozen=True)
class Found:
    """What is not as the last `up` left it."""

    ledger: str = ""
    """Why the ledger is another one; "" if it goes on from where it was."""
    records: Mapping[str, str] = field(default_factory=dict)
    """Release -> why its record is not the one that was there."""
    left: Mapping[str, str] = field(default_factory=dict)
    """Release -> the hash that its record had."""
    mark: str = ""
    """What the config's `trust` says to take all of it as it is now."""

    @property
    def remedy(self) -> str:
        return (
            "put back the newest copy of releases/ that you trust; if there is no newer one than "
            f"this:\n  lockstep config set trust {self.mark}   takes it as it is now"
        )


def head(catalog: Catalog, found: Found) -> dict[str, Any]:
    """What the stack's output says: the ledger's last event and chain, and each record's hash; of
    a record that was exchanged still the hash that it had, so that no `up` makes it a good one.

    Raises CatalogDamaged.
    """
    state = catalog.state()
    records = {name: catalog.digest(name) for name in catalog.recorded()}
    known = {name: digest for name, digest in {**records, **found.left}.items() if digest}
    return {"events": state.seq, "ledger": state.chain, "records": known}


def broken(catalog: Catalog, state: State, records: Mapping[str, Release]) -> dict[str, str]:
    """Release -> why its record is not the one that was written, as far as the records tell.

    `records`: those that can be read.
    """
    there = {names.release_number(name): name for name in catalog.recorded()}
    there.pop(names.ADOPTED_NUMBER, None)
    found: dict[str, str] = {}
    for number, name in there.items():
        before = there.get(number - 1)
        link = records[name].previous if name in records else ""
        if before is not None and link and link != catalog.digest(before):
            found[before] = (
                f"the record of {before} is not the one that {name} was made after: "
                f"{catalog.path(before)} was altered or exchanged"
            )
    for number in range(1, max(there, default=0)):
        release = names.release_name(catalog.stack.name, number)
        if number not in there and not state.was_pruned(release):
            found[release] = (
                f"the record of {release} is gone, and no up pruned it: "
                f"{catalog.root / release} was removed"
            )
    return found


def examine(
    anchor: Mapping[str, Any] | None, catalog: Catalog, state: State, accepted: str | None
) -> Found:
    """What is not as the last `up` left it; nothing without an anchor, or if the config's `trust`
    (`accepted`) takes releases/ as it is.

    `anchor`: the stack's output `head`.
    """
    if not anchor:
        return Found()
    there = set(catalog.recorded())
    records: dict[str, str] = {}
    left = {str(name): str(digest) for name, digest in dict(anchor.get("records") or {}).items()}
    for name, digest in sorted(left.items()):
        if name not in there:
            if not state.was_pruned(name):
                records[name] = f"the record of {name} was removed since the last up, not pruned"
        elif catalog.digest(name) != digest:
            records[name] = f"the record of {name} was altered or exchanged since the last up"
    ledger = _ledger(anchor, catalog, state)
    if not ledger and not records:
        return Found()
    mark = _mark(head(catalog, Found()))
    if accepted == mark:
        return Found()
    return Found(ledger, records, {name: left[name] for name in records}, mark)


def judged(plan: Plan, found: Found) -> Plan:
    """The plan, refused where the ledger is not the one that the last `up` left.

    Not only warned of: all that a plan says is the ledger's sum. By an older one, numbers of worlds
    and generations would be given twice, what it does not know would count as nobody's, and this
    very `up` would write its end down as the good one. Where it is all that a disaster left,
    `trust` says so, for exactly what is there. A record is one release's: only that is unusable.
    """
    refusals, warnings = plan.refusals, plan.warnings
    if found.ledger:
        refusals = (Refusal(found.ledger, found.remedy), *refusals)
    elif found.records:
        warnings = (*warnings, f"{', '.join(found.records)}: {found.remedy}")
    return replace(plan, refusals=refusals, warnings=warnings)


def _mark(there: Mapping[str, Any]) -> str:
    """Never a number, which Pulumi's config would take for one."""
    digest = hashlib.sha256(json.dumps(there, sort_keys=True).encode()).hexdigest()
    return f"{there['events']}-{digest[:16]}"


def _ledger(anchor: Mapping[str, Any], catalog: Catalog, state: State) -> str:
    events, chain = int(anchor.get("events") or 0), anchor.get("ledger")
    if state.seq < events:
        return (
            f"the ledger {catalog.ledger.path} ends with event {state.seq}, but the last up left "
            f"it at event {events}: an older copy was put back, or its end was cut off"
        )
    if chain != catalog.ledger.chain_at(events):
        return (
            f"the ledger {catalog.ledger.path} is not the one that the last up left: its first "
            f"{events} events were written anew"
        )
    return ""
