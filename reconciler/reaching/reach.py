"""How this process gets at the content of volumes: by itself, or through helper containers.

What works on folders is called here as it is in `snapshots`. A folder that `places.place` found out
of this process's reach is known by its path, and what is asked of it is done in a helper container
by the same code; everything else is done here, as it always was.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reconciler.docker import Docker
from reconciler.errors import BadInput
from reconciler.reaching import helper
from reconciler.reaching.helper import Asked, Helper, Mount
from snapshots.livepoint import LivePoint, never

if TYPE_CHECKING:
    from snapshots.drivers import Ask, Driver, Exec
    from snapshots.fork import ForkStats
    from snapshots.fs import Size
    from snapshots.pace import Pace
    from snapshots.progress import Progress
    from snapshots.repair import Repaired
    from snapshots.report import Finding
    from snapshots.restore import RestoreStats
    from snapshots.store import SnapshotRecord, Store
    from snapshots.touched import Touched

# What does the work is imported where it is called: to say what will be done takes none of it.
WAYS = ("auto", "direct", "helper")
OVERRIDE = "LOCKSTEP_REACH"
"""Environment variable: one of WAYS, where no stack's config says it."""


@dataclass(frozen=True)
class Way:
    """Whether volumes are read by this process itself, and why, as a sentence."""

    direct: bool
    why: str


def way(docker: Docker) -> Way:
    """How volumes of this daemon are reached. Raises BadInput for an unknown override."""
    said = docker.reach if docker.reach != "auto" else os.environ.get(OVERRIDE, "auto")
    if said not in WAYS:
        raise BadInput(
            f"{OVERRIDE}={said}: volumes are reached by one of {', '.join(WAYS)}",
            next_step=f"unset {OVERRIDE}",
        )
    if said != "auto":
        return Way(said == "direct", f"the config says {said}")
    if not docker.is_local:
        return Way(False, f"the daemon is at {docker.endpoint}")
    if docker.info.rootless:
        return Way(False, "the daemon is rootless: owners of files are its own")
    if os.geteuid() != 0:
        return Way(False, "this user is not root")
    if not os.access(docker.info.root, os.R_OK | os.X_OK):
        return Way(False, f"{docker.info.root} of the daemon is not here")
    return Way(True, "this is root, on the daemon's host")


def insist_on_same_host(docker: Docker, folder: Path) -> None:
    """Raises Unavailable when a daemon that is asked by tcp or ssh does not see this folder: it is
    on another host, where neither the host lock nor a world's config files would be."""
    if not docker.is_local and folder.is_dir():
        where = Mount(str(folder))
        helper.call(docker, frozenset({where}), "identity", {"path": where.path}, Asked())


@dataclass(frozen=True)
class _Far:
    """A folder that only helper containers reach; `volume`: by which volume, None: a bind."""

    docker: Docker
    volume: str | None


_far: dict[Path, _Far] = {}


def through_helper(docker: Docker, path: Path, volume: str | None) -> Path:
    """The path, known from now on as one that only helper containers reach."""
    _far[path] = _Far(docker, volume)
    return path


def forget() -> None:
    """All folders are taken for reachable again, until `places.place` finds out otherwise."""
    _far.clear()


def is_far(path: Path) -> bool:
    """Whether what is asked of a folder is done in a helper container."""
    return path in _far


# What `snapshots` does, wherever the folder lies ------------------------------------------------


def capture(
    source: Path,
    store: Store,
    *,
    dataset: str,
    parent: str | None = None,
    tags: Mapping[str, str] = {},
    live: LivePoint | None = None,
    streams: Callable[[bytes], bool] = never,
    twins: Path | None = None,
    pace: Pace | None = None,
    progress: Progress | None = None,
) -> SnapshotRecord:
    """See `snapshots.capture.capture`."""
    from snapshots import capture as captures
    from snapshots.store import SnapshotRecord

    if not is_far(source):
        return captures.capture(
            source, store, dataset=dataset, parent=parent, tags=tags, live=live, streams=streams,
            twins=twins, pace=pace, progress=progress,
        )  # fmt: skip
    known = [twins.parent] if twins is not None and twins.exists() else []
    args = {
        "source": source,
        "store": _stored(store),
        "dataset": dataset,
        "parent": parent,
        "tags": dict(tags),
        "live": _point(live),
        "streams": _spec_of(streams),
        "twins": twins if known else None,
        "pace": _pace(pace),
        "progress": progress is not None,
    }
    if isinstance(live, _FarPoint):
        return SnapshotRecord(**live.helper.call("capture", _plain(args), Asked(progress)))
    mounted = _Mounted(reads=[source, *known], writes=[store.path])
    return SnapshotRecord(**_call("capture", Asked(progress), mounted, args))


