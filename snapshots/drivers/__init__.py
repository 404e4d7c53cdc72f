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
from snapshots.drivers.sqlite import SqliteDriver
from snapshots.errors import Unsupported

__all__ = [
    "DRIVERS",
    "Ask",
    "Driver",
    "Exec",
    "ExecResult",
    "Session",
    "detect",
    "driver_for",
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
    for driver in _ENGINES:
        if driver.recognises(image, target):
            return driver
    if path is not None and path.is_dir():
        for driver in _ENGINES:
            if driver.looks_like(path):
                return driver
    return _DIRECTORY
