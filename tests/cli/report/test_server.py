"""The served report: to this host alone, read only, by whoever knows the address; and live."""

from __future__ import annotations

import http.client
import json
import socket
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from playwright.sync_api import expect

from cli.report import progress
from cli.report.material import gather
from cli.report.page import render
from cli.report.server import Server, Site
from reconciler.catalog import Catalog
from reconciler.config import Settings, Stack
from reconciler.host import hostlock
from reconciler.host.hostlock import HostLock
from reconciler.records.journal import Intent, JournalFile
from tests.browser import Shown
from tests.reconciler.ledgers import History, a_dozen


class Served:
    """A catalog on disk, with its report served."""

    def __init__(self, folder: Path) -> None:
        self.history = a_dozen()
        self.stack = Stack(project="shop", name="prod", root=folder, settings=Settings())
        self.catalog = Catalog(self.stack)
        self.written = 0
        self.write()
        self.server = Server(
            Site(
                lambda: render(gather(self.stack, self.catalog), served=True),
                lambda: progress.status(self.catalog),
            ),
            0,
        )
        self.token = self.server.site.token
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def write(self) -> None:
        """Bring the history's newest events and records to disk."""
        for name, record in self.history.records.items():
            if name not in self.history.state.pruned and not (self.catalog.root / name).exists():
                self.catalog.write(record, {})
        self.catalog.ledger.append(*self.history.events[self.written :])
        self.written = len(self.history.events)

    def ask(
        self, path: str, method: str = "GET", headers: Mapping[str, str] | None = None
    ) -> tuple[int, dict[str, str], str]:
        """(status, headers, body)."""
        port = self.server.server_port
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        connection.request(method, path, headers=dict(headers or {}))
        answer = connection.getresponse()
        body = answer.read().decode()
        connection.close()
        return answer.status, {k.lower(): v for k, v in answer.getheaders()}, body


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    found = Served(tmp_path)
    yield found
    found.server.shutdown()
    found.server.server_close()


def test_it_listens_on_loopback_alone(served: Served) -> None:
    assert served.server.socket.getsockname()[0] == "127.0.0.1"
    assert served.server.url == f"http://127.0.0.1:{served.server.server_port}/{served.token}/"
    assert len(served.token) >= 20


def test_the_page_is_the_report_with_headers_that_forbid_everything_else(served: Served) -> None:
    status, headers, body = served.ask(f"/{served.token}/")
    assert status == 200
    assert "prod-011 is live" in body
    rules = headers["content-security-policy"]
    assert "default-src 'none'" in rules
    assert "frame-ancestors 'none'" in rules
    assert "unsafe" not in rules
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cache-control"] == "no-store"
    assert "python" not in headers["server"].lower()


def test_a_page_elsewhere_cannot_reach_it_by_a_name_of_its_own(served: Served) -> None:
    """DNS rebinding: the browser believes that evil.example is this host."""
    port = served.server.server_port
    path = f"/{served.token}/"
    for host in ("evil.example", f"evil.example:{port}", "127.0.0.1", f"127.0.0.1:{port}0", ""):
        status, headers, body = served.ask(path, headers={"Host": host})
        assert (status, "prod-011" in body) == (403, False), host
        assert "content-security-policy" in headers
    for site in ("cross-site", "same-site"):
        assert served.ask(path, headers={"Sec-Fetch-Site": site})[0] == 403
    assert served.ask(path, headers={"Host": f"localhost:{port}"})[0] == 200


def test_who_does_not_know_the_address_gets_nothing(served: Served) -> None:
    for path in (
        "/", "/status.json", "/wrong/", f"/{served.token}x/",
        f"/{served.token}/../../etc/passwd", f"/{served.token}/%2e%2e/ledger-prod.jsonl",
        f"/{served.token}/ledger-prod.jsonl",
    ):  # fmt: skip
        status, _, body = served.ask(path)
        assert status == 404, path
        assert served.token not in body
        assert "prod-0" not in body
    status, headers, _ = served.ask(f"/{served.token}")
    assert (status, headers["location"]) == (308, f"/{served.token}/")


def test_nothing_can_be_changed(served: Served) -> None:
    before = {p: p.read_bytes() for p in served.catalog.root.rglob("*") if p.is_file()}
    for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS"):
        status, headers, _ = served.ask(f"/{served.token}/", method)
        assert status == 501
        assert "content-security-policy" in headers
    assert served.ask(f"/{served.token}/", "HEAD")[::2] == (200, "")
    assert before == {p: p.read_bytes() for p in served.catalog.root.rglob("*") if p.is_file()}


def test_who_sends_rubbish_is_told_so_and_others_are_served(served: Served) -> None:
    with socket.create_connection(("127.0.0.1", served.server.server_port), timeout=20) as there:
        there.sendall(b"\x16\x03\x01 rubbish\r\n\r\n")
        assert b"Bad Request" in there.recv(1000)
    assert served.ask(f"/{served.token}/")[0] == 200


def test_a_damaged_ledger_is_told_and_does_not_end_it(served: Served) -> None:
    path = served.catalog.ledger.path
    whole = path.read_bytes()
    assert b'"ben"' in whole
    path.write_bytes(whole.replace(b'"ben"', b'"eve"', 1))
    status, _, body = served.ask(f"/{served.token}/")
    assert status == 503
    assert "was altered" in body
    path.write_bytes(whole)
    assert served.ask(f"/{served.token}/")[0] == 200


def test_the_running_switch_is_followed_and_its_end_is_shown(
    served: Served, shown: Shown, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(hostlock.DIRECTORY, str(tmp_path / "lock"))
    page = shown.open(served.server.url)
    panel = page.locator("#running")
    expect(panel).to_be_hidden()
    history: History = served.history
    log = tmp_path / "switch.jsonl"
    log.write_text(json.dumps({"at": "", "say": "stopping <b>shop-prod-011</b>"}) + '\n{"say": "ha')
    with HostLock.acquire("switch", "shop/prod") as lock:
        intent = Intent(
            head=history.state.head,
            move="forward",
            from_world=history.state.live,
            to_world="shop-prod-012",
            started=history.now.isoformat(),
            pid=(hostlock.holder() or pytest.fail("nobody holds the lock")).pid,
            log=str(log),
            step="start",
            steps={"prepare": 0.1, "stop": 0.4, "start": 0.9},
        )
        JournalFile(served.catalog.journal).write(intent)
        expect(panel).to_be_visible()
        steps = page.locator("#running-steps li")
        expect(steps).to_have_text(["prepare", "stop", "start", "prove", "commit"])
        assert page.locator("#running-steps [aria-current=step]").inner_text() == "start"
        assert "forward: prod-011 to prod-012" in page.locator("#running-says").inner_text()
        assert page.locator("#running-log").inner_text() == "stopping <b>shop-prod-011</b>"
        assert shown.complaints(page) == []
        assert "interrupted" not in served.ask(f"/{served.token}/")[2]
        history.forward()
        served.write()
        expect(page.locator("h1")).to_have_text("prod-013 is live")
        JournalFile(served.catalog.journal).remove()
        assert lock
    expect(panel).to_be_hidden()
    rows = page.locator("#log tr.switch")
    assert "prod-013" in rows.first.inner_text()
    rows.first.locator("button.more").click()
    expect(page.locator("tr.detail").first).to_be_visible()
    assert shown.said == []
