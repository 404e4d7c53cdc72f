"""Any engine, by commands of the user's own that run inside its container."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from snapshots import fs
from snapshots.drivers.base import DirectoryDriver, Exec, ExecResult
from snapshots.errors import EngineFailed, Unsupported
from snapshots.livepoint import LivePoint

COMMANDS = ("before_stop", "freeze", "thaw", "dump", "restore", "probe", "check")
SECONDS = 600.0
FREEZE_SECONDS = 30.0

DUMP = ".lockstep-dump"
"""What `dump` printed, in the volume while it is captured, and in the snapshot."""
TO_LOAD = ".lockstep-load"
"""Only in a snapshot: its content still has to be loaded by `restore`."""

_SHOWN = 300

# Finds where the container sees a folder, known by device and inode: arguments folder, command.
# Mount points have blanks and the like as octal numbers.
_THERE = r"""
there() {
  while read -r _ _ _ _ point _; do
    point=$(printf '%b' "$point")
    [ "$(stat -c %d:%i "$point" 2>/dev/null)" != "$1" ] || { printf %s "$point"; return; }
  done </proc/self/mountinfo
  echo 'the volume is no mount point in this container' >&2; return 1
}
LOCKSTEP_DUMP=$(there "$1")/.lockstep-dump || exit 1
export LOCKSTEP_DUMP
umask 077
"""
_DUMP = _THERE + r"""rm -f "$LOCKSTEP_DUMP"; sh -c "$2" </dev/null >"$LOCKSTEP_DUMP" """
_LOAD = _THERE + r"""sh -c "$2" <"$LOCKSTEP_DUMP" """

# Thaws when it is told to, when its input ends because we died, and when the time is over.
_FREEZE = r"""
sh -c "$1" </dev/null || exit 1
trap 'kill "$clock" 2>/dev/null; sh -c "$2" </dev/null && echo "$state"' EXIT
state='stood still for too long'
trap exit TERM
(trap - EXIT; sleep "$3"; kill $$) >/dev/null 2>&1 & clock=$!
echo frozen
read -r told && state=thawed
"""


class CommandDriver(DirectoryDriver):
    """`options`: the commands by name (see COMMANDS); `timeout` and `freeze_limit` in seconds."""

    name = "command"

    def __init__(self, options: Mapping[str, str] = {}) -> None:
        self._commands = {name: options[name] for name in COMMANDS if options.get(name)}
        self._seconds = float(options.get("timeout") or SECONDS)
        self._standstill = float(options.get("freeze_limit") or FREEZE_SECONDS)

    def recognises(self, image: str, target: str) -> bool:  # noqa: ARG002
        return False

    def before_stop(self, run: Exec) -> None:
        if command := self._commands.get("before_stop"):
            self._run("before_stop", run, ["sh", "-c", command])

    @contextmanager
    def live(self, run: Exec, path: Path) -> Iterator[LivePoint]:
        """With `freeze` and `thaw` the files as they stand still in between; else what `dump`
        prints, and nothing else; or, if it prints nothing, all files, one of which it wrote."""
        if self._has("freeze", "thaw"):
            with self._frozen(run) as thaw:
                yield LivePoint(finish=thaw)
        elif self._has("dump", "restore"):
            dump = path / DUMP
            try:
                self._run(
                    "dump", run, ["sh", "-c", _DUMP, "sh", _identity(path), self._commands["dump"]]
                )
                printed = dump.lstat().st_size > 0
                yield LivePoint(
                    left_out=(lambda name: name != DUMP.encode()) if printed else (lambda _: False),
                    finish=lambda: {TO_LOAD.encode(): b""},
                )
            finally:
                dump.unlink(missing_ok=True)
        else:
            raise Unsupported("the config names neither dump and restore, nor freeze and thaw")

    @contextmanager
    def still(self, run: Exec, path: Path, seconds: float) -> Iterator[LivePoint]:  # noqa: ARG002
        """Between `freeze` and `thaw`, where they are named."""
        if self._has("freeze", "thaw"):
            with self._frozen(run):
                yield LivePoint()
        elif "dump" in self._commands:
            raise Unsupported("a dump is no point in its files: name freeze and thaw instead")
        else:
            yield LivePoint()

    def is_stream(self, path: bytes) -> bool:
        return path == DUMP.encode()

    def load(self, run: Exec, path: Path) -> None:
        """Run `restore` when the folder came from a snapshot that was made by `dump`."""
        if not (path / TO_LOAD).exists():
            return
        if "restore" not in self._commands:
            raise EngineFailed("its snapshot was made by a dump, and the config names no restore")
        command = self._commands["restore"]
        self._run("restore", run, ["sh", "-c", _LOAD, "sh", _identity(path), command])
        for name in (TO_LOAD, DUMP):
            (path / name).unlink(missing_ok=True)
        fs.sync_folder(path)

    def probe(self, run: Exec) -> dict[str, int]:
        """What `probe` prints: lines of a name and a number, or one JSON object of numbers."""
        if "probe" not in self._commands:
            return {}
        return _counts(self._run("probe", run, ["sh", "-c", self._commands["probe"]]))

    def check(self, run: Exec) -> list[str]:
        """What `check` says when it fails."""
        if "check" not in self._commands:
            return []
        try:
            self._run("check", run, ["sh", "-c", self._commands["check"]])
        except EngineFailed as error:
            return [str(error)]
        return []

    def _has(self, *names: str) -> bool:
        return all(name in self._commands for name in names)

    def _run(self, name: str, run: Exec, argv: list[str]) -> str:
        result = run(argv, timeout=self._seconds)
        if result.code != 0:
            raise EngineFailed(self._failure(name, result))
        return result.stdout

    def _failure(self, name: str, result: ExecResult) -> str:
        said = (result.stderr.strip() or result.stdout.strip() or "it said nothing")[-_SHOWN:]
        command = " ".join(self._commands[name].split())
        if len(command) > _SHOWN:
            command = command[:_SHOWN] + "..."
        return f"its command {name} ({command}) failed with exit code {result.code}: {said}"

    @contextmanager
    def _frozen(self, run: Exec) -> Iterator[Callable[[], Mapping[bytes, bytes]]]:
        """Frozen from here to the call of what is given out, which thaws."""
        freeze, thaw = self._commands["freeze"], self._commands["thaw"]
        argv = ["sh", "-c", _FREEZE, "sh", freeze, thaw, f"{self._standstill:g}"]
        with ExitStack() as undo:
            session = undo.enter_context(run.session(argv))
            session.read_until("frozen", self._seconds)
            thawing = undo.enter_context(ExitStack())

            def let_go() -> None:
                session.send("thaw\n")
                session.read_until("thawed", self._seconds)

            thawing.callback(let_go)

            def finish() -> Mapping[bytes, bytes]:
                thawing.close()
                return {}

            yield finish


def _identity(path: Path) -> str:
    status = path.stat()
    return f"{status.st_dev}:{status.st_ino}"


def _counts(printed: str) -> dict[str, int]:
    """Raises EngineFailed for anything but names with whole numbers."""
    try:
        if printed.lstrip().startswith("{"):
            return {str(name): int(count) for name, count in json.loads(printed).items()}
        pairs = (line.rsplit(maxsplit=1) for line in printed.splitlines() if line.strip())
        return {name: int(count) for name, count in pairs}
    except (TypeError, ValueError):
        raise EngineFailed(
            "its command probe must print lines of a name and a number, or a JSON object of "
            f"numbers, but printed: {printed.strip()[:_SHOWN] or 'nothing'}"
        ) from None
