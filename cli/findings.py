"""What `lockstep init` finds in a compose project: data, proofs and the disk, with reasons."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reconciler.errors import LockstepError

if TYPE_CHECKING:
    from reconciler.config import Stack
    from reconciler.docker import Docker, ImageInfo
    from reconciler.project.definition import Definition
    from reconciler.records.release import Dataset

_CLONING = ("btrfs", "xfs", "bcachefs")


@dataclass(frozen=True)
class FoundDataset:
    """One dataset with its driver and strategy, and why they are so."""

    name: str
    mounts: tuple[str, ...]
    """`service:path`."""
    driver: str
    driver_because: str
    strategy: str
    strategy_says: str


@dataclass(frozen=True)
class Proposal:
    """A gate for a release that nothing would prove otherwise."""

    service: str
    port: int


@dataclass(frozen=True)
class Proof:
    """What proves a release; `proposal` where nothing does."""

    by: tuple[str, ...]
    says: str
    proposal: Proposal | None = None


@dataclass(frozen=True)
class Room:
    """Disk and file system for volumes and store; sizes in bytes."""

    root: Path
    file_system: str
    free: int
    data: int
    clones: bool
    tried: bool
    """Whether cloning was tried, or only told from the file system's name."""
    store: Path
    store_free: int


def datasets(stack: Stack, definition: Definition) -> list[FoundDataset]:
    """Each dataset, by name."""
    return [
        FoundDataset(
            name,
            tuple(f"{m.service}:{m.target}" for m in dataset.mounts),
            dataset.driver,
            _why_driver(stack, definition, dataset),
            "shared" if dataset.shared else str(dataset.strategy),
            _strategy_text(dataset),
        )
        for name, dataset in sorted(definition.datasets.items())
    ]


def dataset_lines(found: Sequence[FoundDataset]) -> Iterator[str]:
    """The same for a person."""
    if not found:
        yield "datasets: none (no volume is mounted)"
    for dataset in found:
        yield f"dataset {dataset.name} ({', '.join(dataset.mounts)})"
        yield f"  driver {dataset.driver}: {dataset.driver_because}"
        yield f"  {dataset.strategy_says}"


def _strategy_text(dataset: Dataset) -> str:
    """`forked: a new release works on a copy`."""
    from reconciler.records.release import Kind, Strategy

    if dataset.shared:
        return "left as it is: it is shared with others"
    if dataset.strategy is Strategy.FORK:
        return "forked: a new release works on a copy"
    if dataset.kind is Kind.BIND:
        return (
            "in place: it is a directory of the host; each release works on the same one, after a "
            "safety snapshot"
        )
    if dataset.kind is Kind.EXTERNAL:
        return "in place: the volume is external, so others may use it"
    return "in place"


def _why_driver(stack: Stack, definition: Definition, dataset: Dataset) -> str:
    from reconciler.project import compose, source

    said = stack.settings.datasets.get(dataset.name)
    if said is not None and said.named_driver:
        return "the stack's config says so"
    notes = [compose.service_note(definition.model, m.service).driver for m in dataset.mounts]
    if compose.volume_note(definition.model, dataset.name).driver or any(notes):
        return "x-lockstep says so"
    for mount in dataset.mounts:
        image = compose.plain(compose.services(definition.model)[mount.service].get("image", ""))
        if dataset.driver != "directory" and source.detect(image, mount.target) == dataset.driver:
            return f"an image like {image} keeps its data at {mount.target}"
    if dataset.driver == "directory":
        return "any files; no engine is known by its image, nor by what lies in it"
    return "what lies in it tells"


