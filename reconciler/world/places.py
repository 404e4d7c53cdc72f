"""Where data lies on this host: the content of generations, and what is made on the way."""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from reconciler.catalog import Catalog, write_durably
from reconciler.config import Stack
from reconciler.docker import Docker, VolumeInfo
from reconciler.errors import LockstepError, Refused, Unavailable
from reconciler.reaching import reach
from reconciler.records.release import Release
from reconciler.world import worldmodel
from snapshots import private

if TYPE_CHECKING:
    from snapshots.pace import Pace
    from snapshots.progress import Progress

_MIB = 1 << 20
_PROGRESS_SECONDS = 2.0


def place(docker: Docker, generation: str, among: Mapping[str, VolumeInfo] | None = None) -> Path:
    """The folder with the content of a volume, or of a bind directory (named by its path). What is
    done with its content is called by `reach`: this process may not be able to read it. `among`:
    the host's volumes by name, where they were just listed.

    Raises Refused when it does not exist, Unavailable when it can be reached in no way.
    """
    if generation.startswith("/"):
        path, by_name = Path(generation), None
    else:
        volume = docker.volume(generation) if among is None else among.get(generation)
        if volume is None:
            raise Refused(
                f"volume {generation} does not exist any more",
                next_step="lockstep doctor   names what is missing",
            )
        path, by_name = volume.path, volume.name
    way = reach.way(docker)
    if not way.direct:
        return reach.through_helper(docker, path, by_name)
    if not os.access(path, os.R_OK | os.X_OK):
        raise Unavailable(
            f"the data of {generation} at {path} cannot be read by this user",
            next_step="lockstep config set reach helper   reads it through a helper container",
        )
    return path


def plain(docker: Docker, stack: Stack, dataset: str, source: str | None) -> Path | None:
    """The folder with a dataset's data: of its source, else of the volume that plain Compose gives
    it; None where there is none, or none that can be read."""
    with suppress(LockstepError):
        return place(docker, source or f"{stack.project}_{dataset}")
    return None


def fork(
    catalog: Catalog,
    docker: Docker,
    world: str,
    dataset: str,
    source: str,
    target: str,
    progress: Callable[[str], None] | None = None,
) -> reach.Fork:
    """The fork of one dataset for a world; whoever goes on with it gets the same one."""
    return reach.Fork(
        place(docker, source),
        place(docker, target),
        index=catalog.work(world) / f"{dataset}.index",
        progress=in_mib(f"fork of {dataset}", progress) if progress else None,
        pace=pace(catalog.stack),
    )


def pace(stack: Stack) -> Pace:
    """How fast data may be read and written while a world is live."""
    from snapshots.pace import Pace

    rate = stack.settings.copyRate
    return Pace(rate.floor, rate.cap)


def twins(catalog: Catalog, world: str, dataset: str) -> Path:
    """What is left of a dataset that was forked or restored for a world: its next capture reads
    only what changed since. It goes with the world; lost, that capture takes longer."""
    return catalog.root / "work" / world / f"{dataset}.twins"


def files(catalog: Catalog, world: str) -> Path:
    """The folder with a world's config files."""
    return catalog.root / "files" / world


def write_files(catalog: Catalog, world: str, release: Release) -> None:
    """Lay a release's config files ready for a world, durably, with the modes they had.

    Containers mount them one by one, so they are readable as recorded; only the folder above
    them keeps others of this host out.
    """
    folder = files(catalog, world)
    private.make_folder(folder)
    for config in release.configs.values():
        path = worldmodel.config_place(folder, config)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_durably(path, catalog.content(release.name, config.sha256))
        path.chmod(config.mode)
        for parent in path.parents[: len(path.relative_to(folder).parts) - 1]:
            parent.chmod(0o755)


def altered_files(catalog: Catalog, world: str, release: Release) -> list[Path]:
    """Config files of a world that are not as its release recorded them."""
    folder = files(catalog, world)
    places = {worldmodel.config_place(folder, c): c.sha256 for c in release.configs.values()}
    return [path for path, digest in places.items() if _digest_of(path) != digest]


def _digest_of(path: Path) -> str:
    """The hash of a file's content, in hex; "" for one that cannot be read."""
    with suppress(OSError):
        return hashlib.sha256(path.read_bytes()).hexdigest()
    return ""


def clear_files(catalog: Catalog, world: str) -> None:
    """Remove a world's config files."""
    shutil.rmtree(files(catalog, world), ignore_errors=True)


def in_mib(name: str, progress: Callable[[str], None]) -> Progress:
    """Byte counts of `snapshots` as sentences for a person, one in a while and the last, with the
    rate since the one before and the time that is left at that rate; of less than 1 MiB nobody
    needs to hear."""
    last_at, last_done = time.monotonic(), 0

    def report(what: str, done: int, total: int) -> None:
        nonlocal last_at, last_done
        if total < _MIB:
            return
        now = time.monotonic()
        if done < total and now - last_at < _PROGRESS_SECONDS:
            return
        rate = (done - last_done) / max(now - last_at, 1e-3)
        speed = f", {rate / _MIB:.0f} MiB/s" if done > last_done else ""
        left = f", {(total - done) / rate:.0f} s left" if speed and total > done else ""
        last_at, last_done = now, done
        progress(f"{name}: {what}, {done // _MIB} of {total // _MIB} MiB{speed}{left}")

    return report
