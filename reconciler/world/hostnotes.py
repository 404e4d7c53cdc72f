"""What one stack did to data that others use, written where everybody sees it who uses that data:
in Docker itself, as the labels of an empty volume. So it needs no folder that all users of a host
may write, and it is there through any way of reaching the daemon."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from reconciler.catalog import Catalog, write_durably
from reconciler.config import Stack
from reconciler.docker import HELD, OUR_PROJECT, OUR_STACK, Docker, VolumeInfo
from reconciler.facts import Restored

_RESTORED = "lockstep.restored"
_AT, _BY, _SAFETY = "lockstep.at", "lockstep.by", "lockstep.safety"


def write_restored(docker: Docker, stack: Stack, place: str, *, at: str, safety: str) -> None:
    """Write down that the stack put the content of a volume or path back; the same again is the
    same."""
    labels = {_RESTORED: place, _AT: at, _BY: _name(stack), _SAFETY: safety}
    digest = hashlib.sha256("\0".join(labels.values()).encode()).hexdigest()[:16]
    ours = {OUR_PROJECT: stack.project, OUR_STACK: stack.name}
    docker.create_volume(f"lockstep-restored-{digest}", {**labels, **ours}, options=HELD)


def restored(
    volumes: Mapping[str, VolumeInfo], places: Collection[str], stack: Stack
) -> tuple[Restored, ...]:
    """The notes of other stacks on these places, oldest first. Pure."""
    found = [
        Restored(name, v.labels[_RESTORED], v.labels[_AT], v.labels[_BY], v.labels[_SAFETY])
        for name, v in volumes.items()
        if v.labels.get(_RESTORED) in places and v.labels.get(_BY) != _name(stack)
    ]
    return tuple(sorted(found, key=lambda note: note.at))


def seen(catalog: Catalog) -> frozenset[str]:
    """Names of the notes that a switch of this stack was shown before it."""
    with suppress(OSError, ValueError):
        return frozenset(json.loads(_seen(catalog).read_bytes()))
    return frozenset()


def mark_seen(catalog: Catalog, notes: Iterable[Restored]) -> None:
    """These are no news any more."""
    known = seen(catalog)
    names = known | {note.name for note in notes}
    if names > known:
        write_durably(_seen(catalog), json.dumps(sorted(names)).encode())


def _seen(catalog: Catalog) -> Path:
    return catalog.root / f"notes-{catalog.stack.name}.json"


def _name(stack: Stack) -> str:
    return f"{stack.project}/{stack.name}"
