"""Where data lies on this host: the content of generations, and what is made on the way."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from reconciler import worldmodel
from reconciler.catalog import Catalog, write_durably
from reconciler.docker import Docker
from reconciler.errors import Refused, Unavailable
from reconciler.release import Release

if TYPE_CHECKING:
    from snapshots.fork import Fork
    from snapshots.progress import Progress

_MIB = 1 << 20


def place(docker: Docker, generation: str) -> Path:
    """The folder with the content of a volume, or of a bind directory (named by its path).

    Raises Refused when it does not exist, Unavailable when this user may not read it.
    """
    if generation.startswith("/"):
        path = Path(generation)
    else:
        volume = docker.volume(generation)
        if volume is None:
            raise Refused(
                f"volume {generation} does not exist any more",
                next_step="lockstep doctor   names what is missing",
            )
        path = volume.path
    if not os.access(path, os.R_OK | os.X_OK):
        raise Unavailable(
            f"the data of {generation} at {path} cannot be read by this user",
            next_step="run it as root, on the host where Docker runs",
        )
    return path


def fork(
    catalog: Catalog,
    docker: Docker,
    world: str,
    dataset: str,
    source: str,
    target: str,
    progress: Callable[[str], None] | None = None,
) -> Fork:
    """The fork of one dataset for a world; whoever goes on with it gets the same one."""
    from snapshots.fork import Fork

    return Fork(
        place(docker, source),
        place(docker, target),
        index=catalog.work(world) / f"{dataset}.index",
        progress=in_mib(f"fork of {dataset}", progress) if progress else None,
    )


def twins(catalog: Catalog, world: str, dataset: str) -> Path:
    """What is left of a dataset that was forked or restored for a world: its next capture reads
    only what changed since. It goes with the world; lost, that capture takes longer."""
    return catalog.work(world) / f"{dataset}.twins"


def files(catalog: Catalog, world: str) -> Path:
    """The folder with a world's config files."""
    return catalog.root / "files" / world


def write_files(catalog: Catalog, world: str, release: Release) -> None:
    """Lay a release's config files ready for a world, durably, with the modes they had.

    Containers mount them one by one, so they are readable as recorded; only the folder above
    them keeps others of this host out.
    """
    folder = files(catalog, world)
    folder.mkdir(parents=True, exist_ok=True)
    for private in (folder.parent, folder):
        private.chmod(0o700)
    for config in release.configs.values():
        path = worldmodel.config_place(folder, config)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_durably(path, catalog.content(release.name, config.sha256))
        path.chmod(config.mode)
        for parent in path.parents[: len(path.relative_to(folder).parts) - 1]:
            parent.chmod(0o755)


def clear_files(catalog: Catalog, world: str) -> None:
    """Remove a world's config files."""
    shutil.rmtree(files(catalog, world), ignore_errors=True)


def in_mib(name: str, progress: Callable[[str], None]) -> Progress:
    """Byte counts of `snapshots` as sentences for a person."""

    def report(what: str, done: int, total: int) -> None:
        progress(f"{name}: {what}, {done // _MIB} of {total // _MIB} MiB")

    return report
