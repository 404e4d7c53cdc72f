"""Putting right what was interrupted or stands still, and the emergency stop."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import suppress

from failpoints import failpoint
from reconciler import clock
from reconciler.catalog import Catalog
from reconciler.config import Stack
from reconciler.docker import OUR_PROJECT, OUR_STACK, Docker
from reconciler.errors import CatalogDamaged, LockstepError
from reconciler.hooks.hooktable import At
from reconciler.host.graph import perform
from reconciler.records.journal import Intent, JournalFile
from reconciler.records.ledger import Committed, Found, Recovered, Reverted, State, Stopped
from reconciler.switching import outcomes
from reconciler.switching.handover import start_acts
from reconciler.switching.services import NotProved, Services, in_parallel
from reconciler.switching.undertaking import Undertaking
from reconciler.world.hostworld import Service

Say = Callable[[str], None]


def finish_or_revert(
    stack: Stack, catalog: Catalog, docker: Docker, say: Say, *, who: str = "", log: str = ""
) -> list[str]:
    """Bring a switch that was interrupted to its end; what was found and done, as sentences,
    which stand in the ledger too. `log`: the progress file, where others can follow this one.

    Needs the host lock. Can be interrupted itself, and done again. Raises CatalogDamaged when the
    journal does not belong to the ledger.
    """
    catalog.clear_drafts()
    intent = JournalFile(catalog.journal).read()
    if intent is None:
        return []
    insist_on_its_ledger(intent, catalog)
    u = Undertaking(stack, catalog, docker, intent, say)
    if log:
        with suppress(OSError):  # on a full disk nobody can attach
            earlier = (*intent.earlier_logs, intent.log)
            u.note(pid=os.getpid(), log=log, earlier_logs=earlier)
    with suppress(LockstepError):
        u.hooks.clear()
    state, name = catalog.state(), intent.to_world
    outcome = _outcome_of(intent, state)
    if _is_past(intent, state):
        found = f"a journal of the switch to {name}, which is past, was found"
        return [_end(u, who, found, "it was removed and nothing else was touched")]
    if isinstance(outcome, Committed):
        say(f"finishing the switch to {name}, which was committed")
        warnings = outcomes.complete(u)
        found = f"the switch to {name} was committed, but not finished"
        return [_end(u, who, found, "what remained of it is done"), *warnings]
    if outcome is not None:
        outcomes.hooks_after(u, At.POST_REVERT, outcome.reason)
        found = f"the switch to {name} was reverted, but its journal was left"
        return [_end(u, who, found, "it was removed")]
    if intent.step == "prepare":
        found = f"the switch to {name} was interrupted before it changed anything"
        return [_end(u, who, found, "there was nothing to put right")]
    say(f"the switch to {name} was interrupted at {intent.step}: reverting it")
    why = f"interrupted at {intent.step}"
    says = outcomes.revert(u, why, quarantine=False, interrupted=True)
    return [f"the switch to {name} was {why}; {says}"]


def insist_on_its_ledger(intent: Intent, catalog: Catalog) -> None:
    """Raises CatalogDamaged when the ledger is not the one that the switch began with."""
    if catalog.ledger.chain_at(intent.seq) == intent.chain:
        return
    raise CatalogDamaged(
        f"the journal of the interrupted switch to {intent.to_world} was written after event "
        f"{intent.seq} of another ledger than {catalog.ledger.path}, which has "
        f"{catalog.state().seq} events",
        next_step="put back the newest copy of the ledger, then   lockstep recover",
    )


def _end(u: Undertaking, who: str, found: str, done: str) -> str:
    """Write down what was found and done, then end the journal."""
    event = Found(
        at=clock.now("milliseconds"), who=who, world=u.intent.to_world, found=found, done=done
    )
    u.catalog.ledger.append(event)
    u.catalog.write_manifest()
    u.evidence.close()
    with suppress(OSError):
        u.evidence.add_hooks()
    u.file.remove()
    return f"{found}; {done}"


def repair(u: Undertaking) -> None:
    """Start and prove what stands still of the live world. Raises when it cannot be done."""
    _stop_other_worlds(u)
    world = u.look_new()
    down = {s.name for s in world.services.values() if not _stands(s)}
    later = {s.name for s in world.services.values() if s.after_commit}
    u.say(f"starting {', '.join(sorted(down)) or 'nothing'} of {world.name}")
    u.services.expect(down - later)
    u.services.allow(u.stack.settings.deadline)
    try:
        for names in (down - later, down & later):
            starting = world.only(names).services
            perform(start_acts(u.services, starting), u.services.abandoned)
        in_parallel(u.services.insist_on_standing, world)
    except NotProved as error:
        raise LockstepError(
            f"{world.name} is live, but cannot be brought to stand: {error.message}",
            next_step="lockstep compose logs   shows more; lockstep rollback   goes back",
        ) from None
    u.ingress.serve(world)
    u.ingress.keep_pace()
    failpoint("switch.repaired")
    outcomes.set_policies(u.docker, world, outcomes.own_policies(world))
    u.catalog.ledger.append(Recovered(**u.outcome(), reason=_was_down(down)))
    u.catalog.write_manifest()


def stop_all(
    stack: Stack, catalog: Catalog, docker: Docker, progress: Say, reason: str = ""
) -> int:
    """The emergency stop: every running container of the stack at once, each with its own grace
    period. Returns how many. They stay down, over a reboot too, until `lockstep up`.

    Neither a damaged ledger nor a full disk keeps it from stopping: what could not be recorded is
    raised afterwards.
    """
    worlds: set[str] = set()
    unrecorded: Exception | None = None
    try:
        state = catalog.state()
        worlds = {w.name for w in state.worlds.values() if not w.removed}
        if state.live is not None:
            # First, or the guard would bring back what is being stopped when this is killed.
            catalog.ledger.append(Stopped(at=clock.now("milliseconds"), reason=reason))
    except (CatalogDamaged, OSError) as error:
        unrecorded = error
    labels = {(OUR_PROJECT, stack.project), (OUR_STACK, stack.name)}
    running = [
        listed
        for listed in docker.listing(running=True)
        if listed.project in worlds or labels <= set(listed.labels.items())
    ]
    progress(f"stopping {len(running)} containers")
    Services(docker, progress, hide=()).stop_containers([c.id for c in running])
    for listed in running:
        docker.set_restart(listed.id, "no")
    failpoint("switch.all-stopped")
    if unrecorded is not None:
        raise LockstepError(
            f"{len(running)} containers are stopped, but that could not be recorded: {unrecorded}",
            next_step="a guard that runs would start them again: stop it, too",
        ) from None
    return len(running)


def _outcome_of(intent: Intent, state: State) -> Committed | Reverted | Recovered | None:
    """What the ledger says of this switch; None: it was not decided."""
    later = _later(intent, state)
    return later[0] if later and later[0].to_world == intent.to_world else None


def _is_past(intent: Intent, state: State) -> bool:
    """Whether other switches followed: while its journal stood, none could."""
    later = _later(intent, state)
    return len(later) > 1 or (bool(later) and later[0].to_world != intent.to_world)


def _later(intent: Intent, state: State) -> list[Committed | Reverted | Recovered]:
    return [outcome for seq, outcome in state.outcomes if seq > intent.head]


def _stands(service: Service) -> bool:
    if service.job:
        return all(c.state == "exited" and c.exit_code == 0 for c in service.containers)
    return all(c.state == "running" for c in service.containers)


def _stop_other_worlds(u: Undertaking) -> None:
    """Exactly one world runs: what a reboot brought up of others goes down first."""
    worlds: Mapping[str, object] = {
        w.name: w
        for w in u.catalog.state().worlds.values()
        if w.name != u.intent.to_world and not w.removed and not w.adopted
    }
    running = [c for c in u.docker.listing(running=True) if c.project in worlds]
    for listed in running:
        u.say(f"stopping {listed.name}: its world is not live")
    u.services.stop_containers([c.id for c in running])


def _was_down(services: set[str]) -> str:
    if not services:
        return "nothing stood still"
    return f"{', '.join(sorted(services))} stood still"
