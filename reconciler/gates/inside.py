"""Questions that a command in the service's container answers: its own, SQL, Redis."""

from __future__ import annotations

import ast
import re
from collections.abc import Collection, Mapping

from reconciler.docker import ContainerDetails, Docker
from reconciler.errors import DockerFailed
from reconciler.gates.health import ended, last_line
from reconciler.gates.judging import Answer, failed, passed, rows_before, silent, unsure, wrong
from reconciler.gates.model import RedisGate, SqlGate
from reconciler.reaching.inside import Inside
from snapshots.drivers import ExecResult
from snapshots.errors import EngineFailed

_CANNOT_RUN = (126, 127)
_CLIENTS = ("psql", "mariadb", "mysql")
_WHICH = r"""
for client in psql mariadb mysql; do
  command -v $client >/dev/null 2>&1 || continue
  database=${MARIADB_DATABASE:-${MYSQL_DATABASE:-}}
  [ $client = psql ] && database=${POSTGRES_DB:-${POSTGRES_USER:-postgres}}
  printf '%s\n%s\n' $client "$database"
  exit
done
"""
"""Names the client, and the database that the image makes."""
_AWAY = re.compile(r"(?i)connect|starting up|shutting down|recovery mode|ERROR 20(02|03|13)")
_REDIS_ERROR = re.compile(r"\A(\(error\) .*|Could not connect.*|Error:.*|AUTH failed.*)", re.S)
_INTEGER = re.compile(r"\(integer\) (-?\d+)")


def ask_command(
    docker: Docker,
    container: ContainerDetails,
    argv: tuple[str, ...],
    timeout: float,
    unsure_codes: Collection[int],
) -> Answer:
    """Run it once."""
    try:
        result = docker.exec(container.id, argv, timeout=timeout)
    except DockerFailed as error:
        return silent(error.message)
    return judge_exit(result, unsure_codes)


def judge_exit(result: ExecResult, unsure_codes: Collection[int]) -> Answer:
    """What a command's end is worth; one that could not be run says neither yes nor no."""
    said = f"{result.stdout}\n{result.stderr}".strip()
    if result.code == 0:
        return passed(said)
    if result.code in unsure_codes:
        return unsure(ended(result), said, final=False)
    if result.code in _CANNOT_RUN:
        return unsure(f"could not be run: {last_line(result)}", said)
    return failed(ended(result), said)


def ask_sql(
    docker: Docker,
    container: ContainerDetails,
    gate: SqlGate,
    timeout: float,
    before: Mapping[str, Mapping[str, int]],
) -> Answer:
    """Ask the engine in the container; `before`: dataset -> table -> rows as it was sealed."""
    known: int | None = None
    run = Inside(docker, container.id)
    try:
        client, *named = run(["sh", "-c", _WHICH], timeout=timeout).stdout.splitlines() or [""]
        if client not in _CLIENTS:
            return unsure("has neither psql nor mariadb nor mysql in its image")
        database = gate.database or "".join(named)
        if gate.share_of_before is not None:
            known, why = rows_before(before, gate.table, database)
            if known is None:
                return unsure(why)
        value = _value(run, client, database, gate, timeout)
    except DockerFailed as error:
        return silent(error.message)
    except EngineFailed as error:
        return silent(str(error)) if _AWAY.search(str(error)) else failed(str(error))
    if value is None:
        return failed("answered no row")
    if known is not None and gate.share_of_before is not None:
        least = known * gate.share_of_before
        if int(value) < least:
            return failed(f"is {value}, of {known} before", value)
    said = wrong(value, gate)
    return passed(value) if said is None else failed(said, value)


def _value(run: Inside, client: str, database: str, gate: SqlGate, timeout: float) -> str | None:
    """The first column of the first row; None without a row. A gate only reads.

    Raises EngineFailed.
    """
    query = gate.query.rstrip("; \n") or f"SELECT count(*) FROM {gate.table}"
    if client == "psql":
        from snapshots.drivers.pgclient import psql

        limits = (
            "\\f '\\037'\n"
            "SET default_transaction_read_only = on;\n"
            f"SET statement_timeout = {max(1, int(timeout * 1000))};\n"
        )
        out = psql(run, f"{limits}{query};\n", "the query", database, timeout)
        separator = "\x1f"
    else:
        from snapshots.drivers import mysqlclient

        use = f"USE `{database}`;\n" if database else ""
        limits = f"{use}SET SESSION TRANSACTION READ ONLY;\n"
        out = mysqlclient.query(run, f"{limits}{query};\n", "the query", timeout)
        separator = "\t"
    rows = out.splitlines()
    return rows[0].split(separator)[0] if rows else None


def ask_redis(
    docker: Docker, container: ContainerDetails, gate: RedisGate, timeout: float
) -> Answer:
    """Read the key."""
    command = ["HGET", gate.key, gate.field] if gate.field else ["GET", gate.key]
    try:
        value = _redis(docker, container, gate.db, command, timeout)
    except DockerFailed as error:
        return silent(error.message)
    except EngineFailed as error:
        return silent(str(error)) if _AWAY.search(str(error)) else failed(str(error))
    except FileNotFoundError as error:
        return unsure(str(error))
    if value is None:
        return passed("(nil)") if gate.absent else failed("is not there", "(nil)")
    said = "is there" if gate.absent else wrong(value, gate)
    return passed(value) if said is None else failed(said, value)


def reset(docker: Docker, container: ContainerDetails, gate: RedisGate, timeout: float) -> None:
    """Do to the key what the gate says. Raises EngineFailed, DockerFailed, FileNotFoundError."""
    assert gate.reset is not None
    place = [gate.key, *([gate.field] if gate.field else [])]
    if gate.reset.set is None:
        command = ["HDEL" if gate.field else "DEL", *place]
    else:
        command = ["HSET" if gate.field else "SET", *place, gate.reset.set]
    _redis(docker, container, gate.db, command, timeout)


def _redis(
    docker: Docker, container: ContainerDetails, db: int, command: list[str], timeout: float
) -> str | None:
    """A command's answer; None for none. Raises EngineFailed, DockerFailed, and FileNotFoundError
    where the container has no client."""
    from snapshots.drivers.redis import WAY_IN

    script = WAY_IN + 'exec $cli --no-raw -n "$1"\n'
    line = " ".join(_quoted(word) for word in command)
    run = Inside(docker, container.id)
    result = run(["sh", "-c", script, "sh", str(db)], stdin=f"{line}\n", timeout=timeout)
    out = result.stdout.strip()
    if result.code in _CANNOT_RUN:
        raise FileNotFoundError("has neither redis-cli nor valkey-cli in its image")
    if result.code != 0 or _REDIS_ERROR.match(out):
        raise EngineFailed(f"{command[0]} {command[1]}: {out or result.stderr.strip()}")
    if out == "(nil)":
        return None
    number = _INTEGER.fullmatch(out)
    if number is not None:
        return number[1]
    # Between quotes it is written as Python writes bytes.
    return bytes(ast.literal_eval(f"b{out}")).decode(errors="replace") if out[:1] == '"' else out


def _quoted(word: str) -> str:
    return '"' + "".join(f"\\x{byte:02x}" for byte in word.encode()) + '"'
