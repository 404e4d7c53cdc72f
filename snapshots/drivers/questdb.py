"""QuestDB: a checkpoint without a stop, rows of each table counted, a suspended table noticed."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

from snapshots.drivers.base import (
    DirectoryDriver,
    Exec,
    completed,
    image_name,
    read_small,
    understood,
)
from snapshots.errors import EngineFailed, Unsupported
from snapshots.livepoint import LivePoint

SECONDS = 60.0
CHECKPOINT_SECONDS = 600.0
EXAMINE_SECONDS = 3600.0
APPLY_SECONDS = 10.0  # how long a count waits for rows that are written but not yet in their table

_NOT_THE_SERVER = re.compile(r"exporter|operator|connect|client|backup")
_SYSTEM = re.compile(r"sys\.|telemetry|_query_trace")
_VERSIONS = Path("db/telemetry_config/version.c")

# Asks the server's own HTTP port. Every image of QuestDB has bash, but none a client: bash speaks
# HTTP by itself. The password comes from the container's environment and stays in there. The
# server leaves the connection open: its answer ends with an empty chunk.
_HTTP = r"""
bound=${QDB_HTTP_BIND_TO:-${QDB_HTTP_NET_BIND_TO:-:9000}}
exec 3<>/dev/tcp/127.0.0.1/${bound##*:} || exit 1
cat >&3
if [ -n "${QDB_HTTP_USER:-}" ]; then
  printf 'Authorization: Basic %s\r\n' \
    "$(printf %s:%s "$QDB_HTTP_USER" "${QDB_HTTP_PASSWORD:-}" | base64 | tr -d '\n')" >&3
fi
printf '\r\n' >&3
while IFS= read -r -t "$1" line <&3; do
  printf '%s\n' "$line"
  [ "$line" != $'00\r' ] || exit 0
done
"""


class QuestdbDriver(DirectoryDriver):
    """The volume is QuestDB's root folder, which has `db` in it."""

    name = "questdb"

    def recognises(self, image: str, target: str) -> bool:
        name = image_name(image)
        return (
            name.startswith("questdb")
            and _NOT_THE_SERVER.search(name) is None
            and "questdb" in target
        )

    @contextmanager
    def live(self, run: Exec, path: Path) -> Iterator[LivePoint]:
        """Between CHECKPOINT CREATE and RELEASE the files of the checkpoint stay as they are.

        What is written meanwhile lands behind it and is cut off when the server starts on a copy
        with the file `_restore` in its root, which the snapshot gets.

        A checkpoint that a killed run left costs disk: the server keeps every replaced file and
        every applied part of its log until it is released, or until it restarts. So one that is
        found is released first; then nobody else's backup may be under way.
        """
        if not (path / "db").is_dir():
            raise Unsupported(
                f"{path} is not the whole root folder of QuestDB (it has no db): mount that one, "
                "its checkpoints lie beside db"
            )
        if _in_checkpoint(run):
            _sql(run, "CHECKPOINT RELEASE")
        try:
            _sql(run, "CHECKPOINT CREATE", CHECKPOINT_SECONDS)

            def finish() -> Mapping[bytes, bytes]:
                if not _in_checkpoint(run):
                    raise EngineFailed(
                        "QuestDB forgot its checkpoint while it was captured (it restarted, or "
                        "somebody released it): run it again"
                    )
                return {b"_restore": b""}

            yield LivePoint(finish=finish)
        finally:
            with suppress(EngineFailed):  # gone with the server, or released before the next one
                _sql(run, "CHECKPOINT RELEASE")

    @understood
    def probe(self, run: Exec) -> dict[str, int]:
        """Rows of each table, with what was written to its log before (see APPLY_SECONDS)."""
        give_up = time.monotonic() + APPLY_SECONDS
        while _behind(run) and time.monotonic() < give_up:
            time.sleep(0.1)
        return {
            table: int(_rows(run, f"SELECT count() FROM {_named(table)}")[0][0])
            for table in _tables(run)
        }

    def version(self, path: Path) -> str | None:
        """Of the newest server that ran on these files; None where telemetry is off."""
        text = read_small(path / _VERSIONS, 1 << 16) or b""
        found = _symbols(text)
        return max(found, key=lambda v: [int(n) for n in re.findall(r"\d+", v)], default=None)

    def check_path(self, path: Path) -> list[str]:
        problems = super().check_path(path)
        for meta in sorted(path.glob("db/*/_meta")):
            if read_small(meta.with_name("_txn"), 1) is None:
                problems.append(f"the table in {meta.parent} has no file _txn: it cannot be read")
        return problems

    @understood
    def check(self, run: Exec) -> list[str]:
        """Tables whose log is not applied any more, or whose first and last rows, all columns,
        cannot be read. QuestDB keeps no checksums: a changed value is not found."""
        suspended = "SELECT name, errorMessage FROM wal_tables() WHERE suspended"
        return [
            f"table {name} takes no more rows (suspended): {message or 'see the log of QuestDB'}"
            for name, message in _rows(run, suspended)
        ] + _unreadable(run, lambda table: [f"SELECT * FROM {table} LIMIT {n}" for n in (1, -1)])

    @understood
    def examine(self, run: Exec) -> list[str]:
        """Reads every column of every table."""

        def read_all(table: str) -> list[str]:
            columns = [_named(row[0]) for row in _rows(run, f"SHOW COLUMNS FROM {table}")]
            return [f"SELECT {', '.join(f'count({each})' for each in columns)} FROM {table}"]

        return _unreadable(run, read_all, EXAMINE_SECONDS)


def _unreadable(
    run: Exec, queries: Callable[[str], list[str]], timeout: float = SECONDS
) -> list[str]:
    """The tables for which one of the `queries`, made from a table's quoted name, fails."""
    problems = []
    for table in _tables(run):
        try:
            for query in queries(_named(table)):
                _sql(run, query, timeout)
        except EngineFailed as error:
            problems.append(f"table {table} cannot be read: {error}")
    return problems


def _in_checkpoint(run: Exec) -> bool:
    return bool(_rows(run, "SELECT in_progress FROM checkpoint_status()")[0][0])


def _behind(run: Exec) -> bool:
    """Whether rows wait to be applied to a table (one that is suspended never gets them)."""
    waiting = "SELECT count() FROM wal_tables() WHERE writerTxn < sequencerTxn AND NOT suspended"
    return bool(_rows(run, waiting)[0][0])


def _tables(run: Exec) -> list[str]:
    names = [str(name) for (name,) in _rows(run, "SELECT table_name FROM tables()")]
    return sorted(name for name in names if _SYSTEM.match(name) is None)


def _named(table: str) -> str:
    return '"' + table.replace('"', '""') + '"'


def _rows(run: Exec, sql: str) -> list[list[Any]]:
    answer = _sql(run, sql)
    rows = answer.get("dataset")
    if not isinstance(rows, list):
        raise EngineFailed(f"QuestDB answered {sql!r} with something unexpected: {answer}"[:300])
    return rows


def _sql(run: Exec, sql: str, timeout: float = SECONDS) -> dict[str, Any]:
    request = f"GET /exec?query={quote(sql)} HTTP/1.1\r\nHost: localhost\r\n"
    command = ["bash", "-c", _HTTP, "bash", f"{timeout:.0f}"]
    output = completed(run(command, stdin=request, timeout=timeout + 5), f"asking QuestDB: {sql}")
    head, _, body = output.replace("\r\n", "\n").partition("\n\n")
    status = head.partition("\n")[0]
    if status.split()[1:2] == ["401"]:
        raise EngineFailed(
            "QuestDB wants a password: put QDB_HTTP_USER and QDB_HTTP_PASSWORD into the "
            "environment of its service"
        )
    try:
        answer = json.loads(_joined(body))
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        raise EngineFailed(f"QuestDB gave no whole answer to {sql!r}: {output[:200] or 'nothing'}")
    if "error" in answer:
        raise EngineFailed(f"QuestDB refused {sql!r}: {answer['error']}")
    return answer


def _joined(chunked: str) -> str:
    """A body in chunks: each has its length in bytes (hexadecimal) on a line before it."""
    rest, whole = chunked.encode(), b""
    while True:
        length, _, rest = rest.partition(b"\n")
        size = int(length, 16)
        if size == 0:
            return whole.decode()
        whole, rest = whole + rest[:size], rest[size:].lstrip(b"\n")


def _symbols(text: bytes) -> list[str]:
    """The values in a symbol file: each a length in characters (4 bytes) and its UTF-16."""
    found, at = [], 0
    while (count := int.from_bytes(text[at : at + 4], "little", signed=True)) > 0:
        found.append(text[at + 4 : at + 4 + 2 * count].decode("utf-16-le", "replace"))
        at += 4 + 2 * count
    return found
