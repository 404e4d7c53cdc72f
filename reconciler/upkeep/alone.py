"""Snapshots of any volume or folder of this host, without a release and without a stack."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from reconciler.docker import OUR_DATASET, ContainerDetails, Docker
from reconciler.errors import BadInput, LockstepError, Refused
from reconciler.reaching.inside import Inside
from reconciler.reaching.reach import capture, capture_live, detect, driver_for, looks_like, restore
from reconciler.world import places
from snapshots.drivers import Driver
from snapshots.errors import Damaged, UnknownSnapshot
from snapshots.livepoint import LivePoint
from snapshots.progress import Progress
from snapshots.store import SnapshotRecord, Store, Swept

ALONE = "alone"
"""Tag `kind` of snapshots that belong to no release: only who made them removes them."""
BACKUP = "backup"
_SHORTEST_ID = 6
_LABEL = "lockstep.alone"


@dataclass(frozen=True)
class Place:
    """A volume (by its name) or a folder (by its absolute path), and where its content lies."""

    name: str
    path: Path

    @property
    def is_folder(self) -> bool:
        return self.name.startswith("/")


@dataclass(frozen=True)
class Asked:
    """What the person said of a capture; what they did not say is found out."""

    name: str | None = None
    driver: str | None = None
    container: str | None = None
    live: bool = False
    paranoid: bool = False


def is_folder(given: str) -> bool:
    """Whether an argument names a folder rather than a volume, as `docker run -v` has it."""
    return "/" in given or given in (".", "..")


def find(docker: Docker | None, given: str) -> Place:
    """The volume or folder that is meant. Raises BadInput when there is none."""
    if is_folder(given):
        path = Path(given).resolve()
        if not path.is_dir():
            raise BadInput(f"there is no folder {path}")
        return Place(str(path), path)
    assert docker is not None, "volumes are Docker's"
    volume = docker.volume(given)
    if volume is None:
        raise BadInput(
            f"there is no volume {given}",
            next_step="docker volume ls   shows those there are; a folder has a / in it: ./data",
        )
    return Place(given, places.place(docker, given))


@dataclass(frozen=True)
class User:
    """A running container that sees some of a place's content."""

    container: ContainerDetails
    targets: tuple[str, ...]
    """Where it mounts exactly this place; none when it mounts what lies above or below it."""
    writes: bool

    @property
    def name(self) -> str:
        return self.container.name


def users(docker: Docker | None, place: Place) -> list[User]:
    """Running containers that see any of a place's content."""
    if docker is None:
        return []
    paths = {name: volume.path for name, volume in docker.volumes().items()}
    found = []
    for listed in docker.listing(running=True):
        if any(_overlap(paths.get(m, Path(m)), place.path) for m in listed.mounts if m):
            with suppress(LockstepError):  # it may have ended meanwhile
                found.append(_user(docker.inspect(listed.id), place, paths))
    return found


def _user(container: ContainerDetails, place: Place, paths: Mapping[str, Path]) -> User:
    sources = {target: paths.get(s, Path(s)) for target, s in container.volumes.items()}
    touching = {t for t, path in sources.items() if _overlap(path, place.path)}
    return User(
        container,
        tuple(sorted(t for t in touching if sources[t] == place.path)),
        writes=bool(touching - container.read_only),
    )


def _overlap(a: Path, b: Path) -> bool:
    return a == b or a in b.parents or b in a.parents


# Capture ----------------------------------------------------------------------------------------


