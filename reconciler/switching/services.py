"""Stopping, starting and proving the services of a world, one at a time and all in order."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from reconciler import clock, masking
from reconciler.docker import ContainerDetails, Docker, PortTaken
from reconciler.errors import DockerFailed, LockstepError, Unavailable
from reconciler.gates.health import unhealthy
from reconciler.gates.results import LOG_LINE, LOG_LINES, GateResult, Result, bounded
from reconciler.world.hostworld import HostWorld, Service

_PORT_SECONDS = 10.0
"""A port is free only when Docker has cleaned up after its last holder."""
_FIRST_PAUSE, _LONGEST_PAUSE, _PAUSE_GROWTH = 0.05, 0.5, 1.25
_LOG_LINES = 5
_DISK_FULL = "no space left on device"
_RESTARTS = 20
_STAY_SECONDS = 1.0
_LOOK_SECONDS = 1.0

_UP = ("running", "restarting")


class NotProved(LockstepError):
    """A service did not do what its release says it does; the message tells how it showed."""

    result: GateResult | None = None
    """The same for the log entry."""

    @property
    def first_line(self) -> str:
        """What showed, without the container's last words."""
        return self.message.partition("\n")[0]


class TooLate(NotProved):
    """It did not do so before its time was over."""


class Abandoned(LockstepError):
    """Something else failed meanwhile: this wait was given up."""


