"""MariaDB, MySQL and Percona Server: crash recovery as a live point, passwords, rows counted."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from snapshots.counts import Counts
from snapshots.drivers.base import Ask, DirectoryDriver, Exec, image_name, read_small, understood
from snapshots.drivers.mysqlclient import CLIENT, align_passwords, query
from snapshots.errors import EngineFailed, Unsupported
from snapshots.livepoint import LivePoint

EXACT_BELOW = 64 << 20  # tables up to this many bytes are counted and checked while others wait
FLUSH_SECONDS = 30.0
LOCK_SECONDS = 20
FREEZE_SECONDS = 30.0
CHECK_SECONDS = 60
EXAMINE_SECONDS = 3600

_IMAGES = re.compile(r"(mariadb|mysql|mysql-server|percona|percona-server|mariadb-server)")
_OLD_INFO = ("mariadb_upgrade_info", "mysql_upgrade_info")

_TABLES = """
SELECT JSON_ARRAY(table_schema, table_name, COALESCE(data_length, 0), COALESCE(table_rows, 0))
  FROM information_schema.tables
 WHERE table_type = 'BASE TABLE'
   AND table_schema NOT IN ('mysql', 'information_schema', 'performance_schema', 'sys')
 ORDER BY table_schema, table_name;
"""

# Each only where the server knows it: the one comment is for MariaDB, the other for MySQL.
_LIMITED = """
SET SESSION lock_wait_timeout = 5;
/*M!100101 SET SESSION max_statement_time = {0} */;
/*!80000 SET SESSION max_execution_time = {0}000 */;
"""

_LOCK = f"""
SET SESSION lock_wait_timeout = {LOCK_SECONDS};
/*M!100400 BACKUP STAGE START */;
/*M!100400 BACKUP STAGE FLUSH */;
/*M!100400 BACKUP STAGE BLOCK_DDL */;
/*M!100400 BACKUP STAGE BLOCK_COMMIT */;
/*!80000 LOCK INSTANCE FOR BACKUP */;
/*!50700 FLUSH TABLES WITH READ LOCK */;
SET @pace = @@GLOBAL.innodb_flush_log_at_trx_commit;
SET GLOBAL innodb_flush_log_at_trx_commit = 1;
FLUSH NO_WRITE_TO_BINLOG ENGINE LOGS;
SET GLOBAL innodb_flush_log_at_trx_commit = @pace;
SELECT 'locked';
"""

_EAGER = "SET GLOBAL innodb_max_dirty_pages_pct = 0;"
_PACE = "SELECT @@innodb_max_dirty_pages_pct, @@innodb_max_dirty_pages_pct_lwm;"


class MysqlDriver(DirectoryDriver):
    """The volume is the data folder."""

    name = "mysql"
    stands_still = True

    def recognises(self, image: str, target: str) -> bool:
        return (
            _IMAGES.fullmatch(image_name(image)) is not None
            and re.search(r"mysql|mariadb|percona", target) is not None
        )

    def before_stop(self, run: Exec) -> None:
        """Have InnoDB write out its changed pages, for at most FLUSH_SECONDS."""
        doing = "writing out changed pages before the stop"
        pace = query(run, _PACE, doing).split()
        query(run, _EAGER, doing)
        try:
            give_up = time.monotonic() + FLUSH_SECONDS
            while _dirty_pages(run) > 100 and time.monotonic() < give_up:
                time.sleep(0.1)
        finally:
            query(
                run,
                f"SET GLOBAL innodb_max_dirty_pages_pct = {pace[0]}, "
                f"GLOBAL innodb_max_dirty_pages_pct_lwm = {pace[1]};",
                doing,
            )

    @contextmanager
    def live(self, run: Exec, path: Path) -> Iterator[LivePoint]:
        """The files as a crash at one moment would leave them, which InnoDB recovers from.

        All processes of the container stand still from the first file that is read to the last,
        so the folder is what `kill -9` would have left: every write that was acknowledged is in
        it, and no two files are from different moments. A page that was on its way to the disk at
        that moment may be torn; the doublewrite buffer, written and synced before, has it whole,
        so a server without one is refused. The standstill ends after FREEZE_SECONDS in any case,
        and then fails.
        """
        with ExitStack() as undo:
            undo.enter_context(self.still(run, path, FREEZE_SECONDS))
            undo.enter_context(run.frozen(FREEZE_SECONDS))

            def finish() -> Mapping[bytes, bytes]:
                undo.close()
                return {}

            yield LivePoint(finish=finish)

    @contextmanager
    def still(self, run: Exec, path: Path, seconds: float) -> Iterator[LivePoint]:  # noqa: ARG002
        """A lock that keeps tables which no log protects (MyISAM, CSV) and changes of definitions
        out of the moment: MariaDB's backup stages, or MySQL's FLUSH TABLES WITH READ LOCK, which
        both wait for what runs, for at most LOCK_SECONDS. Then the log is written, which a server
        may be told to do only once a second."""
        doing = "asking for a live point"
        if query(run, "SELECT @@innodb_doublewrite;", doing).strip() in ("0", "OFF"):
            raise Unsupported(
                "innodb_doublewrite is off: pages of a running server may be torn, stop it first"
            )
        with run.session(["sh", "-c", CLIENT]) as locked:
            locked.send(_LOCK)
            locked.read_until("locked", LOCK_SECONDS + 30)
            yield LivePoint()

    def align(self, run: Exec) -> None:
        """Give root and $MARIADB_USER (or MYSQL_...) the passwords of the environment.

        Needs a way in: root with the password as it is now, or through the socket alone.
        """
        align_passwords(run)

    @understood
    def probe(self, run: Exec) -> dict[str, int]:
        """Rows of each table as "schema.table"; estimated above EXACT_BELOW bytes."""
        rows = Counts()
        count = [_LIMITED.format(CHECK_SECONDS), "START TRANSACTION READ ONLY;"]
        exact = []
        for schema, table, size, estimate in _tables(run):
            rows[f"{schema}.{table}"] = int(estimate)
            if int(size) <= EXACT_BELOW:
                exact.append(f"{schema}.{table}")
                count.append(f"SELECT COUNT(*) FROM {_named(schema, table)};")
        output = query(run, "\n".join(count), "counting rows", timeout=CHECK_SECONDS * 2)
        rows.update(zip(exact, map(int, output.split()), strict=True))
        rows.estimated = frozenset(rows) - set(exact)
        return rows

    def version(self, path: Path) -> str | None:
        """Of the server that wrote these files: "10.11.6-MariaDB", or as MySQL 8 writes it
        into its dictionary, "8.0.36"."""
        for name in _OLD_INFO:
            if text := read_small(path / name, 64):
                return text.decode("ascii", "replace").strip()
        head = read_small(path / "mysql.ibd", 12)
        number = int.from_bytes(head[8:12], "big") if head and len(head) == 12 else 0
        return f"{number // 10000}.{number // 100 % 100}.{number % 100}" if number else None

    def check_path(self, path: Path) -> list[str]:
        if problems := super().check_path(path):
            return problems
        if not any(path.iterdir()):
            return []
        if read_small(path / "ibdata1", 1) is None:
            return [f"{path} holds files, but no data of MariaDB or MySQL (no ibdata1)"]
        for file in sorted(path.glob("*/*.isl")):
            where = (read_small(file, 4096) or b"").decode("utf-8", "replace").strip()
            problems.append(
                f"the table {file.parent.name}.{file.stem} lies outside the data folder ({where}): "
                "move it into the data folder"
            )
        return problems

    def unfit(self, path: Path, ask: Ask) -> list[str]:
        """Neither opens files of a newer version, nor of the other's."""
        wrote = self.version(path)
        said = ask(["sh", "-c", "mariadbd --version 2>/dev/null || mysqld --version"]).stdout
        runs = re.search(r"Ver (\S+)", said)
        if wrote is None or runs is None:
            return []
        problem = _misfit(wrote, runs[1])
        return [problem] if problem else []

    @understood
    def check(self, run: Exec) -> list[str]:
        """CHECK TABLE for tables up to EXACT_BELOW bytes."""
        return _check(run, CHECK_SECONDS, EXACT_BELOW)

    @understood
    def examine(self, run: Exec) -> list[str]:
        """CHECK TABLE for all, every index against its rows."""
        return _check(run, EXAMINE_SECONDS, None)


