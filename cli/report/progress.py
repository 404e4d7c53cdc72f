"""How far the running switch is, from its journal and its progress file."""

from __future__ import annotations

import json
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cli.documents import release_of
from cli.report import words
from reconciler.errors import CatalogDamaged

if TYPE_CHECKING:
    from reconciler.catalog import Catalog
    from reconciler.records.journal import Intent
    from reconciler.records.ledger import State

STEPS = ("prepare", "early", "stop", "start", "prove", "commit")
"""`early` only where something is started before the stop."""
SAID = 40
_TAIL_BYTES = 64 << 10


def status(catalog: Catalog) -> dict[str, Any]:
    """`status.json`: seq, the live release, and the running switch or null."""
    from reconciler import switch

    state = catalog.state()
    running = None
    with suppress(CatalogDamaged):  # the page itself tells it
        running = switch.running(catalog)
    return {
        "schema": 1,
        "seq": state.seq,
        "live": state.standing_release,
        "running": _told(running, state) if running else None,
    }


def _told(intent: Intent, state: State) -> dict[str, Any]:
    begun = words.moment(intent.started)
    return {
        "move": intent.move,
        "from": release_of(state, intent.from_world),
        "to": release_of(state, intent.to_world),
        "seconds": round((datetime.now(UTC) - begun).total_seconds()) if begun else 0,
        "reverting": intent.reverting,
        "steps": steps(intent),
        "said": said(Path(intent.log)),
    }


def steps(intent: Intent) -> list[dict[str, str]]:
    """Each step with done, now or next."""
    shown = [s for s in STEPS if s != "early" or "early" in intent.steps]
    found = []
    for name in shown:
        what = "now" if name == intent.step else "done" if name in intent.steps else "next"
        found.append({"name": name, "state": what})
    return found


def said(log: Path) -> list[str]:
    """The newest sentences of a progress file; a line that is being written is left out."""
    found = []
    with suppress(OSError), log.open("rb") as file:
        end = file.seek(0, 2)
        file.seek(max(0, end - _TAIL_BYTES))
        for line in file.read().split(b"\n")[:-1]:
            with suppress(ValueError):
                entry = json.loads(line)
                if isinstance(entry, dict) and isinstance(entry.get("say"), str):
                    found.append(entry["say"])
    return found[-SAID:]
