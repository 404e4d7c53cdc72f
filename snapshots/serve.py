"""The work on folders, done for a process that may not read them: `python3 -m snapshots.serve`.

Runs in a container that mounts the folders in question at the very paths they have on their host.
It reads calls from its standard input and does only what `CALLS` names; when the input ends, it
ends, whatever it was doing.
"""

from __future__ import annotations

import itertools
import os
import queue
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO

from snapshots import privileges, wire
from snapshots.capture import capture
from snapshots.cipher import PLAIN, AesGcm
from snapshots.compare import measure
from snapshots.drivers import DRIVERS, Driver, ExecResult, Session, driver_for, looks_like
from snapshots.errors import SnapshotError
from snapshots.fork import Fork
from snapshots.livecapture import capture_live
from snapshots.livepoint import LivePoint, never
from snapshots.pace import Pace
from snapshots.progress import Progress
from snapshots.reflink import can_reflink
from snapshots.repair import repair
from snapshots.restore import restore
from snapshots.store import Store
from snapshots.touched import touched

PATH_METHODS = frozenset({"looks_like", "probe_path", "version", "check_path"})
RUN_METHODS = frozenset({"load", "truly_empty"})

Args = Mapping[str, Any]


class Server:
    """One caller's work, one call after the other."""

    def __init__(self, source: BinaryIO, target: BinaryIO) -> None:
        self._source, self._target = source, target
        self._said: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self._asking = threading.Lock()
        self._points: dict[int, tuple[AbstractContextManager[LivePoint], LivePoint]] = {}
        self._numbers = itertools.count(1)

    def serve(self) -> None:
        """Work until the caller is gone."""
        threading.Thread(target=self._listen, name="listen", daemon=True).start()
        self._send({"done": "ready"})
        while True:
            said = self._said.get()
            try:
                work = CALLS[said["call"]]
                self._send({"done": work(self, said["with"])})
            except Exception as error:
                self._send({"failed": wire.as_error(error)})

    def ask(self, question: str, **args: Any) -> Any:
        """What the caller answers. Raises what it refuses with."""
        with self._asking:
            self._send({"ask": question, "with": args})
            said = self._said.get()
        if "refuse" in said:
            raise wire.error(said["refuse"])
        return said["answer"]

    def _listen(self) -> None:
        """Who called may die at any moment: then nobody wants what is being done here."""
        try:
            while read := self._source.readline(wire.MAX_LINE):
                self._said.put(wire.message(read))
        finally:
            os._exit(0)

    def _send(self, message: Mapping[str, Any]) -> None:
        self._target.write(wire.line(message))
        self._target.flush()

    # what the work needs of the caller ------------------------------------------------------

    def progress(self, what: str, done: int, total: int) -> None:
        self.ask("progress", what=what, done=done, total=total)

    def ask_image(self, argv: Sequence[str]) -> ExecResult:
        return ExecResult(*self.ask("image", argv=list(argv)))

    # live points that outlast a call --------------------------------------------------------

    def keep(self, context: AbstractContextManager[LivePoint]) -> int:
        point, number = context.__enter__(), next(self._numbers)
        self._points[number] = context, point
        return number

    def point(self, said: int | bool | None) -> LivePoint | None:
        """None: at rest; True: each file as it is; a number: what a driver gave."""
        if said is None:
            return None
        return LivePoint() if said is True else self._points[said][1]

    def give_back(self, number: int, error: Exception | None) -> None:
        context, _ = self._points.pop(number)
        kind = type(error) if error is not None else None
        context.__exit__(kind, error, None)


class Engine:
    """The engine's container, as drivers know it; the caller has the way to it."""

    def __init__(self, server: Server) -> None:
        self._server = server

    def __call__(
        self, argv: Sequence[str], *, stdin: str | None = None, timeout: float = 30
    ) -> ExecResult:
        return ExecResult(*self._server.ask("run", argv=list(argv), stdin=stdin, timeout=timeout))

    @contextmanager
    def session(self, argv: Sequence[str]) -> Iterator[Session]:
        number = self._server.ask("session", argv=list(argv))
        try:
            yield Talk(self._server, number)
        finally:
            self._server.ask("leave", number=number)

    @contextmanager
    def frozen(self, seconds: float) -> Iterator[None]:
        number = self._server.ask("frozen", seconds=seconds)
        try:
            yield
        finally:
            self._server.ask("leave", number=number)


class Talk:
    """One command that goes on in the engine's container."""

    def __init__(self, server: Server, number: int) -> None:
        self._server, self._number = server, number

    def send(self, text: str) -> None:
        self._server.ask("send", number=self._number, text=text)

    def read_until(self, mark: str, timeout: float) -> str:
        return str(self._server.ask("read_until", number=self._number, mark=mark, timeout=timeout))


# The calls --------------------------------------------------------------------------------------


