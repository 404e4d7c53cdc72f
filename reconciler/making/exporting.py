"""A release as one file: its record, config files, snapshots, and its images if asked for."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from reconciler.catalog import Catalog
from reconciler.config import Stack
from reconciler.docker import Docker
from reconciler.errors import BadInput, Refused, StoreDamaged
from reconciler.host.hostlock import HostLock
from reconciler.making import parcel
from reconciler.making.parcel import Head
from reconciler.planning import retention
from reconciler.records.ledger import Departure, State
from reconciler.records.release import Release
from reconciler.upkeep import backup
from snapshots import transfer
from snapshots.progress import Progress
from snapshots.store import Store
from snapshots.verify import verify_all

Say = Callable[[str], None]


@dataclass(frozen=True)
class Exported:
    """What was written, and what could not be: dataset -> why."""

    path: Path
    bytes: int
    head: Head
    left_out: Mapping[str, str]


def export(
    stack: Stack,
    catalog: Catalog,
    docker: Docker,
    release: str,
    path: Path,
    say: Say,
    progress: Progress | None = None,
    *,
    images: bool,
    data: bool,
) -> Exported:
    """Write a release to a file that does not exist yet, and is there only when it is whole.

    Its data is what it left last and what it started from; of the live one, which has not left
    anything yet, a backup is taken. Every byte of it is read and checked first. `images`: with
    what it runs; `data`: with snapshots. Raises BadInput where the file exists, Refused for a
    missing image, StoreDamaged, and what the store raises.
    """
    if path.exists():
        raise BadInput(f"{path} exists already", next_step="name another file, or remove it")
    record = catalog.record(release)
    left_out: dict[str, str] = {}
    departure, arrival = None, None
    if data:
        departure, arrival = _content(stack, catalog, docker, record, say, left_out)
    ids = {s for found in (departure, arrival) if found for s in found.snapshots.values()}
    if ids:
        _insist_on_whole(stack, ids, progress)
    kept = {f"{n:03d}": i for n, i in enumerate(_image_ids(docker, record) if images else ())}
    head = Head(
        project=stack.project,
        stack=stack.name,
        release=release,
        root=str(stack.root.resolve()),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        departure=dict(departure.snapshots) if departure else {},
        arrival=dict(arrival.snapshots) if arrival else {},
        probes={name: dict(counts) for name, counts in departure.probes.items()}
        if departure
        else {},
        images=kept,
        encrypted=bool(ids) and stack.open_store(create=False).encrypted,
    )
    _write(stack, catalog, docker, record, head, ids, path, say, progress)
    return Exported(path, path.stat().st_size, head, left_out)


def _write(
    stack: Stack,
    catalog: Catalog,
    docker: Docker,
    record: Release,
    head: Head,
    ids: set[str],
    path: Path,
    say: Say,
    progress: Progress | None,
) -> None:
    """Under another name, until it is whole and on the disk."""
    draft = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
        with open(os.open(draft, flags, 0o600), "wb") as file:
            writer = parcel.Writer(file)
            writer.add(parcel.HEAD, head.model_dump_json(indent=2).encode())
            writer.add(parcel.RECORD, record.model_dump_json(indent=2).encode())
            for digest in sorted({config.sha256 for config in record.configs.values()}):
                writer.add(f"configs/{digest}", catalog.content(record.name, digest))
            if ids:
                store = stack.open_store(create=False)
                with tempfile.TemporaryDirectory(prefix=".packs-", dir=path.parent) as packs:
                    for name, found in transfer.files(store, ids, Path(packs), progress):
                        writer.add_file(f"store/{name}", found)
            for number, image in head.images.items():
                say(f"saving image {image.removeprefix('sha256:')[:12]}")
                writer.add_pieces(f"images/{number}", docker.save_image(image))
            writer.end()
            file.flush()
            os.fsync(file.fileno())
        draft.rename(path)
    except OSError as error:
        if error.filename is None:
            error.filename = str(path)
        raise
    finally:
        with suppress(OSError):
            draft.unlink(missing_ok=True)


def _content(
    stack: Stack,
    catalog: Catalog,
    docker: Docker,
    record: Release,
    say: Say,
    left_out: dict[str, str],
) -> tuple[Departure | None, Departure | None]:
    """(what the release left last, what it started from)."""
    state = catalog.state()
    arrived = list(retention.arrivals(state, record.name).values())
    arrival = arrived[0] if arrived else None
    if state.live_release == record.name:
        return _as_it_is(stack, catalog, docker, state, say, left_out), arrival
    left = state.departures_of(record.name)
    departure = left[-1] if left else None
    if departure is not None:
        for dataset in departure.generations.keys() - departure.snapshots.keys():
            left_out[dataset] = "it is not in the store yet: lockstep up   captures it"
    return departure, arrival


def _as_it_is(
    stack: Stack,
    catalog: Catalog,
    docker: Docker,
    state: State,
    say: Say,
    left_out: dict[str, str],
) -> Departure:
    """A backup of the live world, in the form of what it will leave."""
    world = state.worlds[str(state.live)]
    with HostLock.acquire("export", f"{stack.project}/{stack.name}", wait=10):
        taken = backup.take(stack, catalog, docker, world, (), say)
    left_out |= {found.dataset: found.why_not for found in taken if found.snapshot is None}
    snapshots = {found.dataset: found.snapshot for found in taken if found.snapshot is not None}
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return Departure(state.seq, world.release, world.name, {}, snapshots, {}, now)


def _insist_on_whole(stack: Stack, ids: set[str], progress: Progress | None) -> None:
    store: Store = stack.open_store(create=False)
    report = verify_all(store, ids, read_data=True, progress=progress)
    if report.damages:
        first = report.damages[0]
        raise StoreDamaged(
            f"nothing was exported: {first.dataset}: {first.reason}",
            next_step="lockstep repair   mends what can be mended",
        )


def _image_ids(docker: Docker, record: Release) -> list[str]:
    """Each image of the release, once. Raises Refused when one is missing."""
    for image in record.images.values():
        if docker.image(image.id) is None:
            raise Refused(
                f"image {image.tag} of {record.name} is missing, so it cannot be exported",
                next_step="without --images the file needs them on the other host",
            )
    return sorted({image.id for image in record.images.values()})
