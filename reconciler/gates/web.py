"""Questions by network: HTTP, a connection, a certificate."""

from __future__ import annotations

import http.client
import json
import re
import socket
import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from email.message import Message
from typing import Any

from reconciler.docker import ContainerDetails, Docker
from reconciler.gates.judging import Answer, failed, passed, silent, unsure, wrong_in_json
from reconciler.gates.model import CertificateGate, HttpGate

_BODY_BYTES = 1 << 20
_EXCERPT = 300
_SECRET = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_DAY = 86400.0
_LATE = "did not answer in time"


def ask_http(
    docker: Docker,
    container: ContainerDetails,
    gate: HttpGate,
    timeout: float,
    secrets: Mapping[str, str],
) -> Answer:
    """Send the request to the first address that takes it, and judge the answer."""
    body, headers = _sent(gate, secrets)
    answer = silent("has no address")
    for host, port in addresses(docker, container, gate.port):
        connection = _connection(host, port, gate, timeout)
        began = time.monotonic()
        try:
            connection.connect()
            with _cut_off(connection.sock, timeout):
                connection.request(gate.verb, gate.path, body=body, headers=headers)
                response = connection.getresponse()
                text = response.read(_BODY_BYTES).decode(errors="replace")
            took = time.monotonic() - began
            if took < timeout:
                return judge_http(gate, response.status, response.headers, text, took)
        except (http.client.InvalidURL, UnicodeError) as error:
            return unsure(f"cannot be asked: {error}")
        except (OSError, http.client.HTTPException) as error:
            answer = silent(_refused(error))
        finally:
            connection.close()
        if time.monotonic() - began >= timeout:
            answer = silent(_LATE)
    return answer


def judge_http(gate: HttpGate, status: int, headers: Message, body: str, seconds: float) -> Answer:
    """What an answer is worth."""
    excerpt = f"{status} in {seconds:.3f} s: {body[:_EXCERPT]}".rstrip(": ")
    said = (
        (None if status in gate.statuses else f"answered {status}")
        or _wrong_headers(gate, status, headers)
        or _wrong_body(gate, status, body)
    )
    if said is None and gate.latency is not None and seconds > gate.latency:
        said = f"answered after {seconds:.3f} s, later than {gate.latency:g} s"
    return passed(excerpt) if said is None else failed(said, excerpt)


def ask_tcp(docker: Docker, container: ContainerDetails, port: int, timeout: float) -> Answer:
    """Whether a port takes connections."""
    answer = silent("has no address")
    for address in addresses(docker, container, port):
        try:
            socket.create_connection(address, timeout=timeout).close()
        except OSError as error:
            answer = silent(_refused(error))
        else:
            return passed()
    return answer


def ask_certificate(
    docker: Docker, container: ContainerDetails, gate: CertificateGate, timeout: float
) -> Answer:
    """Whose certificate a port shows, and how long it is valid."""
    answer = silent("has no address")
    for address in addresses(docker, container, gate.port):
        try:
            return _certificate(address, gate, timeout)
        except ssl.SSLCertVerificationError as error:
            return failed(f"shows a certificate that is not valid: {error.verify_message}")
        except ssl.SSLError as error:
            answer = failed(f"speaks no TLS that could be understood: {error.reason or error}")
        except OSError as error:
            answer = silent(_refused(error))
    return answer


def addresses(docker: Docker, container: ContainerDetails, port: int) -> Iterator[tuple[str, int]]:
    """Where a port of the container can be reached: its own addresses, then what it publishes.

    Its own come first: there nobody but this world can answer.
    """
    mode, _, other = container.network_mode.partition(":")
    if mode == "host":
        yield "127.0.0.1", port
        return
    owner = docker.inspect(other) if mode == "container" and other else container
    for address in owner.addresses.values():
        yield address, port
    for published in owner.ports:
        if published.container_port == port and published.protocol == "tcp":
            anywhere = published.host_ip in ("", "0.0.0.0", "::")
            yield ("127.0.0.1" if anywhere else published.host_ip), published.port


