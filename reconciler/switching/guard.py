"""What the guard watches: an unfinished switch, and a live world that does not run although nobody
asked for that. It brings back what the ledger says is live, and never goes anywhere else."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from reconciler import decide, observe, switch, worlds
from reconciler.catalog import Catalog, write_durably
from reconciler.config import Settings, Stack
from reconciler.docker import Compose, Docker
from reconciler.errors import Refused
from reconciler.facts import Container, Facts
from reconciler.host import hostlock
from reconciler.host.hostlock import HostLock
from reconciler.ingress import ingressfacts, ingressports
from reconciler.plan import Move, Plan
from reconciler.planning.situation import Situation
from reconciler.records import journal, trust
from reconciler.records.ledger import State

Say = Callable[[str], None]

FIRST_WAIT = 10.0
LONGEST_WAIT = 600.0
_BOOT = Path("/proc/sys/kernel/random/boot_id")


def needed(catalog: Catalog, docker: Docker) -> str | None:
    """What has to be put right, as a sentence; None when all is as it should be, or when somebody
    works on the host. Raises CatalogDamaged, Unavailable."""
    return what_is_wrong(catalog, docker) if hostlock.holder() is None else None


def what_is_wrong(catalog: Catalog, docker: Docker) -> str | None:
    """The same, for who holds the host lock himself."""
    interrupted = journal.unfinished(catalog.journal)
    if interrupted is not None:
        return f"a switch to {interrupted} was interrupted"
    state = catalog.state()
    if state.standing is None or state.stopped:
        return None
    down = _down(catalog, state, docker)
    if down:
        return f"{', '.join(down)} of {state.live} stood still or were missing"
    return "; ".join(_ingress(catalog, state, docker)) or None


def put_right(
    stack: Stack,
    catalog: Catalog,
    docker: Docker,
    composer: Compose,
    lock: HostLock,
    say: Say,
    *,
    anchor: Mapping[str, Any] | None,
) -> list[str]:
    """Finish or revert what is unfinished, then start, or make again, what the live world misses;
    what was done, as sentences. `anchor`: the stack's output `head`. Raises Refused and what
    `worlds.make` and the switch raise."""
    done = switch.recover(stack, catalog, lock, say)
    state = catalog.state()
    live = state.standing
    if live is None or state.stopped:
        return done
    down = _down(catalog, state, docker)
    wrong = _ingress(catalog, state, docker)
    if not down and not wrong:
        return done
    # By an older copy of the ledger another world was live, and the one that runs would be stopped.
    left = trust.examine(anchor, catalog, state, stack.settings.trust)
    if left.ledger:
        raise Refused(left.ledger, next_step=left.remedy)
    stack = _as_made(stack, live, docker)
    plan = _plan(stack, catalog, state, docker)
    worlds.make(stack, catalog, docker, composer, plan, say)
    switch.carry_out(stack, catalog, plan, lock, say)
    if not down:
        return [*done, f"{'; '.join(wrong)}: put right"]
    return [*done, f"{', '.join(down)} of {live} run again"]


def _down(catalog: Catalog, state: State, docker: Docker) -> tuple[str, ...]:
    """Services of the live world that do not stand. One that somebody paused is left to him."""
    assert state.live is not None
    world = state.worlds[state.live]
    found = tuple(
        replace(c, state="running") if c.state == "paused" else c
        for c in docker.containers(project=world.name)
    )
    record = catalog.record(world.release)
    facts = Facts(now=0.0, containers={world.name: found}, records={record.name: record})
    return Situation(catalog.stack, state, facts).broken(world)


def _ingress(catalog: Catalog, state: State, docker: Docker) -> tuple[str, ...]:
    """What is wrong with the ingress of the live world."""
    units = ingressfacts.units(catalog.stack, docker)
    return ingressfacts.examine(catalog, units, docker.containers(project=state.live))


def _as_made(stack: Stack, live: str, docker: Docker) -> Stack:
    """Ports are not handed over by a guard: another setting than the live world was made with is
    for an `up`."""
    made = ingressports.as_made(stack.settings.ingress, docker.containers(project=live))
    settings = stack.settings.model_copy(update={"ingress": made})
    return stack.model_copy(update={"settings": settings})


def _plan(stack: Stack, catalog: Catalog, state: State, docker: Docker) -> Plan:
    """The repair of the live world, whatever is declared: another release, or other secrets, are
    for an `up`."""
    live = state.worlds[state.live or ""]
    standing = {"release": live.release, "restore": None, "retry": None}
    here = stack.model_copy(update={"settings": stack.settings.model_copy(update=standing)})
    facts = observe.observe(here, catalog, state, docker, probe=False)
    if live.release not in facts.records:
        why = facts.damaged.get(live.release, f"the record of {live.release} is missing")
        raise Refused(why, next_step="put back a copy of the file")
    if facts.fingerprint != live.fingerprint and _is_incomplete(
        facts.containers.get(live.name, ()), facts, live.release
    ):
        raise Refused(
            f"containers of {live.name} are missing, and the secrets have changed since it was "
            "made: it cannot be made again as it was",
            next_step="lockstep up   makes it with the secrets of today",
        )
    plan = decide.decide(here, state, replace(facts, fingerprint=live.fingerprint))
    if plan.refusals:
        raise Refused("; ".join(r.message for r in plan.refusals), next_step="lockstep doctor")
    if plan.move is not Move.REPAIR:
        raise Refused(f"{live.name} cannot be repaired: {plan.says}", next_step="lockstep up")
    return plan


def _is_incomplete(containers: tuple[Container, ...], facts: Facts, release: str) -> bool:
    services = facts.records[release].model.get("services", {})
    return bool(services.keys() - {c.service for c in containers})


def bare_stack(project: str, name: str, root: Path) -> Stack:
    """A stack as far as the catalog needs it: without its config, which takes long to read."""
    return Stack(project=project, name=name, root=root, settings=Settings())


class Pace(BaseModel):
    """How often the guard acted lately: each time it waits twice as long, until what it brought
    back has stood for as long as that. Times are seconds since the boot, which no clock moves."""

    model_config = ConfigDict(extra="forbid")

    boot: str
    attempts: int = 0
    last: float = 0.0

    @property
    def wait(self) -> float:
        """Seconds from the last attempt to the next."""
        if not self.attempts:
            return 0.0
        return float(min(LONGEST_WAIT, FIRST_WAIT * 2 ** min(self.attempts - 1, 10)))

    def left(self, now: float) -> float:
        """Seconds until it may act."""
        return max(0.0, self.last + self.wait - now) if self.attempts else 0.0

    def acted(self, now: float) -> Pace:
        return self.model_copy(update={"attempts": self.attempts + 1, "last": now})

    def stands(self, now: float) -> Pace:
        """All is as it should be."""
        return self.model_copy(update={"attempts": 0}) if self.left(now) == 0 else self


class PaceFile:
    """The pace, kept over restarts of the guard; `--once` by cron goes by it as well."""

    def __init__(self, catalog: Catalog) -> None:
        self.path = catalog.root / f"guard-{catalog.stack.name}.json"

    def read(self) -> Pace:
        """That of another boot, or one that cannot be read, counts for nothing."""
        boot = _BOOT.read_text().strip()
        try:
            pace = Pace.model_validate_json(self.path.read_bytes())
        except (OSError, ValidationError):
            return Pace(boot=boot)
        return pace if pace.boot == boot and pace.last <= uptime() else Pace(boot=boot)

    def write(self, pace: Pace) -> None:
        write_durably(self.path, pace.model_dump_json().encode())


def uptime() -> float:
    """Seconds since the boot, sleep included."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
