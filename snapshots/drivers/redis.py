"""Redis and its kin: a point without a stop by BGSAVE or in the AOF, keys counted, an AOF that
hides the data noticed."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from snapshots.drivers.base import (
    Ask,
    DirectoryDriver,
    Exec,
    completed,
    image_name,
    read_small,
    understood,
)
from snapshots.errors import EngineFailed
from snapshots.livepoint import LivePoint

SAVE_SECONDS = 600.0
_BEHIND_SECONDS = 3.0

_IMAGES = re.compile(r"(redis|valkey|keydb|redis-stack|redis-stack-server)")
_PASSING = re.compile(rb"temp-.*\.(rdb|aof)|.*\.manifest\.tmp|temp_.*\.manifest")
_IN_USE = re.compile(rb"^file (\S+) seq \d+ type [bi]", re.M)
_ERROR = re.compile(r"\A\(?(error|ERR|NOPERM|MISCONF|LOADING|Could not connect)")

# The password comes from the container's environment, or from the command that it was started with
# and the config file named there (`redispassword`); commands come by standard input.
WAY_IN = r"""
if [ -z "${REDISCLI_AUTH:-}" ]; then
  if [ -n "${REDIS_PASSWORD_FILE:-}" ]; then REDISCLI_AUTH=$(cat "$REDIS_PASSWORD_FILE")
  else REDISCLI_AUTH=${REDIS_PASSWORD:-}
  fi
fi
if [ -n "$REDISCLI_AUTH" ]; then export REDISCLI_AUTH; else unset REDISCLI_AUTH; fi
cli=redis-cli; command -v redis-cli >/dev/null 2>&1 || cli=valkey-cli
"""
_RUN = WAY_IN + "exec $cli\n"

# No rewrite of the AOF begins of itself until the script's input ends, however it ends. A server
# that lets nobody configure it is left as it is.
_MARK = "-- lockstep: no rewrite --"
_NO_REWRITE = (
    WAY_IN
    + r"""
setting=auto-aof-rewrite-percentage
was=$(echo "CONFIG GET $setting" | $cli 2>/dev/null | tail -n 1)
case $was in
  ''|*[!0-9]*) ;;
  *)
    trap 'echo "CONFIG SET $setting $was" | $cli >/dev/null 2>&1' EXIT
    trap 'exit 1' HUP INT TERM PIPE
    echo "CONFIG SET $setting 0" | $cli >/dev/null 2>&1 ;;