def create(
    docker: Docker | None,
    store: Store,
    place: Place,
    asked: Asked,
    progress: Progress | None = None,
) -> SnapshotRecord:
    """Capture a place: through its engine's driver where one runs on it, else as it lies there.

    Raises Refused where somebody writes there whom no driver knows (unless `asked.live`), BadInput
    for an unknown container, and errors of `snapshots`.
    """
    using = users(docker, place)
    engine = _engine(docker, _chosen(using, place, asked.container), place, asked.driver)
    dataset = asked.name or (place.path.name if place.is_folder else place.name)
    tags = {"kind": ALONE, "of": place.name}
    # What is compared with no earlier snapshot is read, all of it.
    parent = None if asked.paranoid else _parent(store, place)
    if engine is not None:
        assert docker is not None
        driver, run = engine[0], Inside(docker, engine[1].id)
        return capture_live(
            driver, run, place.path, store,
            dataset=dataset, parent=parent, tags={**tags, "driver": driver.name}, progress=progress,
        )  # fmt: skip
    driver = driver_for(asked.driver) if asked.driver else looks_like(place.path)
    _insist_on_rest(place, driver, using, asked)
    return capture(
        place.path, store,
        dataset=dataset, parent=parent, tags={**tags, "driver": driver.name},
        live=LivePoint() if asked.live else None, streams=driver.is_stream, progress=progress,
    )  # fmt: skip


def _insist_on_rest(place: Place, driver: Driver, using: Sequence[User], asked: Asked) -> None:
    """Raises Refused where files would be captured that are no use as they are."""
    writing = [user.name for user in using if user.writes]
    if writing and not asked.live:
        raise Refused(
            f"{place.name} is written by {', '.join(writing)}, whose image no driver knows: what "
            "is captured meanwhile may be torn",
            next_step="stop it first; or --driver NAME says what it is; or --live takes each file "
            "as it is",
        )
    as_files = "--driver directory   takes the files as they are"
    if problems := driver.check_path(place.path):
        raise Refused("; ".join(problems), next_step=as_files)
    if asked.live and driver.name not in ("directory", "sqlite"):
        raise Refused(
            f"{place.name} holds data of {driver.name}, and no container runs that could give a "
            "point of it",
            next_step=f"without --live once it is stopped; {as_files}",
        )


def _chosen(using: Sequence[User], place: Place, asked: str | None) -> Sequence[User]:
    """The containers to speak to: the one that was asked for, else all that use the place."""
    if asked is None:
        return using
    for user in using:
        short = len(asked) >= _SHORTEST_ID and user.container.id.startswith(asked)
        if short or asked == user.name:
            return [user]
    raise BadInput(
        f"no running container {asked} mounts {place.name}",
        next_step="docker ps   shows what runs",
    )


def _engine(
    docker: Docker | None, using: Sequence[User], place: Place, asked: str | None
) -> tuple[Driver, ContainerDetails] | None:
    """The driver and the running container that serves the place; None where only files are."""
    if asked is not None:
        driver = driver_for(asked)
        serving = [u for u in using if u.writes and u.targets and driver.name != "directory"]
        return (driver, serving[0].container) if serving else None
    for user in sorted(using, key=lambda user: not user.writes):
        for target in user.targets:
            for image in _names(docker, user.container):
                driver = detect(image, target)
                if driver.name != "directory":
                    return driver, user.container
    driver = looks_like(place.path)
    served = [u for u in using if u.targets and driver.name != "directory"]
    return (driver, served[0].container) if served else None


def _names(docker: Docker | None, container: ContainerDetails) -> tuple[str, ...]:
    image = docker.image(container.image_id) if docker else None
    return (container.image, *(image.tags if image else ()))


def _parent(store: Store, place: Place) -> str | None:
    """The newest snapshot of the same place: what did not change since is not read again."""
    same = [r for r in records(store)[0] if r.tags.get("of") == place.name]
    return max(same, key=lambda record: record.created).id if same else None


# The store --------------------------------------------------------------------------------------


def records(store: Store) -> tuple[list[SnapshotRecord], list[str]]:
    """(all snapshots that can be read, oldest first; why others cannot)."""
    found, damaged = [], []
    for snapshot in store.ids():
        try:
            found.append(store.read(snapshot))
        except UnknownSnapshot:
            continue  # removed meanwhile
        except Damaged as error:
            damaged.append(str(error))
    return sorted(found, key=lambda record: record.created), damaged


