"""Helper containers: they work on volumes that this process may not read itself.

Each has the volumes of one kind of work and nothing else: no network, a read-only root, the few
capabilities that owners and modes of any file take, no socket of Docker. It speaks the protocol of
`snapshots.wire` on its standard input and output, and ends when its input does: with us.
"""

from __future__ import annotations

import atexit
import itertools
import os
import secrets
import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from typing import IO, Any

from failpoints import failpoint
from reconciler.docker import HELPER, Docker
from reconciler.errors import DockerFailed, LockstepError, Unavailable
from reconciler.reaching import helperimage
from snapshots import wire
from snapshots.drivers import Ask, Exec
from snapshots.errors import SnapshotError
from snapshots.privileges import CAPABILITIES
from snapshots.progress import Progress

IDLE_SECONDS = 60.0
_END_SECONDS = 5.0
_STARTING = ("SETGID", "SETUID")
"""Given up before the first call: it becomes the user whose store it writes."""


@dataclass(frozen=True)
class Mount:
    """A volume (by its name) or a folder of the daemon's host, at the same path inside."""

    path: str
    volume: str | None = None
    writable: bool = False

    def option(self) -> str:
        """As `docker run --mount` takes it."""
        where = ["type=volume", f"src={self.volume}", "volume-nocopy=true"]
        if self.volume is None:
            where = ["type=bind", f"src={self.path}"]
        fields = [*where, f"dst={self.path}", *([] if self.writable else ["readonly"])]
        return ",".join(_quoted(field) for field in fields)


def _quoted(field: str) -> str:
    return '"' + field.replace('"', '""') + '"' if set(field) & {",", '"', "\n"} else field


@dataclass
class Asked:
    """What a call may need of us while it works."""

    progress: Progress | None = None
    run: Exec | None = None
    image: Ask | None = None


def call(
    docker: Docker, mounts: frozenset[Mount], name: str, args: Mapping[str, Any], asked: Asked
) -> Any:
    """Have something done in a container with exactly these mounts.

    Raises what it failed with, or SnapshotError when the container ended meanwhile.
    """
    return _helper(docker, mounts).call(name, args, asked)


def command(docker: Docker, image: str, mounts: frozenset[Mount], name: str) -> list[str]:
    """How a helper is started: everything that it may not do."""
    rootless = docker.info.rootless
    # Root in a rootless daemon's container is the user who runs that daemon.
    uid, gid = (0, 0) if rootless else (os.geteuid(), os.getegid())
    volumes = sorted(mount.volume for mount in mounts if mount.volume)
    return [
        "docker", "run", "--rm", "--interactive", "--sig-proxy=false", "--pull", "never",
        "--name", name, "--label", f"{HELPER}={os.getpid()}",
        *(part for volume in volumes for part in ("--label", f"{HELPER}.{volume}=")),
        "--network", "none", "--ipc", "none", "--userns", "host", "--log-driver", "none",
        "--read-only", "--tmpfs", "/tmp:rw,noexec,nosuid,nodev",
        "--cap-drop", "ALL",
        *(part for cap in sorted({*CAPABILITIES, *_STARTING}) for part in ("--cap-add", cap)),
        "--security-opt", "no-new-privileges", "--pids-limit", "512",
        *(part for mount in sorted(mounts, key=str) for part in ("--mount", mount.option())),
        image, str(uid), str(gid),
    ]  # fmt: skip


# The pool ---------------------------------------------------------------------------------------

_pool: dict[tuple[str, frozenset[Mount]], Helper] = {}
_pooling = threading.RLock()


def _helper(docker: Docker, mounts: frozenset[Mount]) -> Helper:
    """One with these mounts that still runs, or a new one."""
    key = docker.info.id, mounts
    with _pooling:
        found = _pool.get(key)
        if found is None or found.ended:
            _drop_idle()
            found = _pool[key] = Helper(docker, mounts)
        return found


def of_folder(docker: Docker, path: str, volume: str | None) -> Helper:
    """The one of this process that knows most beside this folder, which it reads; else a new one.

    What is begun in one and goes on over several calls is asked of that very one.
    """
    with _pooling:
        found = [
            helper
            for (daemon, mounts), helper in _pool.items()
            if daemon == docker.info.id and not helper.ended and path in {m.path for m in mounts}
        ]
        if found:
            return max(found, key=lambda helper: len(helper.mounts))
        return _helper(docker, frozenset({Mount(path, volume)}))


def _drop_idle() -> None:
    for key, helper in list(_pool.items()):
        if helper.ended or helper.idle > IDLE_SECONDS:
            del _pool[key]
            helper.close()


def close(volume: str | None = None) -> None:
    """End the helpers of this process (all, or those that have this volume)."""
    with _pooling:
        for (daemon, mounts), helper in list(_pool.items()):
            if volume is None or any(mount.volume == volume for mount in mounts):
                del _pool[daemon, mounts]
                helper.close()


def sweep(docker: Docker) -> None:
    """Remove helpers that were created and never started, which only a kill in between leaves."""
    for listed in docker.listing(labels=[HELPER], helpers=True):
        if listed.state in ("created", "exited", "dead") and time.time() - listed.created > 60:
            with suppress(LockstepError):
                docker.remove_container(listed.id, force=True)


atexit.register(close)


