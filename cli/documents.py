"""The JSON documents that the command prints: a contract, each with `schema: 1`. Pure."""

from __future__ import annotations

from bisect import bisect
from collections.abc import Mapping, Sequence
from typing import Any

from reconciler.catalog import status
from reconciler.names import release_number
from reconciler.plan import Plan
from reconciler.planning import impact
from reconciler.records.hookrecord import HookRun
from reconciler.records.ledger import Committed, Departure, Found, Recovered, Reverted, State, World
from reconciler.records.release import Release
from reconciler.switching import story

SCHEMA = 1
Document = dict[str, Any]


def releases(state: State, records: Mapping[str, Release], damaged: Mapping[str, str]) -> Document:
    """`list`: every release there ever was, oldest first."""
    names = sorted({*records, *damaged, *state.pruned}, key=release_number)
    return {
        "schema": SCHEMA,
        "live": state.standing_release,
        "releases": [_release(name, state, records.get(name), damaged.get(name)) for name in names],
    }


def _release(name: str, state: State, record: Release | None, damage: str | None) -> Document:
    entry: Document = {
        "release": name,
        "status": status(name, state),
        "created": record.created if record else None,
        "description": record.description if record else "",
        "git_commit": record.git.commit if record else "",
        "images": {s: image.tag for s, image in record.images.items()} if record else {},
        "bytes": image_bytes(record) if record else 0,
        "quarantined": _why_quarantined(name, state),
    }
    return {**entry, "unusable": damage} if damage else entry


def _why_quarantined(release: str, state: State) -> str | None:
    """How it failed its proof, as long as nobody answered that."""
    failed = state.quarantined.get(release)
    return (state.worlds[failed].failed or "").partition("\n")[0] if failed else None


def image_bytes(record: Release) -> int:
    """Bytes of a release's images, each counted once."""
    return sum({image.id: image.bytes for image in record.images.values()}.values())


def data_at_hand(state: State, release: str) -> str | None:
    """How the data that a release left would come back: live, attach, restore, gone, or None
    for a release that never left any."""
    if release == state.standing_release:
        return "live"
    left = [d for d in state.departures_of(release) if d.generations or d.snapshots]
    if not left or state.was_pruned(release):
        return None
    last = left[-1]
    ways = {_way_back(state, last, dataset) for dataset in {*last.generations, *last.snapshots}}
    if "gone" in ways:
        return "gone"
    return "restore" if "restore" in ways else "attach"


def _way_back(state: State, departure: Departure, dataset: str) -> str:
    generation = state.generations.get(departure.generations.get(dataset, ""))
    if generation is None or generation.sealed != departure.seq or generation.removed:
        return "restore" if dataset in departure.snapshots else "gone"
    if not generation.spoiled:
        return "attach"
    return "restore" if dataset in departure.snapshots else "gone"


def log(state: State, restored_by_others: Sequence[str] = ()) -> Document:
    """`log`: how every switch ended, and what crashes had left unfinished, newest first; `from`
    and `to` are releases."""
    after = _hooks_after(state)
    entries = [
        (seq, _outcome(state, outcome, after.get(seq, ()))) for seq, outcome in state.outcomes
    ]
    entries += [(seq, _found(state, found)) for seq, found in state.found]
    entries.sort(key=lambda entry: entry[0], reverse=True)
    return {
        "schema": SCHEMA,
        "entries": [entry for _, entry in entries],
        "restored_by_others": list(restored_by_others),
    }


def entry(state: State, seq: int, outcome: Committed | Reverted | Recovered) -> Document:
    """One of them."""
    return _outcome(state, outcome, _hooks_after(state).get(seq, ()))


def _hooks_after(state: State) -> dict[int, list[HookRun]]:
    """seq of an outcome -> the user's hooks that ran after it, before the next."""
    found: dict[int, list[HookRun]] = {}
    ends = [seq for seq, _ in state.outcomes]
    for seq, event in state.hooked:
        before = bisect(ends, seq)
        if before:
            found.setdefault(ends[before - 1], []).extend(event.hooks)
    return found


