"""An incident for a person: what happened, what was put back, what is here. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from reconciler.gates.results import GateResult, Result
from reconciler.records.hookrecord import HookRun

Document = Mapping[str, Any]
_SHOWN = 30


def title(document: Document) -> str:
    """What happened, in one sentence."""
    came, left = document["to"], document["from"]
    if document["kind"] == "reverted":
        how = "was interrupted" if document["interrupted"] else "was reverted"
        return f"The switch to {came['release']} {how}; {_live(document)}"
    return f"{document['kind'].capitalize()} from {left['release']} to {came['release']}"


def readme(document: Document, remarks: Sequence[Mapping[str, str]]) -> str:
    """README.txt of an incident's folder."""
    parts = [
        [f"Incident {document['id']}", "", f"{title(document)}."],
        list(_facts(document)),
        list(_reason(document)),
        list(_changes(document)),
        list(_gates(document)),
        list(_hooks(document)),
        list(_became(document)),
        list(_data(document)),
        list(_steps(document)),
        list(_files(document)),
        list(_missing(document)),
        list(_remarks(remarks)),
    ]
    return "\n\n".join("\n".join(part) for part in parts if part) + "\n"


def _live(document: Document) -> str:
    live = document["live"]["release"]
    return f"{live} was live afterwards" if live else "nothing was live afterwards"


def _facts(document: Document) -> Iterator[str]:
    down = document["downtime_seconds"]
    rows = {
        "project": f"{document['project']}, stack {document['stack']}",
        "host": _host(document),
        "asked for": f"lockstep {document['asked']}, by {document['who'] or 'nobody known'}",
        "reason given": document["operator_reason"] or "none",
        "began": document["started"],
        "ended": document["at"],
        "from": _world(document["from"]) + _known_as(document, document["from"]["release"]),
        "to": _world(document["to"]) + _known_as(document, document["to"]["release"]),
        "live then": _world(document["live"]),
        "nobody answered": "not measured" if down is None else f"for {down:.2f} s",
        "quarantined": f"up refuses {document['to']['release']}: mend it and   lockstep new; or "
        f"try it once more: lockstep config set retry {document['to']['world']}"
        if document["quarantined"]
        else "",
    }
    width = max(len(name) for name in rows)
    for name, value in rows.items():
        if value:
            yield f"{name.ljust(width)}  {value}"


def _host(document: Document) -> str:
    host = document.get("host")
    return f"{host['name']}; commands are typed there in {host['folder']}" if host else ""


def _known_as(document: Document, release: str | None) -> str:
    """`, "the new checkout", commit 1a2b3c4 of main`."""
    told = (document.get("releases") or {}).get(release)
    if told is None:
        return ""
    git = told["git"]
    changed = ", with changes that were not committed" if git["dirty"] else ""
    commit = f", commit {git['commit'][:12]} of {git['branch']}{changed}" if git["commit"] else ""
    return (f', "{told["description"]}"' if told["description"] else "") + commit


def _changes(document: Document) -> Iterator[str]:
    changes = document.get("changes") or []
    if changes:
        yield f"What differs between {document['from']['release']} and {document['to']['release']}:"
        yield from (f"  {line}" for line in changes[:_SHOWN])
    if len(changes) > _SHOWN:
        yield f"  and {len(changes) - _SHOWN} more, in incident.json"


def _world(named: Mapping[str, str | None]) -> str:
    return f"{named['release']} (world {named['world']})" if named["world"] else "nothing"


def _reason(document: Document) -> Iterator[str]:
    if document["reason"]:
        yield "Why it was reverted:"
        yield from (f"  {line}" for line in document["reason"].splitlines())


def _gates(document: Document) -> Iterator[str]:
    gates = [GateResult.model_validate(gate) for gate in document["outcome"]["gates"]]
    if gates:
        yield "What became of the gates:"
        for gate in gates:
            yield f"  {gate}"
            if gate.result is not Result.PASSED:
                yield from (f"    {line}" for line in gate.log)


