"""A daemon that is asked by tcp and does not see the stack's folder, as one on another host."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.stacks.harness import Project, notes_project

pytestmark = [
    pytest.mark.chaos,
    pytest.mark.timeout(600),
    pytest.mark.skipif(os.geteuid() != 0, reason="mounts"),
]
SOCKET = "/var/run/docker.sock"


@pytest.fixture
def far(tmp_path: Path) -> Iterator[Project]:
    """The small project without a volume, in a folder that only its commands see."""
    project = notes_project(tmp_path / "far" / "notes")
    project.compose_file(a="      - notes:/notes\n=>", b="volumes:\n  notes:\n=>")
    copy = shutil.copytree(project.folder, tmp_path / "copy")
    shell = (
        f"mount -t tmpfs none {project.folder} && cp -a {copy}/. {project.folder} && echo && cat"
    )
    words = ["unshare", "--mount", "--propagation", "private", "sh", "-c", shell]
    pipe = subprocess.PIPE
    with subprocess.Popen(words, stdin=pipe, stdout=pipe) as apart, by_tcp() as port:
        assert apart.stdout is not None
        assert apart.stdin is not None
        apart.stdout.readline()
        mounts = f"--mount=/proc/{apart.pid}/ns/mnt"
        project.inside = ("nsenter", mounts, f"--wd={project.folder}", "--")
        project.env["DOCKER_HOST"] = f"tcp://127.0.0.1:{port}"
        try:
            yield project
        finally:
            project.env.clear()
            project.remove()
            apart.stdin.close()


@contextmanager
def by_tcp() -> Iterator[int]:
    """The port of 127.0.0.1 through which the daemon can be asked meanwhile."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=_serve, args=(server,), daemon=True).start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)


def _serve(server: socket.socket) -> None:
    with suppress(OSError):
        while True:
            client, _ = server.accept()
            daemon = socket.socket(socket.AF_UNIX)
            daemon.connect(SOCKET)
            for one, other in ((client, daemon), (daemon, client)):
                threading.Thread(target=_pass_on, args=(one, other), daemon=True).start()


def _pass_on(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(1 << 16):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)


def test_attack_lock_a_daemon_on_another_host(far: Project) -> None:
    """DOCKER_HOST names a daemon of another host, where this host's lock holds nobody off: preview
    and up refuse by name before anything is made there, also where no volume is concerned."""
    far.run("init", "--yes", "--name", far.name)
    far.run("new", "one")
    assert "prod-001" in far.run("list").out
    for words in (("preview",), ("up", "--yes")):
        refused = far.run(*words, code=8)
        assert "is on another host" in refused.text
        assert "run lockstep on the host of the daemon" in refused.text
    assert (far.containers(running=False), far.volumes()) == ({}, set())
