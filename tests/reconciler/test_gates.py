"""Gates asked over real sockets and on the host, and what their answers are worth."""

from __future__ import annotations

import contextlib
import datetime
import http.server
import json
import os
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from pydantic import ValidationError

from cli import configpaths
from reconciler import config
from reconciler.docker import ContainerDetails, Docker, Published, connect
from reconciler.errors import BadInput
from reconciler.gates import asking, judging, watching
from reconciler.gates.asking import Ground
from reconciler.gates.judging import Answer, Verdict
from reconciler.gates.model import KINDS, Gate, LogGate, describe
from reconciler.project import compose
from reconciler.switching import memory
from tests.reconciler.test_early import service


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers with the status that the path says, and with what it was sent."""

    def answer(self, sent: str) -> None:
        body = json.dumps(
            {
                "status": "UP",
                "checks": [{"name": "db", "ms": 12}],
                "sent": sent,
                "token": self.headers.get("Authorization", ""),
            }
        ).encode()
        if self.path.endswith("slow"):
            time.sleep(0.3)
        self.send_response(int(self.path[1:4]))
        self.send_header("X-Release", "prod-007")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        self.answer("")

    def do_POST(self) -> None:
        self.answer(self.rfile.read(int(self.headers["Content-Length"])).decode())

    def log_message(self, *_: object) -> None:
        """Nobody reads it."""


@pytest.fixture(scope="module")
def docker() -> Docker:
    return connect()


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port
    server.shutdown()
    server.server_close()


@pytest.fixture
def silent() -> Iterator[int]:
    """A port that takes connections and never says anything."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.fixture
def closed() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        free: int = server.getsockname()[1]
    return free


def on_host() -> ContainerDetails:
    return service("web", mode="host", networks=()).containers[0]


def ask(
    docker: Docker,
    said: dict[str, Any],
    *,
    container: ContainerDetails | None = None,
    timeout: float = 10,
    **ground: Any,
) -> Answer:
    """Ask once what a gate says that has one question."""
    (question,) = asking.questions("web", (Gate.model_validate(said),))
    asked = None if question.on_host else container or on_host()
    return asking.ask(Ground(docker, **ground), question, asked, timeout)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"path": "/200"}, ""),
        ({"path": "/503"}, "answered 503"),
        ({"path": "/404", "status": 404}, ""),
        ({"path": "/404", "status": [200, 404]}, ""),
        ({"path": "/302"}, "answered 302"),
        ({"path": "/200", "contains": "UP"}, ""),
        ({"path": "/200", "contains": "bad"}, "answered 200 without 'bad' in it"),
        ({"path": "/200", "matches": '"ms": 1\\d'}, ""),
        ({"path": "/200", "matches": "^DOWN"}, "answered 200 without /^DOWN/ in it"),
        ({"path": "/200", "header": {"x-release": "007$"}}, ""),
        (
            {"path": "/200", "header": {"x-release": "008$"}},
            "answered 200 with x-release: prod-007, without /008$/ in it",
        ),
        ({"path": "/200", "header": {"x-other": ""}}, "answered 200 without a header x-other"),
        ({"path": "/200", "values": {"path": "status", "equals": "UP"}}, ""),
        (
            {"path": "/200", "values": [{"path": "checks[0].ms", "less": 10}]},
            "answered 200, but checks[0].ms is 12, not below 10",
        ),
        ({"path": "/200", "values": [{"path": "checks[0].ms", "greater": 10, "less": 20}]}, ""),
        ({"path": "/200", "values": {"path": "nope"}}, "answered 200, but nope is not there"),
        ({"path": "/200", "body": {"item": "cup"}, "contains": "cup"}, ""),
        ({"path": "/200", "body": "tea", "values": {"path": "sent", "equals": "tea"}}, ""),
        ({"path": "/200", "method": "GET", "contains": '"sent": ""'}, ""),
        ({"path": "/200/slow", "latency": 5}, ""),
    ],
)
def test_http(docker: Docker, port: int, asked: dict[str, Any], said: str) -> None:
    answer = ask(docker, {"http": {"port": port, **asked}})
    assert (answer.said, answer.verdict) == (said, Verdict.FAILED if said else Verdict.PASSED)


