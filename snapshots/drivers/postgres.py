"""PostgreSQL: checkpoint before the stop, the password follows the environment, rows counted."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from snapshots.counts import Counts
from snapshots.drivers import pgchecks, pgfiles, pglive
from snapshots.drivers.base import Ask, DirectoryDriver, Exec, image_name, understood
from snapshots.drivers.pgclient import databases, psql, rows
from snapshots.errors import EngineFailed, Unsupported
from snapshots.livepoint import LivePoint

EXACT_BELOW = 64 << 20  # tables up to this many bytes are counted, larger ones estimated

_IMAGES = re.compile(r"(postgres(ql)?|postgis|pgvector|timescaledb|timescaledb-ha)([-_.].*)?")
_NOT_THE_SERVER = re.compile(r"exporter|backup|bouncer|admin|pool|operator")

# The server that an image starts is the one on PATH; where none is, any that is installed may be.
_SERVERS = r"""
if command -v postgres >/dev/null 2>&1; then exec postgres --version; fi
for server in /usr/lib/postgresql/*/bin/postgres /opt/*/postgresql/bin/postgres \
    /usr/pgsql-*/bin/postgres; do
  if [ -x "$server" ]; then "$server" --version; fi
done
"""
_VERSION = re.compile(r"^postgres \(.*?\) (9\.\d+|\d+)", re.M)

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

_ROWS = f"""
SET lock_timeout = '2s';
SET statement_timeout = '60s';
BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;
SELECT CASE WHEN pg_table_size(c.oid) <= {EXACT_BELOW}
  THEN format('SELECT json_build_array(%L, count(*), 0) FROM %I.%I',
              n.nspname || '.' || c.relname, n.nspname, c.relname)
  ELSE format('SELECT json_build_array(%L, %s, 1)',
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
        psql(run, "CHECKPOINT;", "the checkpoint before the stop", timeout=300)

    @contextmanager
    def live(self, run: Exec, path: Path) -> Iterator[LivePoint]:
        """The files between the start and the stop of a backup, and the log of that time."""
        with pglive.point(run, path) as point:
            yield point

    @contextmanager
    def still(self, run: Exec, path: Path, seconds: float) -> Iterator[LivePoint]:  # noqa: ARG002
        """What is acknowledged is in the log: a frozen server's files are as after a crash."""
        if problems := self.check_path(path):
            raise Unsupported("; ".join(problems))
        yield LivePoint(left_out=pglive.is_of_the_process)

    def align(self, run: Exec) -> None:
        """Give $POSTGRES_USER the password of $POSTGRES_PASSWORD or $POSTGRES_PASSWORD_FILE."""
        psql(run, _ALIGN, "setting the database password to the current one")

    @understood
    def probe(self, run: Exec) -> dict[str, int]:
        """Rows of each table as "database.schema.table"; estimated above EXACT_BELOW bytes."""
        counted = Counts()
        guessed: set[str] = set()
        for database in databases(run):
            doing = f"counting the rows of {database}"
            for table, count, estimated in rows(run, _ROWS, doing, database, timeout=120):
                counted[f"{database}.{table}"] = int(count)
                guessed |= {f"{database}.{table}"} if estimated else set()
        counted.estimated = frozenset(guessed)
        return counted

    @understood
    def data_sums(self, run: Exec) -> dict[str, int]:
        """Of the smaller tables, one number for all rows as "database.schema.table"."""
        return pgchecks.sums(run)

    def version(self, path: Path) -> str | None:
        folders = pgfiles.data_folders(path)
        return pgfiles.version_of(folders[0]) if folders else None

    def check_path(self, path: Path) -> list[str]:
        if problems := super().check_path(path):
            return problems
        folders = pgfiles.data_folders(path)
        if not folders and os.listdir(path):
            return [f"{path} holds files, but no PostgreSQL data folder (no PG_VERSION)"]
        return [problem for folder in folders for problem in pgfiles.problems_of(folder)]

    def unfit(self, path: Path, ask: Ask) -> list[str]:
        """A server runs on files of its own major version and no other."""
        written = [v for folder in pgfiles.data_folders(path) if (v := pgfiles.version_of(folder))]
        servers = _VERSION.findall(ask(["sh", "-c", _SERVERS]).stdout)
        if not written or not servers or set(written) & set(servers):
            return []
        old, new = written[0], servers[0]
        return [
            f"it was written by PostgreSQL {old}, and the image has PostgreSQL {new}, which does "
            f"not start on it: use an image of PostgreSQL {old}; or dump it there (pg_dumpall), "
            f"and load the dump into a new volume, with another name, of the release with {new}"
        ]

    @understood
    def check(self, run: Exec) -> list[str]:
        problems = pgchecks.state(run)
        for database in databases(run):
            try:
                psql(run, "SELECT count(*) FROM pg_class;", f"reading {database}", database)
            except EngineFailed as failure:
                problems.append(str(failure))
        return problems

    @understood
    def examine(self, run: Exec) -> list[str]:
        """Every B-tree, by amcheck."""
        return pgchecks.damaged_indexes(run)

    @understood
    def advise(self, run: Exec) -> list[str]:
        """Text that another library would put in another order."""
        return pgchecks.other_order(run)
