"""What the data would say to a move, told beforehand without reading it: the preview shows what
`up` would refuse or warn of once it has read everything."""

from __future__ import annotations

from dataclasses import replace

from reconciler.catalog import Catalog
from reconciler.docker import Docker
from reconciler.errors import CatalogDamaged
from reconciler.plan import Action, Move, Plan, Refusal
from reconciler.records.ledger import State
from reconciler.records.release import Release
from reconciler.upkeep import integrity, mending, untouched
from reconciler.world import places
from snapshots.errors import StoreBusy

_LOOKED_AT = (Action.ATTACH, Action.RESTORE, Action.IN_PLACE)


def added(
    catalog: Catalog, state: State, docker: Docker, plan: Plan, record: Release | None
) -> Plan:
    """The plan, with what config files, sealed volumes and the store say to it. `record`: of the
    release that it goes to. Raises errors of `snapshots`."""
    if plan.refusals:
        return plan
    if record is not None and not record.adopted:
        plan = _with_files(catalog, state, plan, record)
    if plan.move in (Move.STAY, Move.REPAIR):
        return plan
    concerned = any(d.action in _LOOKED_AT for d in plan.datasets.values())
    if not concerned or not (catalog.stack.store / "format").exists():
        return plan
    store = catalog.stack.open_store(create=False)
    plan = _saying(plan, *untouched.foreseen(state, docker, store, plan))
    try:
        found = mending.foreseen(
            state, store, plan, lambda: integrity.sealed_folders(state, docker)
        )
    except StoreBusy:
        return plan  # a sweep is under way: `up` waits for it
    return _saying(plan, *found)


def _with_files(catalog: Catalog, state: State, plan: Plan, record: Release) -> Plan:
    """Config files that are not as recorded are laid anew, from copies that must be whole."""
    refusals: list[Refusal] = []
    warnings: list[str] = []
    for config in record.configs.values():
        try:
            catalog.content(record.name, config.sha256)
        except CatalogDamaged as error:
            refusals.append(Refusal(error.message, "put back a copy of the file", error.exit_code))
    # What is live has read them: only when it is started again, they are the recorded ones.
    back = "`lockstep stop`, then `lockstep up`, put" if plan.move is Move.STAY else "`up` puts"
    world = state.worlds.get(plan.to_world or "")
    if world is not None and not plan.new_world and world.release == record.name:
        for path in places.altered_files(catalog, world.name, record):
            warnings.append(f"{path} is not as {record.name} has it: {back} it back")
    return _saying(plan, refusals, warnings)


def _saying(plan: Plan, refusals: list[Refusal], warnings: list[str]) -> Plan:
    return replace(
        plan,
        refusals=(*plan.refusals, *refusals),
        warnings=(*plan.warnings, *warnings),
    )
