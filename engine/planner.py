"""What to do about a resource: what is wanted and what was in, steps out. No I/O, no clock."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from . import paths
from .snapshot import Resource
from .values import UNKNOWN, Props


class Op(StrEnum):
    """Kinds of steps, by Pulumi's names."""

    SAME = "same"
    CREATE = "create"
    UPDATE = "update"
    DELETE = "delete"
    REPLACE = "replace"
    CREATE_REPLACEMENT = "create-replacement"
    DELETE_REPLACED = "delete-replaced"
    FORGET_REPLACED = "remove-pending-replace"
    REFRESH = "refresh"


@dataclass(frozen=True)
class Change:
    """A provider's answer to how its resource differs from what is wanted."""

    changed: bool = False
    replaces: tuple[str, ...] = ()
    delete_first: bool = False
    keys: tuple[str, ...] = ()
    detailed: dict[str, Any] | None = None  # {path: how it differs}, of providers that tell


UNCHANGED = Change()


def decide(old: Resource | None, change: Change | None) -> Op:
    """What happens to a declared resource: SAME, CREATE, UPDATE or REPLACE. `change` is the
    provider's answer, None where there is nothing old."""
    if old is None or change is None:
        return Op.CREATE
    if change.replaces or old.pending_replacement:
        return Op.REPLACE
    return Op.UPDATE if change.changed else Op.SAME


def deletes_first(wanted: Resource, change: Change) -> bool:
    """Whether a replacement begins with the deletion. The program's word counts more than the
    provider's."""
    said = wanted.delete_before_replace
    return change.delete_first if said is None else said


def replacing(change: Change, on_changes: Sequence[str]) -> Change:
    """The change with what replaceOnChanges adds; a provider that names no keys is not affected."""
    more = {key for key in change.keys if paths.replaces(key, on_changes)}
    if not more or not change.changed:
        return change
    return replace(change, replaces=tuple(sorted({*change.replaces, *more})))


def dependents(
    roots: Iterable[str],
    resources: Sequence[Resource],
    ignore: Container[str] = (),
    children: bool = False,
) -> list[Resource]:
    """What of `resources`, which are in order of dependency, stands on one of the roots (URNs),
    directly or not."""
    urns, found = set(roots), []
    for resource in resources:
        needs = resource.needs(parent=children)
        if resource.urn not in ignore and needs & urns:
            urns.add(resource.urn)
            found.append(resource)
    return found


def replaced_with(
    root: Resource,
    resources: Sequence[Resource],
    settled: Container[str],
    ask: Callable[[Resource, Props], Change],
) -> list[tuple[Resource, tuple[str, ...]]]:
    """What must go before `root` is deleted to be replaced, dependents first, with the keys that
    ask for it.

    Asked is each resource that takes a property from one that goes, with that property unknown; one
    that only stands in depends_on stays. `settled` are the URNs that this run has planned: they
    cannot stand on what is planned now, whatever they did before.
    """
    doomed = {root.urn}
    found: list[tuple[Resource, tuple[str, ...]]] = []
    later = resources[[r is root for r in resources].index(True) + 1 :]
    for resource in dependents([root.urn], later, settled):
        if not resource.custom:
            continue
        if resource.provider.rpartition("::")[0] in doomed:
            doomed.add(resource.urn)
            found.append((resource, ()))
            continue
        takes = resource.property_dependencies.items()
        touched = {k for k, urns in takes if k in resource.inputs and doomed & set(urns)}
        if not touched:
            continue
        guess = {k: UNKNOWN if k in touched else v for k, v in resource.inputs.items()}
        change = replacing(ask(resource, guess), resource.replace_on_changes)
        if change.replaces:
            doomed.add(resource.urn)
            found.append((resource, change.replaces))
    return found[::-1]


def condemned(earlier: Sequence[Resource], declared: set[str]) -> list[tuple[Op, Resource]]:
    """What goes at the end of an update: replaced objects, and what is no longer declared.

    `earlier` is what the run did not settle; `declared` are the URNs that it met.
    """

    def kind(resource: Resource) -> Op:
        if resource.delete:
            return Op.DELETE_REPLACED
        return Op.FORGET_REPLACED if resource.pending_replacement else Op.DELETE

    return [(kind(r), r) for r in reversed(earlier) if r.delete or r.urn not in declared]


def waves(doomed: Sequence[tuple[Op, Resource]]) -> list[list[tuple[Op, Resource]]]:
    """The deletions in groups: within one they may run beside each other, and everything that
    depends on a resource is in an earlier group than it is."""
    left = list(doomed)
    found: list[list[tuple[Op, Resource]]] = []
    while left:
        urns = {r.urn for _, r in left}
        free = [(op, r) for op, r in left if not (r.needs() - {r.urn}) & urns]
        # A cycle cannot come from the SDK; a damaged state must not hang us.
        free = free or left
        found.append(free)
        left = [item for item in left if not any(item[1] is r for _, r in free)]
    return found[::-1]


def needed_by(resource: Resource, resources: Sequence[Resource]) -> set[str]:
    """URNs of everything that a resource stands on, directly or not."""
    found, more = set(), resource.needs()
    while more:
        found |= more
        more = {u for r in resources if r.urn in more for u in r.needs()} - found
    return found
