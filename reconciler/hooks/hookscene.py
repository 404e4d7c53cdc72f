"""What a hook is told, and which hooks there are. Pure but for looking up addresses."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from reconciler.catalog import Catalog
from reconciler.config import Settings, Stack
from reconciler.docker import PROJECT, Docker
from reconciler.hooks.hooktable import PLACES, At, Side
from reconciler.project import compose
from reconciler.records.ledger import World
from reconciler.records.release import Release
from reconciler.setting import Hooks

if TYPE_CHECKING:
    from reconciler.hooks.hooksettings import Hook

SCHEMA = 1


@dataclass(frozen=True)
class Declared:
    """A hook with its name, and the service or dataset that it is of."""

    name: str
    hook: Hook
    service: str = ""
    dataset: str = ""

    @property
    def of(self) -> str:
        return self.service or self.dataset


@dataclass(frozen=True)
class Scene:
    """Where hooks run: both worlds of a move, as far as there are two."""

    stack: Stack
    catalog: Catalog
    docker: Docker
    move: str
    started: str
    """UTC; with the world it names the log."""
    old: World | None
    new: World | None
    old_record: Release | None
    new_record: Release | None
    actions: Mapping[str, str] = field(default_factory=dict)
    """dataset -> action."""
    sources: Mapping[str, str] = field(default_factory=dict)
    """dataset -> its volume or folder where it has no generation."""
    old_ran: Callable[[], bool] = lambda: True
    """Whether any container of the old world ran when the move began."""
    rehearsed: Callable[[], Mapping[str, Any]] | None = None
    """In a rehearsal: the compose model of its world, for one-off containers."""

    def world(self, side: Side) -> World | None:
        return self.old if side is Side.OLD else self.new

    def record(self, side: Side) -> Release | None:
        return self.old_record if side is Side.OLD else self.new_record


def declared(settings: Settings, record: Release | None) -> list[Declared]:
    """Every hook that the config and a release's compose file declare; the config's word counts
    where both name one. Raises BadInput."""
    found = {(d.name, d.of): d for d in _noted(record.model)} if record is not None else {}
    for name, hook in _parsed(settings.hooks).items():
        made = Declared(name, hook, hook.service or "", hook.dataset or "")
        found[name, made.of] = made
    return sorted(found.values(), key=lambda d: (d.hook.order, d.name, d.of))


def _noted(model: compose.Model) -> Iterator[Declared]:
    """Those of the compose file, whose notes are read only where one is."""
    if _has(model):
        for name, hook in _parsed(compose.top_note(model).hooks).items():
            yield Declared(name, hook)
    for service, body in compose.services(model).items():
        if _has(body):
            for name, hook in _parsed(compose.service_note(model, service).hooks).items():
                yield Declared(name, hook, service=service)
    for volume, body in (model.get("volumes") or {}).items():
        if _has(body or {}):
            for name, hook in _parsed(compose.volume_note(model, volume).hooks).items():
                yield Declared(name, hook, dataset=volume)


def _parsed(hooks: Hooks) -> dict[str, Hook]:
    if not hooks:
        return {}
    from reconciler.hooks.hooksettings import parsed

    return parsed(hooks)


def _has(body: Mapping[str, Any]) -> bool:
    return "hooks" in (body.get(compose.NOTE) or {})


def due(scene: Scene, found: Sequence[Declared], at: At) -> list[Declared]:
    """Those that run at this place in this move, in order."""
    side = PLACES[at].side
    if scene.world(side) is None:
        return []
    meant = [d for d in found if at in d.hook.at and _applies(scene, d)]
    if side is Side.NEW or scene.old_ran():
        return meant
    # What stood still already is not stopped, and cannot be worked in.
    return [d for d in meant if at.phase != "stop" and not (d.hook.in_world or d.hook.run)]


def due_in(scene: Scene) -> list[tuple[At, Declared]]:
    """All that run in this move, in order. Raises BadInput."""
    settings = scene.stack.settings
    found = {side: declared(settings, scene.record(side)) for side in Side}
    return [(at, d) for at in At for d in due(scene, found[PLACES[at].side], at)]


def _applies(scene: Scene, declared: Declared) -> bool:
    hook = declared.hook
    if hook.moves and scene.move not in hook.moves:
        return False
    of = [declared.dataset] if declared.dataset else list(scene.actions)
    return not hook.actions or any(scene.actions.get(name) in hook.actions for name in of)


def problems(found: list[Declared], record: Release, secrets: Mapping[str, str]) -> Iterator[str]:
    """What keeps a release's hooks from being run, whatever happens."""
    services = compose.services(record.model)
    for declared in found:
        hook, who = declared.hook, f"hook {declared.name}"
        if hook.incomplete:
            yield f"{who} does not say {hook.incomplete}"
            continue
        if declared.service and declared.service not in services:
            yield f"{who} is of service {declared.service}, which {record.name} does not have"
        if declared.dataset and declared.dataset not in record.datasets:
            yield f"{who} is of dataset {declared.dataset}, which {record.name} does not have"
        works_in = hook.container_of(declared.service)
        if (hook.in_world or hook.run is not None) and works_in not in services:
            yield (
                f"{who} works in a container of service {works_in}, which {record.name} does not "
                "have"
                if works_in
                else f"{who} does not say in a container of which service it works"
            )
        unknown = sorted({*hook.secrets, *_in_headers(hook)} - secrets.keys())
        if unknown:
            yield f"{who} needs secret {unknown[0]}, which is not in the stack's config"


def _in_headers(hook: Hook) -> set[str]:
    from string import Template

    headers = hook.http.headers.values() if hook.http is not None else ()
    return {name for value in headers for name in Template(value).get_identifiers()}


def facts(
    scene: Scene, declared: Declared, at: At, *, dry: bool = False, reason: str = "", of: str = ""
) -> str:
    """The JSON document that a hook reads from its standard input (schema in docs/hooks.md)."""
    side = declared.hook.side(at)
    world = scene.world(side)
    dataset = declared.dataset or None
    return json.dumps(
        {
            "schema": SCHEMA,
            "hook": declared.name,
            "at": at,
            "phase": at.phase,
            "dry": dry,
            "rehearsal": scene.rehearsed is not None,
            "project": scene.stack.project,
            "stack": scene.stack.name,
            "move": scene.move,
            "release": scene.new.release if scene.new else None,
            "from_release": scene.old.release if scene.old else None,
            "world": world.name if world else None,
            "from_world": scene.old.name if scene.old else None,
            "to_world": scene.new.name if scene.new else None,
            "service": declared.service or None,
            "dataset": dataset,
            "action": scene.actions.get(dataset) if dataset else None,
            "generation": _place(scene, world, dataset) if dataset else None,
            "generations": dict(world.generations) if world else {},
            "pruned": of or None,
            "addresses": _addresses(scene, world) if world else {},
            "reason": reason or None,
            "started": scene.started,
            "secrets": {n: scene.stack.secret_values[n] for n in declared.hook.secrets},
        }
    )


def _place(scene: Scene, world: World | None, dataset: str) -> str | None:
    own = world.generations.get(dataset) if world else None
    return own or scene.sources.get(dataset)


def _addresses(scene: Scene, world: World) -> dict[str, list[str]]:
    """service -> the addresses of its containers that run now."""
    found: dict[str, list[str]] = {}
    for listed in scene.docker.listing(running=True, labels=[f"{PROJECT}={world.name}"]):
        seen = scene.docker.inspect(listed.id)
        found.setdefault(seen.service, []).extend(a for a in seen.addresses.values() if a)
    return found