@dataclass
class Helper:
    """A container that works for this process: one call after the other."""

    docker: Docker
    mounts: frozenset[Mount]
    _busy: threading.RLock = field(default_factory=threading.RLock)
    _used: float = field(default_factory=time.monotonic)
    _numbers: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    def __post_init__(self) -> None:
        image = helperimage.ensure(self.docker)
        sweep(self.docker)
        self.name = f"lockstep-helper-{os.getpid()}-{secrets.token_hex(4)}"
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `close`
        self._open: dict[int, ExitStack] = {}
        self._talks: dict[int, Any] = {}
        self._raised: dict[int, BaseException] = {}
        failpoint("helper.start")
        try:
            self._process = subprocess.Popen(
                command(self.docker, image, self.mounts, self.name),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                env=self.docker.cli_environment,
            )
        except OSError as error:
            raise Unavailable(f"docker run cannot be run: {error.strerror}") from None
        try:
            self._receive(Asked())
            for mount in self.mounts:
                if mount.volume is None and not self._is_this(mount.path):
                    raise self._elsewhere(mount.path)
        except SnapshotError as error:
            for path in (mount.path for mount in self.mounts):
                # What Docker says when it cannot mount a folder that it does not have.
                if f"path does not exist: {path}" in str(error) and os.path.exists(path):
                    raise self._elsewhere(path) from None
            raise DockerFailed(f"the helper container cannot be started: {error}") from None

    def _is_this(self, path: str) -> bool:
        return bool(self.call("identity", {"path": path}, Asked()) == wire.identity(path))

    def _elsewhere(self, path: str) -> Unavailable:
        self.close()
        return Unavailable(
            f"the Docker daemon at {self.docker.endpoint or 'the local socket'} is on another "
            f"host, or does not see this one's files: it has not the folder {path}",
            next_step="run lockstep on the host of the daemon, where its data belongs",
        )

    @property
    def ended(self) -> bool:
        return self._process.poll() is not None

    @property
    def idle(self) -> float:
        """Seconds since it had something to do; 0 while it has, or holds something open."""
        if self._open or not self._busy.acquire(blocking=False):
            return 0.0
        self._busy.release()
        return time.monotonic() - self._used

    def call(self, name: str, args: Mapping[str, Any], asked: Asked) -> Any:
        with self._busy:
            try:
                failpoint("helper.call")
                self._send({"call": name, "with": args})
                return self._receive(asked)
            except (KeyboardInterrupt, SystemExit):
                self.close()
                raise
            finally:
                self._used = time.monotonic()

    def close(self) -> None:
        """Nothing more is asked of it; it ends by that, whatever it does."""
        for stack in self._open.values():
            with suppress(Exception):
                stack.close()
        self._open.clear()
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with suppress(OSError):
            self._process.stdin.close()
        try:
            self._process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            with suppress(LockstepError):
                self.docker.remove_container(self.name, force=True)
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._errors.close()

    # messages -------------------------------------------------------------------------------

    def _send(self, message: Mapping[str, Any]) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(wire.line(message))
            self._process.stdin.flush()
        except (OSError, ValueError):
            raise self._gone() from None

    def _receive(self, asked: Asked) -> Any:
        """What came of a call; what it asks meanwhile is answered."""
        assert self._process.stdout is not None
        while True:
            try:
                read = self._process.stdout.readline(wire.MAX_LINE)
                said = wire.message(read) if read else None
            except (OSError, ValueError):
                said = None
            if said is None:
                raise self._gone()
            if "done" in said:
                return said["done"]
            if "failed" in said:
                raise self._error(said["failed"])
            self._answer(said, asked)

    def _answer(self, said: Mapping[str, Any], asked: Asked) -> None:
        try:
            answer = {"answer": self._asked(said["ask"], said["with"], asked)}
        except Exception as error:
            number = next(self._numbers)
            self._raised[number] = error
            setattr(error, wire.NUMBER, number)
            answer = {"refuse": wire.as_error(error)}
        self._send(answer)

    def _asked(self, what: str, args: Mapping[str, Any], asked: Asked) -> Any:
        if what == "progress" and asked.progress is not None:
            return asked.progress(args["what"], args["done"], args["total"])
        if what == "image" and asked.image is not None:
            found = asked.image(args["argv"])
            return [found.code, found.stdout, found.stderr]
        if what == "leave":
            self._talks.pop(args["number"], None)
            return self._open.pop(args["number"]).close()
        if what in ("send", "read_until"):
            talk = self._talks[args["number"]]
            given = {key: value for key, value in args.items() if key != "number"}
            return getattr(talk, what)(**given)
        if asked.run is None:
            raise SnapshotError(f"the helper container asks for {what!r}, which it may not")
        if what == "run":
            found = asked.run(args["argv"], stdin=args["stdin"], timeout=args["timeout"])
            return [found.code, found.stdout, found.stderr]
        stack, number = ExitStack(), next(self._numbers)
        if what == "session":
            self._talks[number] = stack.enter_context(asked.run.session(args["argv"]))
        elif what == "frozen":
            stack.enter_context(asked.run.frozen(args["seconds"]))
        else:
            raise SnapshotError(f"the helper container asks for {what!r}, which there is not")
        self._open[number] = stack
        return number

    def _error(self, said: Mapping[str, Any]) -> BaseException:
        """The very error that one of our answers was, or one of the same class."""
        raised = self._raised.pop(said.get("number", 0), None)
        self._raised.clear()
        return raised if raised is not None else wire.error(said)

    def _gone(self) -> SnapshotError:
        """It ended, or speaks nonsense: it is of no more use."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_END_SECONDS)
        self._process.kill()
        self._errors.seek(0)
        said = self._errors.read()[-500:].decode(errors="replace").strip()
        volumes = ", ".join(sorted(m.volume or m.path for m in self.mounts)) or "nothing"
        return SnapshotError(
            f"the helper container for {volumes} ended before its work was done"
            f"{f' ({said})' if said else ''}; run it again"
        )
