"""A snapshot of a running PostgreSQL, as its documentation has it: the low-level backup API.

The files are taken torn as they are, between `pg_backup_start` and `pg_backup_stop`; the log of
that time, which a temporary replication slot keeps from being recycled, makes them whole when the
restored server starts. What is left out is what `pg_basebackup` leaves out.
"""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from snapshots.drivers import pgfiles
from snapshots.drivers.base import Exec
from snapshots.drivers.pgclient import Connection, connected
from snapshots.errors import EngineFailed, Unsupported
from snapshots.livepoint import LivePoint

OLDEST = 10
CHECKPOINT_SECONDS = 900.0

_EMPTIED = frozenset(
    (
        b"pg_dynshmem",
        b"pg_notify",
        b"pg_replslot",
        b"pg_serial",
        b"pg_snapshots",
        b"pg_stat_tmp",
        b"pg_subtrans",
    )
)
_FILES = frozenset(
    (
        b"backup_label",
        b"backup_label.old",
        b"backup_manifest",
        b"current_logfiles",
        b"current_logfiles.tmp",
        b"postgresql.auto.conf.tmp",
        b"postmaster.opts",
        b"postmaster.pid",
        b"tablespace_map",
    )
)
_PASSING = re.compile(rb"(?:.*/)?(?:pgsql_tmp|pg_internal\.init)[^/]*|base/\d+/t\d+_\d+[^/]*")
_LOG_FOLDERS = frozenset((b"archive_status", b"summaries"))
_START = re.compile(r"^START WAL LOCATION: (\S+) \(file ([0-9A-F]{8})", re.M)

_STATE = """
SELECT json_build_array(current_setting('server_version_num')::int, pg_is_in_recovery(),
  current_setting('wal_level'), current_setting('max_replication_slots')::int,
  pg_size_bytes(current_setting('wal_segment_size')),
  (SELECT system_identifier::text FROM pg_control_system()))"""


# A limit that somebody set for the role must not end a backup that waits for its files.
_NO_LIMITS = """
SELECT json_build_array(count(set_config(name, '0', false))) FROM pg_settings
 WHERE name IN ('statement_timeout', 'lock_timeout', 'idle_session_timeout')"""


