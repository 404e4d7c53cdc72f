"""The drivers, by name and by what a volume looks like."""

from __future__ import annotations

from collections.abc import Mapping

from snapshots.drivers.base import Ask, DirectoryDriver, Driver, Exec, ExecResult, Session
from snapshots.drivers.postgres import PostgresDriver
from snapshots.drivers.redis import RedisDriver
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

_ENGINES: tuple[Driver, ...] = (PostgresDriver(), RedisDriver())
_DIRECTORY: Driver = DirectoryDriver()
DRIVERS: dict[str, Driver] = {driver.name: driver for driver in (*_ENGINES, _DIRECTORY)}


def driver_for(name: str, options: Mapping[str, str] = {}) -> Driver:  # noqa: ARG001
    """The driver of that name, with the user's own `options` for it. Raises Unsupported with the
    names there are."""
    try:
        return DRIVERS[name]
    except KeyError:
        known = ", ".join(sorted(DRIVERS))
        raise Unsupported(f"there is no driver {name!r}: use one of {known}") from None


def detect(image: str, target: str) -> Driver:
    """The driver for a volume mounted at `target` in a container of `image`."""
    return next((d for d in _ENGINES if d.recognises(image, target)), _DIRECTORY)
