"""The history of a stack as rows: every switch, every release, every incident. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from typing import Any

from cli.documents import data_at_hand, image_bytes, release_of
from cli.report import words
from cli.report.material import Material
from reconciler.catalog import status
from reconciler.figures.metrics import duration, written
from reconciler.names import release_number
from reconciler.records.ledger import (
    Adopted,
    AnyEvent,
    Committed,
    Found,
    Recovered,
    Reverted,
    State,
    Stopped,
)
from reconciler.upkeep.verifybook import is_sound, of_release

LONGEST_REASON = 4000
"""Characters of a failure's text: a container's last words can be long."""
NEWEST = 5000
"""Switches in the page; `lockstep log` has all."""
MOST_NAMED = 12
"""Datasets of one switch, images and worlds of one release; of more their number."""
NEWEST_RELEASES = 500
"""Likewise; `lockstep list` has all."""


@dataclass(frozen=True)
class DataLine:
    """What one dataset got in a switch, and what it cost."""

    name: str
    action: str
    aside: str = ""
    left: str = ""
    """What was counted in the data that was left."""
    written: str = ""
    """What a world that was not proved had written."""


@dataclass(frozen=True)
class Entry:
    """One line of the history. `result` is committed, reverted, recovered, found, stopped or
    adopted."""

    seq: int
    at: datetime
    who: str
    move: str
    result: str
    before: str | None
    after: str | None
    why: str = ""
    more: str = ""
    asked: str = ""
    """Why, by who asked for it."""
    down: float | None = None
    expected: float | None = None
    took: float | None = None
    data: tuple[DataLine, ...] = ()
    more_data: int = 0
    """Datasets that are not named."""
    steps: tuple[tuple[str, float], ...] = ()
    gates: tuple[tuple[str, str], ...] = ()
    """(result, the gate's line) of each that was asked."""
    incident: str = ""
    world: str = ""


@dataclass(frozen=True)
class ReleaseRow:
    """One release that is still kept, with everything that speaks for and against it."""

    name: str
    status: str
    description: str
    created: datetime | None
    created_by: str
    commit: str
    dirty: bool
    parent: str | None
    image_bytes: int
    images: Mapping[str, str]
    reasons: tuple[str, ...]
    data: str
    """How its data would come back: live, attach, restore, gone; "" for one that left none."""
    data_counts: Mapping[str, str]
    worlds: tuple[str, ...]
    trouble: str = ""
    verified: datetime | None = None
    verified_how: str = ""
    sound: bool = True
    stale: bool = False
    """It was left again after it was verified."""
    drilled: datetime | None = None
    drill_passed: bool = True
    drill_seconds: float | None = None


def entries(material: Material) -> list[Entry]:
    """Everything that changed what runs, or was meant to; newest first."""
    state = material.state
    found = [e for seq, event in enumerate(material.events, 1) for e in _entry(state, seq, event)]
    return found[: -NEWEST - 1 : -1]


def _entry(state: State, seq: int, event: AnyEvent) -> Iterator[Entry]:
    at = words.moment(event.at)
    if at is None:
        return
    match event:
        case Committed() | Reverted() | Recovered():
            yield _outcome(state, seq, at, event)
        case Found():
            yield Entry(
                seq, at, event.who, "recover", "found", None, release_of(state, event.world),
                why=f"{event.found}; {event.done}", world=event.world,
            )  # fmt: skip
        case Stopped():
            yield Entry(seq, at, event.who, "stop", "stopped", None, None, why=event.reason)
        case Adopted():
            yield Entry(
                seq, at, event.who, "adopt", "adopted", None, event.release, world=event.world
            )


def _outcome(
    state: State, seq: int, at: datetime, outcome: Committed | Reverted | Recovered
) -> Entry:
    first, _, rest = outcome.reason[:LONGEST_REASON].partition("\n")
    failed = written(outcome)
    steps = list(outcome.steps.items())
    # What lost or wrote something before the others.
    changed = outcome.set_aside.keys() | failed.keys()
    named = sorted(outcome.datasets, key=lambda d: (d not in changed, d))[:MOST_NAMED]
    return Entry(
        seq=seq,
        at=at,
        who=outcome.who,
        move=outcome.move,
        result=outcome.kind,
        before=release_of(state, outcome.from_world),
        after=release_of(state, outcome.to_world),
        why=first,
        more=rest,
        asked=outcome.operator_reason,
        down=outcome.downtime_seconds,
        expected=outcome.expected_seconds,
        took=duration(outcome),
        data=tuple(
            DataLine(
                name,
                outcome.datasets[name],
                aside=words.counts(outcome.set_aside.get(name, {})),
                left=words.counts(outcome.probes.get(name, {})),
                written=words.counts(failed.get(name, {})),
            )
            for name in named
        ),
        more_data=len(outcome.datasets) - len(named),
        steps=tuple((name, round(then - begun, 3)) for (name, begun), (_, then) in pairwise(steps)),
        gates=tuple((str(gate.result), str(gate)) for gate in outcome.gates),
        incident=outcome.incident,
        world=outcome.to_world,
    )


def releases(material: Material) -> tuple[list[ReleaseRow], list[str]]:
    """(rows of releases that have a record, or should have one, newest first; those left out)."""
    names = sorted({*material.records, *material.damaged}, key=release_number, reverse=True)
    # All that are more than kept, and the newest.
    shown = {n for n in names if n in material.damaged or status(n, material.state) != "kept"}
    shown |= set(names[:NEWEST_RELEASES])
    left_out = [name for name in reversed(names) if name not in shown]
    return [_release(material, name) for name in names if name in shown], left_out


def pruned(state: State) -> list[str]:
    """Releases of which only the name is left, in order."""
    return sorted(set(state.pruned), key=release_number)


def _release(material: Material, name: str) -> ReleaseRow:
    state, record = material.state, material.records.get(name)
    left = [d for d in state.departures_of(name) if d.generations or d.snapshots]
    check, drill = of_release(material.checks, name), material.drills.get(name, {})
    verified = words.moment(check.when) if check else None
    last_left = words.moment(left[-1].at) if left else None
    failed = state.worlds.get(state.quarantined.get(name, ""))
    return ReleaseRow(
        name=name,
        status=status(name, state),
        description=record.description if record else "",
        created=words.moment(record.created) if record else None,
        created_by=record.created_by if record else "",
        commit=record.git.commit[:9] if record else "",
        dirty=bool(record and record.git.dirty),
        parent=record.parent if record else None,
        image_bytes=image_bytes(record) if record else 0,
        images={s: i.tag for s, i in sorted(record.images.items())} if record else {},
        reasons=material.kept.get(name, ()),
        data=data_at_hand(state, name) or "",
        data_counts=_counts(left[-1].probes) if left else {},
        worlds=tuple(world.name for world in state.worlds_of(name)),
        trouble=material.damaged.get(name, (failed.failed or "") if failed else ""),
        verified=verified,
        verified_how="every byte read" if check and check.read_data else "records and blocks",
        sound=check is None or is_sound(check, name),
        stale=bool(verified and last_left and verified < last_left),
        drilled=words.moment(str(drill.get("when", ""))),
        drill_passed=bool(drill.get("passed", True)),
        drill_seconds=_number(drill.get("seconds")),
    )


def _counts(probes: Mapping[str, Mapping[str, int]]) -> Mapping[str, str]:
    return {dataset: words.counts(counts) for dataset, counts in sorted(probes.items()) if counts}


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) else None