def _hooks(document: Document) -> Iterator[str]:
    hooks = [HookRun.model_validate(hook) for hook in document.get("hooks") or ()]
    if hooks:
        yield "What became of the hooks (hooks.jsonl has all that they said):"
        yield from (f"  {hook}" for hook in hooks)


_WAS_DONE = {
    "fork": "{came} got a fork of it",
    "attach": "{came} got the volume again that it had left",
    "restore": "{came} got it from the store",
    "create": "new in {came}",
    "in-place": "changed in place for {came}",
    "leave": "left as it was",
}


def _became(document: Document) -> Iterator[str]:
    """What the switch did with each dataset, and what a revert did with it."""
    reverted, left = document["kind"] == "reverted", document["from"]["release"]
    datasets = document["outcome"].get("datasets") or {}
    if datasets:
        yield "What became of the data:"
    for name, action in datasets.items():
        done = _WAS_DONE.get(action, action).format(came=document["to"]["release"])
        if reverted and action == "in-place":
            done += "; what it was before was put back"
        elif reverted and left and action in ("fork", "attach", "restore"):
            done += f"; {left} has its own, as it left it"
        yield f"  {name}: {done}"


def _data(document: Document) -> Iterator[str]:
    if not document["data"]:
        return
    world = document["subject"]["world"]
    yield f"What {world} had written, and how to look at it:"
    for entry in document["data"]:
        counts = ", ".join(f"{n} {what}" for what, n in sorted(entry["counts"].items()))
        yield f"  {entry['dataset']}" + (f": {counts}" if counts else "")
        if entry["command"]:
            yield f"    {entry['command']}"
        else:
            yield f"    not in the store yet: volume {entry['generation']}; the next up captures it"


def _steps(document: Document) -> Iterator[str]:
    steps = document["outcome"].get("steps") or {}
    if steps:
        yield "Steps, in seconds since the switch began (progress.jsonl has every word of it):"
        yield "  " + ", ".join(
            f"{name} {seconds:.2f}" for name, seconds in sorted(steps.items(), key=lambda s: s[1])
        )


_WHAT = (
    ("ps.txt", "docker compose ps of both worlds, at each moment"),
    ("before.json", "the host and the old world while it ran: stats, states"),
    ("failing.json", "the same of the new world when it had failed"),
    ("after.json", "both worlds in the end"),
    ("inspect/", "docker inspect of each container, secrets masked"),
    ("logs/", "what each container said since the last switch (zcat reads it)"),
    ("events.jsonl", "Docker's events, as far back as it remembers"),
    ("plan.json", "what the switch was to do"),
    ("progress.jsonl", "what it said while it did it"),
    ("hooks.jsonl", "what the user's hooks said"),
    ("incident.json", "all of this page for programs"),
    ("remarks.jsonl", "what people added: lockstep incident note"),
)


def _files(document: Document) -> Iterator[str]:
    there = [*document["files"], "incident.json", "remarks.jsonl"]
    yield "What is in this folder:"
    for name, what in _WHAT:
        if any(path == name or path.startswith(name) for path in there):
            yield f"  {name.ljust(15)} {what}"
    for log in document["logs"]:
        if not log["whole"]:
            yield f"  {log['file']}: the newest {log['lines']} lines; older ones were left out"


def _missing(document: Document) -> Iterator[str]:
    if document["missing"]:
        yield "What could not be gathered:"
        yield from (f"  {text}" for text in document["missing"])


def _remarks(remarks: Sequence[Mapping[str, str]]) -> Iterator[str]:
    if remarks:
        yield "Remarks:"
        for remark in remarks:
            first, *rest = remark["text"].splitlines() or [""]
            yield f"  {remark['at']}  {remark['who']}: {first}"
            yield from (f"    {line}" for line in rest)