def _dirty_pages(run: Exec) -> int:
    shown = query(run, "SHOW GLOBAL STATUS LIKE 'Innodb_buffer_pool_pages_dirty';", "waiting")
    return int(shown.split()[-1])


def _tables(run: Exec) -> list[list[str | int]]:
    """Schema, name, bytes and estimated rows of every table of the user's."""
    lines = query(run, _TABLES, "listing the tables").splitlines()
    try:
        return [json.loads(line) for line in lines]
    except ValueError:
        raise EngineFailed(f"the server answered something unexpected: {lines[:3]}") from None


def _named(schema: str | int, table: str | int) -> str:
    return ".".join("`" + str(name).replace("`", "``") + "`" for name in (schema, table))


def _check(run: Exec, seconds: int, limit: int | None) -> list[str]:
    how = "" if limit is not None else " EXTENDED"
    statements = [
        f"CHECK TABLE {_named(schema, table)}{how};"
        for schema, table, size, _ in _tables(run)
        if limit is None or int(size) <= limit
    ]
    sql = "\n".join([_LIMITED.format(seconds), *statements])
    problems = []
    for line in query(run, sql, "checking the tables", timeout=seconds * 2).splitlines():
        table, _, kind, text = (*line.split("\t", 3), "", "", "")[:4]
        if kind.lower() == "error" or (kind == "status" and text != "OK"):
            problems.append(f"table {table} is damaged: {text}")
    return problems


def _misfit(wrote: str, runs: str) -> str | None:
    """Why a server of version `runs` cannot work on what `wrote` left; None if it can."""
    old, new = _numbers(wrote), _numbers(runs)
    maria, is_maria = "MariaDB" in wrote, "MariaDB" in runs
    if maria != is_maria and (maria or old >= (8,)):
        return f"the data was written by {wrote}, which {runs} cannot read: use an image of that"
    length = 2 if is_maria else 3  # MySQL 8.0 refuses an older patch level, too
    if maria == is_maria and new[:length] < old[:length]:
        return (
            f"the data was written by version {wrote}, and {runs} is older, which cannot read it: "
            "use an image of that version, or go back with the data as well"
        )
    return None


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version)[:3])
