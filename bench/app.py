"""The small web service of the measured project: each answer is read from the database.

Runs in a container; a database that is away is a 503, as is one that does not answer soon.
"""

import http.server
import os
import random
import signal
import threading
from typing import LiteralString

import psycopg

ROWS = int(os.environ["ROWS"])
QUERY = "SELECT abalance FROM pgbench_accounts WHERE aid = %s"


class Database:
    """One connection for all requests, made again when it broke."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._connection: psycopg.Connection[tuple[int]] | None = None

    def balance(self) -> int:
        with self._lock:
            try:
                if self._connection is None or self._connection.closed:
                    self._connection = psycopg.connect(connect_timeout=2, autocommit=True)
                (row,) = self._connection.execute(QUERY, [random.randint(1, ROWS)]).fetchall()
                return int(row[0])
            except psycopg.Error:
                if self._connection is not None:
                    self._connection.close()
                raise

    def order(self, name: str) -> None:
        """Take an order; it is durable when this returns."""
        self._ask("CREATE TABLE IF NOT EXISTS orders (name text)")
        self._ask("INSERT INTO orders VALUES (%s)", name)

    def orders(self) -> list[str]:
        return [name for (name,) in self._ask("SELECT name FROM orders")]

    def _ask(self, query: LiteralString, *values: str) -> list[tuple[str]]:
        with self._lock, psycopg.connect(connect_timeout=2, autocommit=True) as connection:
            found = connection.execute(query, values)
            return found.fetchall() if found.description else []


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
