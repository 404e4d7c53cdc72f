"""What a world's containers can still tell is kept before they are removed."""

from __future__ import annotations

import json
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from reconciler import masking
from reconciler.catalog import Catalog, write_durably
from reconciler.config import Stack
from reconciler.docker import PROJECT, Docker, Listed
from reconciler.errors import LockstepError
from snapshots import private

LOG_LINES = 5000
"""Per container, the newest."""


def keep(stack: Stack, catalog: Catalog, docker: Docker, world: str) -> None:
    """Write logs/worlds/WORLD.json and the log of each container beside it, without secrets.

    What cannot be read or written is left out: evidence never keeps anybody from removing.
    """
    with suppress(OSError):
        folder = catalog.logs() / "worlds"
        private.make_folder(folder)
        found = [
            _container(stack, docker, listed, folder)
            for listed in docker.listing(labels=[f"{PROJECT}={world}"])
        ]
        containers = [told for told in found if told is not None]
        if containers:
            at = datetime.now(UTC).isoformat(timespec="seconds")
            document = {"schema": 1, "world": world, "removed": at, "containers": containers}
            write_durably(folder / f"{world}.json", json.dumps(document, indent=2).encode())


def _container(
    stack: Stack, docker: Docker, listed: Listed, folder: Path
) -> dict[str, object] | None:
    try:
        seen = docker.inspect(listed.id)
        log = _masked(stack, docker.logs(listed.id, tail=LOG_LINES))
    except LockstepError:
        return None
    write_durably(folder / f"{listed.name}.log", log.encode())
    return {
        "name": listed.name,
        "service": seen.service,
        "image": seen.image_id,
        "state": seen.state,
        "exit_code": seen.exit_code,
        "oom_killed": seen.oom_killed,
        "started": seen.started,
        "finished": seen.finished,
        "log": f"{listed.name}.log",
    }


def _masked(stack: Stack, text: str) -> str:
    own = masking.forms(stack.secret_values.values())
    return masking.masked(masking.without(text, own))