esac
"""
    + f"echo '{_MARK}'\n"
    + "cat >/dev/null\n"
)

_LOADABLE = r"""
check=redis-check-rdb; command -v $check >/dev/null 2>&1 || check=valkey-check-rdb
command -v $check >/dev/null 2>&1 || exit 0
printf %s "$1" >/tmp/head.rdb && $check /tmp/head.rdb 2>&1
"""
_NOT_LOADABLE = re.compile(r"Can't handle RDB format|Wrong signature")

_KEYS_IN_FILE = r"""
file=$1/$2
[ -f "$file" ] || { echo 0 keys read; exit 0; }
redis-check-rdb "$file"
"""


class RedisDriver(DirectoryDriver):
    """A clean stop saves what the server's own settings say is to be kept: nothing to add there."""

    name = "redis"

    def recognises(self, image: str, target: str) -> bool:
        return _IMAGES.fullmatch(image_name(image)) is not None and (
            target.rstrip("/") == "/data" or re.search(r"redis|valkey|keydb", target) is not None
        )

    @contextmanager
    def live(self, run: Exec, path: Path) -> Iterator[LivePoint]:
        """A finished BGSAVE; or with AOF on, when only that is read at a start, the AOF: its files
        as they are, with the newest cut off anywhere, as after a crash, and none exchanged.
        """
        if _info(run, "persistence").get("aof_enabled") == "1":
            with _steady_aof(run, path):
                yield LivePoint(left_out=_is_passing)
        else:
            _save(run)
            yield LivePoint(left_out=_is_passing)

    @contextmanager
    def still(self, run: Exec, path: Path, seconds: float) -> Iterator[LivePoint]:  # noqa: ARG002
        """Writing clients wait, until the AOF, or without one a BGSAVE, has all of their writes."""
        try:
            _command(run, f"CLIENT PAUSE {int(seconds * 1000)} WRITE")
            if _info(run, "persistence").get("aof_enabled") == "1":
                _wait_idle(run)
                _wait_written(run)
            else:
                _save(run)
            yield LivePoint(left_out=_is_passing)
        finally:
            with suppress(EngineFailed):
                _command(run, "CLIENT UNPAUSE")

    def is_stream(self, path: bytes) -> bool:
        """RDB files; the AOF's increments only grow, so their blocks recur."""
        return path.endswith(b".rdb")

    @understood
    def probe(self, run: Exec) -> dict[str, int]:
        """Keys of each database that has any, and of db0, as "db0"."""
        counts = {"db0": 0}  # an empty server has been looked at, too
        for name, value in _info(run, "keyspace").items():
            if match := re.match(r"keys=(\d+)", value):
                counts[name] = int(match[1])
        return counts

    def version(self, path: Path) -> str | None:
        """Of the server that wrote the RDB file, or the base of the AOF."""
        for file in (path / "dump.rdb", *sorted(path.glob("*/*.base.rdb"))):
            if (head := read_small(file, 256)) and (version := _rdb_version(head)):
                return version
        return None

    def truly_empty(self, run: Exec, path: Path) -> bool:
        """A queue that was worked off leaves no key. The server that came up with none must have
        its files in `path`, and in them what it wrote before: a new AOF has no commands yet."""
        folder = _served(run, path)
        if folder is None:
            return False
        if _info(run, "persistence").get("aof_enabled") == "1":
            return any(file.stat().st_size for file in folder.glob("*/*.incr.aof"))
        name = _command(run, "CONFIG GET dbfilename").splitlines()[-1:]
        return bool(name) and (folder / name[0]).is_file()

    def check_path(self, path: Path) -> list[str]:
        problems = super().check_path(path)
        head = read_small(path / "dump.rdb", 5)
        if head is not None and head != b"REDIS":
            problems.append(f"{path}/dump.rdb is not a Redis file")
        # A rewrite that ends meanwhile exchanges the manifest, and then removes files.
        missing = _missing(path)
        return problems + (missing and _missing(path))

    def unfit(self, path: Path, ask: Ask) -> list[str]:
        """The image's own tool is asked whether it reads files of this format."""
        for file in (path / "dump.rdb", *sorted(path.glob("*/*.base.rdb"))):
            head = re.match(rb"(REDIS|VALKEY)\d+", read_small(file, 10) or b"")
            if head is None:
                continue
            said = ask(["sh", "-c", _LOADABLE, "sh", head[0].decode()]).stdout
            if _NOT_LOADABLE.search(said):
                written = f"Redis {self.version(path) or 'of a later version'}"
                return [
                    f"{file.name} was written by {written} (format {head[0].decode()}), which the "
                    "server of the image cannot read: use an image of that version or a later one"
                ]
        return []

    @understood
    def check(self, run: Exec) -> list[str]:
        state = _info(run, "persistence")
        if state.get("loading") == "1":
            raise EngineFailed("Redis is still loading its data")
        problems = []
        if state.get("aof_enabled") == "1" and not any(self.probe(run).values()):
            keys = _keys_in_file(run)
            if keys:
                problems.append(
                    f"Redis has AOF on and started empty, although its RDB file has {keys} keys: "
                    "it reads only the AOF. Start it once with appendonly no, then switch AOF on"
                )
        return problems


def _save(run: Exec) -> None:
    _wait_idle(run)
    began = int(_command(run, "TIME").split()[0])
    _command(run, "BGSAVE")
    state = _wait_idle(run)
    saved = int(_command(run, "LASTSAVE"))
    if state.get("rdb_last_bgsave_status") != "ok" or saved < began:
        raise EngineFailed("Redis could not save its data (BGSAVE): see its log")


@contextmanager
def _steady_aof(run: Exec, path: Path) -> Iterator[None]:
    """The AOF only grows inside the context. Raises EngineFailed on exit when it did not."""
    with run.session(["sh", "-c", _NO_REWRITE]) as session:
        session.read_until(_MARK, 30)
        _wait_idle(run)
        _wait_written(run)
        before = _manifests(path)
        yield
        if _manifests(path) != before:
            raise EngineFailed("Redis rewrote its AOF while it was captured: run this again")


