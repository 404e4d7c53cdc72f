"""Asking at a gate until it lets pass or its limits are reached."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

from reconciler import clock
from reconciler.docker import ContainerDetails
from reconciler.errors import DockerFailed
from reconciler.gates import asking
from reconciler.gates.asking import Ground, Question
from reconciler.gates.health import LEAST_SECONDS
from reconciler.gates.inside import reset
from reconciler.gates.judging import Answer, Counting, Verdict, silent
from reconciler.gates.model import Gate
from reconciler.gates.results import GateResult, Result, bounded
from reconciler.switching.services import Abandoned, NotProved, Services, TooLate
from reconciler.world.hostworld import Service
from snapshots.errors import EngineFailed

_LOOK_SECONDS = 0.1
_GRACE_SECONDS = 10.0
"""A try keeps its own time; one that does not is left alone after so much more."""


@dataclass
class _Asked:
    """How asking one question went."""

    decided: Verdict | None = None
    last: Answer = field(default_factory=lambda: silent("was not asked"))
    tries: int = 0
    said: str = ""
    container: str | None = None
    """The one that was asked last; where none is, whose log tells most."""


@dataclass(frozen=True)
class Keeper:
    """Asks the gates of one world. Safe to use from several threads."""

    services: Services
    ground: Ground
    tell: Callable[[GateResult], None]
    """Told what became of each gate."""
    seen: dict[str, str] = field(default_factory=dict)
    """Container -> when it was started, as it first passed a gate."""

    def insist(self, question: Question, service: Service | None, *, quiet: bool = False) -> None:
        """Ask until it is decided, and tell the result; `quiet`: only one that did not pass.

        Raises NotProved when it means that the world is not proved.
        """
        since, began = clock.now("milliseconds"), time.monotonic()
        asked = _Asked()
        failure: NotProved | None = None
        try:
            self._ask_all(question, service, asked)
        except NotProved as error:
            failure = error
            asked.decided = _of(asked.last)
            late = isinstance(error, TooLate)
            asked.said = (late and asked.last.said) or error.first_line
        result = self._result(question, asked, since, time.monotonic() - began)
        if result.means == "fail" and failure is None:
            failure = self.services.not_proved(_text(question, asked), asked.container)
        if result.means != "pass":
            lines = self.services.last_lines(asked.container)
            result = result.model_copy(update={"log": lines})
        if not quiet or result.result is not Result.PASSED:
            self.tell(result)
        if result.means == "fail" and failure is not None:
            failure.result = result
            raise failure

    def put_right(self, question: Question, service: Service) -> None:
        """Reset what its data brought back from the past; what cannot be is said, and judged."""
        for container_id in service.ids:
            try:
                container = self.ground.docker.inspect(container_id)
                reset(self.ground.docker, container, question.asks, question.seconds)
            except (DockerFailed, EngineFailed, FileNotFoundError) as error:
                self.services.say(f"{question.name} of {service.name} was not reset: {error}")
            else:
                self.services.say(f"{question.name} of {service.name} is reset")

    def _ask_all(self, question: Question, service: Service | None, asked: _Asked) -> None:
        """Each container of the service, until one does not let pass. Raises NotProved."""
        ids = service.ids if service is not None else ()
        with self._apart() as pool:
            if question.on_host:
                asked.container = next(iter(ids), None)
                self._decide(question, service, None, asked, pool)
                return
            for container_id in ids:
                asked.container = container_id
                self._decide(question, service, container_id, asked, pool)
                if asked.decided is not Verdict.PASSED:
                    return

    def _decide(
        self,
        question: Question,
        service: Service | None,
        container_id: str | None,
        asked: _Asked,
        pool: ThreadPoolExecutor,
    ) -> None:
        counting = Counting(question.gate)

        def ask(container: ContainerDetails | None, left: float) -> str | None:
            asked.last = self._ask(question, container, left, pool)
            asked.tries += 1
            asked.decided = counting.after(asked.last)
            asked.said = asked.last.said
            if container is not None and asked.decided is Verdict.PASSED:
                self.seen.setdefault(container.id, container.started)
            return None if asked.decided else asked.said or "passed, but not often enough"

        where, interval = _where(question), question.gate.interval
        if service is None or container_id is None:
            self.services.await_alone(partial(ask, None), where, interval)
        else:
            self.services.await_answer(service, container_id, ask, where, interval)

    def _ask(
        self,
        question: Question,
        container: ContainerDetails | None,
        left: float,
        pool: ThreadPoolExecutor,
    ) -> Answer:
        """One try, not waited for when something else failed meanwhile. Raises Abandoned."""
        timeout = max(LEAST_SECONDS, min(question.seconds, left))
        future = pool.submit(asking.ask, self.ground, question, container, timeout)
        give_up = time.monotonic() + timeout + _GRACE_SECONDS
        while not wait([future], _LOOK_SECONDS).done:
            if self.services.abandoned.is_set():
                raise Abandoned("another service failed meanwhile")
            if time.monotonic() > give_up:
                return silent(f"could not be asked within {timeout:g} s")
        return future.result()

    @contextmanager
    def _apart(self) -> Iterator[ThreadPoolExecutor]:
        """A thread of its own, so that a try can be left alone."""
        pool = ThreadPoolExecutor(1, thread_name_prefix="gate")
        try:
            yield pool
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def _result(self, question: Question, asked: _Asked, since: str, seconds: float) -> GateResult:
        result, means = _worth(question.gate, asked.decided)
        masked = self.services.masked
        return GateResult(
            gate=question.name,
            service=question.service,
            kind=question.kind,
            result=result,
            means=means,
            tries=asked.tries,
            since=since,
            seconds=round(seconds, 3),
            said="" if result is Result.PASSED else bounded(masked(asked.said)),
            excerpt=bounded(masked(asked.last.excerpt)),
        )


def _worth(gate: Gate, decided: Verdict | None) -> tuple[Result, Literal["pass", "warn", "fail"]]:
    """What a decision is called, and what it means."""
    if decided is Verdict.PASSED:
        return Result.PASSED, "pass"
    only_warns = gate.severity == "warn"
    if decided is Verdict.UNSURE:
        stricter = only_warns and gate.inconclusive == "fail"
        return Result.INCONCLUSIVE, "warn" if stricter else gate.inconclusive
    return (Result.WARNED, "warn") if only_warns else (Result.FAILED, "fail")


def _of(answer: Answer) -> Verdict:
    return Verdict.UNSURE if answer.verdict is Verdict.UNSURE else Verdict.FAILED


def _where(question: Question) -> str:
    if not question.service:
        return f"the gate {question.name}"
    return f"{question.service} at its gate ({question.name})"


def _text(question: Question, asked: _Asked) -> str:
    tries = f", {asked.tries} tries" if asked.tries > 1 else ""
    return f"{_where(question)} {asked.said}{tries}"
