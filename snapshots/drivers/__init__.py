"""The drivers, by name and by what a volume looks like."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from snapshots.drivers.base import Ask, DirectoryDriver, Driver, Exec, ExecResult, Session
from snapshots.drivers.command import CommandDriver
from snapshots.drivers.mysql import MysqlDriver
from snapshots.drivers.postgres import PostgresDriver
from snapshots.drivers.questdb import QuestdbDriver
from snapshots.drivers.redis import RedisDriver
from snapshots.drivers.redispassword import way_in
from snapshots.drivers.sqlite import SqliteDriver
from snapshots.errors import Unsupported

__all__ = [
    "DRIVERS",
    "NO_IMAGE_TELLS",
    "Ask",
    "Driver",
    "Exec",
    "ExecResult",
    "Session",
    "detect",
    "driver_for",
    "looks_like",
    "way_in",
]

_ENGINES: tuple[Driver, ...] = (
    PostgresDriver(),
    RedisDriver(),
    MysqlDriver(),
    QuestdbDriver(),
    SqliteDriver(),
)
_DIRECTORY: Driver = DirectoryDriver()
_COMMAND: Driver = CommandDriver()
DRIVERS: dict[str, Driver] = {driver.name: driver for driver in (*_ENGINES, _DIRECTORY, _COMMAND)}
NO_IMAGE_TELLS = frozenset({"sqlite", "command"})
"""Drivers whose engine may be in any image: they are declared, or found by what a folder holds."""
_ALSO_CALLED = {"mariadb": "mysql", "percona": "mysql"}


def driver_for(name: str, options: Mapping[str, str] = {}) -> Driver:
    """The driver of that name; `options` are the user's own commands for `command`. Raises
    Unsupported with the names there are."""
    name = _ALSO_CALLED.get(name, name)
    if name == _COMMAND.name and options:
        return CommandDriver(options)
    try:
        return DRIVERS[name]
    except KeyError:
        known = ", ".join(sorted(DRIVERS))
        raise Unsupported(f"there is no driver {name!r}: use one of {known}") from None


def detect(image: str, target: str, path: Path | None = None) -> Driver:
    """The driver for a volume mounted at `target` in a container of `image`; where the image tells
    nothing, what lies in the folder `path` (on this host) does."""
    known = next((d for d in _ENGINES if d.recognises(image, target)), _DIRECTORY)
    return looks_like(path) if known is _DIRECTORY and path is not None else known


def looks_like(path: Path) -> Driver:
    """The driver for what lies in a folder (on this host), where no image tells."""
    return next((driver for driver in _ENGINES if driver.looks_like(path)), _DIRECTORY)