def capture_live(
    driver: Driver,
    run: Exec,
    source: Path,
    store: Store,
    *,
    dataset: str,
    parent: str | None = None,
    tags: Mapping[str, str] = {},
    pace: Pace | None = None,
    progress: Progress | None = None,
) -> SnapshotRecord:
    """See `snapshots.livecapture.capture_live`."""
    from snapshots import livecapture
    from snapshots.store import SnapshotRecord

    if not is_far(source):
        return livecapture.capture_live(
            driver, run, source, store,
            dataset=dataset, parent=parent, tags=tags, pace=pace, progress=progress,
        )  # fmt: skip
    # SQLite may have to bring a database in order before it can be read, and a dump lies there
    # only for as long as it is captured.
    alters = driver.name in ("sqlite", "command")
    mounted = _Mounted([source], [store.path, *([source] if alters else [])])
    args = {
        "driver": _spec(driver),
        "source": source,
        "store": _stored(store),
        "dataset": dataset,
        "parent": parent,
        "tags": dict(tags),
        "pace": _pace(pace),
        "progress": progress is not None,
    }
    return SnapshotRecord(**_call("capture_live", Asked(progress, run), mounted, args))


def restore(
    store: Store,
    snapshot_id: str,
    target: Path,
    *,
    in_place: bool = False,
    only: Sequence[str] = (),
    twins: Path | None = None,
    pace: Pace | None = None,
    progress: Progress | None = None,
) -> RestoreStats:
    """See `snapshots.restore.restore`."""
    from snapshots import restore as restores

    if not is_far(target):
        return restores.restore(
            store, snapshot_id, target, in_place=in_place, only=only, twins=twins, pace=pace,
            progress=progress,
        )  # fmt: skip
    beside = []
    if twins is not None:
        twins.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        beside = [twins.parent]
    args = {
        "store": _stored(store),
        "snapshot": snapshot_id,
        "target": target,
        "in_place": in_place,
        "only": list(only),
        "twins": twins,
        "pace": _pace(pace),
        "progress": progress is not None,
    }
    mounted = _Mounted([store.path], [target, *beside])
    return restores.RestoreStats(**_call("restore", Asked(progress), mounted, args))


class Fork:
    """See `snapshots.fork.Fork`."""

    def __init__(
        self,
        source: Path,
        target: Path,
        *,
        index: Path,
        progress: Progress | None = None,
        pace: Pace | None = None,
    ) -> None:
        from snapshots import fork as forks

        self._source, self._target, self._index = source, target, index
        self._progress, self._pace = progress, pace
        self._here = forks.Fork(source, target, index=index, progress=progress, pace=pace)

    def first_pass(self) -> ForkStats:
        return self._pass("first_pass") if self._is_far else self._here.first_pass()

    def catch_up(self) -> ForkStats:
        return self._pass("catch_up") if self._is_far else self._here.catch_up()

    def final_pass(self) -> ForkStats:
        return self._pass("final_pass") if self._is_far else self._here.final_pass()

    @property
    def _is_far(self) -> bool:
        return is_far(self._source) or is_far(self._target)

    def _pass(self, which: str) -> ForkStats:
        from snapshots.fork import ForkStats

        mounted = _Mounted([self._source], [self._target, self._index.parent])
        args = {
            "pass": which,
            "source": self._source,
            "target": self._target,
            "index": self._index,
            "pace": _pace(self._pace),
            "progress": self._progress is not None,
        }
        return ForkStats(**_call("fork", Asked(self._progress), mounted, args))


