"""The dynamic resources that Lockstep declares. The work is done by hooks in the program's own
process (program.py); the providers here only check, diff and report, so a failure never shows
a provider's traceback."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pulumi
from pulumi.dynamic import CreateResult, DiffResult, Resource, ResourceProvider, UpdateResult


def _shown(props: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in props.items() if key != "__provider"}


class _WorldProvider(ResourceProvider):
    """A world never changes after it was made."""

    def diff(self, _id: str, _olds: dict[str, Any], _news: dict[str, Any]) -> DiffResult:
        return DiffResult(changes=False)

    def create(self, props: dict[str, Any]) -> CreateResult:
        return CreateResult(props["world"], _shown(props))

    def delete(self, _id: str, _props: dict[str, Any]) -> None:
        """The before_delete hook removed it."""


class _FactsProvider(ResourceProvider):
    """`due` was found by comparing the ledger and Docker with what is declared; old inputs,
    and sentences for the reader, never decide."""

    def diff(self, _id: str, _olds: dict[str, Any], news: dict[str, Any]) -> DiffResult:
        return DiffResult(changes=bool(news["due"]))

    def create(self, props: dict[str, Any]) -> CreateResult:
        return CreateResult(props["name"], _shown(props))

    def update(self, _id: str, _olds: dict[str, Any], news: dict[str, Any]) -> UpdateResult:
        return UpdateResult(_shown(news))


class World(Resource, module="lockstep", name="World"):
    """One running place of a release."""

    def __init__(self, name: str, props: Mapping[str, Any], opts: pulumi.ResourceOptions) -> None:
        super().__init__(_WorldProvider(), name, dict(props), opts)


class Live(Resource, module="lockstep", name="Live"):
    """Which world is live; changing it is the switch."""

    release: pulumi.Output[str]
    world: pulumi.Output[str]
    impact: pulumi.Output[dict[str, Any]]

    def __init__(self, props: Mapping[str, Any], opts: pulumi.ResourceOptions) -> None:
        super().__init__(_FactsProvider(), "live", {"name": "live", **props}, opts)


class Kept(Resource, module="lockstep", name="Kept"):
    """That sealed data is in the store, and that nothing outside the window is left."""

    def __init__(self, props: Mapping[str, Any], opts: pulumi.ResourceOptions) -> None:
        super().__init__(_FactsProvider(), "kept", {"name": "kept", **props}, opts)


class Release(pulumi.ComponentResource):
    """A declared release: its images, and its worlds that shall exist."""

    def __init__(self, name: str) -> None:
        super().__init__("lockstep:index:Release", name)
