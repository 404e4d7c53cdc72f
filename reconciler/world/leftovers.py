"""What a run that died left half-made: noted before it is made, removed by the next run.

Only what a note of this catalog names is removed: volumes of the same name and labels may belong
to a catalog that was lost, or to another clone, and hold its only data.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from reconciler.catalog import Catalog, write_durably
from reconciler.config import Stack
from reconciler.docker import OUR_DATASET, Compose, Docker
from reconciler.errors import Refused
from reconciler.records.ledger import State
from reconciler.world import places
from reconciler.world.removal import remove_containers

_NOTE = "begun.json"
Labels = Mapping[str, str]


def note(catalog: Catalog, world: str, volumes: Mapping[str, Labels]) -> None:
    """Say durably that a world with these new volumes (name -> labels) is being made."""
    document = {name: dict(labels) for name, labels in volumes.items()}
    write_durably(catalog.work(world) / _NOTE, json.dumps(document).encode())


def forget(catalog: Catalog, world: str) -> None:
    """The world is in the ledger now."""
    (catalog.root / "work" / world / _NOTE).unlink(missing_ok=True)


def clear(stack: Stack, catalog: Catalog, docker: Docker, composer: Compose, state: State) -> None:
    """Remove everything that was begun and of which the ledger does not know."""
    for path in sorted((catalog.root / "work").glob(f"*/{_NOTE}")):
        world = path.parent.name
        if not world.startswith(f"{stack.project}-{stack.name}-"):
            continue  # another stack's of this folder: its ledger knows
        volumes: dict[str, Labels] = json.loads(path.read_bytes())
        known = state.worlds.get(world)
        if known is None or known.removed:
            remove_containers(stack, docker, composer, world)
            for name, labels in volumes.items():
                if name not in state.generations:
                    docker.remove_volume(name, labels=labels)
            places.clear_files(catalog, world)
            # The note goes with its folder, last.
            catalog.clear_work(world)
        else:
            path.unlink()


def insist_on_none(
    stack: Stack, docker: Docker, state: State, world: str, volumes: Mapping[str, Labels]
) -> None:
    """Raises Refused when a world, or one of its new volumes, exists although no note says so, or
    a generation of this stack that the ledger does not know: then the ledger is not the newest."""
    ours = docker.volumes(stack=(stack.project, stack.name))
    generations = {name for name, volume in ours.items() if OUR_DATASET in volume.labels}
    for name in sorted({*volumes, *generations - state.generations.keys()}):
        if docker.volume(name) is not None:
            raise Refused(
                f"volume {name} exists already, but the catalog does not know it: it may hold "
                "data of a catalog that was lost, or of another folder's",
                next_step="put the catalog (releases/) back; or, if nobody needs the volume, "
                f"docker volume rm {name}",
            )
    found = docker.containers(project=world)
    if found:
        raise Refused(
            f"containers of {world} exist already, but the catalog does not know them: "
            f"{', '.join(sorted(c.name for c in found))}",
            next_step=f"docker compose -p {world} down   if nobody needs them",
        )
