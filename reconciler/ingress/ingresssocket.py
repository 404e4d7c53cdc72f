"""Talking to a running HAProxy through its socket on this host."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from reconciler.errors import Unavailable

_SECONDS = 5.0


def ask(path: Path, *commands: str) -> str:
    """HAProxy's answers to commands, one after the other on one connection.

    Raises Unavailable when it does not answer, PermissionError for who may not ask.
    """
    answer = bytearray()
    try:
        folder = os.open(path.parent, os.O_PATH)
        try:
            with socket.socket(socket.AF_UNIX) as talk:
                talk.settimeout(_SECONDS)
                # By its folder: a socket's path may not be as long as another file's.
                talk.connect(f"/proc/self/fd/{folder}/{path.name}")
                talk.sendall("; ".join(commands).encode() + b"\n")
                while part := talk.recv(65536):
                    answer += part
        finally:
            os.close(folder)
    except PermissionError:
        raise
    except OSError as error:
        raise Unavailable(f"the ingress does not answer at {path}: {error}") from None
    return answer.decode(errors="replace")
