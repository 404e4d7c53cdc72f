"""The long form of what users without root do: the whole demo, a daemon asked by ssh, and a
rootless daemon."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from snapshots.compare import tree_equal
from tests.stacks.harness import ROOT, free_port, notes_project
from tests.stacks.person import Person, person

pytestmark = [
    pytest.mark.chaos,
    pytest.mark.skipif(os.geteuid() != 0, reason="makes a user, and compares as root"),
]
FILL = """
from pathlib import Path
from tests.snapshots.trees import everything
Path("/wiki/kept").mkdir()
everything(Path("/wiki/kept"))
"""
CONTRIB = Path("/usr/share/docker.io/contrib")


@pytest.fixture
def somebody() -> Iterator[Person]:
    with person("docker") as found:
        yield found


@pytest.mark.timeout(1200)
def test_the_whole_demo_is_told_to_a_user_without_root(somebody: Person) -> None:
    """A clone in their home, every scene of `make demo`, which checks itself what it says."""
    clone = somebody.home / "lockstep"
    subprocess.run(
        ["git", "clone", "--quiet", f"file://{ROOT}", str(clone)], check=True, timeout=120
    )
    (clone / ".venv").symlink_to(ROOT / ".venv")
    locks = somebody.home / "locks"  # other stacks may be switched on this host meanwhile
    locks.mkdir()
    somebody.give(somebody.home)
    env = {
        **os.environ,
        "PYTHONPATH": str(clone),
        "SHOP_PORT": str(free_port()),
        "LOCKSTEP_LOCK_DIR": str(locks),
    }
    words = [*somebody.words, sys.executable, "-m"]
    prepare = [*words[:-1], "-c", "from setup import shop_env; shop_env.ensure()"]
    subprocess.run(prepare, cwd=clone, env=env, check=True, timeout=60)
    try:
        done = subprocess.run(
            [*words, "demo.story"], cwd=clone, env=env, capture_output=True, text=True, timeout=900
        )
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr
    finally:
        subprocess.run([*words, "demo.host"], cwd=clone, env=env, capture_output=True, timeout=300)


def test_a_daemon_that_is_asked_by_ssh(somebody: Person) -> None:
    """DOCKER_HOST=ssh:// to this very host, through Debian's sshd on a port of its own."""
    with _sshd(somebody) as port:
        host = f"ssh://{somebody.name}@127.0.0.1:{port}"
        project = notes_project(
            somebody.home / "far" / "notes", inside=somebody.words, env={"DOCKER_HOST": host}
        )
        (project.folder.parent / "locks").mkdir()
        somebody.give(project.folder.parent)
        here = notes_project(project.folder, name=project.name, port=project.port)
        try:
            project.init()
            checks = project.run("doctor", "--json", code=None).json()["checks"]
            (said,) = [check["text"] for check in checks if check["check"] == "volumes"]
            assert said.startswith("read through helper containers")
            assert said.endswith(f"the daemon is at {host}")
            project.release("one")
            project.note("a")
            project.release("two")
            project.note("b")
            project.run("rollback", "--yes")
            assert (project.live(), project.notes()) == ("prod-001", ["a"])
            project.run("undo", "--yes")
            assert (project.live(), project.notes()) == ("prod-002", ["a", "b"])
        finally:
            here.remove()


@contextmanager
def _sshd(who: Person) -> Iterator[int]:
    """An ssh server that lets this user in, by a key of theirs; its port."""
    sshd = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin")
    if sshd is None:
        pytest.skip("needs openssh-server")
    keys, folder = who.home / ".ssh", Path(tempfile.mkdtemp(prefix="lockstep-sshd-"))
    keys.mkdir(mode=0o700)
    for place in (keys / "id_ed25519", folder / "host"):
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(place)], check=True
        )
    shutil.copy(keys / "id_ed25519.pub", keys / "authorized_keys")
    port = free_port()
    known = (folder / "host.pub").read_text()
    (keys / "known_hosts").write_text(f"[127.0.0.1]:{port} {known}")
    # An ssh that is started with other words reads it, whoever's HOME it is.
    (keys / "config").write_text(
        f"Host 127.0.0.1\n  IdentityFile {keys}/id_ed25519\n"
        f"  UserKnownHostsFile {keys}/known_hosts\n"
    )
    who.give(keys)
    Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    # A new user has no password: without PAM that would be a locked account.
    subprocess.run(["usermod", "--password", "*", who.name], check=True, timeout=30)
    options = ["-o", f"Port={port}", "-o", "ListenAddress=127.0.0.1", "-o", "UsePAM=no"]
    options += ["-o", f"HostKey={folder}/host", "-o", f"PidFile={folder}/pid"]
    options += ["-o", "StrictModes=no", "-o", "MaxStartups=100", "-o", "MaxSessions=100"]
    log = (folder / "log").open("wb")
    server = subprocess.Popen([sshd, "-D", "-e", "-f", "/dev/null", *options], stderr=log)
    try:
        _await_listening(port)
        yield port
    finally:
        server.terminate()
        server.wait(20)
        log.close()
        shutil.rmtree(folder, ignore_errors=True)


def _await_listening(port: int) -> None:
    deadline = time.monotonic() + 20
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.1)


