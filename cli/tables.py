"""What people read: the same facts as the JSON documents, as tables of at most 100 columns."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from reconciler.gates.results import GateResult, Result

if TYPE_CHECKING:
    from cli.documents import Document

WIDTH = 100
_FAILURE = 120
"""Characters of a quarantine's reason in a list; `info` has all of it."""
_LABEL = re.compile(r"\s*(?:\S+(?: \S+)*\s{2,})?")
STATUS = {
    "live": "bold green",
    "previous": "cyan",
    "failed": "red",
    "pruned": "dim",
    "committed": "green",
    "reverted": "red",
    "recovered": "yellow",
    "passed": "green",
    "warned": "yellow",
    "inconclusive": "yellow",
}


def console() -> Console:
    """Standard output; as wide as the terminal, at most WIDTH columns."""
    found = Console(highlight=False)
    return Console(highlight=False, width=min(found.width, WIDTH) if found.is_terminal else WIDTH)


def table(*columns: str, right: Sequence[str] = (), wide: Sequence[str] = ()) -> Table:
    """A table without lines; `right` columns are numbers, only `wide` ones may be folded."""
    made = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="bold")
    for column in columns:
        made.add_column(
            column,
            justify="right" if column in right else "left",
            no_wrap=column not in wide,
            overflow="fold",
        )
    return made