@dataclass(frozen=True)
class Incident:
    """An incident's folder and what its document says."""

    folder: str
    at: datetime | None
    kind: str
    release: str
    who: str
    reason: str
    asked: str
    remarks: tuple[str, ...]


def incidents(documents: Sequence[Mapping[str, Any]]) -> list[Incident]:
    """Newest first."""
    found = [
        Incident(
            folder=str(d.get("folder", "")),
            at=words.moment(str(d.get("at", ""))),
            kind=str(d.get("kind", "")),
            release=_released(d.get("subject")),
            who=str(d.get("who", "")),
            reason=str(d.get("reason", "")).partition("\n")[0][:LONGEST_REASON],
            asked=str(d.get("operator_reason", ""))[:LONGEST_REASON],
            remarks=tuple(_remark(remark) for remark in d.get("remarks", ())),
        )
        for d in documents
    ]
    return sorted(found, key=lambda i: i.folder, reverse=True)


def _remark(remark: Mapping[str, str]) -> str:
    at = words.moment(remark.get("at"))
    return (
        f"{words.when(at) if at else ''} {remark.get('who', '')}: {remark.get('text', '')}".strip()
    )


def _released(subject: Any) -> str:
    return str(subject.get("release", "")) if isinstance(subject, dict) else str(subject or "")
