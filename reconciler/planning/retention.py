"""Which releases are kept, each with its reasons, and which snapshots they need. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from datetime import datetime

from reconciler import names
from reconciler.config import Window
from reconciler.plan import Kept
from reconciler.records.ledger import Departure, State


def retain(
    window: Window,
    releases: Collection[str],
    state: State,
    *,
    live: str | None,
    previous: str | None,
    unfinished: Collection[str],
    now: float,
) -> tuple[tuple[Kept, ...], tuple[str, ...]]:
    """(kept with reasons, pruned): a partition of `releases`, both in order of their numbers.

    `live` and `previous` are releases as they will be after the move. `now` is in seconds since
    the epoch. Kept is a union: one reason is enough.
    """
    now = _surely_past(state, now)
    reasons: dict[str, list[str]] = {r: [] for r in sorted(releases, key=names.release_number)}

    def keep(release: str | None, reason: str) -> None:
        if release in reasons and reason not in reasons[release]:
            reasons[release].append(reason)

    keep(live, "live")
    if previous != live:
        keep(previous, "previous")
    were_live = {r: None for r in reasons if state.was_live(r) or r == live}
    in_window = list(were_live)[-window.last :]
    for release in in_window:
        keep(release, f"one of the last {window.last} that were live")
    for release in were_live:
        if window.days and now - _last_live(state, release, now) <= window.days * 86400:
            keep(release, f"live within the last {window.days} days")
    for release in window.pinned:
        keep(release, "pinned")
    for release in unfinished:
        keep(release, "unfinished work")
    oldest = names.release_number(in_window[0]) if in_window else 0
    for release in reasons:
        if release in were_live or names.release_number(release) < oldest:
            continue
        failed = release in state.quarantined
        keep(release, "failed, not older than the window" if failed else "not live yet")
    kept = tuple(Kept(r, tuple(why)) for r, why in reasons.items() if why)
    return kept, tuple(r for r, why in reasons.items() if not why)


def as_it_stands(
    window: Window, releases: Collection[str], state: State, now: float
) -> dict[str, tuple[str, ...]]:
    """release -> its reasons, of those that are kept while nothing moves."""
    previous = state.worlds[state.previous].release if state.previous else None
    kept, _ = retain(
        window,
        releases,
        state,
        live=state.live_release,
        previous=previous,
        unfinished=(),
        now=now,
    )
    return {k.release: k.reasons for k in kept}


def needed_snapshots(state: State, keep: Collection[str]) -> set[str]:
    """Snapshots that releases in `keep` reference: their departures and their arrivals."""
    arrived = {
        seq
        for seq, outcome in state.outcomes
        if outcome.kind == "committed" and state.worlds[outcome.to_world].release in keep
    }
    departures = [
        *(d for d in state.departures if d.release in keep or d.seq in arrived),
        *(d for release, d in state.brought.items() if release in keep),
    ]
    return {snapshot for d in departures for snapshot in d.snapshots.values()}


def arrivals(state: State, release: str) -> Mapping[int, Departure]:
    """Each commit that made the release live, by seq, and what was left for it then; of an imported
    one first what it started from where it was before."""
    return {left.seq: left for arrived, left in all_arrivals(state) if arrived == release}


def all_arrivals(state: State) -> Iterator[tuple[str, Departure]]:
    """(release, what it started from), in order; what was imported first."""
    yield from state.brought.items()
    for seq, outcome in state.outcomes:
        left = state.departure_at(seq)
        if outcome.kind == "committed" and left is not None:
            yield state.worlds[outcome.to_world].release, left


def _surely_past(state: State, now: float) -> float:
    """The time of the newest switch, by which ages are told: a clock that jumps ahead would make
    everything old at once, and what is deleted for it does not come back with the clock."""
    times = [datetime.fromisoformat(o.at).timestamp() for _, o in state.outcomes]
    return max((t for t in times if t <= now), default=now)


def _last_live(state: State, release: str, now: float) -> float:
    times = [datetime.fromisoformat(d.at).timestamp() for d in state.departures_of(release)]
    return max(times) if times else now
