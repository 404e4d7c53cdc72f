"""Clients that ask over a fresh connection each time, while something happens to the stack."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

_PATIENCE = 60.0
_PAUSE = 0.01


@dataclass
class Asked:
    """What clients were answered, and with what others failed."""

    answers: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)


@contextmanager
def asking(ask: Callable[[], str], clients: int = 4) -> Iterator[Asked]:
    """Several ask all the time within it; each waits for its answer as long as a browser does."""
    asked, over = Asked(), threading.Event()

    def client() -> None:
        while not over.wait(_PAUSE):
            try:
                asked.answers.append(ask())
            except OSError as error:
                asked.failures.append(repr(error))

    threads = [threading.Thread(target=client) for _ in range(clients)]
    for thread in threads:
        thread.start()
    try:
        yield asked
    finally:
        over.set()
        for thread in threads:
            thread.join(_PATIENCE)
