"""Each driver's real engine, and what the contract needs to know of it."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from tests.snapshots.engines import (
    FILES,
    POSTGRES,
    REDIS,
    REDIS_AOF,
    Container,
    Engine,
    docker,
    insist,
    login,
    sql,
)


def nothing(*_: object) -> None:
    """Nothing to look at."""


@dataclass(frozen=True)
class Case:
    """`one_more`: a shell command that writes once more, and is not asked whether it worked, as a
    live point may end it; `left`: fails when a live point left something behind in the engine;
    `damage`: done to the files of a stopped engine, found by the driver; `password`: changed
    environment, and whether it lets in (old, new)."""

    engine: Engine
    one_more: str
    options: Mapping[str, str] = field(default_factory=dict)
    left: Callable[[Container, Path], None] = nothing
    damage: Callable[[Path], None] | None = None
    password: Callable[[Container], tuple[bool, bool]] | None = None
    changed: Mapping[str, str] = field(default_factory=dict)
    streams: Mapping[bytes, bool] = field(default_factory=dict)
    stops_with: int = 0
    versioned: bool = True


def flip(file: Path, at: int, length: int) -> None:
    """Other bytes than were there."""
    with file.open("r+b") as content:
        content.seek(at)
        old = content.read(length)
        assert len(old) == length
        content.seek(at)
        content.write(bytes(byte ^ 0x55 for byte in old))


# -- directory, and files with commands ----------------------------------------------------------

DIRECTORY = Case(
    FILES,
    "mktemp /srv/files/XXXXXXXX",
    streams={b"1": False},
    versioned=False,
)  # fmt: skip


def _count_files(count: int) -> dict[str, int]:
    return {"files in all": count}


def _not_frozen(run: Container, _data: Path) -> None:
    assert run(["test", "-e", "/tmp/frozen"]).code != 0


_FREEZING = Engine(
    "command", FILES.image, FILES.target, {}, FILES.command, FILES.ready, FILES.write,
    _count_files, FILES.options,
)  # fmt: skip
FREEZE = Case(
    _FREEZING,
    "[ -e /tmp/frozen ] || echo more > $(mktemp /srv/files/XXXXXXXX)",
    options={
        "before_stop": "sync",
        "freeze": "touch /tmp/frozen; sleep 0.1",
        "thaw": "rm /tmp/frozen",
        "probe": "echo files in all $(ls /srv/files | wc -l)",
        "check": "for f in /srv/files/*; do [ -s $f ] || { echo $f is empty; exit 1; }; done",
    },
    left=_not_frozen,
    damage=lambda data: os.truncate(data / "7", 0),
    streams={b"1": False},
    versioned=False,
)  # fmt: skip

# -- postgres ------------------------------------------------------------------------------------


def _no_slots(run: Container, _data: Path) -> None:
    assert sql(run, "SELECT count(*) FROM pg_replication_slots;").strip() == "0"


_PSQL = "psql -q -U shop -d shop -c"
_ANOTHER_ORDER = "INSERT INTO orders SELECT max(id) + 1, repeat('y', 100) FROM orders"
_CHANGED = {"POSTGRES_PASSWORD": """n'e"w\\ $(id)"""}
POSTGRES_CASE = Case(
    POSTGRES,
    f'{_PSQL} "{_ANOTHER_ORDER}"',
    left=_no_slots,
    damage=lambda data: (data / "global" / "pg_control").unlink(),
    password=lambda run: (login(run, "first password"), login(run, _CHANGED["POSTGRES_PASSWORD"])),
    changed=_CHANGED,
    streams={b"base/5/1259": False, b"pg_wal/000000010000000000000001": False},
)
# Its volume has a folder for the server, so that a dump may lie beside that when the server starts.
_DUMPED = Engine(
    "command",
    POSTGRES.image,
    POSTGRES.target,
    {**POSTGRES.environment, "PGDATA": f"{POSTGRES.target}/server"},
    (),
    POSTGRES.ready,
    POSTGRES.write,
    lambda count: {"orders": count},
)
DUMP = Case(
    _DUMPED,
    POSTGRES_CASE.one_more,
    options={
        "dump": "pg_dump -U shop -Fc shop",
        "restore": "pg_restore -U shop -d shop --clean --if-exists --exit-on-error",
        "probe": 'psql -U shop -d shop -At -F " " -c "SELECT \'orders\', count(*) FROM orders"',
        "check": 'psql -U shop -d shop -c "SELECT sum(length(note)) FROM orders" 2>&1',
    },
    streams={b".lockstep-dump": True, b"server/base/5/1259": False},
    versioned=False,
)

