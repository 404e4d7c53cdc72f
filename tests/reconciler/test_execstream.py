"""What a command says is heard, however it comes through the connection."""

from __future__ import annotations

import http.client
import socket
import threading
import time
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import pytest

from reconciler.docker.execstream import Conversation, converse

HEADERS = b"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n"


def frame(kind: int, text: bytes) -> bytes:
    return bytes([kind, 0, 0, 0]) + len(text).to_bytes(4, "big") + text


def answered(first: bytes, *later: bytes) -> Any:
    """The stream that docker-py gives for an answer that came in these parts."""
    ours, daemons = socket.socketpair()
    daemons.sendall(first)
    response = http.client.HTTPResponse(ours)
    response.begin()
    stream: Any = response.fp.raw
    stream._response = SimpleNamespace(raw=SimpleNamespace(_fp=response))

    def go_on() -> None:
        with daemons, suppress(OSError):  # who asked may have gone
            for part in later:
                time.sleep(0.05)
                daemons.sendall(part)

    threading.Thread(target=go_on).start()
    return stream


SAID = frame(1, b"one\nmark\n") + frame(2, b"two") + frame(1, b"three")


@pytest.mark.parametrize("cut", [0, 1, 8, 12, 17, 20, len(SAID)])
def test_nothing_that_came_with_the_headers_is_lost(cut: int) -> None:
    stream = answered(HEADERS + SAID[:cut], SAID[cut:])
    assert converse(stream, None, time.monotonic() + 10) == (True, "one\nmark\nthree", "two")
    talk = Conversation(answered(HEADERS + SAID[:cut], SAID[cut:]), "it")
    assert talk.read_until("mark", 10) == "one\n"
    talk.close()


def test_who_says_nothing_in_time_is_not_waited_for() -> None:
    stream = answered(HEADERS + frame(1, b"one"), b"", b"", b"", b"", b"", b"")
    assert converse(stream, None, time.monotonic() + 0.1) == (False, "one", "")