def measure(path: Path) -> Size:
    """See `snapshots.compare.measure`."""
    from snapshots import compare, fs

    if not is_far(path):
        return compare.measure(path)
    return fs.Size(**_call("measure", Asked(), _Mounted([path]), {"path": path}))


def touched(path: Path, store: Store, snapshot_id: str) -> Touched:
    """See `snapshots.touched.touched`."""
    from snapshots import touched as touches

    if not is_far(path):
        return touches.touched(path, store, snapshot_id)
    args = {"path": path, "store": _stored(store), "snapshot": snapshot_id}
    said = _call("touched", Asked(), _Mounted([path, store.path]), args)
    return touches.Touched(tuple(said["changed"]), tuple(said["unsure"]))


def entries(path: Path) -> int:
    """How many entries a folder has, not counting what is in them."""
    if not is_far(path):
        return sum(1 for _ in os.scandir(path))
    return int(_call("entries", Asked(), _Mounted([path]), {"path": path}))


def can_reflink(source: Path, target: Path) -> bool:
    """See `snapshots.reflink.can_reflink`; tried with a file of the source without a name."""
    from snapshots import reflink

    if not is_far(source):
        return reflink.can_reflink(source, target)
    # Docker's own folder is nobody's to mount: the volume beside which the new one will lie is.
    mounted = _Mounted(writes=[source])
    return bool(_call("can_reflink", Asked(), mounted, {"source": source, "target": source}))


def repair(
    store: Store,
    folders: Mapping[str, Sequence[Path]],
    progress: Progress | None = None,
) -> Repaired:
    """See `snapshots.repair.repair`."""
    from snapshots import repair as repairs

    far = [path for paths in folders.values() for path in paths if is_far(path)]
    if not far:
        return repairs.repair(store, folders, progress)
    known = {name: [str(p) for p in paths if is_far(p)] for name, paths in folders.items()}
    args = {"store": _stored(store), "folders": known, "progress": progress is not None}
    done = _call("repair", Asked(progress), _Mounted(far, [store.path]), args)
    unmended = [_finding(each) for each in done["unmended"]]
    return repairs.Repaired(
        **{**done, "unmended": unmended, "aside": [Path(path) for path in done["aside"]]}
    )


def _finding(said: dict[str, Any]) -> Finding:
    from snapshots.report import Finding

    lists = {name: tuple(said[name]) for name in ("snapshots", "files")}
    return Finding(**{**said, **lists})


# Drivers ----------------------------------------------------------------------------------------


def driver_for(name: str, options: Mapping[str, str] = {}) -> Driver:
    """See `snapshots.drivers.driver_for`."""
    from snapshots import drivers

    return _Reaching(drivers.driver_for(name, options), dict(options))


def detect(image: str, target: str) -> Driver:
    """See `snapshots.drivers.detect`."""
    from snapshots import drivers

    return driver_for(drivers.detect(image, target).name)


def looks_like(path: Path) -> Driver:
    """See `snapshots.drivers.looks_like`."""
    from snapshots import drivers

    if not is_far(path):
        return driver_for(drivers.looks_like(path).name)
    return driver_for(_call("looks_like", Asked(), _Mounted([path]), {"path": path}))


