"""Putting right what was interrupted or stands still, and the emergency stop."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from reconciler import outcomes
from reconciler.catalog import Catalog
from reconciler.config import Stack
from reconciler.docker import OUR_PROJECT, OUR_STACK, Docker
from reconciler.errors import LockstepError
from reconciler.graph import perform
from reconciler.handover import start_acts
from reconciler.hostworld import Service
from reconciler.journal import Intent, JournalFile
from reconciler.ledger import Committed, Recovered, Reverted, State, Stopped
from reconciler.services import NotProved, Services, in_parallel
from reconciler.undertaking import Undertaking, now

Say = Callable[[str], None]


def finish_or_revert(stack: Stack, catalog: Catalog, docker: Docker, say: Say) -> list[str]:
    """Bring a switch that was interrupted to its end; what was found and done, as sentences.

    Needs the host lock. Can be interrupted itself, and done again.
    """
    intent = JournalFile(catalog.journal).read()
    if intent is None:
        return []
    u = Undertaking(stack, catalog, docker, intent, say)
    name = intent.to_world
    outcome = _outcome_of(intent, catalog.state())
    if isinstance(outcome, Committed):
        say(f"finishing the switch to {name}, which was committed")
        warnings = outcomes.finish(u)
        return [f"the switch to {name} was committed; what remained of it is done", *warnings]
    if outcome is not None:
        u.file.remove()
        return [f"the switch to {name} was reverted"]
    if intent.step == "prepare":
        u.file.remove()
        return [f"the switch to {name} was interrupted before it changed anything"]
    say(f"the switch to {name} was interrupted at {intent.step}: reverting it")
    why = f"interrupted at {intent.step}"
    says = outcomes.revert(u, why, quarantine=False, interrupted=True)
    return [f"the switch to {name} was {why}; {says}"]


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
    outcomes.set_policies(u.docker, world, outcomes.own_policies(world))
    u.catalog.ledger.append(Recovered(**u.outcome(), reason=_was_down(down)))
    u.catalog.write_manifest()


def stop_all(
    stack: Stack, catalog: Catalog, docker: Docker, progress: Say, reason: str = ""
) -> int:
    """The emergency stop: every running container of the stack at once, each with its own grace
    period. Returns how many. They stay down, over a reboot too, until `lockstep up`."""
    state = catalog.state()
    worlds = {w.name for w in state.worlds.values() if not w.removed}
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
    if state.live is not None:
        catalog.ledger.append(Stopped(at=now(), reason=reason))
    return len(running)


def _outcome_of(intent: Intent, state: State) -> Committed | Reverted | Recovered | None:
    """What the ledger says of this switch; None: it was not decided."""
    for seq, outcome in state.outcomes:
        if seq > intent.head and outcome.to_world == intent.to_world:
            return outcome
    return None


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