# -- redis ---------------------------------------------------------------------------------------

REDIS_CASE = Case(
    REDIS,
    "redis-cli SET live:$(date +%s%N) 1",
    damage=lambda data: flip(data / "dump.rdb", 0, 5),
    streams={b"dump.rdb": True},
)
REDIS_AOF_CASE = Case(
    REDIS_AOF,
    REDIS_CASE.one_more,
    damage=lambda data: next((data / "appendonlydir").glob("*.incr.aof")).unlink(),
    streams={b"dump.rdb": True},
)

# -- mariadb -------------------------------------------------------------------------------------

_ROOT = "root pass $(id)"
_MARIADB = ["mariadb", "--user=root", "-N", "-B", "shop"]


def maria(run: Container, statements: str) -> str:
    """As root, through the socket."""
    argv = ["docker", "exec", "-i", "--env", f"MYSQL_PWD={_ROOT}", run.name, *_MARIADB]
    return insist(docker(*argv[1:], stdin=statements))


def _write_rows(run: Container, count: int) -> None:
    maria(
        run,
        "CREATE TABLE IF NOT EXISTS orders (id INT PRIMARY KEY, note VARCHAR(200));"
        "CREATE TABLE IF NOT EXISTS notes (id INT PRIMARY KEY) ENGINE=MyISAM;"
        f"INSERT IGNORE INTO orders SELECT seq, REPEAT('x', 100) FROM seq_1_to_{count};"
        f"INSERT IGNORE INTO notes SELECT seq FROM seq_1_to_{count};",
    )


def _no_lock(run: Container, _data: Path) -> None:
    maria(run, "SET lock_wait_timeout = 3; CREATE TABLE passing (a INT); DROP TABLE passing;")


def _mariadb_login(run: Container) -> tuple[bool, bool]:
    def let_in(password: str) -> bool:
        return docker(
            "exec", "--env", f"MYSQL_PWD={password}", run.name,
            "mariadb", "-h", "127.0.0.1", "-u", "shop", "-e", "SELECT 1",
        ).code == 0  # fmt: skip

    return let_in("first password"), let_in(_MARIADB_CHANGED["MARIADB_PASSWORD"])


_MARIADB_CHANGED = {"MARIADB_PASSWORD": """n'e"w\\ $(id) `id` %s"""}
MARIADB = Engine(
    "mysql",
    "lockstep-base/mariadb:10.11",
    "/var/lib/mysql",
    {
        "MARIADB_ROOT_PASSWORD": _ROOT,
        "MARIADB_DATABASE": "shop",
        "MARIADB_USER": "shop",
        "MARIADB_PASSWORD": "first password",
    },
    ("--innodb-buffer-pool-size=64M", "--innodb-log-file-size=16M"),
    ready=lambda run: run(["mariadb-admin", "ping", "-h", "127.0.0.1"]).code == 0,
    write=_write_rows,
    expected=lambda count: {"shop.notes": count, "shop.orders": count},
)
MARIADB_CASE = Case(
    MARIADB,
    'MYSQL_PWD=$MARIADB_ROOT_PASSWORD mariadb -u root shop -e "'
    "INSERT INTO orders SELECT MAX(id) + 1, 'y' FROM orders;"
    'INSERT INTO notes SELECT MAX(id) + 1 FROM notes"',
    left=_no_lock,
    damage=lambda data: flip(data / "shop" / "orders.ibd", 3 * 16384, 16384),
    password=_mariadb_login,
    changed=_MARIADB_CHANGED,
    streams={b"ibdata1": False, b"shop/orders.ibd": False},
)

# -- questdb -------------------------------------------------------------------------------------

_ASK = r"""
ask() {
  exec 3<>/dev/tcp/127.0.0.1/9000 || return 1
  printf 'GET /exec?query=%s HTTP/1.1\r\nHost: here\r\n\r\n' "${1// /%20}" >&3
  while IFS= read -r -t 20 line <&3; do
    [ "$line" != $'00\r' ] || return 0
    printf '%s\n' "$line"
  done
  return 1
}
"""


