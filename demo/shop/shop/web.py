"""The shop's HTTP side.

GET  /health            200 or 503, {status, version, database, cache, reason}
GET  /version           {version}
GET  /config            the configuration file, as it is
POST /orders            {token, item, amount in cents} -> 201 {id, token, version}
GET  /orders            {count, sum, last_id, version}
GET  /orders?token=T    {id, token, item, amount}, or 404
"""

from __future__ import annotations

import json
import os
import signal
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import psycopg
import redis

from shop.backends import Database, connect_cache
from shop.migrations import migrate

VERSION = os.environ["SHOP_VERSION"]
CONFIG = Path("/etc/shop/shop.toml")
UPLOADS = Path("/uploads")
ORDERS_PER_INVOICE = 25

database = Database()
cache = connect_cache()


class NotThere(Exception):
    """Nothing under this address."""


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        address = urlsplit(self.path)
        if address.path == "/config":
            self._reply(200, CONFIG.read_bytes(), "application/toml")
        else:
            self._answer(lambda: get(address.path, parse_qs(address.query)))

    def do_POST(self) -> None:
        length = int(self.headers.get("Content-Length", 0))
        body = self.rfile.read(length)
        self._answer(lambda: post(self.path, json.loads(body)))

    def _answer(self, work: Any) -> None:
        try:
            status, document = work()
        except NotThere:
            status, document = 404, {"error": "not found"}
        except (KeyError, TypeError, ValueError) as error:
            status, document = 400, {"error": f"bad request: {error!r}"}
        except (psycopg.Error, redis.RedisError) as error:
            status, document = 503, {"error": str(error).strip()}
        self._reply(status, json.dumps(document).encode(), "application/json")

    def _reply(self, status: int, body: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        if str(code) not in ("200", "201"):
            super().log_request(code, size)


def get(path: str, query: dict[str, list[str]]) -> tuple[int, dict[str, object]]:
    if path == "/health":
        return health()
    if path == "/version":
        return 200, {"version": VERSION}
    if path == "/orders" and "token" in query:
        return 200, find_order(query["token"][0])
    if path == "/orders":
        return 200, summary()
    raise NotThere


def post(path: str, order: dict[str, Any]) -> tuple[int, dict[str, object]]:
    if path != "/orders":
        raise NotThere
    number = store_order(str(order["token"]), str(order["item"]), int(order["amount"]))
    cache.lpush("parcels", number)
    if number % ORDERS_PER_INVOICE == 0:
        write_invoice(number, order)
    return 201, {"id": number, "token": order["token"], "version": VERSION}


def health() -> tuple[int, dict[str, object]]:
    """Also looks at the books: an order that costs nothing means that they are damaged."""
    state = {"database": "ok", "cache": "ok"}
    reasons = []
    try:
        [(free,)] = database.rows("SELECT count(*) FROM orders WHERE amount <= 0")
        if free:
            reasons.append(f"{free} orders have an amount of 0 or less")
    except psycopg.Error as error:
        state["database"] = "down"
        reasons.append(str(error).strip())
    try:
        cache.ping()
    except redis.RedisError as error:
        state["cache"] = "down"
        reasons.append(str(error).strip())
    document: dict[str, object] = {
        "status": "failing" if reasons else "ok",
        "version": VERSION,
        **state,
    }
    if reasons:
        document["reason"] = "; ".join(reasons)
    return (503 if reasons else 200), document


def store_order(token: str, item: str, amount: int) -> int:
    """The order's number. The same token sent again is the same order."""
    if amount <= 0:
        raise ValueError("amount must be positive")
    [(number,)] = database.rows(
        "INSERT INTO orders (token, item, amount) VALUES (%s, %s, %s)"
        " ON CONFLICT (token) DO UPDATE SET token = excluded.token RETURNING id",
        (token, item, amount),
    )
    return int(number)


def find_order(token: str) -> dict[str, object]:
    rows = database.rows("SELECT id, token, item, amount FROM orders WHERE token = %s", (token,))
    if not rows:
        raise NotThere
    return dict(zip(("id", "token", "item", "amount"), rows[0], strict=True))


def summary() -> dict[str, object]:
    [(count, total, last)] = database.rows(
        "SELECT count(*), coalesce(sum(amount), 0), coalesce(max(id), 0) FROM orders"
    )
    return {"count": count, "sum": int(total), "last_id": last, "version": VERSION}


def write_invoice(number: int, order: dict[str, Any]) -> None:
    folder = UPLOADS / "invoices"
    folder.mkdir(exist_ok=True)
    text = f"Invoice {number}\n{order['item']}: {order['amount']} cents\n"
    (folder / f"{number:08d}.txt").write_text(text)


class Server(ThreadingHTTPServer):
    daemon_threads = False  # a stop lets requests that were begun finish
    request_queue_size = 128


def main() -> None:
    database.wait_until_up()
    migrate(database, VERSION)
    terms = UPLOADS / "terms.txt"
    if not terms.exists():
        terms.write_text("Goods may be returned within 30 days.\n")
    server = Server(("", 8000), Handler)
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
    print(f"shop {VERSION} takes orders")
    server.serve_forever(poll_interval=0.02)
    server.server_close()


if __name__ == "__main__":
    main()