def test_an_answer_may_be_too_late_but_right(docker: Docker, port: int) -> None:
    answer = ask(docker, {"http": {"port": port, "path": "/200/slow", "latency": 0.01}})
    assert answer.verdict is Verdict.FAILED
    assert "later than 0.01 s" in answer.said


def test_a_request_can_carry_a_secret_of_the_stack(docker: Docker, port: int) -> None:
    said = {
        "port": port,
        "path": "/200",
        "headers": {"Authorization": "Bearer ${TOKEN}"},
        "body": {"password": ["${TOKEN}", "${OTHER}"]},
        "values": [
            {"path": "token", "equals": "Bearer s3cret"},
            {"path": "sent", "equals": '{"password": ["s3cret", "${OTHER}"]}'},
        ],
    }
    assert ask(docker, {"http": said}, secrets={"TOKEN": "s3cret"}).said == ""


def test_nobody_there(docker: Docker, closed: int, silent: int) -> None:
    for gate in ({"http": {"port": closed}}, {"tcp": closed}, {"certificate": {"port": closed}}):
        answer = ask(docker, gate)
        assert (answer.verdict, answer.said) == (Verdict.SILENT, "refused the connection")
    mute = ask(docker, {"http": {"port": silent}}, timeout=0.1)
    assert (mute.verdict, mute.said) == (Verdict.SILENT, "did not answer in time")
    assert ask(docker, {"tcp": silent}).verdict is Verdict.PASSED


@pytest.mark.parametrize("first", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\n"])
def test_who_answers_a_byte_at_a_time_is_not_waited_for(docker: Docker, first: bytes) -> None:
    given_up = threading.Event()

    def drip(server: socket.socket) -> None:
        talk, _ = server.accept()
        with talk, contextlib.suppress(OSError):
            talk.sendall(first)
            while not given_up.wait(0.02):
                talk.sendall(b"H")

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=drip, args=(server,), daemon=True).start()
        try:
            answer = ask(docker, {"http": {"port": server.getsockname()[1]}}, timeout=0.5)
        finally:
            given_up.set()
    assert (answer.verdict, answer.said) == (Verdict.SILENT, "did not answer in time")


def test_what_cannot_be_asked_says_neither_yes_nor_no(docker: Docker, port: int) -> None:
    for asked in ({"path": "/a b"}, {"path": "/200", "headers": {"X": "\u2713"}}):
        answer = ask(docker, {"http": {"port": port, **asked}})
        assert (answer.verdict, answer.final) == (Verdict.UNSURE, True), answer


def test_a_published_port_is_asked_when_the_container_has_no_address(
    docker: Docker, port: int
) -> None:
    published = Published("127.0.0.1", port, "tcp", 8000)
    container = replace(service("web").containers[0], ports=(published,))
    inside = {"http": {"port": 8000, "path": "/200"}}
    assert ask(docker, inside, container=container).verdict is Verdict.PASSED
    other = ask(docker, {"http": {"port": 9000}}, container=container)
    assert (other.verdict, other.said) == (Verdict.SILENT, "has no address")


# certificates -----------------------------------------------------------------------------------


def certificate(folder: Path, days: float, name: str) -> ssl.SSLContext:
    """What a server shows that signed its certificate itself, valid for some days from now on."""
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.datetime.now(datetime.UTC)
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=30))
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    path = folder / f"{days}.pem"
    pem = serialization.Encoding.PEM
    path.write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + made.public_bytes(pem)
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    return context


@pytest.mark.parametrize(
    ("days", "asked", "said"),
    [
        (30, {}, ""),
        (30, {"host": "shop.example"}, ""),
        (30, {"host": "other.example"}, "Hostname mismatch"),
        (30, {"days": 60}, "days, less than 60"),
        (-1, {}, "certificate has expired"),
        (30, {"host": "shop.example", "trusted": True}, "self-signed certificate"),
    ],
)
def test_certificates(
    docker: Docker, tmp_path: Path, days: float, asked: dict[str, Any], said: str
) -> None:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.socket = certificate(tmp_path, days, "shop.example").wrap_socket(
        server.socket, server_side=True
    )
    server.handle_error = lambda *_: None  # type: ignore[method-assign]
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        answer = ask(docker, {"certificate": {"port": server.server_port, **asked}})
        assert said.replace("-", " ") in answer.said.replace("-", " ")
        assert answer.verdict is (Verdict.FAILED if said else Verdict.PASSED)
        request = {"port": server.server_port, "path": "/200", "tls": True}
        assert ask(docker, {"http": request}).verdict is Verdict.PASSED
    finally:
        server.shutdown()
        server.server_close()


