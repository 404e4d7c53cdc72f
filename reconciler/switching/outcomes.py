"""How a switch ends: the rest after its commit, or the way back to the old world."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TypeVar

from failpoints import failpoint
from reconciler import clock
from reconciler import docker as docker_module
from reconciler.docker import Docker
from reconciler.errors import DockerFailed, LockstepError, Unavailable
from reconciler.hooks.hooktable import At
from reconciler.records.journal import InPlace
from reconciler.records.ledger import Committed, Hooked, Reverted
from reconciler.switching import detached
from reconciler.switching.early import independent
from reconciler.switching.handover import HandOver, Seal
from reconciler.switching.services import NotProved, in_parallel
from reconciler.switching.undertaking import Undertaking
from reconciler.world import hostnotes
from reconciler.world.hostworld import HostWorld, Service
from snapshots.errors import SnapshotError

_DOCKER_SECONDS = 300.0
_RETURN_SECONDS = 300.0
"""The old world gets at least this long to stand again: there is nothing else to turn to."""
_FULL_DISK = 64 << 20
_PROBE_SECONDS = 5.0
_LATE_START_SECONDS = 1.0

T = TypeVar("T")


def commit(u: Undertaking, new: HostWorld) -> None:
    """Make the new world live: one appended, fsynced line of the ledger.

    Restart policies of the new world come first: from the commit on it must survive a reboot.
    """
    u.note("commit")
    set_policies(u.docker, new, own_policies(new))
    failpoint("switch.policies")
    event = Committed(
        **u.outcome(),
        downtime_seconds=u.intent.downtime_seconds,
        sealed=u.intent.sealed,
        snapshots=u.intent.snapshots,
        wish=u.intent.wish,
        incident=u.evidence.of_commit,
    )
    try:
        u.catalog.ledger.append(event)
        failpoint("switch.committed")
    except OSError:
        # Whether the line is there is what counts, not whether its writer was told so.
        if u.catalog.state().live != u.intent.to_world:
            raise


def finish(u: Undertaking) -> list[str]:
    """What remains after the commit, and the end of the journal. Returns warnings."""
    warnings = complete(u)
    for dataset, changed in u.intent.in_place.items():
        if changed.restored and _is_shared(u, dataset):
            _warned(warnings, partial(_patiently, u, partial(_tell_others, u, changed)))
    _warned(warnings, u.catalog.write_manifest)
    u.evidence.close()
    u.file.remove()
    return warnings


def complete(u: Undertaking) -> list[str]:
    """What remains after the commit; also for who finds the journal of a committed switch.

    Nothing here can undo the commit: what goes wrong is returned as warnings.
    """
    warnings: list[str] = []
    u.ingress.let_in()
    new = u.look_new()
    _warned(warnings, partial(_patiently, u, partial(u.ingress.serve, new)))
    failpoint("switch.repointed")
    old = u.look_old()
    if old is not None:
        leaving = partial(set_policies, u.docker, old, dict.fromkeys(old.services, "no"))
        _warned(warnings, partial(_patiently, u, leaving))
    failpoint("switch.left")
    for service in new.services.values():
        if service.after_commit:
            _warned(warnings, partial(_start_late, u, service))
    failpoint("switch.after-commit")
    u.ingress.keep_pace()
    _warned(warnings, lambda: warnings.extend(u.data.advice(new, u.new_record)))
    hooks_after(u, At.POST_COMMIT)
    return [*warnings, *u.hooks.warnings]


def hooks_after(u: Undertaking, at: At, why: str = "") -> None:
    """The user's hooks when the outcome stands in the ledger: nothing they do changes it."""
    if not u.hooks.has(at):
        return
    _leniently(u, partial(u.hooks.boundary, at, reason=why))
    ran = tuple(run for run in u.hooks.ran.values() if run.at == at)
    event = Hooked(at=clock.now(), world=u.intent.to_world, hooks=ran)
    _leniently(u, lambda: u.catalog.ledger.append(event))


def _leniently(u: Undertaking, act: Callable[[], object]) -> None:
    """Whatever goes wrong, who is on the way to a live world goes on."""
    try:
        act()
    except Exception as error:
        u.say(f"passed over: {getattr(error, 'message', None) or error!r}")


def _is_shared(u: Undertaking, dataset: str) -> bool:
    known = u.new_record.datasets.get(dataset) if u.new_record is not None else None
    return known is not None and known.shared


def _tell_others(u: Undertaking, changed: InPlace) -> None:
    hostnotes.write_restored(
        u.docker, u.stack, changed.place, at=u.intent.started, safety=changed.safety
    )


def _start_late(u: Undertaking, service: Service) -> None:
    u.services.start(service)
    u.say(f"{service.name} is started, now that {u.intent.to_world} is live")


def _warned(warnings: list[str], act: Callable[[], None]) -> None:
    try:
        act()
    except (LockstepError, OSError) as error:
        warnings.append(str(error))


def own_policies(world: HostWorld) -> dict[str, str]:
    """The restart policies that the services have while their world is live."""
    return {s.name: s.restart_policy for s in world.services.values()}


