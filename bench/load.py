"""pgbench at a steady rate against whatever database is live, and the latency it sees."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench import images
from bench.daemons import Daemon
from bench.work import last_lines

RATE = 300
# A server that goes away ends pgbench: it is started again, at the address that is noted by then.
LOOP = (
    'while :; do pgbench -n -h "$(cat /load/address)" -c 4 -j 1 -R "$RATE" -T 3600'
    " -l --log-prefix=/load/log >/load/said 2>&1 || sleep 0.1; done"
)


@dataclass(frozen=True)
class Transaction:
    """When it ended (seconds since 1970), and how long it took from when it was due (seconds)."""

    ended: float
    seconds: float


class Load:
    """A load that runs; its log can be read at any time."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def aim(self, address: str) -> None:
        """Where the database is from now on."""
        place = self.folder / "address.new"
        place.write_text(address)
        place.rename(self.folder / "address")

    def transactions(self) -> list[Transaction]:
        return [t for log in self.folder.glob("log.*") for t in parse(log.read_text().split("\n"))]

    def answers(self, since: float) -> bool:
        """Whether anything was done since that time. Little work, for whoever looks often."""
        logs = [log for log in self.folder.glob("log.*") if log.stat().st_mtime >= since]
        return any(t.ended >= since for log in logs for t in parse(last_lines(log)))


def parse(lines: Iterable[str]) -> Iterator[Transaction]:
    """The transactions of pgbench's log; lines that are not whole are left out."""
    for line in lines:
        words = line.split()
        if len(words) == 7 and words[2].isdigit():
            yield Transaction(int(words[4]) + int(words[5]) / 1e6, int(words[2]) / 1e6)


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that is not below `share` of all. Raises ValueError for no values."""
    if not values:
        raise ValueError("no values")
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def p99(transactions: Iterable[Transaction], since: float, until: float) -> float | None:
    """The 99th percentile of the latency in a span of time; None with less than 100 values."""
    values = [t.seconds for t in transactions if since <= t.ended <= until]
    return percentile(values, 0.99) if len(values) >= 100 else None


@contextmanager
def running(daemon: Daemon, folder: Path, address: str) -> Iterator[Load]:
    """A load for the time of a `with` block."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    load = Load(folder)
    load.aim(address)
    container = daemon.docker(
        "run", "--detach", "--label", images.label(daemon.owner),
        "--network", "host", "--user", "0",
        "--volume", f"{folder}:/load", "--entrypoint", "sh", "--env", f"RATE={RATE}",
        "--env", f"PGUSER={images.USER}", "--env", f"PGPASSWORD={images.PASSWORD}",
        "--env", f"PGDATABASE={images.USER}", "--env", "PGCONNECT_TIMEOUT=1",
        images.POSTGRES, "-c", LOOP,
    )  # fmt: skip
    try:
        yield load
    finally:
        daemon.docker("rm", "--force", container)


def now() -> float:
    """The clock of pgbench's log."""
    return time.time()