# on the host ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("script", "verdict", "said"),
    [
        ("grep -q prod-007", Verdict.PASSED, ""),
        ("echo 1 of 3 failed; exit 1", Verdict.FAILED, "ended with exit code 1 (1 of 3 failed)"),
        ("exit 5", Verdict.UNSURE, "ended with exit code 5"),
        ("exec /no/such/suite", Verdict.UNSURE, "could not be run: "),
        ("sleep 60 & sleep 60", Verdict.FAILED, "not finished after 0.5 s"),
    ],
)
def test_commands_on_the_host(
    docker: Docker, tmp_path: Path, script: str, verdict: Verdict, said: str
) -> None:
    gate = {"host": ["sh", "-c", script], "inconclusive_codes": [5]}
    answer = ask(
        docker, gate, timeout=0.5 if "sleep" in script else 10, folder=tmp_path,
        facts=lambda: {"release": "prod-007"},
    )  # fmt: skip
    assert answer.verdict is verdict
    assert answer.said.startswith(said)


def test_a_command_on_the_host_runs_in_the_stacks_folder_and_knows_no_secret(
    docker: Docker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PULUMI_CONFIG_PASSPHRASE", "s3cret passphrase")
    gate = {"host": ["sh", "-c", "pwd; env; yes | head -n 200000; echo end"]}
    answer = ask(docker, gate, folder=tmp_path)
    assert answer.verdict is Verdict.PASSED
    assert answer.excerpt.endswith("end")
    assert len(answer.excerpt) < 1 << 17
    short = ask(docker, {"host": ["sh", "-c", "pwd; env"]}, folder=tmp_path)
    assert short.excerpt.startswith(str(tmp_path))
    assert "PATH=" in short.excerpt
    assert "s3cret" not in short.excerpt


def test_a_command_that_is_not_there_says_neither_yes_nor_no(
    docker: Docker, tmp_path: Path
) -> None:
    answer = ask(docker, {"host": ["no-such-suite"]}, folder=tmp_path)
    assert (answer.verdict, answer.final) == (Verdict.UNSURE, True)


def test_what_a_given_up_command_started_is_gone(docker: Docker, tmp_path: Path) -> None:
    given_up = threading.Event()
    threading.Timer(0.3, given_up.set).start()
    script = f"sleep 300 & echo $! > {tmp_path}/pid; wait"
    answer = ask(docker, {"host": ["sh", "-c", script]}, folder=tmp_path, given_up=given_up)
    assert answer.verdict is Verdict.FAILED
    pid = int((tmp_path / "pid").read_text())
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return
        if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
            return
        time.sleep(0.02)
    raise AssertionError("it still runs")


# judging ----------------------------------------------------------------------------------------

BAD, GOOD, MUTE = judging.failed("bad"), judging.passed(), judging.silent("away")
OPEN, CLOSED = judging.unsure("open", final=False), judging.unsure("closed")


@pytest.mark.parametrize(
    ("limits", "answers", "decided"),
    [
        ({}, [GOOD], Verdict.PASSED),
        ({}, [BAD] * 100 + [GOOD], Verdict.PASSED),
        ({}, [BAD] * 100, None),
        ({"retries": 2}, [BAD, MUTE], None),
        ({"retries": 2}, [BAD, MUTE, BAD], Verdict.FAILED),
        ({"retries": 0}, [MUTE], Verdict.FAILED),
        ({"retries": 0}, [OPEN], Verdict.UNSURE),
        ({}, [OPEN], None),
        ({}, [CLOSED], Verdict.UNSURE),
        ({"failure_limit": 0}, [MUTE, MUTE], None),
        ({"failure_limit": 0}, [MUTE, BAD], Verdict.FAILED),
        ({"failure_limit": 1}, [BAD, GOOD], Verdict.PASSED),
        ({"passes": 3}, [GOOD, GOOD], None),
        ({"passes": 3}, [GOOD, GOOD, BAD, GOOD, GOOD], None),
        ({"passes": 3}, [GOOD, GOOD, GOOD], Verdict.PASSED),
        ({"passes": 2, "failure_limit": 1}, [BAD, GOOD, BAD], Verdict.FAILED),
        ({"severity": "warn"}, [BAD] * 5, None),
        ({"severity": "warn"}, [BAD] * 6, Verdict.FAILED),
        ({"severity": "warn", "retries": 0}, [BAD], Verdict.FAILED),
        ({}, [judging.failed("never", final=True)], Verdict.FAILED),
    ],
)
def test_limits(limits: dict[str, Any], answers: list[Answer], decided: Verdict | None) -> None:
    counting = judging.Counting(Gate.model_validate({"tcp": 80, **limits}))
    *before, last = answers
    assert [counting.after(answer) for answer in before] == [None] * len(before)
    assert counting.after(last) is decided


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("$", {"a": {"b": [1, {"c d": 2}]}, "e.f": 3}),
        ("a.b[0]", 1),
        ("$.a.b[1]['c d']", 2),
        ("a.b[-1]['c d']", 2),
        ('["e.f"]', 3),
        ("a.c", LookupError),
        ("a.b.c", LookupError),
        ("a.b[7]", LookupError),
        ("a[0]", LookupError),
        ("a..b", LookupError),
    ],
)
def test_paths_in_json(path: str, found: Any) -> None:
    document = {"a": {"b": [1, {"c d": 2}]}, "e.f": 3}
    if found is LookupError:
        with pytest.raises(LookupError):
            judging.at(document, path)
    else:
        assert judging.at(document, path) == found