def set_policies(docker: Docker, world: HostWorld, policies: dict[str, str]) -> None:
    """Give the containers of each named service a restart policy, where they have another."""

    def one(service: Service) -> None:
        policy = policies[service.name]
        for container in service.containers:
            if docker.inspect(container.id).restart_policy != policy:
                docker.set_restart(container.id, policy)

    in_parallel(one, world.only(policies))


def revert(u: Undertaking, why: str, *, quarantine: bool, interrupted: bool = False) -> str:
    """Stop the new world, put back what was changed in place, start and prove the old one.

    Writes the outcome and ends the journal. Returns what is live now, as a sentence; it says so
    when the old world could not be proved. `interrupted`: by a crash, whose requests to Docker
    may still be under way. Raises what made it impossible; then the journal stays.
    """
    with suppress(OSError):  # on a full disk what stands in the journal must do
        u.note(reverting=True)
    detached.log_step(u.intent.log, "revert")
    failpoint("switch.revert")
    u.evidence.look_at_failed()
    u.services = u.new_services()
    _leniently(u, u.hooks.clear)
    _leniently(u, partial(u.hooks.boundary, At.PRE_REVERT, reason=why))
    stays_stopped = u.catalog.state().stopped
    new, old = _patiently(u, u.look_new), _patiently(u, u.look_old)
    written = _patiently(u, partial(u.data.probe, new, u.new_record, _PROBE_SECONDS))
    if interrupted:
        _patiently(u, partial(_await_old_requests, u, new, old))
        new = _patiently(u, u.look_new)
    touched = _touched(u, new)
    u.evidence.wait_before_way_back()
    way = _WayBack(u, new, _coming_back(u, old, stays_stopped), touched)
    _patiently(u, partial(u.ingress.make_way, old, new))
    unproved = ""
    try:
        _patiently(u, way.go)
    except (NotProved, DockerFailed, SnapshotError, OSError) as error:
        unproved = u.services.masked(getattr(error, "message", None) or str(error))
        _patiently(u, partial(_insist_on_safe_return, u, way, why, unproved))
        way.start_regardless()
    if not stays_stopped:
        _let_in_again(u, old)
    detached.log_step(u.intent.log, "reverted")
    failpoint("switch.reverted")
    _patiently(u, partial(set_policies, u.docker, new, dict.fromkeys(new.services, "no")))
    says = _what_is_live(u, unproved, stays_stopped)
    event = Reverted(
        **u.outcome(),
        reason=why + (f"; {says}" if unproved else ""),
        downtime_seconds=u.away_seconds,
        sealed=_touched_generations(u, new) if touched else {},
        snapshots=way.set_aside,
        touched=touched,
        quarantine=quarantine,
        written=written,
        incident=u.intent.incident,
    )
    try:
        u.catalog.ledger.append(event)
        failpoint("switch.revert-written")
        u.catalog.write_manifest()
        u.evidence.close()
        if not unproved and not stays_stopped:
            hooks_after(u, At.POST_REVERT, why)
            _leniently(u, u.evidence.add_hooks)
        u.file.remove()
    except OSError as error:
        raise LockstepError(
            f"{why}\n{says}, but that could not be recorded: {error.strerror}",
            next_step="free some space, then   lockstep recover",
        ) from None
    if unproved:
        raise LockstepError(f"{why}\n{says}", next_step="lockstep compose ps   shows how it stands")
    return says


def _let_in_again(u: Undertaking, old: HostWorld | None) -> None:
    """Who was held meets the old world. An ingress that fails does not keep it from being live."""
    try:
        _patiently(u, partial(u.ingress.serve, old))
    except LockstepError as error:
        u.say(str(error))
    u.ingress.keep_pace()


def disk_is_full(u: Undertaking) -> bool:
    """Whether a failure is likely to come from a full disk rather than from the release."""
    folders = [u.catalog.root]
    with suppress(LockstepError):
        folders.append(u.docker.info.root)
    for folder in folders:
        with suppress(OSError):
            state = os.statvfs(folder)
            if state.f_bavail * state.f_frsize < _FULL_DISK:
                return True
    return False


