"""The page: one document of HTML that needs nothing else, and runs nothing that it was told."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from cli.report import attention, charts, history, lineage, strands, words
from cli.report.history import Entry
from cli.report.material import Material
from reconciler.figures.metrics import Spread
from reconciler.masking import masked

FIRST_ROWS = 40
MORE_ROWS = 100
DETAILED = 400
"""The newest switches have their details in the page; of older ones `lockstep log` has them."""

_TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class Tile:
    """One figure at the top."""

    name: str
    value: str
    more: str = ""
    level: str = ""


def render(material: Material, *, served: bool = False) -> str:
    """The whole page. `served`: it follows a running switch and may be loaded again."""
    rows = history.entries(material)
    visits = charts.visits(rows)
    records = dict(material.records)
    data, store = charts.data_sizes(material), charts.store_size(material)
    releases, unlisted = history.releases(material)
    live_since = visits[-1].begun if visits else None
    return (
        _environment()
        .get_template("page.html")
        .render(
            m=material,
            state=material.state,
            served=served,
            style=Markup(_text("style.css")),
            script=Markup(_text("script.js")),
            policy=policy(served=served),
            live_since=live_since,
            notices=attention.notices(material),
            tiles=list(_tiles(material, rows)),
            rows=rows,
            rows_at_first=FIRST_ROWS,
            rows_each=MORE_ROWS,
            most_named=history.MOST_NAMED,
            detailed=rows[min(DETAILED, len(rows)) - 1].seq if rows else 0,
            results=sorted({row.result for row in rows}),
            moves=sorted({row.move for row in rows}),
            timeline=charts.timeline(visits, material.made),
            downtime=charts.downtime(rows),
            tree=lineage.releases(material.state, records),
            strands=strands.datasets(material.state, material.events),
            sizes=data,
            sizes_legend=charts.legend(data),
            store=store,
            releases=releases,
            unlisted=unlisted,
            pruned=history.pruned(material.state),
            incidents=history.incidents(material.incidents),
            figures=[*material.metrics.moves.items(), ("all", material.metrics.all)],
        )
    )


def policy(*, served: bool = False) -> str:
    """The content security policy: nothing but the page's own style and script."""
    rules = [
        "default-src 'none'",
        f"style-src {_source('style.css')}",
        f"script-src {_source('script.js')}",
        "base-uri 'none'",
        "form-action 'none'",
    ]
    return "; ".join([*rules, "connect-src 'self'"] if served else rules)


def _tiles(material: Material, rows: Sequence[Entry]) -> Iterator[Tile]:
    metrics, now = material.metrics, material.made
    last = next((r for r in rows if r.result in ("committed", "reverted", "recovered")), None)
    if last is not None:
        level = "bad" if last.result == "reverted" else "good"
        yield Tile("Last switch", last.result, words.ago(last.at, now), level)
    yield Tile("Rollback takes", *_spread(metrics.rollback.seconds))
    yield Tile("Downtime", *_spread(metrics.all.downtime))
    rate = metrics.all.success_rate
    if rate is not None:
        tried = metrics.all.committed + metrics.all.reverted
        yield Tile("Success", f"{rate:.0%}", f"{metrics.all.committed} of {tried} switches")
    if material.store.bytes is not None:
        held = len(material.store.snapshots)
        yield Tile("Store", words.size(material.store.bytes), f"{held} snapshots")
    yield _last_check(material)
    drills = [d for d in material.drills.values() if words.moment(str(d.get("when")))]
    if not drills:
        yield Tile("Last drill", "never", "lockstep drill", "warn")
    else:
        drill = max(drills, key=lambda d: str(d["when"]))
        when = words.moment(str(drill["when"]))
        said = "passed" if drill.get("passed") else "failed"
        level = "good" if drill.get("passed") else "bad"
        yield Tile("Last drill", said, words.ago(when, now) if when else "", level)


def _last_check(material: Material) -> Tile:
    check = max(material.checks, key=lambda c: c.when, default=None)
    when = words.moment(check.when) if check else None
    if check is None or when is None:
        return Tile("Store checked", "never", "lockstep verify", "warn")
    said, level = ("whole", "good") if check.sound else ("damaged", "bad")
    return Tile("Store checked", said, words.ago(when, material.made), level)


def _spread(spread: Spread | None) -> tuple[str, str]:
    if spread is None:
        return "not measured", ""
    return words.seconds(spread.median), f"median; worst {words.seconds(spread.worst)}"


@cache
def _environment() -> Environment:
    made = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_safe,
    )
    made.filters |= {
        "when": words.when,
        "seconds": words.seconds,
        "size": words.size,
        "counts": words.counts,
        "ranges": words.ranges,
    }
    made.globals["ago"] = words.ago
    return made


def _safe(value: Any) -> Any:
    """No secret, and nothing that turns the direction of text, whatever somebody wrote."""
    return masked(value) if type(value) is str else value


@cache
def _text(name: str) -> str:
    return (_TEMPLATES / name).read_text(encoding="utf-8")


def _source(name: str) -> str:
    digest = hashlib.sha256(_text(name).encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"
