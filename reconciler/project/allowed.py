"""Dangers in a stack's compose files and records, against what its config allows."""

from __future__ import annotations

import os

from reconciler.config import Stack
from reconciler.errors import Refused
from reconciler.project import compose, dangers, lines
from reconciler.project.dangers import Danger
from reconciler.records.release import Release


def insist_on_files(stack: Stack, model: compose.Model) -> None:
    """Raises Refused, with service, file and line, where the compose files ask for what the
    config does not allow."""
    found = _refused(stack, model)
    if found:
        raise Refused(
            "\n".join(f"service {d.service} {d.what}{_place(stack, d)}" for d in found),
            next_step=_next_step(stack, found),
        )


def insist_on_record(stack: Stack, release: Release) -> None:
    """The same for a world that is about to be made: links may have changed since the record."""
    found = [d for d in _refused(stack, release.model) if d.place != "build"]
    if found and not release.adopted:
        raise Refused(
            "\n".join(f"service {d.service} of {release.name} {d.what}" for d in found),
            next_step=_next_step(stack, found),
        )


def own_folders(stack: Stack) -> tuple[str, ...]:
    """Where the stack's state lies, which no container may see."""
    folders = (stack.releases, stack.store, stack.root / ".lockstep", stack.root / ".pulumi")
    return tuple(str(folder) for folder in folders)


def _refused(stack: Stack, model: compose.Model) -> list[Danger]:
    found = dangers.find(model, own=own_folders(stack), resolve=os.path.realpath)
    return dangers.refused(found, stack.settings.allow)


def _next_step(stack: Stack, found: list[Danger]) -> str:
    commands = dangers.remedy(found, stack.settings.allow)
    return f"take it out of the compose file, or, if it is meant:\n  {commands}"


def _place(stack: Stack, danger: Danger) -> str:
    wanted = danger.key.partition(":")[2]
    return lines.place(stack, "services", danger.service, danger.place, holding=wanted)
