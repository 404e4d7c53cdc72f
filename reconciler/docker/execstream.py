"""The stream of a command in a container: its input, and both outputs in frames.

Either the command is seen through to its end (`converse`), or text and answers alternate
(`Conversation`).
"""

from __future__ import annotations

import io
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from snapshots.errors import EngineFailed

MOST = 32 << 20
"""Bytes that a command may say: what runs in a container may be anything."""
_SAID = 500
"""Characters of what a command said last that a message shows."""


def converse(stream: Any, stdin: str | None, deadline: float) -> tuple[bool, str, str]:
    """Write stdin, read both streams to their end: (ended in time, stdout, stderr).

    A command that says more than MOST counts as one that does not end.
    """
    wire = _Wire(stream)
    streams = {1: bytearray(), 2: bytearray()}
    ended = True
    writer = threading.Thread(target=_feed, args=(wire.raw, stdin), daemon=True)
    if stdin is not None:
        writer.start()
    try:
        for kind, part in wire.frames(deadline):
            streams.get(kind, streams[2]).extend(part)
            if len(streams[1]) + len(streams[2]) > MOST:
                streams[2] = bytearray(b"it says more than %d MiB; " % (MOST >> 20))
                ended = False
                break
    except TimeoutError:
        ended = False
    finally:
        with suppress(OSError):
            wire.raw.shutdown(socket.SHUT_RDWR)
        stream.close()
    return ended, streams[1].decode(errors="replace"), streams[2].decode(errors="replace")


class Conversation:
    """A command that goes on; `doing` begins what is said of its failures."""

    def __init__(self, stream: Any, doing: str) -> None:
        self._stream = stream
        self._wire = _Wire(stream)
        self._doing = doing
        self._out = bytearray()
        self._err = bytearray()

    def send(self, text: str) -> None:
        """Write to its standard input. Raises EngineFailed when it has ended."""
        try:
            self._wire.raw.settimeout(None)
            self._wire.raw.sendall(text.encode())
        except OSError:
            raise self._failed("it has ended") from None

    def read_until(self, mark: str, timeout: float) -> str:
        """Its output up to the line that equals `mark`; `timeout` in seconds. Raises
        EngineFailed when the command ends before that, or says nothing more in time."""
        deadline = time.monotonic() + timeout
        frames = self._wire.frames(deadline)
        end = f"\n{mark}\n".encode()
        while (at := (b"\n" + self._out).find(end)) < 0:
            try:
                kind, part = next(frames)
            except (StopIteration, OSError) as error:
                late = isinstance(error, TimeoutError)
                raise self._failed(f"no answer in {timeout:g} s" if late else "it ended") from None
            (self._out if kind == 1 else self._err).extend(part)
            if len(self._out) + len(self._err) > MOST:
                raise self._failed(f"it says more than {MOST >> 20} MiB")
        said = self._out[:at].decode(errors="replace")
        del self._out[: at + len(end) - 1]
        return said

    def close(self) -> None:
        """Nothing more is said to it; most commands end by that."""
        with suppress(OSError):
            self._wire.raw.shutdown(socket.SHUT_RDWR)
        self._stream.close()

    def _failed(self, how: str) -> EngineFailed:
        said = (self._err or self._out).decode(errors="replace").strip()[-_SAID:]
        return EngineFailed(f"{self._doing}: {how}: {said or 'it said nothing'}")


def _feed(raw: socket.socket, stdin: str | None) -> None:
    """Write from a thread of its own: a command may answer before it has read everything."""
    with suppress(OSError):
        raw.sendall((stdin or "").encode())
        raw.shutdown(socket.SHUT_WR)


class _Wire:
    """The connection of a command, from behind the headers of the daemon's answer.

    What the command says at once may have come together with the headers: then it lies in the
    buffer of who read them, and the socket will not give it again.
    """

    def __init__(self, stream: Any) -> None:
        self.raw: socket.socket = getattr(stream, "_sock", stream)
        self._ahead = bytearray()
        response = getattr(stream, "_response", None)
        if response is not None:
            self.raw.settimeout(0)
            with suppress(OSError):
                self._ahead += response.raw._fp.fp.peek()
            self.raw.settimeout(None)

    def frames(self, deadline: float) -> Iterator[tuple[int, bytes]]:
        """(which output, what it says) until the end. Raises TimeoutError."""
        while header := self._receive(8, deadline):
            yield header[0], self._receive(int.from_bytes(header[4:8], "big"), deadline)

    def _receive(self, size: int, deadline: float) -> bytes:
        """Exactly `size` bytes, fewer at the end of the stream. Raises TimeoutError."""
        part = io.BytesIO()
        part.write(self._ahead[:size])
        del self._ahead[:size]
        while part.tell() < size:
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError
            self.raw.settimeout(left)
            received = self.raw.recv(size - part.tell())
            if not received:
                return b"" if part.tell() < size else part.getvalue()
            part.write(received)
        return part.getvalue()