def quest(run: Container, statement: str) -> str:
    """What QuestDB answers, as JSON."""
    answer = insist(run(["bash", "-c", f'{_ASK} ask "$1"', "bash", statement]))
    assert '"error"' not in answer, answer
    return answer


def _write_trades(run: Container, count: int) -> None:
    quest(
        run,
        "create table if not exists trades (ts timestamp, n int, s symbol)"
        " timestamp(ts) partition by day wal",
    )
    quest(run, "truncate table trades")
    quest(
        run,
        "insert into trades select timestamp_sequence('2026-01-01', 300000000), x::int,"
        f" rnd_symbol('a','b') from long_sequence({count})",
    )


def _no_checkpoint(run: Container, _data: Path) -> None:
    assert "[[false,null]]" in quest(run, "select * from checkpoint_status()")


def _cut_column(data: Path) -> None:
    """Of the last day: cut to nothing."""
    (*_, last) = sorted((data / "db").glob("trades~*/2026-01-*/n.d"))
    with last.open("r+b") as file:
        file.truncate(0)


QUESTDB = Engine(
    "questdb",
    "lockstep-base/questdb:9.3.4",
    "/var/lib/questdb",
    {
        "QDB_SHARED_WORKER_COUNT": "1",
        "QDB_HTTP_MIN_ENABLED": "false",
        "QDB_LINE_TCP_ENABLED": "false",
        "QDB_PG_ENABLED": "false",
    },
    (),
    ready=lambda run: run(["bash", "-c", f'{_ASK} ask "select 1"']).code == 0,
    write=_write_trades,
    expected=lambda count: {"trades": count},
)
QUESTDB_CASE = Case(
    QUESTDB,
    f"""{_ASK} ask "insert into trades values ('2026-02-01', 1, 'c')" """,
    left=_no_checkpoint,
    damage=_cut_column,
    streams={b"db/trades~1/2026-01-01/n.d": False},
    stops_with=143,
)

# -- sqlite --------------------------------------------------------------------------------------

_SQLITE_WRITE = """
import sqlite3, sys
mode, count = sys.argv[1], int(sys.argv[2])
with sqlite3.connect("/srv/data/shop data", timeout=30) as shop:
    shop.execute(f"PRAGMA journal_mode = {mode}")
    shop.execute("CREATE TABLE IF NOT EXISTS orders (id INTEGER PRIMARY KEY, note TEXT)")
    shop.executemany("INSERT OR IGNORE INTO orders VALUES (?, ?)",
                     [(n, "x" * 100) for n in range(1, count + 1)])
"""
_SQLITE_LOOP = """
import os, sqlite3, time
shop = sqlite3.connect("/srv/data/shop data", timeout=30, isolation_level=None)
while not os.path.exists("/tmp/stop"):
    shop.execute("INSERT INTO orders (note) VALUES (?)", ("y" * 100,))
    time.sleep(0.002)
"""


def _no_scratch(_run: Container, data: Path) -> None:
    with closing(sqlite3.connect(data / "shop data", timeout=5)) as shop:
        assert shop.execute("PRAGMA quick_check").fetchone() == ("ok",)
    assert not list(Path("/var/tmp").glob("lockstep-sqlite-*/0*")), "another run may be at work"


def _sqlite(mode: str) -> Case:
    def write(run: Container, count: int) -> None:
        insist(run(["python3", "-c", _SQLITE_WRITE, mode, str(count)]))

    engine = Engine(
        "sqlite",
        FILES.image,
        "/srv/data",
        {},
        FILES.command,
        FILES.ready,
        write,
        lambda count: {"shop data.orders": count},
        options=FILES.options,
    )  # fmt: skip
    return Case(
        engine,
        f"python3 -c '{_SQLITE_LOOP}'",
        damage=lambda data: flip(data / "shop data", 2 * 4096 + 8, 2000),
        streams={b"shop data": False},
    )


# ------------------------------------------------------------------------------------------------

CASES = {
    "directory": DIRECTORY,
    "postgres": POSTGRES_CASE,
    "redis": REDIS_CASE,
    "redis-aof": REDIS_AOF_CASE,
    "mariadb": MARIADB_CASE,
    "questdb": QUESTDB_CASE,
    "sqlite-wal": _sqlite("wal"),
    "sqlite-journal": _sqlite("delete"),
    "command-freeze": FREEZE,
    "command-dump": DUMP,
}