@pytest.mark.parametrize(
    ("value", "expected", "said"),
    [
        ("OPEN", {"equals": "OPEN"}, None),
        ("OPEN", {"equals": "CLOSED"}, "is 'OPEN', not 'CLOSED'"),
        ("7", {"equals": 7}, None),
        ("7.0", {"equals": 7}, None),
        (True, {"equals": True}, None),
        ("t", {"equals": True}, "is 't', not true"),
        (1, {"equals": True}, "is 1, not true"),
        ("12", {"greater": 11}, None),
        ("12", {"greater": 12}, "is '12', not above 12"),
        ("many", {"less": 3}, "is 'many', which is no number"),
        (None, {"greater": 0}, "is null, which is no number"),
        ("v1.2.3", {"matches": r"^v\d"}, None),
        ("1.2.3", {"matches": r"^v\d"}, "is '1.2.3', without /^v\\d/ in it"),
    ],
)
def test_values(value: Any, expected: dict[str, Any], said: str | None) -> None:
    gate = Gate.model_validate({"redis": {"key": "x", **expected}})
    assert gate.redis is not None
    assert judging.wrong(value, gate.redis) == said


@pytest.mark.parametrize(
    ("table", "database", "rows"),
    [
        ("orders", "", None),
        ("orders", "shop", 120),
        ("public.orders", "shop", 120),
        ("old.orders", "", 7),
        ("rders", "", None),
        ("customers", "shop", None),
        ("items", "", 5),
    ],
)
def test_rows_before_are_those_of_one_table(table: str, database: str, rows: int | None) -> None:
    counts = {"db": {"shop.public.orders": 120, "old.orders": 7}, "other": {"x.items": 5}}
    found, why = judging.rows_before(counts, table, database)
    assert (found, bool(why)) == (rows, rows is None)


def test_logs() -> None:
    lines = ["starting", "WARN slow", "ready in 3 s"]
    for said, verdict, final in (
        ({"must": "ready in"}, Verdict.PASSED, False),
        ({"must": ["starting", "done"]}, Verdict.FAILED, False),
        ({"never": ["ERROR", "WARN"]}, Verdict.FAILED, True),
        ({"never": "ERROR"}, Verdict.PASSED, False),
    ):
        answer = watching.judge_log(LogGate.model_validate(said), lines)
        assert (answer.verdict, answer.final) == (verdict, final)


