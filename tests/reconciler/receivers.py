"""Servers on loopback that a notification can be sent to, well and badly behaved ones."""

from __future__ import annotations

import http.server
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from email import message_from_bytes
from typing import Any

from aiosmtpd.controller import Controller


class Webhook:
    """Answers the first POST with the first status, and so on; then with the last of them. Keeps
    what came."""

    def __init__(self, *statuses: int) -> None:
        self.got: list[dict[str, Any]] = []
        got = self.got

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                got.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                self.send_response(statuses[min(len(got), len(statuses)) - 1])
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.server.server_address[1]

    def await_some(self, count: int, seconds: float = 60) -> list[dict[str, Any]]:
        """What came, when it is so many messages."""
        until = time.monotonic() + seconds
        while len(self.got) < count:
            assert time.monotonic() < until, f"{len(self.got)} of {count} came: {self.got}"
            time.sleep(0.05)
        return self.got


@contextmanager
def webhook(*statuses: int) -> Iterator[Webhook]:
    made = Webhook(*(statuses or (200,)))
    thread = threading.Thread(target=made.server.serve_forever, daemon=True)
    thread.start()
    try:
        yield made
    finally:
        made.server.shutdown()
        made.server.server_close()
        thread.join()


class Mailbox:
    """An SMTP server's handler that keeps subject and text of each mail."""

    def __init__(self) -> None:
        self.mails: list[tuple[str, str]] = []

    async def handle_DATA(self, _server: Any, _session: Any, envelope: Any) -> str:  # noqa: N802
        mail = message_from_bytes(envelope.content)
        parts = [p for p in mail.walk() if p.get_content_type() == "text/plain"] or [mail]
        body = parts[0].get_payload(decode=True)
        assert isinstance(body, bytes)
        self.mails.append((str(mail["Subject"]), body.decode()))
        return "250 taken"


@contextmanager
def mail_server() -> Iterator[tuple[Mailbox, int]]:
    box = Mailbox()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    controller = Controller(box, hostname="127.0.0.1", port=port)
    controller.start()
    try:
        yield box, port
    finally:
        controller.stop()


@contextmanager
def hanging() -> Iterator[int]:
    """A port that takes connections and never says a word."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(8)
        yield int(server.getsockname()[1])


def refusing() -> int:
    """A port that nobody listens on."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return int(server.getsockname()[1])