class _WayBack:
    """From the failed world to the one before it."""

    def __init__(
        self, u: Undertaking, new: HostWorld, coming: HostWorld | None, touched: bool
    ) -> None:
        self.u = u
        self.new = new
        self.back = coming or HostWorld(u.intent.from_world or "", {})
        self.touched = touched
        self.to_put_back = set(u.intent.in_place)

    @property
    def set_aside(self) -> dict[str, str]:
        """dataset -> snapshot of what the failed world wrote in place."""
        return {d: c.set_aside for d, c in self.u.intent.in_place.items() if c.set_aside}

    def go(self) -> None:
        """Can be done again from any point of itself."""
        u = self.u
        u.services = u.new_services()
        u.services.expect(self.back.services)
        places = {d: c.place for d, c in u.intent.in_place.items()}
        HandOver(
            services=u.services,
            leaving=self.new,
            coming=self.back,
            seals=tuple(Seal(d, place, partial(self._put_back, d)) for d, place in places.items()),
            independent=independent(self.back, self.new, places.values()),
            settle=lambda _: None,
            settled=frozenset(),
            # No gates: it passed its own when it became live; those of today may be what failed.
            on_answer=lambda service: u.gap.answers(service, self.back),
            proof_seconds=max(_RETURN_SECONDS, u.stack.settings.deadline),
            at_rest=lambda: failpoint("switch.revert-stopped"),
        ).carry_out()
        for service in self.back.services.values():
            u.services.insist_on_standing(service)

    def start_regardless(self) -> None:
        """One service that does not get ready must not keep the others of the old world down."""
        for container_id in self.back.ids:
            try:
                self.u.docker.start(container_id)
            except LockstepError as error:
                self.u.say(error.message)

    def _put_back(self, dataset: str) -> None:
        u, changed = self.u, self.u.intent.in_place[dataset]
        # Once only, also for who recovers: the old world writes into it from then on.
        if not changed.put_back:
            self._exchange(dataset, changed)
            changed.put_back = True
            with suppress(OSError):  # on a full disk what stands in the journal must do
                u.note()
        for owner in changed.owners:
            u.docker.start(owner)
        self.to_put_back.discard(dataset)

    def _exchange(self, dataset: str, changed: InPlace) -> None:
        """Keep what the failed world wrote in place, then put the content before it back."""
        u = self.u
        u.services.stop_containers(changed.owners)
        if self.touched and changed.safety and not changed.set_aside:
            tags = {"release": u.to_world.release, "world": u.to_world.name}
            changed.set_aside = u.data.capture_failed(dataset, changed.place, tags) or ""
        if changed.safety and (changed.restored or self.touched):
            u.data.restore_in_place(dataset, changed.place, changed.safety)


def _insist_on_safe_return(u: Undertaking, way: _WayBack, why: str, problem: str) -> None:
    """The old world may run, even unproved, only when its data is its own again and nothing of
    the failed world runs. Raises LockstepError else; then the journal stays."""
    running = [s.name for s in u.look_new().services.values() if s.up]
    if way.to_put_back or running:
        raise LockstepError(
            f"{why}\nthe way back to {u.intent.from_world} failed: {problem}",
            next_step="lockstep recover   tries again",
        )


def _coming_back(u: Undertaking, old: HostWorld | None, stays_stopped: bool) -> HostWorld | None:
    """The services of the old world that have to run: those that did."""
    if old is None or stays_stopped:
        return None
    ran = set(u.intent.old_running)
    return old.only({s.name for s in old.services.values() if not ran or ran & set(s.ids)})


def _touched(u: Undertaking, new: HostWorld) -> bool:
    """Whether any container of the new world was started by this switch."""
    before = u.intent.new_started_at
    return bool(_one_offs(u)) or any(
        c.started != before.get(c.id) for s in new.services.values() for c in s.containers
    )


def _one_offs(u: Undertaking) -> set[str]:
    """Services of the new world that a hook ran a container of: it could write what they can."""
    return {run.one_off for run in u.intent.hooks.values() if run.one_off}


def _touched_generations(u: Undertaking, new: HostWorld) -> dict[str, str]:
    """Generations that only the failed world has and that its containers could write."""
    before = u.intent.new_started_at
    shared = set(u.from_world.generations.values()) if u.from_world else set()
    ran = [
        s
        for s in new.services.values()
        if s.name in _one_offs(u) or any(c.started != before.get(c.id) for c in s.containers)
    ]
    return {
        dataset: generation
        for dataset, generation in u.to_world.generations.items()
        if generation not in shared and any(generation in s.writes for s in ran)
    }


def _what_is_live(u: Undertaking, unproved: str, stays_stopped: bool) -> str:
    if u.intent.from_world is None:
        return "nothing is live"
    if stays_stopped:
        return f"{u.intent.from_world} stays stopped, as it was"
    if unproved:
        return f"{u.intent.from_world} was started again, but not proved: {unproved}"
    return f"{u.intent.from_world} is live again"


def _await_old_requests(u: Undertaking, new: HostWorld, old: HostWorld | None) -> None:
    """Docker carries out a request whose client died: a container that is still being stopped
    cannot be started, and one that is still being started would not be stopped."""
    if old is not None and u.intent.step == "stop":
        in_parallel(u.services.stop, old)
    time.sleep(_LATE_START_SECONDS)
    in_parallel(u.services.stop, new)


def _patiently(u: Undertaking, act: Callable[[], T]) -> T:
    """Do it again when Docker is back: a daemon that restarts must not leave nothing running."""
    give_up = time.monotonic() + _DOCKER_SECONDS
    while True:
        try:
            return act()
        except Unavailable as error:
            if time.monotonic() > give_up:
                raise
            u.say(f"{error.message}; waiting until it does")
            _await_docker(give_up)


def _await_docker(give_up: float) -> None:
    while time.monotonic() < give_up:
        with suppress(LockstepError):
            docker_module.connect()
            return
        threading.Event().wait(0.5)