def _connection(
    host: str, port: int, gate: HttpGate, timeout: float
) -> http.client.HTTPConnection | http.client.HTTPSConnection:
    if not gate.tls:
        return http.client.HTTPConnection(host, port, timeout=timeout)
    return http.client.HTTPSConnection(host, port, timeout=timeout, context=_trusting())


def _sent(gate: HttpGate, secrets: Mapping[str, str]) -> tuple[bytes | None, dict[str, str]]:
    """(body, headers) of the request, with the stack's secrets in their places."""
    headers = {name: _filled(value, secrets) for name, value in gate.headers.items()}
    if gate.body is None:
        return None, headers
    if isinstance(gate.body, str):
        return _filled(gate.body, secrets).encode(), headers
    headers.setdefault("Content-Type", "application/json")
    return json.dumps(_filled_within(gate.body, secrets)).encode(), headers


def _filled(text: str, secrets: Mapping[str, str]) -> str:
    return _SECRET.sub(lambda found: secrets.get(found[1], found[0]), text)


def _filled_within(value: Any, secrets: Mapping[str, str]) -> Any:
    if isinstance(value, str):
        return _filled(value, secrets)
    if isinstance(value, Mapping):
        return {name: _filled_within(v, secrets) for name, v in value.items()}
    return [_filled_within(v, secrets) for v in value] if isinstance(value, list) else value


def _wrong_headers(gate: HttpGate, status: int, headers: Message) -> str | None:
    for name, pattern in gate.header.items():
        value = headers.get(name)
        if value is None:
            return f"answered {status} without a header {name}"
        if not re.search(pattern, value):
            return f"answered {status} with {name}: {value[:_EXCERPT]}, without /{pattern}/ in it"
    return None


def _wrong_body(gate: HttpGate, status: int, body: str) -> str | None:
    if gate.contains not in body:
        return f"answered {status} without {gate.contains!r} in it"
    if gate.matches and not re.search(gate.matches, body):
        return f"answered {status} without /{gate.matches}/ in it"
    if not gate.expected:
        return None
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return f"answered {status} with a body that is no JSON"
    found = filter(None, (wrong_in_json(document, value) for value in gate.expected))
    said = "; ".join(found)
    return f"answered {status}, but {said}" if said else None


def _trusting() -> ssl.SSLContext:
    """A world's own address has no certificate that anybody could verify."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _certificate(address: tuple[str, int], gate: CertificateGate, timeout: float) -> Answer:
    """Raises ssl.SSLError, OSError."""
    if gate.trusted:
        context = ssl.create_default_context()
    else:
        shown, _ = _handshake(address, _trusting(), gate.host, timeout)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        # OpenSSL itself judges dates and names, with this very certificate as what is trusted.
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        context.load_verify_locations(cadata=ssl.DER_cert_to_PEM_cert(shown))
    context.check_hostname = bool(gate.host)
    _, until = _handshake(address, context, gate.host, timeout)
    left = (ssl.cert_time_to_seconds(until) - time.time()) / _DAY
    excerpt = f"valid until {until}"
    if left < gate.days:
        return failed(f"is valid for {left:.1f} days, less than {gate.days:g}", excerpt)
    return passed(excerpt)


@contextmanager
def _cut_off(connection: socket.socket, seconds: float) -> Iterator[None]:
    """Who answers a byte at a time never runs into a time limit: the whole has one, too."""

    def end() -> None:
        with suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _handshake(
    address: tuple[str, int], context: ssl.SSLContext, host: str, timeout: float
) -> tuple[bytes, str]:
    """The certificate that is shown, and, if the context verifies it, until when it is valid."""
    with (
        socket.create_connection(address, timeout=timeout) as plain,
        _cut_off(plain, timeout),
        context.wrap_socket(plain, server_hostname=host or None) as secure,
    ):
        verified = secure.getpeercert() or {}
        return secure.getpeercert(binary_form=True) or b"", str(verified.get("notAfter", ""))


def _refused(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return _LATE
    if isinstance(error, ConnectionRefusedError):
        return "refused the connection"
    return f"did not answer: {error or type(error).__name__}"
