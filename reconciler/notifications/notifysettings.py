"""Who is told what: the part of the stack's settings about notifications."""

from __future__ import annotations

import re
from collections.abc import Iterator
from enum import StrEnum
from typing import Annotated

from pydantic import AfterValidator, Field

from reconciler.setting import Setting

_SCHEME = re.compile(r"^([a-zA-Z][a-zA-Z0-9+.-]*)://.")
_BETWEEN = re.compile(r"[/:@?&=#]+")


class Happening(StrEnum):
    """What somebody may want to be told of."""

    STARTED = "started"
    COMMITTED = "committed"
    REVERTED = "reverted"
    ROLLED_BACK = "rolled-back"
    RECOVERED = "recovered"
    FAILED = "failed"
    QUARANTINED = "quarantined"
    DAMAGE = "damage"
    DISK_LOW = "disk-low"


class Text(StrEnum):
    """For whom a text is written."""

    TEAM = "team"
    STAKEHOLDERS = "stakeholders"
    AFTERWARDS = "afterwards"


def _has_scheme(url: str) -> str:
    if not _SCHEME.match(url):
        raise ValueError("no URL of a service that Apprise knows, like mailto://... or slack://...")
    return url


class Notify(Setting):
    """One receiver."""

    url: Annotated[str, AfterValidator(_has_scheme)] = Field(
        description="where to, as Apprise writes it: always a secret"
    )
    name: str = Field("", description="how the log calls it; its URL is never shown")
    events: tuple[Happening, ...] = Field(tuple(Happening), description="all if not said")
    texts: tuple[Text, ...] = Field(
        (Text.TEAM,), min_length=1, description="for whom it is written"
    )

    def label(self, number: int) -> str:
        """Its name, or what can be said of it without its URL: `slack 1`."""
        found = _SCHEME.match(self.url)
        return self.name or f"{found[1] if found else 'url'} {number}"

    @property
    def hidden(self) -> Iterator[str]:
        """The URL and every piece of it: tokens stand in any of them."""
        return iter({self.url, *_BETWEEN.split(self.url)[1:]})