class Services:
    """What a switch does to single services. Safe to use from several threads."""

    def __init__(
        self, docker: Docker, say: Callable[[str], None], *, hide: Collection[str]
    ) -> None:
        self.docker = docker
        self.say = say
        self.abandoned = threading.Event()
        self.deadline = float("inf")
        """time.monotonic() when every wait for readiness ends."""
        self.lived = False
        """Whether the world was live before: then its jobs have done their work."""
        self._hide = masking.forms(hide)
        self._unready: set[str] = set()
        self._started: set[str] = set()
        self._given_up: set[str] = set()
        """Services that Docker calls unhealthy."""
        self.restarts: dict[str, int] = {}
        """Container -> how often it was started again after it had ended."""
        self._too_soon: set[str] = set()
        """Services that were last started while others were not ready yet."""

    def expect(self, names: Collection[str]) -> None:
        """Which services are about to be started: until all are ready, one may fail and be
        started again."""
        self._unready |= set(names)

    def allow(self, seconds: float) -> None:
        """Every wait for readiness ends this long from now."""
        self.deadline = time.monotonic() + seconds

    def extend(self, seconds: float) -> None:
        """Every wait for readiness may last so much longer."""
        self.deadline += seconds

    # stopping -------------------------------------------------------------------------------

    def stop(self, service: Service) -> None:
        """Stop its containers, each with its own grace period; returns when they are down."""
        self.stop_containers(service.ids)

    def stop_containers(self, container_ids: Sequence[str]) -> None:
        """Stop containers at the same time; returns when they are down."""
        if len(container_ids) == 1:
            self.docker.stop(container_ids[0])
        elif container_ids:
            with ThreadPoolExecutor(len(container_ids)) as pool:
                list(pool.map(self.docker.stop, container_ids))

    # starting -------------------------------------------------------------------------------

    def start(self, service: Service) -> None:
        """Start its containers, but no job whose work is done. Raises PortTaken, NotProved (Docker
        cannot run it), Unavailable."""
        if self.lived and service.done:
            self.say(f"{service.name} did its work when this world was live before")
            return
        for container_id in service.ids:
            self._start_container(service, container_id)

    def _start_container(self, service: Service, container_id: str) -> None:
        self._started.add(service.name)
        if self._unready - {service.name}:
            self._too_soon.add(service.name)
        else:
            self._too_soon.discard(service.name)
        give_up = time.monotonic() + _PORT_SECONDS
        for pause in _pauses():
            try:
                self.docker.start(container_id)
                return
            except PortTaken:
                if time.monotonic() > give_up:
                    raise
            except DockerFailed as error:
                if _DISK_FULL in error.message:
                    raise
                raise NotProved(f"{service.name} could not be started: {error.message}") from None
            self._wait(pause)

    # proving --------------------------------------------------------------------------------

    def await_ready(self, service: Service) -> None:
        """Wait until its health check's own test passes, run at once and often, or Docker's own
        retries are used up; without a health check until it runs; a job until it ended well.
        Raises NotProved."""
        began = time.monotonic()
        with self._telling(service, "done" if service.job else "ready"):
            for container in service.containers:
                if service.job:
                    self._await_job(service, container.id)
                else:
                    self._await_healthy(service, container)
        self._unready.discard(service.name)
        what = "has done its work" if service.job else "is ready"
        self.say(f"{service.name} {what} after {time.monotonic() - began:.1f} s")

    def insist_on_standing(self, service: Service) -> None:
        """Raises NotProved unless it runs now (a job: ended well or runs), or runs when it is
        started again because it was started too soon."""
        with self._telling(service, "stands"):
            for container in service.containers:
                now = self.docker.inspect(container.id)
                if self._stands(service, now):
                    continue
                self._forgive(service, now, 0.0)
                self._wait(_STAY_SECONDS)
                now = self.docker.inspect(container.id)
                if not self._stands(service, now):
                    raise self._ended(service, now, _STAY_SECONDS)
                self._await_healthy(service, container)

    def insist_on_steadiness(self, seconds: float, service: Service) -> None:
        """Raises NotProved unless it stands that long, and its health check never fails as often
        in a row as Docker needs to call it unhealthy."""
        with self._telling(service, "steady"):
            self._watch(seconds, service)

    def _watch(self, seconds: float, service: Service) -> None:
        until = time.monotonic() + seconds
        failures = dict.fromkeys(service.ids, 0)
        while time.monotonic() < until:
            self._wait(min(_LOOK_SECONDS, seconds))
            for container in service.containers:
                now = self.docker.inspect(container.id)
                if not self._stands(service, now):
                    raise self._ended(service, now, 0.0)
                if service.job:
                    continue
                said = unhealthy(self.docker, now, seconds)
                failures[container.id] = failures[container.id] + 1 if said is not None else 0
                if failures[container.id] >= (now.health.retries if now.health else 1):
                    text = f"the health check of {service.name} {said} while it was watched"
                    raise self.not_proved(text, container.id)

    def _stands(self, service: Service, now: ContainerDetails) -> bool:
        return now.state in _UP or _has_done_its_work(service, now)

    def _await_healthy(self, service: Service, container: ContainerDetails) -> None:
        asked = f"the health check of {service.name}"

        def ask(now: ContainerDetails, left: float) -> str | None:
            said = unhealthy(self.docker, now, left)
            if said is not None and self._is_final(service, now):
                tries = now.health.retries if now.health else 0
                text = (
                    f"{asked} {said}, and failed {tries} times in a row: Docker calls it unhealthy"
                )
                raise self.not_proved(text, container.id)
            return said

        self.await_answer(service, container.id, ask, asked)

    def _is_final(self, service: Service, now: ContainerDetails) -> bool:
        """Whether Docker gave its verdict, and nobody is left whom the service may wait for."""
        if not now.unhealthy:
            self._given_up.discard(service.name)
            return False
        self._given_up.add(service.name)
        return (self._unready & self._started) <= self._given_up

    def _await_job(self, service: Service, container_id: str) -> None:
        began = time.monotonic()
        while True:
            code = self.docker.wait_exit(container_id, timeout=_LONGEST_PAUSE)
            if code == 0:
                return
            if code is not None:
                now = self.docker.inspect(container_id)
                raise self._ended(service, now, time.monotonic() - began)
            self._insist_on_time(container_id, began, f"{service.name} still worked", "")

    def await_answer(
        self,
        service: Service,
        container_id: str,
        ask: Callable[[ContainerDetails, float], str | None],
        asked: str,
        interval: float | None = None,
    ) -> None:
        """Ask at once and often, or every `interval` seconds, until nothing is wrong any more.

        `ask` is given the container and the seconds that are left, and says what is wrong;
        `asked` begins the message when time is over. Raises NotProved.
        """
        began = time.monotonic()
        said = "the container did not run"
        restarts = 0
        for pause in _pauses(interval):
            now = self.docker.inspect(container_id)
            if now.state == "running" or _has_done_its_work(service, now):
                answer = ask(now, self.deadline - time.monotonic())
                if answer is None:
                    return
                said = answer
            elif now.state != "restarting":
                restarts += 1
                seconds = time.monotonic() - began
                if restarts > _RESTARTS:
                    raise self._ended(service, now, seconds)
                self._forgive(service, now, seconds)
            self._insist_on_time(container_id, began, asked, said)
            self._wait(pause)

    def await_alone(
        self, ask: Callable[[float], str | None], asked: str, interval: float | None = None
    ) -> None:
        """The same for what concerns no container."""
        began = time.monotonic()
        for pause in _pauses(interval):
            said = ask(self.deadline - time.monotonic())
            if said is None:
                return
            self._insist_on_time(None, began, asked, said)
            self._wait(pause)

    def _forgive(self, service: Service, now: ContainerDetails, seconds: float) -> None:
        """A container that ended is a failure, but is started again when its release would have
        that and others were not ready when it was started: it may have needed them."""
        if service.restart_policy == "no" or service.name not in self._too_soon:
            raise self._ended(service, now, seconds)
        self.say(f"{service.name} ended (exit code {now.exit_code}), started again")
        self.restarts[now.id] = self.restarts.get(now.id, 0) + 1
        self._wait(_LONGEST_PAUSE)
        self._start_container(service, now.id)

    def _insist_on_time(self, container_id: str | None, began: float, what: str, said: str) -> None:
        if self.abandoned.is_set():
            raise Abandoned("another service failed meanwhile")
        now = time.monotonic()
        if now > self.deadline:
            text = f"{what} {said}".rstrip() + f" for {now - began:.0f} s"
            raise TooLate(self._with_log(text, container_id))

    def _ended(self, service: Service, container: ContainerDetails, seconds: float) -> NotProved:
        how = f"ended with exit code {container.exit_code}"
        if container.oom_killed:
            how = "was killed because it used too much memory"
        elif container.exit_code == 0 and not service.job:
            how += " (one that is meant to end says `x-lockstep: {job: true}`)"
        after = f" after {seconds:.1f} s" if seconds else ""
        return self.not_proved(f"{service.name} {how}{after}", container.id)

    def not_proved(self, text: str, container_id: str | None) -> NotProved:
        """The failure that says so, with the container's last words."""
        return NotProved(self._with_log(text, container_id))

    def _with_log(self, text: str, container_id: str | None) -> str:
        lines = self.last_lines(container_id)[-_LOG_LINES:]
        return self.masked("\n    ".join([text, *lines]))

    def last_lines(self, container_id: str | None) -> tuple[str, ...]:
        """The end of a container's log, bounded, without secrets; () where it cannot be read."""
        if container_id is None:
            return ()
        try:
            lines = self.docker.logs(container_id, tail=LOG_LINES).splitlines()[-LOG_LINES:]
        except (DockerFailed, Unavailable):
            return ()
        return tuple(self.masked(line.rstrip()[:LOG_LINE]) for line in lines)

    @contextmanager
    def _telling(self, service: Service, what: str) -> Iterator[None]:
        """A failure inside tells the log entry, too, what was waited for and since when."""
        began, since = time.monotonic(), clock.now("milliseconds")
        try:
            yield
        except NotProved as error:
            _, *log = error.message.splitlines()
            error.result = GateResult(
                gate=what,
                service=service.name,
                kind="ready",
                result=Result.FAILED,
                means="fail",
                since=since,
                seconds=round(time.monotonic() - began, 3),
                said=bounded(error.first_line),
                log=tuple(line.strip() for line in log),
            )
            raise

    def masked(self, text: str) -> str:
        """The text without any secret's value."""
        return masking.masked(masking.without(text, self._hide))

    def _wait(self, seconds: float) -> None:
        if self.abandoned.wait(seconds):
            raise Abandoned("another service failed meanwhile")


def _has_done_its_work(service: Service, now: ContainerDetails) -> bool:
    return service.job and now.state == "exited" and now.exit_code == 0


def _pauses(interval: float | None = None) -> Iterator[float]:
    pause = _FIRST_PAUSE
    while True:
        yield interval or pause
        pause = min(_LONGEST_PAUSE, pause * _PAUSE_GROWTH)


def in_parallel(work: Callable[[Service], None], world: HostWorld) -> None:
    """The same for every service at once; the first failure is raised when all have ended."""
    if world.services:
        with ThreadPoolExecutor(len(world.services)) as pool:
            list(pool.map(work, world.services.values()))
