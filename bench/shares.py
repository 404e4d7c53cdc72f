"""How long a part of the bench may take, so that a whole run ends in time.

Everything is measured at least once. After that, a round is begun only while the part's share
lasts, and a tool that has used up more than its own part of it sits out: n says what came of it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

PEER, PEER_STOPPING, IMAGE = 0.2, 0.08, 0.05
"""Of the share, for each peer, and for ours on each of the file systems in images."""
PARTS = {
    "storing-postgres": 0.32,
    "storing-files": 0.15,
    "storing-sparse": 0.05,
    "sizes": 0.06,
    "helper": 0.01,
    "catalog": 0.02,
    "ingress": 0.03,
    "stopping-disk": 0.19,
    "stopping-xfs": 0.085,
    "stopping-btrfs": 0.085,
}


@dataclass
class Share:
    """Seconds for one part of the bench, from `start` on."""

    seconds: float
    clock: Callable[[], float] = time.monotonic
    began: float | None = field(init=False, default=None)
    _mark: float = field(init=False, default=0.0)

    def start(self) -> None:
        """Called when the data is there, which is built once and for all."""
        self.began = self._mark = self.clock()

    def lasts(self) -> bool:
        """Asked between two rounds: whether most of one as long as the last would be in time."""
        now = self.clock()
        last, self._mark = now - self._mark, now
        return self.used() + last / 2 < self.seconds

    def used(self) -> float:
        """Seconds since the start."""
        return 0.0 if self.began is None else self.clock() - self.began


class Budget:
    """The seconds of a whole run, for the parts that are still to come. What one leaves, or takes
    beyond its share, the others have more, or less."""

    def __init__(self, minutes: float, parts: Collection[str]) -> None:
        self._left = 60 * minutes
        self._parts = list(parts)

    def share(self, part: str) -> Share:
        """What the next part may take."""
        weight = sum(PARTS[name] for name in self._parts)
        return Share(max(0.0, self._left) * PARTS[part] / weight)

    def ended(self, part: str, share: Share) -> None:
        """A part was measured, or failed."""
        self._parts.remove(part)
        self._left -= share.used()


def takes_part(number: int, spent: float, allowed: float) -> bool:
    """Whether a tool is in round `number`, having spent so many seconds of those allowed.

    One that was not in the first round is in no other."""
    return number == 1 or 0 < spent < allowed