class _Reaching:
    """A driver whose looks at a folder are made where the folder can be read."""

    def __init__(self, driver: Driver, options: dict[str, str]) -> None:
        self._driver = driver
        self.spec = [driver.name, options]
        self.name, self.stands_still = driver.name, driver.stands_still
        self.recognises, self.before_stop = driver.recognises, driver.before_stop
        self.align, self.probe, self.data_sums = driver.align, driver.probe, driver.data_sums
        self.check, self.examine, self.advise = driver.check, driver.examine, driver.advise
        # What only knows of names is asked here; `capture` sends on whose it is.
        self._is_stream = driver.is_stream

    def is_stream(self, path: bytes) -> bool:
        return self._is_stream(path)

    def looks_like(self, path: Path) -> bool:
        return bool(self._of(path, "looks_like") if is_far(path) else self._driver.looks_like(path))

    def probe_path(self, path: Path) -> dict[str, int]:
        return dict(self._of(path, "probe_path") if is_far(path) else self._driver.probe_path(path))

    def version(self, path: Path) -> str | None:
        found = self._of(path, "version") if is_far(path) else self._driver.version(path)
        return str(found) if found is not None else None

    def check_path(self, path: Path) -> list[str]:
        return list(self._of(path, "check_path") if is_far(path) else self._driver.check_path(path))

    def unfit(self, path: Path, ask: Ask) -> list[str]:
        if not is_far(path):
            return self._driver.unfit(path, ask)
        return list(self._of(path, "unfit", Asked(image=ask)))

    def load(self, run: Exec, path: Path) -> None:
        if not is_far(path):
            self._driver.load(run, path)
        elif self.name == "command":  # no other has anything beside its files, or changes them
            self._of(path, "load", Asked(run=run), alters=True)

    def truly_empty(self, run: Exec, path: Path) -> bool:
        if not is_far(path):
            return self._driver.truly_empty(run, path)
        return bool(self._of(path, "truly_empty", Asked(run=run)))

    def live(self, run: Exec, path: Path) -> AbstractContextManager[LivePoint]:
        """Never asked for a far folder: `capture_live` is done as a whole where it lies."""
        return self._driver.live(run, path)

    @contextmanager
    def still(self, run: Exec, path: Path, seconds: float) -> Iterator[LivePoint]:
        if not is_far(path):
            with self._driver.still(run, path, seconds) as point:
                yield point
            return
        asked, far = Asked(run=run), _far[path]
        own = helper.of_folder(far.docker, str(path), far.volume)
        number = own.call(
            "still", {"driver": self.spec, "path": str(path), "seconds": seconds}, asked
        )
        failed: BaseException | None = None
        try:
            yield _FarPoint(number=number, helper=own)
        except BaseException as error:
            failed = error
            raise
        finally:
            from snapshots import wire

            said = wire.as_error(failed) if isinstance(failed, Exception) else None
            own.call("give_back", {"number": number, "error": said}, asked)

    def _of(
        self, path: Path, method: str, asked: Asked | None = None, *, alters: bool = False
    ) -> Any:
        mounted = _Mounted(writes=[path]) if alters else _Mounted([path])
        args = {"driver": self.spec, "path": path, "method": method}
        return _call("driver", asked or Asked(), mounted, args)


@dataclass(frozen=True)
class _FarPoint(LivePoint):
    """A live point that a helper container holds."""

    number: int = field(kw_only=True)
    helper: Helper = field(kw_only=True)


def _point(live: LivePoint | None) -> int | bool | None:
    if isinstance(live, _FarPoint):
        return live.number
    return True if live is not None else None


def _spec(driver: Driver) -> list[Any]:
    return driver.spec if isinstance(driver, _Reaching) else [driver.name, {}]


def _spec_of(streams: Callable[[bytes], bool]) -> list[Any] | None:
    owner = getattr(streams, "__self__", None)
    return owner.spec if isinstance(owner, _Reaching) else None


def _stored(store: Store) -> list[str | None]:
    from snapshots.cipher import AesGcm

    cipher = store.cipher
    return [str(store.path), cipher.key.hex() if isinstance(cipher, AesGcm) else None]


def _pace(pace: Pace | None) -> list[int] | None:
    return [pace.floor, pace.cap] if pace is not None else None


# The call ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Mounted:
    """What a helper gets for one kind of work."""

    reads: Sequence[Path] = ()
    writes: Sequence[Path] = ()

    @property
    def docker(self) -> Docker:
        return next(_far[path].docker for path in (*self.reads, *self.writes) if is_far(path))

    @property
    def mounts(self) -> frozenset[Mount]:
        written = set(self.writes)
        return frozenset(_mount(path, path in written) for path in {*self.reads, *written})


def _mount(path: Path, writable: bool) -> Mount:
    far = _far.get(path)
    return Mount(str(path), far.volume if far is not None else None, writable)


def _call(name: str, asked: Asked, mounted: _Mounted, args: Mapping[str, Any]) -> Any:
    """Have it done by a helper that has just these folders."""
    return helper.call(mounted.docker, mounted.mounts, name, _plain(args), asked)


def _plain(args: Mapping[str, Any]) -> dict[str, Any]:
    return {k: str(v) if isinstance(v, Path) else v for k, v in args.items()}
