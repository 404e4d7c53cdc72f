"""What differs between the release that runs and the one that is declared: services, migrations,
engines. Facts for the reader of a preview; nothing is decided by them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ServiceChange:
    """One service that both releases do not run alike."""

    service: str
    change: str
    """added, removed or changed."""
    image: tuple[str, str] | None = None
    """(before, after) of its image, where that differs; "" where there is none."""
    definition: tuple[str, ...] = ()
    """`environment.LEVEL: 'info' -> 'debug'`; secrets show as placeholders."""


@dataclass(frozen=True)
class EngineJump:
    """A dataset's engine comes in another version, as far as the names of its images tell."""

    dataset: str
    engine: str
    before: str
    after: str

    @property
    def major(self) -> bool:
        """Whether its files may be of another form."""
        return self.before.partition(".")[0] != self.after.partition(".")[0]


@dataclass(frozen=True)
class Migrations:
    """Files of the migration folders in which both releases differ."""

    new: tuple[str, ...] = ()
    """Only the release that is gone to has them: it will run them."""
    unknown: tuple[str, ...] = ()
    """Only the release that runs has them: its data has been through what the other never saw."""
    altered: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.new or self.unknown or self.altered)


@dataclass(frozen=True)
class Outlook:
    """All that differs; empty where nothing moves."""

    services: tuple[ServiceChange, ...] = ()
    unchanged: tuple[str, ...] = ()
    """Services that stay as they are."""
    others: tuple[str, ...] = ()
    """What differs beside the services: networks, volumes, names."""
    files: tuple[str, ...] = ()
    """Config files that are new, gone or of other content."""
    engines: tuple[EngineJump, ...] = ()
    migrations: Migrations | None = None
    """None: they are not recorded of both releases (config key `migrations`)."""