def proof(stack: Stack, definition: Definition, images: Mapping[str, ImageInfo]) -> Proof:
    """What proves a release, by health checks of the compose file and of the images, and gates."""
    from reconciler.project import compose

    model = definition.model
    late = compose.after_commit(model)
    proving, possible = [], []
    for service, body in compose.services(model).items():
        if service in late or compose.is_job(model, service):
            continue
        declared = compose.has_health_check(model, service)
        image = images.get(service)
        by_image = declared is None and image is not None and image.health is not None
        if declared or by_image or compose.gates(model, stack.settings, service):
            proving.append(service)
        elif (port := _tcp_port(body)) is not None and "." not in service:
            possible.append(Proposal(service, port))
    if proving:
        by = tuple(sorted(proving))
        said = f"proof: {', '.join(by)} (health check or gate)"
        return Proof(by, "".join([said, *(_by_running(p) for p in possible)]))
    if possible:
        return Proof((), "proof: no service has a health check or a gate", possible[0])
    return Proof(
        (),
        "proof: no service has a health check or a gate, and none publishes a port: `lockstep new` "
        "will ask for one",
    )


def _by_running(found: Proposal) -> str:
    return (
        f"\n  {found.service} by running alone; to ask its port as well: "
        f"lockstep config set --path gates.{found.service}.tcp {found.port}"
    )


def _tcp_port(body: Mapping[str, Any]) -> int | None:
    for port in body.get("ports") or ():
        if port.get("protocol", "tcp") == "tcp" and str(port.get("target", "")).isdigit():
            return int(port["target"])
    return None


def room(stack: Stack, docker: Docker, definition: Definition | None) -> Room:
    """Raises OSError, LockstepError where it cannot be told."""
    root = docker.info.root
    clones, tried = _clones(stack, docker, definition)
    return Room(
        root,
        _file_system(root),
        shutil.disk_usage(_nearest(root)).free,
        _bytes(stack, docker, definition),
        clones,
        tried,
        stack.store,
        shutil.disk_usage(_nearest(stack.store)).free,
    )


def room_lines(found: Room) -> Iterator[str]:
    """The same for a person, with what cloning saves, or would save."""
    from reconciler.planning.impact import size

    yield (
        f"disk: {size(found.free)} free for volumes at {found.root} ({found.file_system}); "
        f"the data takes {size(found.data)} now"
    )
    if found.clones:
        yield "  files can be cloned (reflinks): a release's copy takes no time and no space"
    else:
        surely = "" if found.tried else "as far as can be told, "
        yield (
            f"  {surely}files cannot be cloned: each release copies what is forked, while the old "
            "one runs; Docker's folder on XFS or btrfs would save time and space for it"
        )
    if not found.clones and found.free < 2 * found.data:
        yield "  that is little: `lockstep preview` says whether a copy fits, with the numbers"
    yield f"  {size(found.store_free)} free for snapshots at {found.store}"


def _clones(stack: Stack, docker: Docker, definition: Definition | None) -> tuple[bool, bool]:
    """(whether volumes can be cloned, whether that was tried)."""
    from reconciler.reaching import reach
    from reconciler.world import places

    root = docker.info.root / "volumes"
    for name, dataset in definition.datasets.items() if definition else ():
        path = places.plain(docker, stack, name, dataset.source)
        with suppress(LockstepError, OSError):
            if path is not None and reach.measure(path).bytes:
                return reach.can_reflink(path, root), True
    return _file_system(root) in _CLONING, False


def _bytes(stack: Stack, docker: Docker, definition: Definition | None) -> int:
    from reconciler.reaching import reach
    from reconciler.world import places

    total = 0
    for name, dataset in definition.datasets.items() if definition else ():
        path = places.plain(docker, stack, name, dataset.source)
        with suppress(LockstepError, OSError):
            total += reach.measure(path).bytes if path is not None else 0
    return total


def _file_system(path: Path) -> str:
    """The kind of file system that a path lies on, as Linux calls it."""
    best, kind = "", "unknown file system"
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        head, _, tail = line.partition(" - ")
        where = head.split()[4].replace("\\040", " ")
        if path.is_relative_to(where) and len(where) >= len(best):
            best, kind = where, tail.split()[0]
    return kind


def _nearest(path: Path) -> Path:
    return next(p for p in (path, *path.parents) if p.is_dir())
