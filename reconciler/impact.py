"""A Plan in the forms that people and programs read. Pure."""

from __future__ import annotations

from typing import Any

from reconciler.plan import DatasetPlan, Plan


def output(plan: Plan) -> dict[str, Any]:
    """The stack output `impact`: the same in short."""
    return {
        "says": plan.says,
        "datasets": {n: f"{d.action.value}: {_source(d)}" for n, d in plan.datasets.items()},
        "pruned": list(plan.prune),
    }


def lines(plan: Plan) -> list[str]:
    """The impact in plain lines, as Pulumi's diagnostics show it."""
    found = [plan.says]
    for planned in plan.datasets.values():
        found.append(f"  {planned.name}: {planned.action.value}, {_source(planned)}")
        if planned.set_aside:
            aside = ", ".join(f"{n} {what}" for what, n in sorted(planned.set_aside.items()))
            found.append(f"    set aside, about: {aside}; lockstep undo brings it back")
    if plan.downtime_estimate_seconds is not None and plan.from_world != plan.to_world:
        found.append(
            f"  downtime: about {plan.downtime_estimate_seconds:.1f} s ({plan.downtime_basis})"
        )
    if plan.disk.needed:
        found.append(f"  disk: {size(plan.disk.needed)} needed, {size(plan.disk.free)} free")
    found += [f"  {line}" for line in plan.hooks]
    if plan.prune:
        found.append(f"  leaves the window: {', '.join(plan.prune)}")
    return found


def _source(planned: DatasetPlan) -> str:
    text = planned.source_text
    if planned.age_seconds:
        text += f" {age(planned.age_seconds)} ago"
    if planned.bytes:
        text += f" ({size(planned.bytes)})"
    return text


def size(count: int) -> str:
    """Bytes for people: `12.3 MiB`."""
    amount = float(count)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if amount < 1024 or unit == "TiB":
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1024
    raise AssertionError("unreachable")


def age(seconds: float) -> str:
    """Seconds for people: `3 min`, `5 h`, `12 days`."""
    for limit, length, unit in ((90, 1, "s"), (5400, 60, "min"), (129600, 3600, "h")):
        if seconds < limit:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds / 86400:.0f} days"
