"""What was seen on the host: plain values, no judgement. `observe` makes them, `decide` reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from reconciler.records.release import Release


@dataclass(frozen=True)
class Container:
    """One container of a compose project."""

    id: str
    name: str
    project: str
    service: str
    state: str
    """created, running, exited, paused, restarting, dead (Docker's words)."""
    exit_code: int
    restart_policy: str
    image_id: str
    volumes: Mapping[str, str]
    """mount target -> volume name or bind source."""
    one_off: bool = False
    started: str = ""
    """When it was last started, as Docker says it (ISO 8601); "" if unknown."""
    created: str = ""
    """When it was made, likewise."""
    behind: str = ""
    """The ports that the ingress has in its stead, as its label says it (ingressports)."""


@dataclass(frozen=True)
class Disk:
    """Bytes, of the file system that holds the volumes, and of the one that holds the store."""

    volumes_free: int
    store_free: int
    reflink: bool
    one: bool = False
    """Volumes and store share one file system."""
    volumes_inodes: int | None = None
    """Files that can still be made there; None where there is no such limit."""
    store_inodes: int | None = None


@dataclass(frozen=True)
class PortHolder:
    """Somebody who has a port that the target world publishes."""

    port: int
    protocol: str
    holder: str
    """`container NAME` or `a process of this host`."""


@dataclass(frozen=True)
class Snapshot:
    """A snapshot in the store."""

    dataset: str
    bytes: int
    """Of its content, not of its share of the store."""
    files: int = 0
    created: str = ""
    backup_of: str | None = None
    """The world that somebody asked for a backup of."""


@dataclass(frozen=True)
class Deaf:
    """A running service that ignores its stop signal; `grace` in seconds."""

    service: str
    signal: str
    grace: float

    def __str__(self) -> str:
        return (
            f"service {self.service} ignores {self.signal}: stopping it takes its whole grace "
            f"period of {self.grace:g} s"
        )


@dataclass(frozen=True)
class Restored:
    """Shared data that was put back to an earlier content."""

    name: str
    """Of the note itself."""
    place: str
    """The volume, or the path of the directory."""
    at: str
    """UTC, ISO 8601."""
    by: str
    """The stack: `shop/prod`."""
    safety: str
    """The snapshot of what was there before, in the store of who restored; "" if there is none."""

    def __str__(self) -> str:
        text = f"shared {self.place} was restored by stack {self.by} at {self.at}"
        before = f"; what it held before is snapshot {self.safety[:20]} in its store"
        return text + (before if self.safety else "")


@dataclass(frozen=True)
class Facts:
    """Everything `decide` needs to know of the host, seen at one moment."""

    now: float
    """Seconds since the epoch; only for ages shown to people and the window's days."""
    containers: Mapping[str, tuple[Container, ...]] = field(default_factory=dict)
    """compose project -> its containers: our worlds, and the project's own plain name."""
    images: Mapping[str, str] = field(default_factory=dict)
    """image tag -> id, for every tag that a record names and that exists."""
    image_ids: frozenset[str] = frozenset()
    """Of every local image, tagged or not."""
    volumes: Mapping[str, int] = field(default_factory=dict)
    """volume -> bytes, for every volume that the ledger or the target's definition names
    and that exists (bind directories by their path)."""
    files: Mapping[str, int] = field(default_factory=dict)
    """volume -> how many files, likewise."""
    foreign_mounts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """volume -> running containers that mount it and belong to none of our worlds."""
    ports: tuple[PortHolder, ...] = ()
    disk: Disk = Disk(0, 0, False)
    records: Mapping[str, Release] = field(default_factory=dict)
    damaged: Mapping[str, str] = field(default_factory=dict)
    """release -> why its record cannot be used."""
    snapshots: Mapping[str, Snapshot] = field(default_factory=dict)
    """Snapshots in the store by id."""
    fingerprint: str = ""
    """Keyed hash of the stack's secrets as they are now; "" when the key is missing."""
    live_probe: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """dataset -> data probe of the live world now; only looked up when a move is to be shown."""
    estimated: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """dataset -> what of it the engine only guessed."""
    missing_mounts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """world -> paths of this host that its containers mount and that do not exist."""
    deaf: tuple[Deaf, ...] = ()
    """Services of the live world; only looked for when a move is to be shown."""
    restored: tuple[Restored, ...] = ()
    """What others did to data that this stack shares, and no switch of it has been told."""
    ingress: tuple[str, ...] = ()
    """What is not as it should be with the ingress of the live world, as sentences."""
    unfinished: str | None = None
    """The world of an unfinished switch in the journal."""
