"""Asks a service every 20 ms, over a connection of its own each time, and notes every answer.

python -m bench.prober http://127.0.0.1:8080/ answers.txt

Times are seconds of the machine's monotonic clock, which all its processes share. It runs apart
from whoever measures, so that neither holds up the other; the end of its input ends it, so that it
does not outlive whoever started it.
"""

from __future__ import annotations

import http.client
import itertools
import os
import sys
import threading
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from bench.work import last_lines

INTERVAL = 0.02
TIMEOUT = 2.0
LONG = 1.0
"""Seconds between two good answers that are an outage even if no request failed in between."""


@dataclass(frozen=True)
class Attempt:
    """One request: when it was sent, when its end was known, whether the answer was good."""

    sent: float
    ended: float
    good: bool


def ask(address: str, path: str) -> Attempt:
    """One request. Never raises for a service that is away."""
    sent = time.monotonic()
    connection = http.client.HTTPConnection(address, timeout=TIMEOUT)
    good = False
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        answer.read()
        good = answer.status == 200
    except (OSError, http.client.HTTPException):
        pass
    finally:
        connection.close()
    return Attempt(sent, time.monotonic(), good)


def ask_until(over: threading.Event, url: str, out: Path) -> None:
    """Ask until `over` is set, whether earlier requests were answered or not."""
    parts = urlsplit(url)
    file = os.open(out, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def once() -> None:
        attempt = ask(parts.netloc, parts.path or "/")
        # One write per line, so that a reader sees whole lines.
        os.write(file, f"{attempt.sent} {attempt.ended} {int(attempt.good)}\n".encode())

    with ThreadPoolExecutor(max_workers=int(TIMEOUT / INTERVAL) + 1) as pool:
        due = time.monotonic()
        while not over.wait(max(0.0, due - time.monotonic())):
            pool.submit(once)
            due = max(due + INTERVAL, time.monotonic() - 1)
    os.close(file)


def read(path: Path) -> list[Attempt]:
    """What was noted so far; a line that is being written is left out."""
    return parse(path.read_text().split("\n")[:-1]) if path.exists() else []


def read_last(path: Path) -> list[Attempt]:
    """The last few hundred attempts: little work, for whoever looks often."""
    return parse(last_lines(path)) if path.exists() else []


def parse(lines: Iterable[str]) -> list[Attempt]:
    """The attempts that lines of the answers' file tell of."""
    words = (line.split() for line in lines)
    return [Attempt(float(sent), float(ended), good == "1") for sent, ended, good in words]


def stopped(attempts: Sequence[Attempt], since: float, until: float) -> float:
    """Seconds without service between two times: from the last good answer before a failure to
    the first good one after it, of all outages together."""
    good = sorted(a.ended for a in attempts if a.good and since <= a.ended <= until)
    bad = sorted(a.sent for a in attempts if not a.good and since <= a.sent <= until)
    total, at = 0.0, 0
    for before, after in itertools.pairwise(good):
        while at < len(bad) and bad[at] < before:
            at += 1
        if after - before > LONG or (at < len(bad) and bad[at] < after):
            total += after - before
    return total


def main(argv: Sequence[str]) -> None:
    over = threading.Event()
    asking = threading.Thread(target=ask_until, args=[over, argv[0], Path(argv[1])])
    asking.start()
    sys.stdin.buffer.read()
    over.set()
    asking.join()


if __name__ == "__main__":
    main(sys.argv[1:])
