"""The real daemon behind a socket that can be cut off, as when dockerd dies and comes back."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from pathlib import Path

DAEMON = "/var/run/docker.sock"


class UnreliableDocker:
    """A socket in front of the daemon's own; `cut` closes all connections and takes no new ones."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._open: set[socket.socket] = set()
        self._guard = threading.Lock()
        self._server: socket.socket | None = None
        self.join()

    @property
    def host(self) -> str:
        """For DOCKER_HOST."""
        return f"unix://{self.path}"

    def join(self) -> None:
        """Take connections (again)."""
        self.path.unlink(missing_ok=True)
        self._server = socket.socket(socket.AF_UNIX)
        self._server.bind(str(self.path))
        self._server.listen(64)
        threading.Thread(target=self._accept, args=(self._server,), daemon=True).start()

    def cut(self) -> None:
        """Nobody reaches the daemon any more."""
        assert self._server is not None
        self.path.unlink(missing_ok=True)
        # accept() of the other thread is woken only by a shutdown.
        with suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        with self._guard:
            for connection in self._open:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def _accept(self, server: socket.socket) -> None:
        with suppress(OSError):
            while True:
                near, _ = server.accept()
                far = socket.socket(socket.AF_UNIX)
                far.connect(DAEMON)
                with self._guard:
                    self._open |= {near, far}
                for a, b in ((near, far), (far, near)):
                    threading.Thread(target=self._copy, args=(a, b), daemon=True).start()

    def _copy(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(1 << 16):
                target.sendall(data)
        with suppress(OSError):
            target.shutdown(socket.SHUT_WR)
