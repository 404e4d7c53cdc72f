"""The resources of a stack as they are known: one entry each, in order of dependency."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from .errors import EngineError, NotInEngine
from .values import Props, from_state, to_state

VERSION = "3.260.0"
STACK_TYPE = "pulumi:pulumi:Stack"
PROVIDER_PREFIX = "pulumi:providers:"
Crypt = Callable[[str], str]

# Entries with these need behaviour that is not here: acting on them would do the wrong thing.
REFUSED = {
    "external": "a resource that is only read",
    "deletedWith": "the option deletedWith",
    "replaceWith": "the option replaceWith",
    "taint": "a tainted resource",
    "viewOf": "a view of a resource",
    "initErrors": "a partly initialised resource",
}
# state file name -> attribute; those whose value is falsy are left out of the file.
_FIELDS = {
    "delete": "delete",
    "id": "id",
    "type": "type",
    "inputs": "inputs",
    "outputs": "outputs",
    "parent": "parent",
    "protect": "protect",
    "dependencies": "dependencies",
    "provider": "provider",
    "propertyDependencies": "property_dependencies",
    "pendingReplacement": "pending_replacement",
    "additionalSecretOutputs": "secret_outputs",
    "retainOnDelete": "retain_on_delete",
    "created": "created",
    "modified": "modified",
    "sourcePosition": "source_position",
    "ignoreChanges": "ignore_changes",
    "replaceOnChanges": "replace_on_changes",
    "hideDiff": "hide_diffs",
    "resourceHooks": "hooks",
}


@dataclass(eq=False)
class Resource:
    """One entry: what was declared (inputs) and what is there (id, outputs)."""

    urn: str
    type: str
    custom: bool
    id: str = ""
    inputs: Props = field(default_factory=dict)
    outputs: Props = field(default_factory=dict)
    parent: str = ""
    dependencies: list[str] = field(default_factory=list)
    property_dependencies: dict[str, list[str]] = field(default_factory=dict)
    provider: str = ""
    delete: bool = False
    pending_replacement: bool = False
    protect: bool = False
    retain_on_delete: bool = False
    secret_outputs: list[str] = field(default_factory=list)
    ignore_changes: list[str] = field(default_factory=list)
    replace_on_changes: list[str] = field(default_factory=list)
    hide_diffs: list[str] = field(default_factory=list)
    hooks: dict[str, list[str]] = field(default_factory=dict)
    created: str = ""
    modified: str = ""
    source_position: str = ""
    rest: dict[str, Any] = field(default_factory=dict, repr=False)
    # Only of a resource as the program declares it; the file does not have these.
    version: str = ""
    delete_before_replace: bool | None = None

    @property
    def name(self) -> str:
        return self.urn.rpartition("::")[2]

    @property
    def is_provider(self) -> bool:
        return self.type.startswith(PROVIDER_PREFIX)

    @property
    def is_default_provider(self) -> bool:
        """Whether the engine made it by itself; those are not counted."""
        return self.is_provider and self.name.startswith("default")

    def needs(self, parent: bool = True) -> set[str]:
        """URNs that must exist as long as this resource does."""
        found = {self.provider.rpartition("::")[0], *self.dependencies}
        found |= {self.parent} if parent else set()
        for urns in self.property_dependencies.values():
            found.update(urns)
        return found - {""}

    def write(self, spell: Callable[[Any], Any]) -> dict[str, Any]:
        """The entry as it stands in the state file; `spell` writes the properties."""
        out: dict[str, Any] = {"urn": self.urn, "custom": self.custom}
        for key, attribute in _FIELDS.items():
            value = getattr(self, attribute)
            if value:
                out[key] = spell(value) if key in ("inputs", "outputs") else value
        return {**out, **self.rest}

    @classmethod
    def read(cls, entry: dict[str, Any], decrypt: Crypt) -> Resource:
        """Raises EngineError for an entry that needs the official engine."""
        for key, what in REFUSED.items():
            if entry.get(key):
                raise NotInEngine(what, entry["urn"])
        known = {attribute: entry[key] for key, attribute in _FIELDS.items() if entry.get(key)}
        for key in ("inputs", "outputs"):
            known[key] = from_state(entry.get(key) or {}, decrypt)
        rest = {k: v for k, v in entry.items() if k not in _FIELDS and k not in ("urn", "custom")}
        return cls(urn=entry["urn"], custom=bool(entry.get("custom")), rest=rest, **known)


@dataclass
class Pending:
    """An operation that was begun and whose end nobody saw."""

    resource: Resource
    operation: str  # creating, updating, deleting, reading


class Snapshot:
    """The state while an operation goes on: what this run settled, then what it has not met.

    The file always holds both, in that order, so that a resource stands after what it depends on
    and the replaced object (delete: true) after its successor.
    """

    def __init__(self, resources: Iterable[Resource] = (), pending: Iterable[Pending] = ()) -> None:
        self.settled: list[Resource] = []
        self.earlier: list[Resource] = list(resources)
        self.left_over: list[Pending] = list(pending)
        self.running: dict[int, Pending] = {}

    @property
    def resources(self) -> list[Resource]:
        return [*self.settled, *self.earlier]

    @property
    def root(self) -> Resource | None:
        """The stack's own entry."""
        return next((r for r in self.resources if r.type == STACK_TYPE), None)

    def find(self, urn: str) -> Resource | None:
        """The living entry that an earlier run left for this URN."""
        return next((r for r in self.earlier if r.urn == urn and not r.delete), None)

    def settle(self, new: Resource, old: Resource | None) -> None:
        """`new` is how the resource is now; `old` is no longer."""
        if old is not None:
            self.drop(old)
        self.settled.append(new)

    def drop(self, old: Resource) -> None:
        """The resource is gone."""
        self.settled = [r for r in self.settled if r is not old]
        self.earlier = [r for r in self.earlier if r is not old]

    def forget_dangling(self) -> None:
        """Drop references to what is gone, so that every resource stands after what it needs."""
        there: set[str] = set()
        for resource in self.resources:
            resource.parent = resource.parent if resource.parent in there else ""
            resource.dependencies = [u for u in resource.dependencies if u in there]
            kept = {
                key: [u for u in urns if u in there]
                for key, urns in resource.property_dependencies.items()
            }
            resource.property_dependencies = {key: urns for key, urns in kept.items() if urns}
            there.add(resource.urn)

    def write(self, encrypt: Crypt | None, salt: str) -> dict[str, Any]:
        """The deployment as it stands in the state file; without `encrypt`, secrets in plain."""

        def spell(value: Any) -> Any:
            return to_state(value, encrypt)

        deployment: dict[str, Any] = {
            "manifest": {
                "time": now(),
                "magic": hashlib.sha256(VERSION.encode()).hexdigest(),
                "version": VERSION,
            },
            "secrets_providers": {"type": "passphrase", "state": {"salt": salt}},
        }
        if self.resources:
            deployment["resources"] = [r.write(spell) for r in self.resources]
        pending = [*self.left_over, *self.running.values()]
        if pending:
            deployment["pending_operations"] = [
                {"resource": p.resource.write(spell), "type": p.operation} for p in pending
            ]
        return {**deployment, "metadata": {}}

    @classmethod
    def read(cls, deployment: dict[str, Any] | None, decrypt: Crypt) -> Snapshot:
        """Raises EngineError if the state uses what only the official engine has."""
        deployment = deployment or {}
        provider = (deployment.get("secrets_providers") or {}).get("type", "passphrase")
        if provider != "passphrase":
            raise NotInEngine(f"the secrets provider {provider}")
        try:
            return cls(
                [Resource.read(e, decrypt) for e in deployment.get("resources") or []],
                [
                    Pending(Resource.read(p["resource"], decrypt), p["type"])
                    for p in deployment.get("pending_operations") or []
                ],
            )
        except (KeyError, TypeError) as error:
            raise EngineError(f"the state holds an entry that cannot be read: {error!r}") from None


def now() -> str:
    """The present time as the state file spells it."""
    return datetime.now(UTC).isoformat().replace("+00:00", "Z")
