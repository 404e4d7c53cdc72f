"""The small web service of the measured project: each answer is read from the database.

Runs in a container; a database that is away is a 503, as is one that does not answer soon.
"""

import http.server
import os
import queue
import random
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg

Connection = psycopg.Connection[tuple[Any, ...]]

CONNECTIONS = 8
ROWS = int(os.environ["ROWS"])
QUERY = "SELECT abalance FROM pgbench_accounts WHERE aid = %s"


class Database:
    """A few connections for all requests, each made again when it broke."""

    def __init__(self) -> None:
        self._free: queue.LifoQueue[Connection | None] = queue.LifoQueue()
        for _ in range(CONNECTIONS):
            self._free.put(None)
        self._lock = threading.Lock()
        self._has_orders = False

    def balance(self) -> int:
        with self._connection() as connection:
            (row,) = connection.execute(QUERY, [random.randint(1, ROWS)]).fetchall()
            return int(row[0])

    def order(self, name: str) -> None:
        """Take an order; it is durable when this returns."""
        with self._connection() as connection:
            with self._lock:
                if not self._has_orders:
                    connection.execute("CREATE TABLE IF NOT EXISTS orders (name text)")
                    self._has_orders = True
            connection.execute("INSERT INTO orders VALUES (%s)", [name])

    def orders(self) -> list[str]:
        with self._connection() as connection:
            return [str(name) for (name,) in connection.execute("SELECT name FROM orders")]

    @contextmanager
    def _connection(self) -> Iterator[Connection]:
        connection = self._free.get()
        try:
            if connection is None or connection.closed:
                connection = psycopg.connect(connect_timeout=2, autocommit=True)
            yield connection
        except psycopg.Error:
            if connection is not None:
                connection.close()
            raise
        finally:
            self._free.put(connection)


class Handler(http.server.BaseHTTPRequestHandler):
    database = Database()

    def do_GET(self) -> None:
        try:
            if self.path == "/orders":
                status, body = 200, "\n".join(self.database.orders())
            elif os.environ.get("BROKEN"):
                status, body = 503, "never healthy\n"
            else:
                status, body = 200, f"{self.database.balance()}\n"
        except psycopg.Error as error:
            status, body = 503, f"{error}\n"
        self._answer(status, body)

    def do_POST(self) -> None:
        name = self.rfile.read(int(self.headers["Content-Length"])).decode()
        try:
            self.database.order(name)
            status, body = 201, "taken\n"
        except psycopg.Error as error:
            status, body = 503, f"{error}\n"
        self._answer(status, body)

    def _answer(self, status: int, body: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body.encode())))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *_: object) -> None:
        """Answers are counted outside."""


class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 128


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    Server(("", 8000), Handler).serve_forever()
