"""What a stack's ingress is told, and asked, while it runs: one HAProxy for each door."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager

from reconciler.catalog import Catalog
from reconciler.errors import LockstepError, Unavailable
from reconciler.ingress import ingressfile as file
from reconciler.ingress import ingresssocket
from reconciler.ingress.ingressfacts import folder
from reconciler.ingress.ingressfile import UNLIMITED, Counted, Pointing
from reconciler.ingress.ingressports import Door

AT_FIRST = 64
"""Connections that a world gets at once of those that were held: half of what a server that was
written without a thought lets queue before it."""
_ANSWER_SECONDS = 10.0
_LOOK = 0.02
_PACE_SECONDS = 0.25
_LET_IN_SECONDS = 30.0


class Talk:
    """The ingress of one stack as it runs. Everything raises Unavailable where it does not answer,
    but what says otherwise."""

    def __init__(self, catalog: Catalog, say: Callable[[str], None]) -> None:
        self._catalog = catalog
        self._say = say

    def ask(self, door: Door, *commands: str) -> str:
        return ingresssocket.ask(folder(self._catalog, door) / "run" / file.SOCKET, *commands)

    def counted(self, door: Door) -> Counted:
        return file.counted(self.ask(door, "show stat"))

    @contextmanager
    def lenient(self) -> Iterator[None]:
        """An ingress that does not answer is said, and keeps nobody from anything."""
        try:
            yield
        except (LockstepError, OSError) as error:
            self._say(str(error))

    def hold(self, doors: Iterable[Door]) -> None:
        """Whoever connects from now on waits. Never raises."""
        for door in doors:
            with self.lenient():
                self.ask(door, *file.hold())

    def drain(self, doors: Iterable[Door], seconds: float) -> None:
        """Wait until the connections that are open have ended, or the time is up. Never raises."""
        give_up = time.monotonic() + seconds
        for door in doors:
            with self.lenient():
                while (left := self.counted(door).open) > 0:
                    if time.monotonic() >= give_up:
                        self._say(f"{left} connections to {door} did not end: they are cut")
                        break
                    time.sleep(_LOOK)

    def figures(self, door: Door) -> dict[str, float]:
        """HAProxy's figures of the world that it served. Never raises."""
        figures: dict[str, float] = {}
        with self.lenient():
            found = self.counted(door)
            figures.update(
                connections=found.connections,
                errors=found.errors,
                retries=found.retries,
                connect_ms=found.connect_ms,
                total_ms=found.total_ms,
            )
        return figures

    def aim(self, door: Door, pointing: Pointing, address: str, own: str) -> bool:
        """See that the world at an address is the one that would be served. Whether it is served
        already; if not, whoever connects waits. `own`: the container of the door's HAProxy."""
        told = self._servers(door)
        if file.serves(told, pointing) and told[pointing.server].address == address:
            return True
        if file.aims(told, pointing, address):
            return False
        self.ask(door, *file.hold())
        self.ask(door, *file.point(pointing, address, own))
        give_up = time.monotonic() + _ANSWER_SECONDS
        while not file.aims(self._servers(door), pointing, address):
            if time.monotonic() > give_up:
                raise Unavailable(f"the ingress of port {door} does not find {pointing.container}")
            time.sleep(_LOOK)
        return False

    def _servers(self, door: Door) -> dict[str, file.Server]:
        return file.servers(self.ask(door, "show servers state world"))

    def let_in(self, door: Door, pointing: Pointing, at_once: int) -> None:
        """Who waited, and whoever comes, is served, so many at once."""
        self.ask(door, *file.serve(pointing, at_once), "clear counters all")

    def keep_pace(self, pointings: Mapping[Door, Pointing]) -> None:
        """Return when nobody waits any more and no door has a limit. Never raises.

        Of those who were held so many are let in at once as the world keeps up with: twice as
        many whenever those who wait have not become fewer. So they are served in turn, and nobody
        waits much longer than connections were held.
        """
        left = dict.fromkeys(pointings, (AT_FIRST, UNLIMITED))
        give_up = time.monotonic() + _LET_IN_SECONDS
        while left:
            time.sleep(_PACE_SECONDS)
            for door, (limit, before) in list(left.items()):
                # One that does not answer was killed, and comes back without a limit.
                del left[door]
                with self.lenient():
                    now = self.counted(door).waiting
                    over = time.monotonic() > give_up
                    limit = UNLIMITED if over else next_limit(limit, before, now)
                    self.ask(door, file.limit(pointings[door], limit))
                    if limit < UNLIMITED:
                        left[door] = limit, now


def next_limit(limit: int, before: int, now: int) -> int:
    """How many are let in at once from now on. `before`, `now`: how many waited at the last look
    and at this one."""
    if now == 0:
        return UNLIMITED
    return limit if now < before else min(2 * limit, UNLIMITED)