def _found(state: State, found: Found) -> Document:
    """In the form of an outcome, for readers of either."""
    return {
        "at": found.at,
        "who": found.who,
        "move": "recover",
        "from": None,
        "to": release_of(state, found.world),
        "result": found.kind,
        "reason": f"{found.found}; {found.done}",
        "downtime_seconds": None,
        "datasets": {},
        "operator_reason": "",
        "incident": None,
        "gates": [],
        "hooks": [],
        "logs": [],
    }


def _outcome(
    state: State, outcome: Committed | Reverted | Recovered, hooks_after: Sequence[HookRun]
) -> Document:
    return {
        "at": outcome.at,
        "who": outcome.who,
        "move": outcome.move,
        "from": release_of(state, outcome.from_world),
        "to": release_of(state, outcome.to_world),
        "result": outcome.kind,
        "reason": outcome.reason,
        "downtime_seconds": outcome.downtime_seconds,
        "datasets": {name: {"action": action} for name, action in outcome.datasets.items()},
        "operator_reason": outcome.operator_reason,
        "incident": outcome.incident or None,
        "gates": [gate.model_dump(mode="json") for gate in outcome.gates],
        "hooks": [run.model_dump(exclude={"one_off"}) for run in (*outcome.hooks, *hooks_after)],
        "logs": [f"releases/logs/{name}" for name in outcome.logs],
    }


def release_of(state: State, world: str | None) -> str | None:
    """The release that a world runs, as far as the ledger knows it."""
    known = state.worlds.get(world or "")
    return known.release if known else None


def preview(plan: Plan, state: State) -> Document:
    """`preview`: the move, what each dataset gets, and what it costs (docs/preview.md)."""
    return impact.document(plan, release_of(state, plan.from_world))


def info(
    name: str,
    state: State,
    record: Release | None,
    reasons: Sequence[str],
    drill: Document | None = None,
) -> Document:
    """`info`: the whole record (of a pruned one only the name is left), the release's worlds,
    each time that it was left, its last drill, the gates of the last switch to it and, where that
    was reverted, its story; and the incidents it had a part in."""
    outcomes = [o for _, o in state.outcomes if release_of(state, o.to_world) == name]
    return {
        "schema": SCHEMA,
        "release": record.model_dump(mode="json") if record else {"name": name},
        "status": status(name, state),
        "kept_because": list(reasons),
        "worlds": [_world(state, world) for world in state.worlds_of(name)],
        "departures": [_departure(d) for d in state.departures if d.release == name],
        "drill": drill,
        "gates": [g.model_dump(mode="json") for g in outcomes[-1].gates] if outcomes else [],
        "story": story_of(story.last(state, name)),
        "incidents": [
            {"incident": o.incident, "at": o.at, "result": o.kind, "reason": o.operator_reason}
            for _, o in state.outcomes
            if o.incident
            and name in (release_of(state, o.from_world), release_of(state, o.to_world))
        ],
    }


def story_of(told: story.Story | None) -> Document | None:
    """A switch that was reverted, in parts."""
    if told is None:
        return None
    return {"title": told.title, "parts": {name: [*lines] for name, lines in told.parts.items()}}


def _world(state: State, world: World) -> Document:
    return {
        "world": world.name,
        "state": world_state(state, world),
        "failed": world.failed,
        "generations": dict(world.generations),
    }


def world_state(state: State, world: World) -> str:
    """What became of a world, in a word."""
    if world.removed:
        return "removed"
    if world.name == state.live:
        return "live"
    if world.name == state.previous:
        return "previous"
    if world.failed is not None:
        return "failed"
    return "kept" if world.proved else "not started yet"


def _departure(departure: Departure) -> Document:
    return {
        "at": departure.at,
        "world": departure.world,
        "failed": departure.failed,
        "generations": dict(departure.generations),
        "snapshots": dict(departure.snapshots),
        "counts": {name: dict(counts) for name, counts in departure.probes.items()},
    }


def diff(before: str, after: str, differences: Sequence[str]) -> Document:
    """`diff`: how the definition of one release differs from another's."""
    return {
        "schema": SCHEMA,
        "from": before,
        "to": after,
        "differences": list(differences),
    }