def _missing(path: Path) -> list[str]:
    """What the AOF's manifest names and its folder does not have."""
    problems = []
    for manifest, content in _manifests(path).items():
        for name in re.findall(_IN_USE, content or b""):
            file = manifest.parent / name.decode("utf-8", "surrogateescape")
            if b"/" in name or read_small(file, 0) is None:
                problems.append(f"{manifest} names {file.name}, which is missing")
    return problems


def _manifests(path: Path) -> dict[Path, bytes | None]:
    """What is in each. A draft, which a rewrite or a crash has left, is none: it may name what was
    never there."""
    files = (f for f in sorted(path.glob("*/*.manifest")) if not _is_passing(os.fsencode(f)))
    return {file: read_small(file, 1 << 20) for file in files}


def _is_passing(path: bytes) -> bool:
    return _PASSING.fullmatch(path.rpartition(b"/")[2]) is not None


def _wait_written(run: Exec) -> None:
    """With appendfsync everysec the AOF may be up to two seconds behind: let it catch up."""
    deadline = time.monotonic() + _BEHIND_SECONDS
    while _info(run, "persistence").get("aof_buffer_length", "0") != "0":
        if time.monotonic() > deadline:
            return
        time.sleep(0.05)


def _command(run: Exec, command: str) -> str:
    output = completed(run(["sh", "-c", _RUN], stdin=command + "\n"), f"redis-cli {command}")
    if output.startswith(("NOAUTH", "WRONGPASS")):
        raise EngineFailed(
            f"redis-cli {command} failed: Redis wants a password. Put it into the environment of "
            "its service as REDISCLI_AUTH (or REDIS_PASSWORD, or the path in REDIS_PASSWORD_FILE), "
            "or as `requirepass` into the config file that its command names"
        )
    if _ERROR.match(output):
        raise EngineFailed(f"redis-cli {command} failed: {output.strip()[:300]}")
    return output


def _info(run: Exec, section: str) -> dict[str, str]:
    lines = _command(run, f"INFO {section}").splitlines()
    return dict(line.split(":", 1) for line in lines if ":" in line)


def _wait_idle(run: Exec) -> dict[str, str]:
    """The state of persistence as soon as no save and no rewrite runs or is due."""
    deadline = time.monotonic() + SAVE_SECONDS
    while True:
        state = _info(run, "persistence")
        busy = ("rdb_bgsave_in_progress", "aof_rewrite_in_progress", "aof_rewrite_scheduled")
        if all(state.get(name, "0") == "0" for name in busy):
            return state
        if time.monotonic() > deadline:
            raise EngineFailed(f"Redis was still saving after {SAVE_SECONDS:.0f} s")
        time.sleep(0.05)


def _served(run: Exec, path: Path) -> Path | None:
    """The folder with the server's files, if that is `path` or lies in it."""
    folder = _command(run, "CONFIG GET dir").splitlines()[-1:]
    inode = run(["stat", "-c", "%i", *folder]).stdout.strip()
    inner = (entry for entry in path.iterdir() if entry.is_dir() and not entry.is_symlink())
    return next((f for f in (path, *inner) if str(f.stat().st_ino) == inode), None)


def _keys_in_file(run: Exec) -> int:
    """Keys in the RDB file where the server looks for it; 0 if there is none."""
    folder = _command(run, "CONFIG GET dir").splitlines()[-1:]
    name = _command(run, "CONFIG GET dbfilename").splitlines()[-1:]
    result = run(["sh", "-c", _KEYS_IN_FILE, "sh", *folder, *name], timeout=120)
    match = re.search(r"(\d+) keys read", result.stdout)
    return int(match[1]) if match else 0


def _rdb_version(head: bytes) -> str | None:
    """From the header's auxiliary field redis-ver, whose value is a short string."""
    mark = b"\xfa\x09redis-ver"
    at = head.find(mark)
    if not re.match(rb"REDIS\d{4}", head) or at < 0 or at + len(mark) >= len(head):
        return None
    length, start = head[at + len(mark)], at + len(mark) + 1
    if length >= 64:
        return None
    return head[start : start + length].decode("ascii", "replace")
