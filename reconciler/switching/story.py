"""A switch that was reverted, told as a story: what failed, what was put back, what to do. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime

from reconciler.gates.results import GateResult, Result
from reconciler.records.ledger import Reverted, State

_MOST_COUNTS = 8
_WRITES_BESIDE = ("fork", "in-place")
"""Actions after which the new world began with what the old one had."""


@dataclass(frozen=True)
class Story:
    """One failure. `parts`: what each part is about -> its lines."""

    title: str
    parts: Mapping[str, tuple[str, ...]]

    def lines(self) -> Iterator[str]:
        """As it is printed: the title, then each part with its name before its first line."""
        yield self.title
        width = max(map(len, self.parts), default=0)
        for name, told in self.parts.items():
            for number, line in enumerate(told):
                yield f"  {name if number == 0 else '':<{width}}  {line}"


def last(state: State, release: str | None = None) -> Story | None:
    """Of the newest switch, to this release if one is named; None if it was not reverted."""
    for seq, outcome in reversed(state.outcomes):
        if release in (None, _release(state, outcome.to_world)):
            return tell(state, seq, outcome) if isinstance(outcome, Reverted) else None
    return None


def tell(state: State, seq: int, outcome: Reverted) -> Story:
    """The story of one reverted switch, as far as the ledger knows it now."""
    release = _release(state, outcome.to_world)
    how = "did not pass its proof" if outcome.quarantine else "could not be made live"
    parts = {
        "what failed": _what_failed(outcome),
        "it said last": _last_words(outcome),
        "other gates": _other_gates(outcome),
        "put back": _put_back(state, outcome),
        "what it wrote": _written(state, seq, outcome),
        "evidence": _evidence(state, outcome),
        "next": _next(state, outcome),
    }
    told = {name: tuple(lines) for name, lines in parts.items()}
    return Story(f"{release} {how}", {name: lines for name, lines in told.items() if lines})


def _what_failed(outcome: Reverted) -> Iterator[str]:
    failed = [g for g in outcome.gates if g.means == "fail"]
    if not failed:
        yield outcome.reason.partition("\n")[0]
    for gate in failed:
        # What is no gate says itself what it is.
        yield gate.said if gate.kind in ("ready", "data") else f"{_named(gate)}: {gate.said}"
        times = f", {gate.tries} tries" if gate.tries > 1 else ""
        if gate.since:
            yield f"since {_clock(gate.since)}, for {gate.seconds:.1f} s{times}"
        if gate.excerpt:
            yield f"it answered: {gate.excerpt.splitlines()[0]}"


def _last_words(outcome: Reverted) -> Iterator[str]:
    logs = [gate.log for gate in outcome.gates if gate.means == "fail" and gate.log]
    if logs:
        yield from logs[0]
    elif not any(gate.means == "fail" for gate in outcome.gates):
        yield from (line.strip() for line in outcome.reason.splitlines()[1:])


def _other_gates(outcome: Reverted) -> Iterator[str]:
    for gate in outcome.gates:
        if gate.means != "fail" and gate.result is not Result.PASSED:
            yield f"{_named(gate)} {gate.result}: {gate.said}"
    passed = [gate for gate in outcome.gates if gate.result is Result.PASSED]
    if passed:
        yield f"{len(passed)} passed: {', '.join(map(_named, passed))}"


def _put_back(state: State, outcome: Reverted) -> Iterator[str]:
    if outcome.from_world is None:
        yield "nothing was live before, and nothing is live now"
        return
    old = _release(state, outcome.from_world)
    unproved = outcome.reason.rpartition("; ")[2]
    if "but not proved" in unproved:
        yield unproved
    else:
        down = outcome.downtime_seconds
        stood = "" if down is None else f"; nobody was served for {down:.1f} s"
        yield f"{old} is live again{stood}"
    by_action: dict[str, list[str]] = {}
    for name, action in sorted(outcome.datasets.items()):
        by_action.setdefault(action, []).append(name)
    if changed := by_action.get("in-place"):
        yield f"{', '.join(changed)}: changed in place, put back as it was"
    if left := by_action.get("leave"):
        yield f"{', '.join(left)}: shared, stays as others and the failed world left it"
    apart = [n for a, names in by_action.items() if a not in ("in-place", "leave") for n in names]
    if apart:
        yield f"{', '.join(sorted(apart))}: never touched, the failed world had its own"


def _written(state: State, seq: int, outcome: Reverted) -> Iterator[str]:
    """What the failed world counted that the old one had not, and where it is kept."""
    if not outcome.touched:
        yield "nothing: none of its containers ran"
        return
    departure = state.departure_at(seq)
    for name, action in sorted(outcome.datasets.items()):
        generation = outcome.sealed.get(name)
        snapshot = (departure.snapshots if departure else outcome.snapshots).get(name)
        kept = [f"generation {generation}"] if generation else []
        kept += [f"snapshot {snapshot[:12]}"] if snapshot else []
        counts = outcome.written.get(name, {})
        told = _difference(outcome.probes.get(name, {}), counts, known=action in _WRITES_BESIDE)
        if told or kept:
            where = f"; kept as {' and '.join(kept)}" if kept else ""
            yield f"{name}: {told or 'not counted'}{where}"


def _difference(before: Mapping[str, int], now: Mapping[str, int], *, known: bool) -> str:
    """`orders 12 -> 15, items 3 -> 0`; `known`: it began with what was counted before."""
    if not now:
        return ""
    if not known or not before:
        return ", ".join(f"{what} {count}" for what, count in list(now.items())[:_MOST_COUNTS])
    changed = [
        f"{what} {before.get(what, 0)} -> {now.get(what, 0)}"
        for what in {**before, **now}
        if before.get(what, 0) != now.get(what, 0)
    ]
    more = f" and {len(changed) - _MOST_COUNTS} more" if len(changed) > _MOST_COUNTS else ""
    return (", ".join(changed[:_MOST_COUNTS]) + more) or "nothing that is counted"


def _evidence(state: State, outcome: Reverted) -> Iterator[str]:
    if outcome.incident:
        yield f"lockstep incident show {outcome.incident}"
    failed = state.worlds.get(outcome.to_world)
    if failed is not None and outcome.touched and not failed.removed:
        yield f"docker compose -p {failed.name} logs   its containers are kept, stopped"


def _next(state: State, outcome: Reverted) -> Iterator[str]:
    release = _release(state, outcome.to_world)
    if release == state.live_release:
        return
    if not outcome.quarantine:
        yield "lockstep up   tries again: the release itself was not at fault"
    elif state.quarantined.get(release) == outcome.to_world:
        yield "mend it, then   lockstep new   and   lockstep up"
        yield "or, where the fault lay outside of the release:"
        yield f"   lockstep config set retry {outcome.to_world}"
    else:
        return
    if state.live_release is not None:
        yield f"or declare what runs:   lockstep config set release {state.live_release}"


def _named(gate: GateResult) -> str:
    what = f"{gate.gate} of {gate.service}" if gate.service else gate.gate
    return what if gate.kind == "hook" else f"gate {what}"


def _clock(at: str) -> str:
    return f"{datetime.fromisoformat(at):%H:%M:%S} UTC"


def _release(state: State, world: str) -> str:
    known = state.worlds.get(world)
    return known.release if known else world
