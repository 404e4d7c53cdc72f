"""The database and the cache, as the environment names them."""

from __future__ import annotations

import os
import threading
import time
from typing import Any

import psycopg
import redis

START_SECONDS = 30


def connect_cache() -> redis.Redis:
    return redis.Redis(os.environ["REDIS_HOST"], socket_timeout=2, socket_connect_timeout=2)


class Database:
    """One connection, made again when it broke. Safe to use from many threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._connection: psycopg.Connection[Any] | None = None

    def rows(self, query: str, parameters: tuple[object, ...] = ()) -> list[tuple[Any, ...]]:
        """Run one statement in a transaction of its own.

        Raises psycopg.OperationalError while the database is away.
        """
        with self._lock:
            connection = self._connect()
            try:
                cursor = connection.execute(query, parameters)
                return cursor.fetchall() if cursor.description else []
            except psycopg.OperationalError:
                connection.close()
                raise

    def wait_until_up(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                self.rows("SELECT 1")
                return
            except psycopg.OperationalError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)

    def _connect(self) -> psycopg.Connection[Any]:
        if self._connection is None or self._connection.closed:
            self._connection = psycopg.connect(
                host=os.environ["DB_HOST"],
                user=os.environ["DB_USER"],
                dbname=os.environ["DB_NAME"],
                password=os.environ["DB_PASSWORD"],
                connect_timeout=2,
                autocommit=True,
            )
        return self._connection