# what may be said -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "problem"),
    [
        ({}, "it asks nothing"),
        ({"timeout": 3}, "it asks nothing"),
        ({"http": {"port": 80, "matches": "("}}, "no regular expression"),
        ({"sql": {"table": "orders"}}, "say what is expected"),
        ({"sql": {"table": "orders; DROP TABLE x", "greater": 1}}, "is no table's name"),
        ({"sql": {"query": "SELECT 1", "share_of_before": 1}}, "needs table"),
        ({"redis": {"key": "x"}}, "say what is expected"),
        ({"redis": {"key": "x", "absent": True, "equals": 1}}, "say what is expected"),
        ({"redis": {"key": "x", "equals": 1, "reset": {}}}, "either set or delete"),
        ({"resources": {}}, "limit something"),
        ({"log": {}}, "say must or never"),
        ({"certificate": {"port": 443, "trusted": True}}, "trusted needs host"),
    ],
)
def test_what_no_gate_may_say(said: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValidationError, match=problem):
        Gate.model_validate(said)


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"gates": {"web": {"http": {"prot": 80}}}}, "config gates.web.http.prot of stack prod"),
        ({"gates": {"web": [{"tcp": 80}, {"tcp": "x"}]}}, "config gates.web.1.tcp of stack prod"),
        ({"gates": {"web": {"tcp": 80, "service": "db"}}}, "only for the stack's own gates"),
        ({"gates": {"web": {"http": {"prot": 80}, "passes": 2}}}, "Extra inputs"),
        ({"gates": {"db": {"sql": {"query": "SELECT 1", "table": "t"}}}}, "either query or table"),
        ({"gates": {"db": {"redis": {"key": "x", "absent": True, "equals": 1}}}}, "say what is"),
    ],
)
def test_the_config_names_the_place(values: dict[str, Any], problem: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=problem):
        config.read("shop", "prod", tmp_path, values)