def test_volumes_of_a_rootless_daemon(tmp_path: Path) -> None:
    """A dockerd that a user runs without root: what a container's users own there comes back with
    the same owners, although the user who runs it may not read it."""
    with person() as who, _rootless(who) as (host, words):
        env = {**os.environ, "DOCKER_HOST": host, "PYTHONPATH": str(ROOT)}

        def run(*command: str) -> str:
            done = subprocess.run(
                [*words, *command], cwd=who.home, env=env, capture_output=True, text=True,
                timeout=200,
            )  # fmt: skip
            assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
            return done.stdout

        saving = subprocess.Popen(
            ["docker", "save", "lockstep-base/python:3"], stdout=subprocess.PIPE
        )
        subprocess.run(
            [*words, "docker", "load", "--quiet"], stdin=saving.stdout, env=env, check=True,
            timeout=300,
        )  # fmt: skip
        assert saving.wait() == 0
        run("docker", "volume", "create", "wiki")
        made = Path(
            run("docker", "volume", "inspect", "--format", "{{.Mountpoint}}", "wiki").strip()
        )
        run(
            "docker", "run", "--rm", "--volume", "wiki:/wiki", "--volume", f"{ROOT}:/source:ro",
            "--env", "PYTHONPATH=/source", "lockstep-base/python:3", "python3", "-c", FILL,
        )  # fmt: skip
        lockstep = (sys.executable, "-m", "cli.main")
        store = str(who.home / "store")
        run(*lockstep, "snapshot", "create", "wiki", "--store", store)
        (listed, *_) = [p.stem for p in (Path(store) / "snapshots").glob("*.json")]
        run(*lockstep, "snapshot", "restore", listed, "again", "--store", store)
        again = made.parent.parent / "again" / "_data"
        assert tree_equal(made, again) == []
        assert (again / "kept").stat().st_uid >= 100_000, "an owner of the daemon's own"
        foreign = [path for path in Path(store).rglob("*") if path.stat().st_uid != who.uid]
        assert foreign == []
        assert run("docker", "ps", "--all", "--quiet").strip() == ""
        assert tmp_path.exists()


def test_behind_an_ingress_on_a_rootless_daemon(tmp_path: Path) -> None:
    """Forward and back; and the ingress that was killed is brought back."""
    images = ("lockstep-base/python:3", "lockstep-base/haproxy:2")
    with person() as who, _rootless(who) as (host, words):
        env = {"DOCKER_HOST": host}
        saving = subprocess.Popen(["docker", "save", *images], stdout=subprocess.PIPE)
        loading = [*words, "docker", "load", "--quiet"]
        subprocess.run(
            loading, stdin=saving.stdout, env={**os.environ, **env}, check=True, timeout=300
        )
        assert saving.wait() == 0
        project = notes_project(who.home / tmp_path.name / "notes", env=env, inside=words)
        (project.folder.parent / "locks").mkdir()
        who.give(project.folder.parent)
        try:
            project.init()
            project.run("config", "set", "ingress", "haproxy")
            project.release("one")
            project.note("a")
            project.release("two")
            project.note("b")
            project.run("rollback", "--yes")
            assert project.notes() == ["a"]
            label = f"label=lockstep.ingress={project.name}/prod"
            (unit,) = project.docker("ps", "--quiet", "--filter", label).split()
            project.docker("kill", unit)
            project.up()
            assert project.notes() == ["a"]
            project.nothing_to_do()
        finally:
            project.remove()


@contextmanager
def _rootless(who: Person) -> Iterator[tuple[str, tuple[str, ...]]]:
    """(DOCKER_HOST, words before a command that is to be that user's)."""
    needed = ("rootlesskit", "slirp4netns", "newuidmap")
    if not all(map(shutil.which, needed)) or not (CONTRIB / "dockerd-rootless.sh").exists():
        pytest.skip(f"needs {', '.join(needed)} and Docker's dockerd-rootless.sh")
    run = who.home / "run"
    run.mkdir(mode=0o700)
    os.chown(run, who.uid, who.gid)
    tun = Path(tempfile.mkdtemp(prefix="lockstep-tun-", dir="/var/tmp"))
    os.mknod(tun / "tun", 0o666 | 0o020000, os.makedev(10, 200))
    (tun / "tun").chmod(0o666)
    # Where only root may use tunnels, this user may, and sees so alone.
    words = (
        "unshare", "--mount", "sh", "-c",
        f'mount --make-rshared / && mount --bind {tun}/tun /dev/net/tun && exec "$@"', "sh",
    )  # fmt: skip
    env = {
        **os.environ,
        "XDG_RUNTIME_DIR": str(run),
        "PATH": f"{os.environ['PATH']}:{CONTRIB}:/usr/sbin:/sbin",
        "DOCKERD_ROOTLESS_ROOTLESSKIT_NET": "slirp4netns",
    }
    host = f"unix://{run}/docker.sock"
    with (who.home / "daemon.log").open("wb") as log:
        daemon = subprocess.Popen(
            [*words, *_less(who.words), "dockerd-rootless.sh", "--storage-driver", "overlay2",
             "--iptables=false"],
            env=env, stdout=log, stderr=log, cwd=who.home, start_new_session=True,
        )  # fmt: skip
    try:
        deadline = time.monotonic() + 60
        while subprocess.run(["docker", "-H", host, "version"], capture_output=True).returncode:
            assert daemon.poll() is None, (who.home / "daemon.log").read_text()[-2000:]
            assert time.monotonic() < deadline, (who.home / "daemon.log").read_text()[-2000:]
            time.sleep(0.3)
        yield host, who.words
    finally:
        os.killpg(daemon.pid, signal.SIGTERM)
        try:
            daemon.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(daemon.pid, signal.SIGKILL)
            daemon.wait()
        shutil.rmtree(tun, ignore_errors=True)


def _less(words: tuple[str, ...]) -> tuple[str, ...]:
    """Without the limit on capabilities, which newuidmap needs to be given."""
    return tuple(word for word in words if not word.startswith("--bounding-set"))
