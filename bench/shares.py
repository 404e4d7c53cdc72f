"""How long a part of the bench may take, so that a whole run ends in time.

Everything is measured at least once. After that, a round is begun only while the part's share
lasts, and a tool that has used up more than its own part of it sits out: n says what came of it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

PEER, IMAGE = 0.2, 0.05
"""Of the share, for each peer, and for ours on each of the file systems in images."""
PARTS = {
    "storing postgres": 0.42,
    "storing files": 0.08,
    "storing sparse": 0.04,
    "sizes": 0.02,
    "stopping disk": 0.28,
    "stopping xfs": 0.08,
    "stopping btrfs": 0.08,
}


@dataclass
class Share:
    """Seconds for one part of the bench, from `start` on."""

    seconds: float
    clock: Callable[[], float] = time.monotonic
    began: float = field(init=False, default=0.0)

    def start(self) -> None:
        """Called when the data is there, which is built once and for all."""
        self.began = self.clock()

    def lasts(self) -> bool:
        return self.clock() - self.began < self.seconds


def share(minutes: float, part: str) -> Share:
    """The share of a part in a run of so many minutes."""
    return Share(60 * minutes * PARTS[part])


def takes_part(number: int, spent: float, allowed: float) -> bool:
    """Whether a tool is in round `number`, having spent so many seconds of those allowed.

    One that was not in the first round is in no other."""
    return number == 1 or 0 < spent < allowed
