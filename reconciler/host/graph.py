"""Acts that wait for each other: each begins as soon as all it comes after are done."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter

from reconciler.errors import BadInput


@dataclass(frozen=True)
class Act:
    """One thing to do. Names in `after` that no act has are taken as done."""

    name: str
    do: Callable[[], None]
    after: frozenset[str] = frozenset()


def perform(acts: Sequence[Act], abandoned: threading.Event) -> None:
    """Do every act once.

    At the first failure `abandoned` is set, nothing more is begun, and when the acts under way
    have ended the failure is raised. Raises BadInput when acts wait for each other in a circle.
    """
    by_name = {act.name: act for act in acts}
    order = _order(by_name)
    failure: BaseException | None = None
    running: dict[Future[None], str] = {}
    # An act that waits holds its thread, so there is a thread for each that may wait.
    with ThreadPoolExecutor(max(1, len(by_name)), thread_name_prefix="switch") as pool:
        while running or (failure is None and order.is_active()):
            if failure is None:
                for name in order.get_ready():
                    running[pool.submit(by_name[name].do)] = name
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                name = running.pop(future)
                error = future.exception()
                if error is None:
                    order.done(name)
                elif failure is None:
                    failure = error
                    abandoned.set()
    if failure is not None:
        raise failure


def _order(acts: dict[str, Act]) -> TopologicalSorter[str]:
    order = TopologicalSorter({a.name: a.after & acts.keys() for a in acts.values()})
    try:
        order.prepare()
    except CycleError as error:
        circle = " -> ".join(error.args[1])
        raise BadInput(f"services wait for each other in a circle: {circle}") from None
    return order
