"""Early start: which services of the target world can run while the old one still does."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from reconciler.plan import Action, DatasetPlan
from reconciler.project.compose import not_early
from reconciler.records.release import Release
from reconciler.world.hostworld import HostWorld


def early(
    coming: HostWorld, old: HostWorld, planned: Iterable[DatasetPlan], record: Release
) -> frozenset[str]:
    """Services whose data is complete, that hold nothing which the old world holds, and that
    need no service which comes later."""
    behind = {s.name: len(s.behind) for s in coming.services.values()}
    candidates = coming.only(coming.services.keys() - not_early(record.model, behind).keys())
    found = set(independent(candidates, old, unsettled(planned)))
    while True:
        waiting = {
            name
            for name in found
            if any(n in coming.services and n not in found for n in coming.services[name].needs)
        }
        if not waiting:
            return frozenset(found)
        found -= waiting


def unsettled(planned: Iterable[DatasetPlan]) -> frozenset[str]:
    """Volumes and host paths whose content is not what it must be before the old world stops."""
    return frozenset(
        place
        for p in planned
        if p.action in (Action.FORK, Action.IN_PLACE, Action.LEAVE)
        for place in (p.generation, p.source or p.generation)
    )


def independent(
    coming: HostWorld, leaving: HostWorld | None, unsettled: Collection[str]
) -> frozenset[str]:
    """Services of `coming` that can run while `leaving` still does, but for their ports.

    A service without data of its own counts only when it waits for one that counts: it could not
    do anything before.
    """
    taken = set(unsettled)
    networks: set[str] = set()
    for service in leaving.services.values() if leaving else ():
        taken |= service.writes
        networks |= service.networks
    candidates = {
        s.name
        for s in coming.services.values()
        if not s.on_host_network
        and not any(s.mounts(place) for place in taken)
        and not s.networks & networks
        and (s.writes or s.needs)
    }
    found: set[str] = set()
    while True:
        more = {
            name
            for name in candidates - found
            if all(n in found or n not in coming.services for n in coming.services[name].needs)
        }
        if not more:
            return frozenset(found)
        found |= more
