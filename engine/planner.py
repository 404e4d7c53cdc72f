"""What to do about a resource: what is wanted and what was in, steps out. No I/O, no clock."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from .snapshot import Resource
from .values import UNKNOWN, Props, plain


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
    detailed: Mapping[str, Any] = field(default_factory=dict)


def decide(wanted: Resource, old: Resource | None, change: Change | None) -> tuple[Op, ...]:
    """The steps for one declared resource, in order.

    `change` is the provider's answer, None where it was not asked: there is nothing old, or the old
    object is already gone and only its replacement is missing.
    A replaced object that is created first is deleted at the end of the update, so there is no
    step for it here.
    """
    if old is None:
        return (Op.CREATE,)
    if old.pending_replacement:
        return (Op.REPLACE, Op.CREATE_REPLACEMENT)
    if change is None or not (change.changed or change.replaces):
        return (Op.SAME,)
    if not change.replaces:
        return (Op.UPDATE,)
    # The program's word counts more than the provider's.
    said = wanted.delete_before_replace
    if change.delete_first if said is None else said:
        return (Op.DELETE_REPLACED, Op.REPLACE, Op.CREATE_REPLACEMENT)
    return (Op.CREATE_REPLACEMENT, Op.REPLACE)


def replacing(change: Change, paths: Sequence[str]) -> Change:
    """The change with what replaceOnChanges adds; a provider that names no keys is not affected."""
    more = {k for k in change.keys for path in paths if path == "*" or _below(k, path)}
    return replace(change, replaces=tuple(sorted({*change.replaces, *more}))) if more else change


def _below(key: str, path: str) -> bool:
    return key == path or key.startswith((f"{path}.", f"{path}["))


def same_inputs(old: Props, new: Props) -> bool:
    """Whether a component's inputs are equal; becoming secret or plain is no change."""
    return bool(plain(old) == plain(new))


def keep_ignored(news: Props, olds: Props, paths: Iterable[str]) -> Props:
    """`news` with the old value at every path of ignoreChanges."""
    result = dict(news)
    for path in paths:
        head, _, tail = path.partition(".")
        old, new = olds.get(head), result.get(head)
        if path == "*":
            return dict(olds)
        if tail and isinstance(old, dict) and isinstance(new, dict):
            result[head] = keep_ignored(new, old, [tail])
        elif head in olds:
            result[head] = old
        else:
            result.pop(head, None)
    return result


def replaced_with(
    root: Resource, resources: Sequence[Resource], asks_replace: Callable[[Resource, Props], bool]
) -> list[Resource]:
    """What must go before `root` is deleted to be replaced, dependents first.

    Asked is each resource that takes a property from one that goes, with that property unknown; one
    that only stands in depends_on stays. Objects that an earlier run replaced and could not delete
    (delete: true) are not asked: whatever they stand on is going.
    """
    doomed = {root.urn}
    found: list[Resource] = []
    answers: dict[tuple[str, frozenset[str]], bool] = {}

    def goes(resource: Resource) -> bool:
        if resource.delete:
            return bool((resource.needs() - {resource.parent}) & doomed)
        # One that waits for its replacement is gone already, and so is what stood on it.
        if resource.urn in doomed or resource.pending_replacement or not resource.custom:
            return False
        takes = resource.property_dependencies.items()
        touched = frozenset(key for key, urns in takes if doomed & set(urns))
        if touched and (resource.urn, touched) not in answers:
            guess = {k: UNKNOWN if k in touched else v for k, v in resource.inputs.items()}
            answers[resource.urn, touched] = asks_replace(resource, guess)
        return bool(touched) and answers[resource.urn, touched]

    while True:
        more = []
        for resource in resources:
            if not any(resource is known for known in found) and goes(resource):
                doomed.add(resource.urn)
                found.append(resource)
                more.append(resource)
        # A replaced object stands after its successor's dependents: they are looked at again.
        if not any(resource.delete for resource in more):
            ordered = waves([(Op.DELETE_REPLACED, resource) for resource in found])
            return [resource for wave in ordered for _, resource in wave]


def condemned(earlier: Sequence[Resource], declared: set[str]) -> list[tuple[Op, Resource]]:
    """What goes at the end of an update: replaced objects, and what is no longer declared.

    `earlier` is what the run did not settle; `declared` are the URNs that it met.
    """

    def kind(resource: Resource) -> Op:
        if resource.pending_replacement:
            return Op.FORGET_REPLACED
        return Op.DELETE_REPLACED if resource.delete else Op.DELETE

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