KEY_BY_KEY: dict[str, tuple[list[tuple[str, str]], dict[str, Any]]] = {
    "http": (
        [
            ("gates.web.http.path", "/health"),
            ("gates.web.http.values.equals", "UP"),
            ("gates.web.http.values.path", "status"),
            ("gates.web.http.headers.X-Try", "1"),
            ("gates.web.http.contains", "200"),
            ("gates.web.http.latency", "0.5"),
            ("gates.web.http.port", "8000"),
        ],
        {
            "port": 8000, "path": "/health", "headers": {"X-Try": "1"}, "contains": "200",
            "values": {"path": "status", "equals": "UP"}, "latency": 0.5,
        },
    ),
    "tcp": ([("gates.web.name", "7"), ("gates.web.tcp", "8000")], {}),
    "command": ([("gates.web.command[0]", "true"), ("gates.web.command[1]", "1")], {}),
    "host": ([("stackGates[0].host[0]", "sleep"), ("stackGates[0].host[1]", "0")], {}),
    "log": ([("gates.web.log.never[0]", "500"), ("gates.web.log.must", "200")],
            {"never": ["500"], "must": ["200"]}),
    "health": ([("gates.web.severity", "warn"), ("gates.web.health", "true")], {}),
    "sql": (
        [
            ("gates.db.sql.share_of_before", "0.9"),
            ("gates.db.sql.database", "42"),
            ("gates.db.sql.table", "orders"),
        ],
        {"share_of_before": 0.9, "table": "orders", "database": "42"},
    ),
    "redis": (
        [
            ("gates.cache.redis.reset.set", "0"),
            ("gates.cache.redis.key", "007"),
            ("gates.cache.redis.equals", "1.50"),
        ],
        {"key": "007", "equals": "1.50", "reset": {"set": "0"}},
    ),
    "resources": (
        [("gates.web.resources.memory", "1MiB"), ("gates.web.resources.restarts", "0")],
        {"memory": 1 << 20, "restarts": 0},
    ),
    "certificate": (
        [
            ("stackGates[0].certificate.trusted", "true"),
            ("stackGates[0].certificate.port", "443"),
            ("stackGates[0].certificate.host", "a.example"),
            ("stackGates[0].service", "web"),
        ],
        {"trusted": True, "port": 443, "host": "a.example"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_can_be_set_key_by_key(kind: str, tmp_path: Path) -> None:
    """As `pulumi config set --path` stores it: whole numbers and truth as such, all else as text.
    What is said in part is no gate, and is written to others as it stands."""
    keys, asked = KEY_BY_KEY[kind]
    values: dict[str, Any] = {}
    for number, (key, text) in enumerate(keys, start=1):
        top, *inside = configpaths.parse_path(key)
        assert isinstance(top, str)
        values[top] = configpaths.put_path(values.get(top), inside, configpaths.scalar(text), top)
        made = config.read("shop", "prod", tmp_path, values)
        again = config.Stack.model_validate(made.model_dump(mode="json"))
        gates = [*made.settings.gates.values(), made.settings.stackGates]
        assert again.settings.lacking == made.settings.lacking
        assert bool(made.settings.lacking) is (
            number < len(keys) and kind not in ("command", "host", "log", "resources")
        ), key
        assert bool([gate for found in gates for gate in found]) or made.settings.lacking
    (gate,) = (gate for found in gates for gate in found)
    assert [name for name, _ in gate.asks()] == [kind]
    said = gate.model_dump(mode="json", exclude_unset=True)
    expected = asked or {
        "tcp": {"name": "7", "tcp": 8000},
        "command": {"command": ["true", "1"]},
        "host": {"host": ["sleep", "0"]},
        "health": {"severity": "warn", "health": True},
    }[kind]  # fmt: skip
    assert (said[kind] if asked else said) == expected


@pytest.mark.parametrize(
    ("values", "lacks"),
    [
        ({"gates": {"db": {"sql": {"table": "t"}}}}, "gates.db.sql: say what is expected"),
        ({"gates": {"db": [{"tcp": 1}, {"timeout": 3}]}}, "gates.db.1: it asks nothing"),
        ({"gates": {"web": {"http": {"path": "/"}}}}, "gates.web.http.port: Field required"),
        ({"stackGates": {"passes": 3}}, "stackGates: it asks nothing"),
        ({"stackGates": {"tcp": 80}}, "stackGates: say which `service` tcp asks"),
    ],
)
def test_what_a_gate_lacks_is_named(values: dict[str, Any], lacks: str, tmp_path: Path) -> None:
    (said,) = config.read("shop", "prod", tmp_path, values).settings.lacking
    assert said.startswith(lacks)


def test_a_compose_file_says_the_whole_of_a_gate() -> None:
    with pytest.raises(BadInput, match="say what is expected"):
        compose.service_note(
            {"services": {"db": {"x-lockstep": {"gate": {"sql": {"table": "t"}}}}}}, "db"
        )


def test_what_a_gate_asks_is_said() -> None:
    gate = Gate.model_validate(
        {
            "http": {"port": 80, "path": "/x", "body": "y"},
            "tcp": 81,
            "command": ["test", "-f", "/x"],
            "host": ["pytest", "smoke"],
            "log": {"must": "ready"},
            "health": True,
            "sql": {"table": "orders", "greater": 3},
            "redis": {"key": "breaker", "field": "state", "equals": "OPEN"},
            "resources": {"memory_percent": 80, "restarts": 0},
            "certificate": {"port": 443},
        }
    )
    assert [describe(kind, asks) for kind, asks in gate.asks()] == [
        "POST :80/x",
        "a connection to port 81",
        "test -f /x",
        "pytest smoke, on the host",
        "its log",
        "Docker's health check",
        "rows of orders",
        "redis key breaker state",
        "its memory percent and restarts",
        "the certificate of port 443",
    ]


def test_the_memory_of_a_container_is_known(docker: Docker) -> None:
    """A redis that holds 64 MiB uses at least so much, and not ten times as much."""
    from tests.reconciler.trial import REDIS, docker_cli

    fill = "redis-server --save '' & sleep 1; redis-cli setrange k 67108863 x; wait"
    made = docker_cli("run", "-d", "--rm", REDIS, "sh", "-c", fill).strip()
    try:
        pid = docker.inspect(made).pid
        used = 0
        for _ in range(100):
            used = memory.used(pid) or 0
            if used > 64 << 20:
                break
            threading.Event().wait(0.1)
        assert 64 << 20 < used < 640 << 20
        container = docker.inspect(made)
        for said, verdict in (
            ({"memory": "640MiB"}, Verdict.PASSED),
            ({"memory": "32MiB"}, Verdict.FAILED),
            ({"memory_percent": 0.001}, Verdict.FAILED),
            ({"cpu_percent": 10_000, "restarts": 0}, Verdict.PASSED),
        ):
            answer = ask(docker, {"resources": said}, container=container)
            assert answer.verdict is verdict, answer
        again = ask(
            docker, {"resources": {"restarts": 1}}, container=container, restarts=lambda _: 2
        )
        assert again.said == "was started again 2 times, more than 1"
    finally:
        docker_cli("kill", made)
