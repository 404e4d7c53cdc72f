"""A daemon asked by ssh, as a socket of this host: OpenSSH forwards it, with its own keys, hosts
and settings."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import threading
import time
import weakref
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

from reconciler.errors import BadInput, Unavailable

_CONNECT_SECONDS = 30.0
_SOCKET = "/var/run/docker.sock"
_tunnels: dict[str, Tunnel] = {}
_guard = threading.Lock()


def forwarded(endpoint: str) -> str:
    """`ssh://user@host:22/run/docker.sock` (user, port and path may be missing) as `unix://...`,
    for as long as this process lives. Raises BadInput, Unavailable with ssh's own words."""
    with _guard:
        found = _tunnels.get(endpoint)
        if found is None or not found.is_open:
            found = _tunnels[endpoint] = Tunnel(endpoint)
        return found.url


class Tunnel:
    """One ssh process; it ends with us, because what it runs on the other side ends with its
    standard input."""

    def __init__(self, endpoint: str) -> None:
        folder = Path(tempfile.mkdtemp(prefix="lockstep-ssh-"))  # 0700
        place = folder / "docker.sock"
        self.url = f"unix://{place}"
        with (folder / "said").open("wb") as said:
            self._process = subprocess.Popen(
                _words(endpoint, place), stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
                stderr=said, start_new_session=True,
            )  # fmt: skip
        self._end = weakref.finalize(self, _end, self._process, folder)
        deadline = time.monotonic() + _CONNECT_SECONDS
        while not place.exists():
            if self._process.poll() is not None or time.monotonic() > deadline:
                reason = (folder / "said").read_text(errors="replace").strip()[-300:]
                self._end()
                raise Unavailable(
                    f"Docker at {endpoint} cannot be reached: {reason or 'ssh does not answer'}",
                    next_step="ssh to that host must work without a question",
                )
            time.sleep(0.02)

    @property
    def is_open(self) -> bool:
        return self._process.poll() is None


def _words(endpoint: str, place: Path) -> list[str]:
    """How ssh is called. Raises BadInput for an address that it would take for an option."""
    try:
        there = urlsplit(endpoint)
        host, port = there.hostname or "", there.port
    except ValueError:
        host, port = "", None
    user = there.username or "" if host else ""
    if not host or host.startswith("-") or user.startswith("-") or there.password:
        raise BadInput(
            f"DOCKER_HOST={endpoint} is no address for ssh",
            next_step="export DOCKER_HOST=ssh://user@host",
        )
    options = ["-o", "BatchMode=yes", "-o", "ExitOnForwardFailure=yes", "-o", "ConnectTimeout=15"]
    options += ["-p", str(port)] if port else []
    options += ["-l", user] if user else []
    socket = there.path if there.path not in ("", "/") else _SOCKET
    return ["ssh", "-T", *options, "-L", f"{place}:{socket}", "--", host, "cat"]


def _end(process: subprocess.Popen[bytes], folder: Path) -> None:
    assert process.stdin is not None
    with suppress(OSError):
        process.stdin.close()
    try:
        process.wait(2)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    shutil.rmtree(folder, ignore_errors=True)
