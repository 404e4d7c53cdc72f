"""The facts of what happened, in words. Pure."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from typing import Any

from reconciler.config import Stack
from reconciler.notifications.notifysettings import Happening
from reconciler.notifications.wording import Story
from reconciler.plan import Move, Plan
from reconciler.planning.impact import size
from reconciler.records.ledger import Committed, Recovered, Reverted, State

Ended = Committed | Reverted | Recovered


def happenings(outcome: Ended) -> tuple[Happening, ...]:
    """What an outcome is, what says most about it first."""
    if isinstance(outcome, Recovered):
        return (Happening.RECOVERED,)
    if isinstance(outcome, Reverted):
        kinds = (Happening.QUARANTINED, Happening.REVERTED)
        return kinds if outcome.quarantine else kinds[1:]
    return (Happening.ROLLED_BACK if outcome.move == Move.BACK else Happening.COMMITTED,)


def begun(stack: Stack, plan: Plan, release: str, before: str, *, who: str, since: str) -> Story:
    """A switch that begins now."""
    going = "the way back" if plan.move is Move.BACK else "the switch"
    return Story(
        event=Happening.STARTED,
        title=f"{going} to {release} has begun",
        plain=f"{release} is being put into service",
        what=plan.says,
        who=who,
        since=since,
        expected=_about(plan.downtime_estimate_seconds),
        data="; ".join(_set_aside(d.name, d.set_aside) for d in plan.datasets.values()
                       if d.set_aside),
        back="lockstep undo   brings it back" if _sets_aside(plan) else "",
        release=release,
        before=before,
        **_place(stack),
    )  # fmt: skip


def ended(stack: Stack, state: State, outcome: Ended, *, description: str) -> Story:
    """A switch that has ended, however it did."""
    release = _release(state, outcome.to_world)
    before = _release(state, outcome.from_world)
    facts: dict[str, Any] = {
        "event": happenings(outcome)[0],
        "who": outcome.who,
        "since": outcome.started,
        "until": outcome.at,
        "expected": _about(outcome.expected_seconds),
        "measured": _seconds(outcome.downtime_seconds),
        "incident": f"releases/incidents/{outcome.incident}" if outcome.incident else "",
        "release": release,
        "before": before,
        **_place(stack),
    }
    if isinstance(outcome, Recovered):
        return Story(
            title=f"{release} was brought back",
            plain=f"{release} is in service again",
            what=f"{outcome.to_world} is live; {outcome.reason}",
            next="lockstep log   tells what there was before",
            **facts,
        )
    if isinstance(outcome, Reverted):
        return _reverted(outcome, release, before, facts)
    return _committed(outcome, release, before, description, facts)


def _committed(
    outcome: Committed, release: str, before: str, description: str, facts: Mapping[str, Any]
) -> Story:
    back = outcome.move == Move.BACK
    left = f" (before it: {before})" if before else ""
    kept = [f"{_names(outcome.sealed)} as {before} left it"] if outcome.sealed else []
    more = [f"more than now: {_set_aside(d, c)}" for d, c in outcome.set_aside.items()]
    return Story(
        title=f"rolled back to {release}" if back else f"{release} is live",
        plain=f"the service is back on {release}" if back else f"{release} is in service",
        what=f"{outcome.to_world} is live and proved{left}",
        why="; ".join(filter(None, (outcome.operator_reason, description))),
        data="; ".join([*kept, *more]),
        back=f"lockstep undo   goes back to {before}, with that data" if before else "",
        next="mend the cause, then   lockstep new   and   lockstep up" if back else "",
        **facts,
    )


def _reverted(outcome: Reverted, release: str, before: str, facts: Mapping[str, Any]) -> Story:
    how = "did not pass its proof" if outcome.quarantine else "could not be made live"
    now = f"{before} is live, with its own data" if before else "nothing is live"
    kept = outcome.sealed or outcome.snapshots
    again = (
        f"mend it and   lockstep new; or   lockstep config set retry {outcome.to_world}"
        if outcome.quarantine
        else "lockstep up   tries again"
    )
    return Story(
        title=f"{release} {how}; {now}",
        plain=f"{release} was taken back; {before or 'nothing'} is in service",
        what=f"{release} {how}; image, configuration and data were put back: {now}",
        why="; ".join(filter(None, (outcome.operator_reason, outcome.reason))),
        data=f"{_names(kept)} as {release} wrote it is kept in {outcome.to_world}" if kept else "",
        back=_given_back(outcome) if kept else "",
        next=again,
        **facts,
    )


def _given_back(outcome: Reverted) -> str:
    """Sealed generations are captured only after this is told."""
    show = f"lockstep incident show {outcome.incident}".rstrip()
    ways = [f"lockstep snapshot restore {s} ./{d}" for d, s in sorted(outcome.snapshots.items())]
    return "; ".join([*ways, f"{show}   names each snapshot and the command that brings it back"])


def failed(stack: Stack, state: State, release: str, what: str, *, next_step: str) -> Story:
    """Something that was asked for could not be done, and no switch was ended by it."""
    live = state.live_release
    return Story(
        event=Happening.FAILED,
        title=f"{release}: {what.splitlines()[0]}"[:200],
        plain=f"a change to {release} could not be carried out",
        what=f"{live} is live, as the ledger has it" if live else "nothing is live",
        why=what,
        next=next_step,
        release=release,
        before=live or "",
        **_place(stack),
    )


def damaged(stack: Stack, what: str, *, next_step: str) -> Story:
    """The store, a record or the ledger holds something else than was written."""
    return Story(
        event=Happening.DAMAGE,
        title=f"damage was found: {what.splitlines()[0]}"[:200],
        plain="a check of the kept data found damage; the service runs as before",
        what=what,
        next=next_step or "lockstep verify --read-data   tells all that is damaged",
        **_place(stack),
    )


def disk_low(stack: Stack, folder: str, free: int) -> Story:
    """A file system that data or snapshots are written to is nearly full."""
    limit = size(stack.settings.diskLow)
    return Story(
        event=Happening.DISK_LOW,
        title=f"the disk of {folder} is nearly full: {size(free)} free",
        plain="a disk of the server is nearly full; the service runs as before",
        what=f"{size(free)} are free where {folder} is; told below {limit} (config diskLow)",
        next="make room, or keep fewer releases (config window); a switch that finds too little "
        "refuses before anything stops",
        **_place(stack),
    )


def trial(stack: Stack, event: Happening) -> Story:
    """What `lockstep notify test` sends."""
    return Story(
        event=event,
        title="a test: notifications reach you",
        plain="a test: notifications reach you",
        what="nothing happened: somebody asked whether this reaches you",
        **_place(stack),
    )


def _place(stack: Stack) -> dict[str, str]:
    return {"project": stack.project, "stack": stack.name, "host": platform.node()}


def _release(state: State, world: str | None) -> str:
    known = state.worlds.get(world or "")
    return known.release if known else (world or "")


def _about(seconds: float | None) -> str:
    return f"about {seconds:.1f} s" if seconds else ""


def _seconds(seconds: float | None) -> str:
    return f"{seconds:.2f} s" if seconds is not None else ""


def _names(datasets: Mapping[str, str]) -> str:
    return ", ".join(f"{name} ({where})" for name, where in sorted(datasets.items()))


def _sets_aside(plan: Plan) -> bool:
    return any(d.set_aside for d in plan.datasets.values())


def _set_aside(dataset: str, counts: Mapping[str, int]) -> str:
    return f"{dataset}: {', '.join(f'{n} {what}' for what, n in sorted(counts.items()))}"
