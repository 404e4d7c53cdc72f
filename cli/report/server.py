"""The report, live, on this host's loopback: read only, for whoever knows the address.

The address has a random part, because every user of the host can reach a loopback port. The Host
header has to be ours, so that no page elsewhere can reach it through a name of its own.
"""

from __future__ import annotations

import hmac
import json
import secrets
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from cli.report.page import policy
from reconciler.errors import LockstepError
from reconciler.masking import masked

ADDRESS = "127.0.0.1"
_FRESH_SECONDS = 20.0
"""Ages in the page are as old as this at most, though the ledger did not grow."""
_CLIENT_SECONDS = 10.0
_HEADERS = {
    "Content-Security-Policy": policy(served=True) + "; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Cache-Control": "no-store",
}


@dataclass
class Site:
    """What is served. `page` makes the HTML, `status` says what runs and how far the ledger is."""

    page: Callable[[], str]
    status: Callable[[], dict[str, Any]]
    token: str = field(default_factory=lambda: secrets.token_urlsafe(16))
    _guard: threading.Lock = field(default_factory=threading.Lock)
    _made: tuple[object, float, str] | None = None

    def html(self) -> str:
        """The page, made anew when the ledger has grown or it has become old."""
        with self._guard:
            seq, now = self.status()["seq"], time.monotonic()
            if self._made and self._made[0] == seq and now - self._made[1] < _FRESH_SECONDS:
                return self._made[2]
            page = self.page()
            self._made = seq, now, page
            return page


class Server(ThreadingHTTPServer):
    """Listens at once; `serve_forever` answers. Raises OSError when the port is taken."""

    daemon_threads = True

    def __init__(self, site: Site, port: int) -> None:
        self.site = site
        super().__init__((ADDRESS, port), _Handler)

    @property
    def url(self) -> str:
        """The whole address, its secret part included."""
        return f"http://{ADDRESS}:{self.server_port}/{self.site.token}/"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is nobody's trouble."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    server: Server
    server_version = "lockstep"
    sys_version = ""
    timeout = _CLIENT_SECONDS

    def do_GET(self) -> None:
        self._answer(*self._found())

    do_HEAD = do_GET  # noqa: N815 - as the library calls it

    def _found(self) -> tuple[HTTPStatus, str, str]:
        """(status, content type, body) of what was asked for."""
        if not self._is_for_us():
            return _plain(HTTPStatus.FORBIDDEN, "This is served to this host alone.")
        path = self.path.partition("?")[0]
        _, _, rest = path.partition("/")
        token, slash, name = rest.partition("/")
        if not hmac.compare_digest(token.encode(), self.server.site.token.encode()):
            return _plain(HTTPStatus.NOT_FOUND, "`lockstep serve` printed the whole address.")
        if not slash:
            return HTTPStatus.PERMANENT_REDIRECT, "text/plain", ""
        try:
            if name == "":
                return HTTPStatus.OK, "text/html", self.server.site.html()
            if name == "status.json":
                return HTTPStatus.OK, "application/json", json.dumps(self.server.site.status())
        except LockstepError as error:
            return _plain(HTTPStatus.SERVICE_UNAVAILABLE, masked(str(error)))
        except Exception:
            print(masked(traceback.format_exc()), file=sys.stderr, flush=True)
            return _plain(HTTPStatus.INTERNAL_SERVER_ERROR, "The terminal says what went wrong.")
        return _plain(HTTPStatus.NOT_FOUND, "There is no such page.")

    def _is_for_us(self) -> bool:
        """Asked for by one of our own names, and not by a page of another site."""
        port = self.server.server_port
        own = {f"{name}:{port}" for name in (ADDRESS, "localhost")}
        hosts = self.headers.get_all("Host") or []
        elsewhere = self.headers.get("Sec-Fetch-Site", "none") not in ("none", "same-origin")
        return len(hosts) == 1 and hosts[0].lower() in own and not elsewhere

    def _answer(self, status: HTTPStatus, kind: str, body: str) -> None:
        content = body.encode()
        self.send_response(status)
        for name, value in _HEADERS.items():
            self.send_header(name, value)
        if status is HTTPStatus.PERMANENT_REDIRECT:
            self.send_header("Location", f"/{self.server.site.token}/")
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """The library's own refusals (another method, a broken request), with our headers."""
        del message, explain
        self.close_connection = True
        if not hasattr(self, "command") or self.command is None:
            self.command = "GET"
        self._answer(HTTPStatus(code), "text/plain", HTTPStatus(code).phrase)

    def log_message(self, *_: object) -> None:
        """Addresses hold the secret part."""


def _plain(status: HTTPStatus, text: str) -> tuple[HTTPStatus, str, str]:
    return status, "text/plain", text