def resolve(store: Store, given: str) -> str:
    """A snapshot's id from its beginning. Raises BadInput when none or several begin so."""
    found = [i for i in store.ids() if i.startswith(given)] if len(given) >= _SHORTEST_ID else []
    if len(found) == 1:
        return found[0]
    why = "several snapshots begin so" if found else "no snapshot begins so"
    raise BadInput(
        f"snapshot {given[:40]!r}: {why} in {store.path}",
        next_step="lockstep snapshot list   shows them",
    )


def remove(store: Store, snapshots: Sequence[str]) -> Swept:
    """Remove snapshots that belong to no release, and free what only they needed.

    Raises Refused for one that belongs to a release of a stack.
    """
    for snapshot in snapshots:
        tags = store.read(snapshot).tags
        if tags.get("kind") not in (ALONE, BACKUP) and tags.get("release"):
            raise Refused(
                f"snapshot {snapshot[:12]} belongs to {tags['release']} of {tags.get('world')}: "
                "the window decides how long it is kept",
                next_step="lockstep list   shows what is kept",
            )
    for snapshot in snapshots:
        store.forget(snapshot)
    return store.sweep()


# Restore ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Back:
    """A snapshot that was restored: where to, entries, bytes written, seconds."""

    snapshot: str
    place: Place
    files: int
    bytes_written: int
    seconds: float


def put_back(
    docker: Docker | None,
    store: Store,
    snapshot: str,
    given: str,
    *,
    in_place: bool,
    only: Sequence[str] = (),
    progress: Progress | None = None,
) -> Back:
    """Restore a snapshot, or `only` some of its paths, into a volume or folder, which is made
    where it is missing.

    Raises Refused while a running container mounts it, and for a generation of a stack.
    """
    place = _target(docker, given)
    using = users(docker, place)
    if using:
        names = [user.name for user in using]
        raise Refused(
            f"{place.name} is mounted by {', '.join(names)}, which must not see it change",
            next_step=f"docker stop {' '.join(names)}   then run this again",
        )
    done = restore(store, snapshot, place.path, in_place=in_place, only=only, progress=progress)
    return Back(snapshot, place, done.files, done.bytes_written, done.seconds)


def _target(docker: Docker | None, given: str) -> Place:
    if is_folder(given):
        path = Path(given).resolve()
        if not path.exists() and not path.parent.is_dir():
            raise BadInput(f"there is no folder {path.parent} to make {path.name} in")
        _insist_on_no_generation(docker, path)
        return Place(str(path), path)
    assert docker is not None, "volumes are Docker's"
    volume = docker.volume(given)
    if volume is None:
        docker.create_volume(given, {_LABEL: "restored"})
    elif OUR_DATASET in volume.labels:
        raise _generation(given)
    return Place(given, places.place(docker, given))


def _insist_on_no_generation(docker: Docker | None, path: Path) -> None:
    """Docker's own folder of a volume is that volume, by another name."""
    for volume in docker.volumes().values() if docker else ():
        if OUR_DATASET in volume.labels and _overlap(volume.path, path):
            raise _generation(volume.name)


def _generation(name: str) -> Refused:
    return Refused(
        f"volume {name} holds a release's data, which only a switch may change",
        next_step="lockstep config set --path restore.at SNAPSHOT (with restore.release)   "
        "restores it into a new one",
    )


def default_store() -> Path:
    """Where snapshots go that no stack and nobody says a store for."""
    if os.environ.get("LOCKSTEP_STORE"):
        return Path(os.environ["LOCKSTEP_STORE"]).expanduser()
    if os.geteuid() == 0:
        return Path("/var/lib/lockstep/store")
    data = os.environ.get("XDG_DATA_HOME") or "~/.local/share"
    return Path(data).expanduser() / "lockstep" / "store"
