"""The stream of a command in a container: its input, and both outputs in frames."""

from __future__ import annotations

import io
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any


def converse(stream: Any, stdin: str | None, deadline: float) -> tuple[bool, str, str]:
    """Write stdin, read both streams to their end: (ended in time, stdout, stderr)."""
    raw: socket.socket = getattr(stream, "_sock", stream)
    streams = {1: bytearray(), 2: bytearray()}
    ended = True
    writer = threading.Thread(target=_feed, args=(raw, stdin), daemon=True)
    if stdin is not None:
        writer.start()
    try:
        for kind, part in _frames(raw, deadline):
            streams.get(kind, streams[2]).extend(part)
    except TimeoutError:
        ended = False
    finally:
        with suppress(OSError):
            raw.shutdown(socket.SHUT_RDWR)
        stream.close()
    return ended, streams[1].decode(errors="replace"), streams[2].decode(errors="replace")


def _feed(raw: socket.socket, stdin: str | None) -> None:
    """Write from a thread of its own: a command may answer before it has read everything."""
    with suppress(OSError):
        raw.sendall((stdin or "").encode())
        raw.shutdown(socket.SHUT_WR)


def _frames(raw: socket.socket, deadline: float) -> Iterator[tuple[int, bytes]]:
    while header := _receive(raw, 8, deadline):
        yield header[0], _receive(raw, int.from_bytes(header[4:8], "big"), deadline)


def _receive(raw: socket.socket, size: int, deadline: float) -> bytes:
    """Exactly `size` bytes, fewer at the end of the stream. Raises TimeoutError."""
    part = io.BytesIO()
    while part.tell() < size:
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        raw.settimeout(left)
        received = raw.recv(size - part.tell())
        if not received:
            return b"" if part.tell() < size else part.getvalue()
        part.write(received)
    return part.getvalue()