def folded(lines: Iterable[str]) -> str:
    """Lines of at most WIDTH columns: what does not fit goes on below its own text, not below the
    label before it."""
    return "\n".join(
        textwrap.fill(
            line,
            WIDTH,
            subsequent_indent=" " * min(_end_of_label(line), WIDTH // 3),
            break_long_words=False,
            break_on_hyphens=False,
        )
        for text in lines
        for line in text.splitlines() or [""]
    )


def _end_of_label(line: str) -> int:
    found = _LABEL.match(line)
    return found.end() if found else 0


def coloured(word: str) -> Text:
    """A status in its colour."""
    return Text(word, style=STATUS.get(word, ""))


def releases(document: Document, data: Mapping[str, str | None], now: datetime) -> Table:
    """The table of `list`, newest first; `data` tells how a release's data would come back."""
    made = table(
        "release", "status", "age", "commit", "images", "data", "description",
        right=("age", "images"), wide=("description",),
    )  # fmt: skip
    for entry in reversed(document["releases"]):
        description = entry["description"]
        if entry["quarantined"]:
            reason = textwrap.shorten(entry["quarantined"], _FAILURE, placeholder=" …")
            description += f"\nquarantined: {reason}"
        if "unusable" in entry:
            description = f"unusable: {entry['unusable']}"
        made.add_row(
            entry["release"],
            coloured(entry["status"]),
            age_of(entry["created"], now),
            entry["git_commit"][:9],
            size(entry["bytes"]) if entry["bytes"] else "",
            data.get(entry["release"]) or "",
            Text(description),
        )
    return made


def log(entries: Sequence[Mapping[str, Any]], now: datetime) -> list[Table | Text]:
    """The table of `log`, newest first, then why what was reverted or recovered was so."""
    made = table(
        "age", "who", "move", "from", "to", "result", "down", "data",
        right=("age", "down"), wide=("data", "who"),
    )  # fmt: skip
    for entry in entries:
        down = entry["downtime_seconds"]
        made.add_row(
            age_of(entry["at"], now),
            Text(entry["who"]),
            entry["move"],
            entry["from"] or "",
            entry["to"] or "",
            coloured(entry["result"]),
            "" if down is None else f"{down:.2f} s",
            Text(actions({name: d["action"] for name, d in entry["datasets"].items()})),
        )
    reasons = [_reason(entry) for entry in entries if _why(entry) or entry["incident"]]
    noted = [Text(line) for entry in entries for line in _noted(entry)]
    hooks = [
        _hook(entry, run)
        for entry in entries
        for run in entry["hooks"]
        if run["result"] != "passed"
    ]
    return [made, *reasons, *noted, *hooks]


def _noted(entry: Mapping[str, Any]) -> list[str]:
    """Gates that did not pass, of switches that were committed all the same."""
    return [
        f"{entry['to']}: {GateResult.model_validate(gate)}"
        for gate in entry["gates"]
        if gate["result"] != Result.PASSED and entry["result"] == "committed"
    ]


def _hook(entry: Mapping[str, Any], run: Mapping[str, Any]) -> Text:
    """A user's hook that did not pass."""
    of = f" of {run['of']}" if run["of"] else ""
    return Text(
        f"{entry['to']} hook {run['name']} ({run['at']}{of}) {run['result']}: {run['said']}"
    )


def _reason(entry: Mapping[str, Any]) -> Text:
    """Without the container's last words, which `log --json` has."""
    told = f"{entry['to'] or entry['from']} {entry['result']}"
    told += f": {_why(entry)}" if _why(entry) else ""
    if entry["incident"]:
        told += f"\n  lockstep incident show {entry['incident']}"
    return Text(folded([told]))


def _why(entry: Mapping[str, Any]) -> str:
    lines = [*entry["reason"].splitlines()[:1], *entry["operator_reason"].splitlines()[:1]]
    return "; ".join(lines)


def actions(datasets: Mapping[str, str]) -> str:
    """`fork db-data, uploads; leave redis`; `fork all 3` where all get the same."""
    if len(datasets) > 1 and len(set(datasets.values())) == 1:
        return f"{next(iter(datasets.values()))} all {len(datasets)}"
    by_action: dict[str, list[str]] = {}
    for name, action in sorted(datasets.items()):
        by_action.setdefault(action, []).append(name)
    return "; ".join(f"{action} {', '.join(names)}" for action, names in by_action.items())


def info(document: Document, now: datetime) -> list[Table | Text]:
    """`info`: the record, then its images, datasets, worlds and departures."""
    parts: list[Table | Text] = [_record(document, now)]
    record = document["release"]
    if "images" in record:
        parts += [_images(record), _datasets(record)]
    if document["worlds"]:
        parts.append(_worlds(document["worlds"]))
    if document["departures"]:
        parts.append(_departures(document["departures"], now))
    if document["gates"]:
        parts.append(_gates(document["gates"]))
    if document["story"]:
        from reconciler.switching.story import Story

        parts.append(Text(folded(Story(**document["story"]).lines())))
    return parts


def _gates(gates: Sequence[Mapping[str, Any]]) -> Table:
    made = table("gate", "service", "result", "tries", "seconds", "what it said",
                 right=("tries", "seconds"), wide=("gate", "what it said"))  # fmt: skip
    for gate in gates:
        said = gate["said"] or gate["excerpt"].partition("\n")[0]
        made.add_row(
            Text(gate["gate"]), gate["service"], coloured(gate["result"]),
            str(gate["tries"] or ""), f"{gate['seconds']:.1f}", Text(said[:200]),
        )  # fmt: skip
    return made


def _record(document: Document, now: datetime) -> Table:
    made = Table.grid(padding=(0, 2))
    record = document["release"]
    git = record.get("git", {})
    commit = f"{git.get('commit', '')} {git.get('branch', '')}".strip()
    rows = {
        "release": record["name"],
        "status": coloured(document["status"]),
        "description": record.get("description", ""),
        "created": _created(record, now),
        "parent": record.get("parent") or "",
        "commit": f"{commit} (with uncommitted changes)" if git.get("dirty") else commit,
        "kept because": "; ".join(document["kept_because"]),
        "config files": ", ".join(record.get("configs", {})),
        "secrets": ", ".join(record.get("secrets", [])),
        "dropped": ", ".join(record.get("dropped", [])),
        "last drill": _drilled(document.get("drill"), now),
        "incidents": "\n".join(i["incident"] for i in document["incidents"]),
    }
    for name, value in rows.items():
        if value:
            shown = value if isinstance(value, Text) else Text(value)
            made.add_row(Text(name, style="bold"), shown)
    return made


def _created(record: Mapping[str, Any], now: datetime) -> str:
    if "created" not in record:
        return ""
    by = f" by {record['created_by']}" if record["created_by"] else ""
    return f"{record['created']}{by}, {age_of(record['created'], now)} ago"


def _drilled(drill: Mapping[str, Any] | None, now: datetime) -> str:
    if drill is None:
        return ""
    came = "everything came back" if drill["passed"] else "not everything came back"
    return f"{age_of(drill['when'], now)} ago, at its {drill['at']}: {came}"


def _images(record: Mapping[str, Any]) -> Table:
    made = table("service", "image", "id", "size", right=("size",), wide=("image",))
    for service, image in sorted(record["images"].items()):
        source = f" (from {image['source']})" if image["source"] else ""
        made.add_row(
            service, f"{image['tag']}{source}", image["id"].removeprefix("sha256:")[:12],
            size(image["bytes"]),
        )  # fmt: skip
    return made


def _datasets(record: Mapping[str, Any]) -> Table:
    made = table("dataset", "kind", "driver", "strategy", "mounted by", wide=("mounted by",))
    for name, dataset in sorted(record["datasets"].items()):
        shared = ", shared" if dataset["shared"] else ""
        mounts = ", ".join(f"{m['service']}:{m['target']}" for m in dataset["mounts"])
        made.add_row(
            name, dataset["kind"], dataset["driver"], f"{dataset['strategy']}{shared}", mounts
        )
    return made


def _worlds(worlds: Sequence[Mapping[str, Any]]) -> Table:
    made = table("world", "state", "generations", wide=("generations",))
    for world in worlds:
        why = f"\nfailed: {world['failed']}" if world["failed"] else ""
        generations = ", ".join(world["generations"].values())
        made.add_row(world["world"], coloured(world["state"]), Text(f"{generations}{why}"))
    return made


def _departures(departures: Sequence[Mapping[str, Any]], now: datetime) -> Table:
    made = table(
        "left", "dataset", "snapshot", "counts then", wide=("counts then",),
    )  # fmt: skip
    for departure in departures:
        names = sorted({*departure["generations"], *departure["snapshots"]})
        for number, name in enumerate(names):
            first = number == 0
            counts = departure["counts"].get(name, {})
            made.add_row(
                f"{_left(departure, now)}\n{departure['world']}" if first else "",
                name,
                departure["snapshots"].get(name, "not in the store yet"),
                "\n".join(f"{count} {what}" for what, count in sorted(counts.items())),
            )
    return made


def _left(departure: Mapping[str, Any], now: datetime) -> str:
    how = "failed " if departure["failed"] else ""
    return f"{how}{age_of(departure['at'], now)} ago"


def age_of(at: str | None, now: datetime) -> str:
    """How long ago a time of the ledger was: `3 min`, `5 h`."""
    from reconciler.planning.impact import age

    if not at:
        return ""
    then = datetime.fromisoformat(at)
    if then.tzinfo is None:
        then = then.replace(tzinfo=UTC)
    return age(max(0.0, (now - then).total_seconds()))


def size(count: int | None) -> str:
    """Bytes for people, nothing for unknown."""
    from reconciler.planning.impact import size as for_people

    return "" if count is None else for_people(count)