@contextmanager
def point(run: Exec, path: Path) -> Iterator[LivePoint]:
    """A usable point of the cluster that the server in `run` keeps somewhere in `path`.

    Raises Unsupported, EngineFailed; on exit also when a part of the log that is needed was gone
    before it was captured.
    """
    with connected(run) as connection:
        connection.row(_NO_LIMITS)
        version, standby, level, slots, segment, system = connection.row(_STATE)
        insist_on_possible(version // 10_000, standby, level, slots)
        folder = _folder_of(path, int(system))
        slot = f"lockstep_{secrets.token_hex(8)}"
        connection.row(
            f"SELECT json_build_array(pg_create_physical_replication_slot('{slot}', true, true))"
        )
        backup = _Backup(connection, folder, os.fsencode(folder.relative_to(path)), segment)
        backup.start(version)
        yield LivePoint(
            left_out=backup.left_out,
            later=backup.later,
            finish=lambda: backup.finish(version),
        )
        backup.insist_on_log()


def is_of_the_process(path: bytes) -> bool:
    """What speaks of the running server, and would mislead another that finds it."""
    return path.rpartition(b"/")[2] in (b"postmaster.pid", b"postmaster.opts")


def insist_on_possible(major: int, standby: bool, level: str, slots: int) -> None:
    """A server of this major version, wal_level and max_replication_slots gives a point. Raises
    Unsupported."""
    stop = "or stop it, then its files are a point"
    if major < OLDEST:
        raise Unsupported(f"PostgreSQL older than {OLDEST} gives no point while it runs: stop it")
    if standby:
        raise Unsupported(
            f"this PostgreSQL is a standby (in recovery): take the snapshot on its primary, {stop}"
        )
    if level == "minimal":
        raise Unsupported(
            "PostgreSQL runs with wal_level = minimal, and such a log brings no copy of running "
            f"files to a point: set wal_level = replica and restart it, {stop}"
        )
    if slots < 1:
        raise Unsupported(
            "PostgreSQL runs with max_replication_slots = 0, so nothing keeps the log that a "
            f"snapshot needs: set it to 1 or more and restart it, {stop}"
        )


def _folder_of(path: Path, system: int) -> Path:
    folders = pgfiles.data_folders(path)
    for folder in folders:
        if pgfiles.system_identifier(folder) == system:
            if problems := pgfiles.problems_of(folder):
                raise Unsupported("; ".join(problems))
            return folder
    found = f"the data in {folders[0]}" if folders else f"any data in {path}"
    raise Unsupported(
        f"the PostgreSQL that answers does not serve {found}: it has its data elsewhere"
    )


@dataclass
class _Backup:
    """One backup under way. Paths are relative to the captured folder, as LivePoint has them."""

    connection: Connection
    folder: Path
    prefix: bytes
    """Of the data folder, `.` if it is the captured folder itself."""
    segment: int
    """Bytes of a file of the log."""
    needed: list[str] = field(default_factory=list)
    """Names of the log's files that bring the copy to its point; known when it is finished."""

    def start(self, version: int) -> None:
        begin = (
            "pg_backup_start('lockstep', true)"
            if version >= 150_000
            else "pg_start_backup('lockstep', true, false)"
        )
        self.connection.row(f"SELECT json_build_array({begin}::text)", CHECKPOINT_SECONDS)

    def finish(self, version: int) -> Mapping[bytes, bytes]:
        """End the backup; the files that belong to the copy alone."""
        end = "pg_backup_stop(false)" if version >= 150_000 else "pg_stop_backup(false, false)"
        try:
            stop, label, spaces = self.connection.row(
                f"SELECT json_build_array(lsn::text, labelfile, spcmapfile) FROM {end}", 300
            )
        except EngineFailed as failure:
            raise EngineFailed(
                f"{failure} (PostgreSQL ends the connection of a snapshot when more was written "
                "meanwhile than max_slot_wal_keep_size)"
            ) from None
        match = _START.search(label)
        if match is None:
            raise EngineFailed(f"PostgreSQL's backup label says no start: {label[:200]!r}")
        first, last = pgfiles.position(match[1]), pgfiles.position(stop)
        self.needed = pgfiles.segments(match[2], first, last, self.segment)
        self.insist_on_log()
        added = {b"backup_label": label.encode()}
        if spaces.strip():
            added[b"tablespace_map"] = spaces.encode()
        if (self.folder / "pg_wal" / "archive_status").is_dir():
            # They are archived, or not, by the server that wrote them: the copy must not try.
            added |= {b"pg_wal/archive_status/%s.done" % name.encode(): b"" for name in self.needed}
        return {self._outer(inner): content for inner, content in added.items()}

    def insist_on_log(self) -> None:
        """A file that is there now under its name was there all the time: none comes back."""
        gone = [name for name in self.needed if not (self.folder / "pg_wal" / name).is_file()]
        if gone:
            raise EngineFailed(
                f"PostgreSQL removed {gone[0]} of its log before it was captured "
                "(max_slot_wal_keep_size): raise that, and run this again"
            )

    def left_out(self, path: bytes) -> bool:
        inner = self._inner(path)
        if inner is None:
            return False
        top, _, below = inner.partition(b"/")
        if top == b"pg_wal":
            return self._log_left_out(below)
        if below:
            return top in _EMPTIED or _PASSING.fullmatch(inner) is not None
        return top in _FILES or _PASSING.fullmatch(inner) is not None

    def _log_left_out(self, below: bytes) -> bool:
        name, _, rest = below.partition(b"/")
        if rest:
            return name in _LOG_FOLDERS
        if not self.needed or name in _LOG_FOLDERS or name.endswith(b".history"):
            return False
        return bool(name) and name.decode("ascii", "replace") not in self.needed

    def later(self, path: bytes) -> bool:
        """The log; and pg_control, which is read after what it speaks of."""
        inner = self._inner(path)
        if inner is None:
            return False
        top, _, below = inner.partition(b"/")
        return inner == b"global/pg_control" or (
            top == b"pg_wal" and bool(below) and below.partition(b"/")[0] not in _LOG_FOLDERS
        )

    def _inner(self, path: bytes) -> bytes | None:
        """A path as the data folder has it; None for what does not lie in it."""
        if self.prefix == b".":
            return path
        if not path.startswith(self.prefix + b"/"):
            return None
        return path[len(self.prefix) + 1 :]

    def _outer(self, inner: bytes) -> bytes:
        return inner if self.prefix == b"." else self.prefix + b"/" + inner
