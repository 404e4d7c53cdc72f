"""What the engine asks of a provider, and the providers that are here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from .errors import NotInEngine
from .planner import Change
from .values import Props

Failures = list[tuple[str, str]]  # (property, reason)


class ProviderFailed(Exception):
    """A provider could not do what it was asked; the message is one sentence for the user."""


class Provider(Protocol):
    """One package. Properties come and go without secrets; `UNKNOWN` stands for what a preview
    cannot know. Every method may raise ProviderFailed."""

    def check(self, type_: str, olds: Props, news: Props, /) -> tuple[Props, Failures]:
        """Inputs with defaults, and what is wrong with them."""

    def diff(self, type_: str, id_: str, outputs: Props, inputs: Props, news: Props, /) -> Change:
        """How `news` differs from the resource as it is known."""

    def create(self, type_: str, news: Props, preview: bool, /) -> tuple[str, Props]:
        """(id, outputs); in a preview the id is empty and nothing is made."""

    def read(self, type_: str, id_: str, outputs: Props, /) -> tuple[Props, Props | None] | None:
        """(outputs, inputs or None if unchanged) as it is now; None if it is gone."""

    def update(
        self, type_: str, id_: str, outputs: Props, inputs: Props, news: Props, preview: bool, /
    ) -> Props:
        """The new outputs."""

    def delete(self, type_: str, id_: str, outputs: Props, /) -> None:
        """Remove it. What is gone already is no failure."""


def _dynamic(project: str, config: Props) -> Provider:
    from .dynamic_provider import DynamicProvider

    return DynamicProvider(project, config)


def _docker(_project: str, config: Props) -> Provider:
    from .docker_provider import DockerProvider

    return DockerProvider(config)


PACKAGES: dict[str, Callable[[str, Props], Provider]] = {
    "pulumi-python": _dynamic,
    "docker": _docker,
}
DOCKER_TYPES = frozenset({"docker:index/remoteImage:RemoteImage", "docker:index/tag:Tag"})


def package_of(type_: str) -> str:
    """The package of a resource type. Raises NotInEngine if there is no provider for it here."""
    package = type_.split(":")[0]
    if package not in PACKAGES or (package == "docker" and type_ not in DOCKER_TYPES):
        raise NotInEngine(f"the resource type {type_}")
    return package
