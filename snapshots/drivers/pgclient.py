"""psql inside the engine's container: one script, or a conversation. Answers are JSON arrays."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from snapshots.drivers.base import Exec, Session, completed
from snapshots.errors import EngineFailed

# Finds the way in through the local socket: as the container's user, or as the system user
# postgres where peer authentication asks for it. Arguments: the database ("" = the default one).
# The SQL comes by standard input. Secrets stay inside the container and out of every argument list.
_PSQL = r"""
unset PGHOST PGHOSTADDR PGSERVICE
PGDATABASE=${1:-postgres}; export PGDATABASE
if [ -n "${POSTGRES_PASSWORD_FILE:-}" ]; then
  ALIGN_PASSWORD=$(cat "$POSTGRES_PASSWORD_FILE") || exit 1
else
  ALIGN_PASSWORD=${POSTGRES_PASSWORD:-}
fi
ALIGN_ROLE=${POSTGRES_USER:-postgres}
PGPASSWORD=$ALIGN_PASSWORD
export ALIGN_PASSWORD ALIGN_ROLE PGPASSWORD
psql='psql -X -w -q -A -t -v ON_ERROR_STOP=1 -v VERBOSITY=terse'
try() { PGUSER=$2; export PGUSER
  if [ "$1" = here ]; then $psql -c 'select 1' >/dev/null 2>&1 </dev/null
  else su postgres -s /bin/sh -c "$psql -c 'select 1'" >/dev/null 2>&1 </dev/null; fi; }
go() { if [ "$1" = here ]; then exec $psql; else exec su postgres -s /bin/sh -c "exec $psql"; fi; }
for who in here postgres; do
  for role in "$ALIGN_ROLE" postgres; do
    if try "$who" "$role"; then go "$who"; fi
  done
done
PGUSER=$ALIGN_ROLE; export PGUSER; go here
"""

_DATABASES = """
SELECT json_build_array(datname) FROM pg_database
 WHERE datallowconn AND NOT datistemplate ORDER BY datname;
"""

_TOO_LATE = 124
_MARK = "-- lockstep: answered --"


def psql(run: Exec, sql: str, doing: str, database: str = "", timeout: float = 30) -> str:
    """What a script prints. Raises EngineFailed, which begins with what was being done."""
    return completed(run(_argv(database), stdin=sql, timeout=timeout), doing)


def rows(run: Exec, sql: str, doing: str, database: str = "", timeout: float = 30) -> list[Any]:
    """The arrays that a script's `json_build_array` rows are."""
    return [_array(line) for line in psql(run, sql, doing, database, timeout).splitlines()]


def rows_so_far(run: Exec, sql: str, doing: str, database: str, timeout: float) -> list[Any]:
    """Like `rows`, but what takes longer than `timeout` seconds ends with what there is by then."""
    result = run(_argv(database), stdin=sql, timeout=timeout)
    if result.code == _TOO_LATE:
        whole = result.stdout.rpartition("\n")[0]
        return [_array(line) for line in whole.splitlines()]
    return [_array(line) for line in completed(result, doing).splitlines()]


def databases(run: Exec) -> list[str]:
    """Those that can be connected to, templates left out."""
    return [str(row[0]) for row in rows(run, _DATABASES, "listing the databases")]


@dataclass(frozen=True)
class Connection:
    """One connection that stays."""

    session: Session

    def row(self, sql: str, timeout: float = 30) -> list[Any]:
        """The one array that a statement returns. Raises EngineFailed."""
        self.session.send(f"{sql};\nSELECT '{_MARK}';\n")
        return _array(self.session.read_until(_MARK, timeout).strip())


@contextmanager
def connected(run: Exec) -> Iterator[Connection]:
    """A connection to the default database until the context is left, or we die."""
    with run.session(_argv("")) as session:
        yield Connection(session)


def _argv(database: str) -> list[str]:
    return ["sh", "-c", _PSQL, "sh", database]


def _array(line: str) -> list[Any]:
    try:
        value = json.loads(line)
    except ValueError:
        value = None
    if not isinstance(value, list):
        raise EngineFailed(f"psql answered something unexpected: {line[:200]}")
    return value
