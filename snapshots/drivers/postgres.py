"""PostgreSQL: checkpoint before the stop, the password follows the environment, rows counted."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from snapshots.drivers.base import DirectoryDriver, Exec, completed, image_name, read_small
from snapshots.errors import EngineFailed, Unsupported
from snapshots.livepoint import LivePoint

EXACT_BELOW = 64 << 20  # tables up to this many bytes are counted, larger ones estimated

_IMAGES = re.compile(r"(postgres(ql)?|postgis|pgvector|timescaledb|timescaledb-ha)([-_.].*)?")
_NOT_THE_SERVER = re.compile(r"exporter|backup|bouncer|admin|pool|operator")

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

# Everything by which a server might write the statement with the password somewhere.
_SILENCE = """
\\o /dev/null
SELECT set_config(name, off, false) FROM (VALUES
  ('log_statement', 'none'), ('log_min_duration_statement', '-1'),
  ('log_min_duration_sample', '-1'), ('log_transaction_sample_rate', '0'),
  ('log_min_error_statement', 'panic'), ('auto_explain.log_min_duration', '-1'),
  ('pg_stat_statements.track', 'none'), ('pgaudit.log', 'none')
) AS quiet(name, off) JOIN pg_settings USING (name);
"""

_ALIGN = (
    _SILENCE
    + """
\\set password `printf %s "$ALIGN_PASSWORD"`
\\set role `printf %s "$ALIGN_ROLE"`
SELECT :'password' <> '' AS given \\gset
\\if :given
ALTER ROLE :"role" PASSWORD :'password';
\\endif
"""
)

_DATABASES = """
SELECT json_build_array(datname) FROM pg_database
 WHERE datallowconn AND NOT datistemplate ORDER BY datname;
"""

_ROWS = f"""
SET lock_timeout = '2s';
SET statement_timeout = '60s';
BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;
SELECT CASE WHEN pg_table_size(c.oid) <= {EXACT_BELOW}
  THEN format('SELECT json_build_array(%L, count(*)) FROM %I.%I',
              n.nspname || '.' || c.relname, n.nspname, c.relname)
  ELSE format('SELECT json_build_array(%L, %s)',
              n.nspname || '.' || c.relname, greatest(c.reltuples, 0)::bigint)
  END
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE c.relkind = 'r' AND c.relpersistence <> 't'
   AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
 ORDER BY 1 \\gexec
COMMIT;
"""


class PostgresDriver(DirectoryDriver):
    """The data folder is the volume itself or lies at most two folders deep in it."""

    name = "postgres"

    def recognises(self, image: str, target: str) -> bool:
        name = image_name(image)
        return (
            _IMAGES.fullmatch(name) is not None
            and _NOT_THE_SERVER.search(name) is None
            and re.search(r"postgres|pgdata", target) is not None
        )

    def before_stop(self, run: Exec) -> None:
        """CHECKPOINT, so that the one of the shutdown has little to write."""
        _psql(run, "CHECKPOINT;", "the checkpoint before the stop", timeout=300)

    @contextmanager
    def live(self, run: Exec, path: Path) -> Iterator[LivePoint]:  # noqa: ARG002
        yield from ()
        raise Unsupported(
            "the files of a running PostgreSQL are no usable point: stop it first, or fork it"
        )

    def align(self, run: Exec) -> None:
        """Give $POSTGRES_USER the password of $POSTGRES_PASSWORD or $POSTGRES_PASSWORD_FILE."""
        _psql(run, _ALIGN, "setting the database password to the current one")

    def probe(self, run: Exec) -> dict[str, int]:
        """Rows of each table as "database.schema.table"; estimated above EXACT_BELOW bytes."""
        rows: dict[str, int] = {}
        for database in _databases(run):
            output = _psql(run, _ROWS, f"counting the rows of {database}", database, timeout=120)
            for line in output.splitlines():
                table, count = _json_line(line)
                rows[f"{database}.{table}"] = int(count)
        return rows

    def version(self, path: Path) -> str | None:
        folder = _data_folder(path)
        found = read_small(folder / "PG_VERSION", 64) if folder else None
        return found.decode("ascii", "replace").strip() if found else None

    def check_path(self, path: Path) -> list[str]:
        if problems := super().check_path(path):
            return problems
        folder = _data_folder(path)
        if folder is None:
            if not os.listdir(path):
                return []
            return [f"{path} holds files, but no PostgreSQL data folder (no PG_VERSION)"]
        if read_small(folder / "global" / "pg_control", 1) is None:
            problems.append(f"{folder} has no global/pg_control: it is not a whole data folder")
        if (folder / "pg_wal").is_symlink():
            problems.append(
                f"the write-ahead log of {folder} lies outside the volume "
                f"({os.readlink(folder / 'pg_wal')}): move it into the volume"
            )
        spaces = folder / "pg_tblspc"
        for space in sorted(spaces.iterdir()) if spaces.is_dir() else []:
            if space.is_symlink():
                problems.append(
                    f"tablespace {space.name} lies outside the data folder "
                    f"({os.readlink(space)}): move its tables to the default tablespace"
                )
        return problems

    def check(self, run: Exec) -> list[str]:
        problems = []
        if _psql(run, "SELECT pg_is_in_recovery();", "asking for the state").strip() != "f":
            problems.append("PostgreSQL is in recovery and takes no writes")
        for database in _databases(run):
            try:
                _psql(run, "SELECT count(*) FROM pg_class;", f"reading {database}", database)
            except EngineFailed as failure:
                problems.append(str(failure))
        return problems


def _psql(run: Exec, sql: str, doing: str, database: str = "", timeout: float = 30) -> str:
    return completed(run(["sh", "-c", _PSQL, "sh", database], stdin=sql, timeout=timeout), doing)


def _databases(run: Exec) -> list[str]:
    output = _psql(run, _DATABASES, "listing the databases")
    return [str(_json_line(line)[0]) for line in output.splitlines()]


def _json_line(line: str) -> list[str | int]:
    try:
        value = json.loads(line)
    except ValueError:
        value = None
    if not isinstance(value, list):
        raise EngineFailed(f"psql answered something unexpected: {line[:200]}")
    return value


def _data_folder(path: Path) -> Path | None:
    """The folder with PG_VERSION, looked for from the volume's root downwards, links not followed.

    Each database inside a data folder has a PG_VERSION too: the one nearest to the root counts.
    """
    level = [path]
    for _ in range(3):
        for folder in level:
            if read_small(folder / "PG_VERSION", 1) is not None:
                return folder
        level = [
            Path(entry.path)
            for folder in level
            for entry in sorted(os.scandir(folder), key=lambda e: e.name)
            if entry.is_dir(follow_symlinks=False)
        ]
    return None
