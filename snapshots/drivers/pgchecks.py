"""What a running PostgreSQL is asked about its data beyond counts: sums, damage, stale order."""

from __future__ import annotations

from snapshots.drivers.base import Exec
from snapshots.drivers.pgclient import databases, rows, rows_so_far

SUMMED_BYTES = 1 << 30
"""Of a database, the smaller tables first; the rest has no sum."""
SUM_SECONDS = 120.0
EXAMINE_SECONDS = 300
ALL_INDEXED_BELOW = 256 << 20
"""Bytes of an index up to which it is proved, too, that it has every row of its table."""

# The text of a row must not depend on the server's settings.
_SUMS = f"""
SET lock_timeout = '2s'; SET statement_timeout = 0;
SET DateStyle = 'ISO, YMD'; SET IntervalStyle = 'iso_8601'; SET TimeZone = 'UTC';
SET bytea_output = 'hex'; SET extra_float_digits = 3; SET lc_monetary = 'C';
BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;
SELECT format(
  'SELECT json_build_array(%L, coalesce(mod(sum((''x'' || substr(md5(lockstep_row.*::text), 1, 15)'
  ')::bit(60)::bigint::numeric), 2305843009213693951), 0)) FROM ONLY %I.%I AS lockstep_row',
  schema || '.' || name, schema, name)
  FROM (SELECT n.nspname AS schema, c.relname AS name, pg_table_size(c.oid) AS size,
               sum(pg_table_size(c.oid)) OVER (ORDER BY pg_table_size(c.oid), c.oid) AS so_far
          FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
         WHERE c.relkind = 'r' AND c.relpersistence = 'p'
           AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema') AS tables
 WHERE so_far <= {SUMMED_BYTES} ORDER BY size \\gexec
COMMIT;
"""

# The extension and the table go with the transaction. Errors that are no damage (a lock that is
# held, a missing right) prove nothing and are passed over.
_EXAMINE = f"""
SET lock_timeout = '2s'; SET statement_timeout = 0;
SELECT count(*) > 0 AS there FROM pg_available_extensions WHERE name = 'amcheck' \\gset
\\if :there
SET client_min_messages = 'error';
BEGIN;
CREATE EXTENSION IF NOT EXISTS amcheck;
CREATE TEMPORARY TABLE lockstep_found (problem text) ON COMMIT DROP;
DO $$
DECLARE
  give_up timestamptz := clock_timestamp() + interval '{EXAMINE_SECONDS} s';
  functions text := (SELECT n.nspname FROM pg_extension e JOIN pg_namespace n
                       ON n.oid = e.extnamespace WHERE e.extname = 'amcheck');
  index record;
BEGIN
  FOR index IN
    SELECT c.oid, c.oid::regclass::text AS name, pg_relation_size(c.oid) AS size
      FROM pg_index x JOIN pg_class c ON c.oid = x.indexrelid JOIN pg_am a ON a.oid = c.relam
     WHERE a.amname = 'btree' AND c.relkind = 'i' AND c.relpersistence = 'p'
       AND x.indisready AND x.indisvalid
     ORDER BY size
  LOOP
    EXIT WHEN clock_timestamp() > give_up;
    BEGIN
      EXECUTE format('SELECT %I.bt_index_check($1, $2)', functions)
        USING index.oid::regclass, index.size <= {ALL_INDEXED_BELOW};
    EXCEPTION WHEN data_corrupted OR index_corrupted OR internal_error THEN
      INSERT INTO lockstep_found VALUES (index.name || ': ' || SQLERRM);
    END;
  END LOOP;
END $$;
SELECT json_build_array(problem) FROM lockstep_found;
ROLLBACK;
\\endif
"""

# Columns that older servers lack are null in a row's JSON.
_STATE = """
SELECT json_build_array(pg_is_in_recovery());
SELECT json_build_array(d.datname, to_jsonb(d) ->> 'checksum_failures') FROM pg_stat_database d
 WHERE (to_jsonb(d) ->> 'checksum_last_failure')::timestamptz > pg_postmaster_start_time();
"""

_OTHER_ORDER = """
SELECT current_setting('server_version_num')::int >= 150000 AS told \\gset
\\if :told
SELECT json_build_array(datname, datcollversion, pg_database_collation_actual_version(oid))
  FROM pg_database WHERE datallowconn AND NOT datistemplate
   AND datcollversion <> pg_database_collation_actual_version(oid) ORDER BY datname;
\\endif
"""


def sums(run: Exec) -> dict[str, int]:
    """A sum of the rows of each table as "database.schema.table", whatever their order."""
    found: dict[str, int] = {}
    for database in databases(run):
        doing = f"summing up the rows of {database}"
        for table, total in rows_so_far(run, _SUMS, doing, database, SUM_SECONDS):
            found[f"{database}.{table}"] = int(total)
    return found


def damaged_indexes(run: Exec) -> list[str]:
    """What amcheck says of the B-trees of every database, if the image has it."""
    return [
        f"amcheck of {database}: {problem}"
        for database in databases(run)
        for (problem,) in rows(
            run, _EXAMINE, f"examining {database}", database, EXAMINE_SECONDS + 300
        )
    ]


def state(run: Exec) -> list[str]:
    """Whether it takes writes; pages whose checksum was wrong since the server started."""
    (standby,), *failed = rows(run, _STATE, "asking for the state")
    problems = ["PostgreSQL is in recovery and takes no writes"] if standby else []
    return problems + [
        f"{count} pages that were read had a wrong checksum ({database or 'shared tables'}): "
        "the disk or the copy is damaged; the server's log names them"
        for database, count in failed
    ]


def other_order(run: Exec) -> list[str]:
    """Databases whose text was put in order by another version of the C library or of ICU."""
    return [
        f"database {database} was put in order by collation version {old}, and the image has "
        f"{new}: indexes on text may miss rows; run   REINDEX DATABASE {_quoted(database)}; "
        f"ALTER DATABASE {_quoted(database)} REFRESH COLLATION VERSION;   in it"
        for database, old, new in rows(run, _OTHER_ORDER, "asking for the collations' versions")
    ]


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