def _capture(server: Server, args: Args) -> Any:
    streams = args.get("streams")
    record = capture(
        Path(args["source"]),
        _store(args["store"]),
        dataset=args["dataset"],
        parent=args.get("parent"),
        tags=args.get("tags") or {},
        live=server.point(args.get("live")),
        streams=_driver(streams).is_stream if streams else never,
        twins=_path(args.get("twins")),
        pace=_pace(args.get("pace")),
        progress=_progress(server, args),
    )
    return asdict(record)


def _capture_live(server: Server, args: Args) -> Any:
    record = capture_live(
        _driver(args["driver"]),
        Engine(server),
        Path(args["source"]),
        _store(args["store"]),
        dataset=args["dataset"],
        parent=args.get("parent"),
        tags=args.get("tags") or {},
        pace=_pace(args.get("pace")),
        progress=_progress(server, args),
    )
    return asdict(record)


def _restore(server: Server, args: Args) -> Any:
    return asdict(
        restore(
            _store(args["store"]),
            args["snapshot"],
            Path(args["target"]),
            in_place=bool(args.get("in_place")),
            only=args.get("only") or (),
            twins=_path(args.get("twins")),
            pace=_pace(args.get("pace")),
            progress=_progress(server, args),
        )
    )


def _fork(server: Server, args: Args) -> Any:
    fork = Fork(
        Path(args["source"]),
        Path(args["target"]),
        index=Path(args["index"]),
        progress=_progress(server, args),
        pace=_pace(args.get("pace")),
    )
    passes = {
        "first_pass": fork.first_pass,
        "catch_up": fork.catch_up,
        "final_pass": fork.final_pass,
    }
    return asdict(passes[args["pass"]]())


def _repair(server: Server, args: Args) -> Any:
    folders = {name: [Path(path) for path in paths] for name, paths in args["folders"].items()}
    done = repair(_store(args["store"]), folders, _progress(server, args))
    return {**asdict(done), "aside": [str(path) for path in done.aside]}


def _identity(server: Server, args: Args) -> Any:  # noqa: ARG001
    return wire.identity(args["path"])


def _measure(server: Server, args: Args) -> Any:  # noqa: ARG001
    return asdict(measure(Path(args["path"])))


def _touched(server: Server, args: Args) -> Any:  # noqa: ARG001
    return asdict(touched(Path(args["path"]), _store(args["store"]), args["snapshot"]))


def _can_reflink(server: Server, args: Args) -> Any:  # noqa: ARG001
    return can_reflink(Path(args["source"]), Path(args["target"]))


def _entries(server: Server, args: Args) -> Any:  # noqa: ARG001
    return sum(1 for _ in os.scandir(args["path"]))


def _looks_like(server: Server, args: Args) -> Any:  # noqa: ARG001
    return looks_like(Path(args["path"])).name


def _ask_driver(server: Server, args: Args) -> Any:
    """One of a driver's methods that look at a folder."""
    driver, path, method = _driver(args["driver"]), Path(args["path"]), args["method"]
    if method in PATH_METHODS:
        return getattr(driver, method)(path)
    if method in RUN_METHODS:
        return getattr(driver, method)(Engine(server), path)
    if method == "unfit":
        return driver.unfit(path, server.ask_image)
    raise SnapshotError(f"there is no {method!r} to be asked of a driver")


def _still(server: Server, args: Args) -> Any:
    driver = _driver(args["driver"])
    return server.keep(driver.still(Engine(server), Path(args["path"]), args["seconds"]))


def _give_back(server: Server, args: Args) -> Any:
    said = args.get("error")
    server.give_back(args["number"], wire.error(said) if said else None)


CALLS: dict[str, Callable[[Server, Args], Any]] = {
    "capture": _capture,
    "capture_live": _capture_live,
    "restore": _restore,
    "fork": _fork,
    "repair": _repair,
    "identity": _identity,
    "measure": _measure,
    "touched": _touched,
    "can_reflink": _can_reflink,
    "entries": _entries,
    "looks_like": _looks_like,
    "driver": _ask_driver,
    "still": _still,
    "give_back": _give_back,
}
"""Everything that can be asked for."""


def _driver(said: Sequence[Any]) -> Driver:
    name, options = said
    return driver_for(name, options) if options else DRIVERS[name]


def _store(said: Sequence[str | None]) -> Store:
    """The store that the caller has opened, by its path and, if it is encrypted, its key."""
    path, key = said
    store = Store(Path(str(path)), AesGcm(bytes.fromhex(key)) if key else PLAIN)
    store.check_format()
    return store


def _path(said: str | None) -> Path | None:
    return Path(said) if said is not None else None


def _pace(said: Sequence[int] | None) -> Pace | None:
    return Pace(*said) if said is not None else None


def _progress(server: Server, args: Args) -> Progress | None:
    return server.progress if args.get("progress") else None


def main() -> None:
    """`python3 -m snapshots.serve UID GID`: files that are no folder's content belong to them."""
    privileges.become(int(sys.argv[1]), int(sys.argv[2]))
    os.umask(0o077)
    # Whatever else prints must not get between the messages.
    target = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    Server(os.fdopen(0, "rb"), target).serve()


if __name__ == "__main__":
    main()
