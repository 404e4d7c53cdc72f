"""Asks a service at a steady rate, over a fresh connection each time, and notes every answer.

python -m bench.fresh 127.0.0.1:8080 500 answers.txt [orders.txt]

With `orders.txt` each request is an order with a name of its own; the names of those that were
acknowledged are noted there. Times are as in `prober`; so is the end.
"""

from __future__ import annotations

import asyncio
import itertools
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TextIO

PATIENCE = 60.0


async def ask(address: str, order: str | None) -> bool:
    """One request; whether it was answered as it should be. Never raises for one that was not."""
    host, _, port = address.rpartition(":")
    body = (order or "").encode()
    line = "POST /orders" if order is not None else "GET /"
    head = f"{line} HTTP/1.0\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    try:
        async with asyncio.timeout(PATIENCE):
            reader, writer = await asyncio.open_connection(host, int(port))
            try:
                writer.write(head + body)
                answer = await reader.read()
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return False
    return answer.split(b" ", 2)[1:2] == [b"201" if order is not None else b"200"]


async def ask_until(
    over: threading.Event, address: str, rate: float, answers: TextIO, orders: TextIO | None
) -> None:
    """Ask until `over` is set; then wait for the answers that are due."""
    asked: set[asyncio.Task[None]] = set()

    async def once(number: int) -> None:
        order = f"order-{number}" if orders is not None else None
        sent = time.monotonic()
        good = await ask(address, order)
        print(sent, time.monotonic(), int(good), file=answers, flush=True)
        if good and orders is not None:
            print(order, file=orders, flush=True)

    began = time.monotonic()
    for number in itertools.count():
        await asyncio.sleep(max(0.0, began + number / rate - time.monotonic()))
        if over.is_set():
            break
        task = asyncio.create_task(once(number))
        asked.add(task)
        task.add_done_callback(asked.discard)
    await asyncio.gather(*asked)


def main(argv: Sequence[str]) -> None:
    over = threading.Event()

    def wait_for_the_end() -> None:
        sys.stdin.buffer.read()
        over.set()

    threading.Thread(target=wait_for_the_end, daemon=True).start()
    address, rate, *paths = argv
    with ExitStack() as files:
        answers, *orders = [files.enter_context(Path(path).open("a")) for path in paths]
        asyncio.run(ask_until(over, address, float(rate), answers, orders[0] if orders else None))


if __name__ == "__main__":
    main(sys.argv[1:])
