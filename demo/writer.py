"""Posts orders all the time and keeps a record of every answer, so that loss can be counted.

    python -m demo.writer --url http://127.0.0.1:8080 --out orders.jsonl

Each order goes over a connection of its own and has a token of its own; SIGTERM ends the writer
after the answers that are still on their way. The record has one JSON document per line, in the
order of the answers; `demo.accounting` reads it.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from demo.accounting import Attempt

INTERVAL_SECONDS = 0.02
TIMEOUT_SECONDS = 2.0
ITEMS = [("teapot", 2490), ("cup", 390), ("saucer", 290), ("tea, 100 g", 850)]


class WriterFailed(Exception):
    """The writer ended by itself, so its record is not complete."""


class Clock:
    """Unix time that does not jump when the machine's clock is set."""

    def __init__(self) -> None:
        self._offset = time.time() - time.monotonic()

    def now(self) -> float:
        return self._offset + time.monotonic()


class Record:
    """A file to which every attempt is appended as soon as its outcome is known."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def add(self, attempt: Attempt) -> None:
        # One write per line: whoever reads meanwhile, or kills the writer, sees whole lines.
        os.write(self._file, (attempt.as_line() + "\n").encode())

    def close(self) -> None:
        os.close(self._file)


def order(address: str, clock: Clock, number: int) -> Attempt:
    """Post one order and say what came of it. Never raises for a shop that is away."""
    token = uuid.uuid4().hex
    item, amount = ITEMS[number % len(ITEMS)]
    sent_at = clock.now()
    order_id: int | None = None
    version: str | None = None
    reason: str | None = None
    connection = http.client.HTTPConnection(address, timeout=TIMEOUT_SECONDS)
    try:
        body = json.dumps({"token": token, "item": item, "amount": amount})
        connection.request("POST", "/orders", body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        document = json.loads(answer.read())
        if answer.status == 201:
            order_id, version = document["id"], document["version"]
        else:
            reason = f"HTTP {answer.status}: {document}"
    except (OSError, http.client.HTTPException, ValueError, KeyError) as error:
        reason = f"{type(error).__name__}: {error}"
    finally:
        connection.close()
    return Attempt(token, item, amount, sent_at, clock.now(), order_id, version, reason)


def write_until(stop: threading.Event, url: str, out: Path) -> None:
    """Post an order every 20 ms until `stop` is set, whether earlier ones were answered or not."""
    address = urlsplit(url).netloc
    clock, record = Clock(), Record(out)
    enough = int(TIMEOUT_SECONDS / INTERVAL_SECONDS) + 1  # all that can wait for an answer at once

    def place(number: int) -> None:
        record.add(order(address, clock, number))

    with ThreadPoolExecutor(max_workers=enough) as pool:
        due = time.monotonic()
        number = 0
        while not stop.wait(max(0.0, due - time.monotonic())):
            pool.submit(place, number)
            number += 1
            due = max(due + INTERVAL_SECONDS, time.monotonic() - 1)
    record.close()


@contextmanager
def running(url: str, out: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A writer in its own process for the time of a `with` block.

    Raises WriterFailed at the end if the writer died by itself.
    """
    argv = [sys.executable, "-m", "demo.writer", "--url", url, "--out", str(out)]
    root = Path(__file__).resolve().parent.parent
    # In a session of its own: Ctrl-C reaches whoever started it, and that one stops it.
    process = subprocess.Popen(argv, cwd=root, stdin=subprocess.DEVNULL, start_new_session=True)
    try:
        yield process
    finally:
        process.terminate()
        code = process.wait(timeout=30)
    if code != 0:
        raise WriterFailed(f"the writer ended with exit code {code}")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m demo.writer", description=__doc__)
    parser.add_argument("--url", required=True, help="the shop's address")
    parser.add_argument("--out", required=True, type=Path, help="the record, appended to")
    arguments = parser.parse_args()
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    write_until(stop, arguments.url, arguments.out)


if __name__ == "__main__":
    main()
