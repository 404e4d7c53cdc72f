"""What the engine asks of a provider, and the providers that are here."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from .errors import NotInEngine
from .planner import Change
from .snapshot import PROVIDER_PREFIX, Resource
from .values import Props, plain

Failures = list[tuple[str, str]]  # (property, reason)
Found = tuple[Props, Props | None]  # outputs; inputs, None if they did not change


class ProviderFailed(Exception):
    """A provider could not do what it was asked; the message is one sentence for the user."""


@dataclass(frozen=True)
class Known:
    """A resource as it is known."""

    urn: str
    id: str
    outputs: Props
    inputs: Props

    @classmethod
    def of(cls, resource: Resource) -> Known:
        """What a provider is told of it: no secrets."""
        return cls(resource.urn, resource.id, plain(resource.outputs), plain(resource.inputs))


class Provider(Protocol):
    """One package. `urn` tells the resource's type and name. Properties come and go without
    secrets; `UNKNOWN` stands for what a preview cannot know. Every method may raise
    ProviderFailed."""

    def check(self, urn: str, olds: Props, news: Props, /) -> tuple[Props, Failures]:
        """Inputs with defaults, and what is wrong with them."""

    def diff(self, old: Known, news: Props, /) -> Change:
        """How `news` differs from the resource as it is known."""

    def create(self, urn: str, news: Props, preview: bool, /) -> tuple[str, Props]:
        """(id, outputs); in a preview the id is empty and nothing is made."""

    def read(self, old: Known, /) -> Found | None:
        """The resource as it is now; None if it is gone."""

    def update(self, old: Known, news: Props, preview: bool, /) -> Props:
        """The new outputs."""

    def delete(self, old: Known, /) -> None:
        """Remove it. What is gone already is no failure."""


def _dynamic(project: str, config: Props) -> Provider:
    from .dynamic_provider import DynamicProvider

    return DynamicProvider(project, config)


def _docker(_project: str, config: Props) -> Provider:
    plugin = find_plugin("docker", str(config.get("version") or ""))
    if plugin is not None:
        from .plugin_provider import PluginProvider

        return PluginProvider(plugin, config)
    from .docker_provider import DockerProvider

    return DockerProvider(config)


def find_plugin(package: str, version: str) -> Path | None:
    """The official plugin where `pulumi plugin install` puts it, else on PATH."""
    binary = f"pulumi-resource-{package}"
    home = Path(os.environ.get("PULUMI_HOME") or Path.home() / ".pulumi")
    installed = home / "plugins" / f"resource-{package}-v{version}" / binary
    if version and os.access(installed, os.X_OK):
        return installed
    found = shutil.which(binary)
    return Path(found) if found else None


PACKAGES: dict[str, Callable[[str, Props], Provider]] = {
    "pulumi-python": _dynamic,
    "docker": _docker,
}
DOCKER_TYPES = frozenset({"docker:index/remoteImage:RemoteImage", "docker:index/tag:Tag"})


def package_of(type_: str, version: str) -> str:
    """The package of a resource type. Raises NotInEngine if there is no provider for it here."""
    package = type_.split(":")[0]
    known = package in PACKAGES and (package != "docker" or type_ in DOCKER_TYPES)
    if not known and not (package == "docker" and find_plugin(package, version.lstrip("v"))):
        raise NotInEngine(f"the resource type {type_}")
    return package


def make_provider(type_: str, project: str, config: Props) -> Provider:
    """The provider of the type `pulumi:providers:PACKAGE`. Raises NotInEngine."""
    package = type_.removeprefix(PROVIDER_PREFIX)
    if package not in PACKAGES:
        raise NotInEngine(f"the provider {package}")
    return PACKAGES[package](project, config)
