"""A second Docker daemon for tests that kill, restart or prune one: its data, its containerd and
its network are its own, so nothing that is done to it reaches the daemon that others use."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

SECONDS = 60.0


class OwnDaemon:
    """dockerd and containerd in a network namespace of their own. `folder`: for images, volumes
    and the logs, on a real file system. `options`: further words for dockerd, `--live-restore`."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        # A socket's path may have no more than 107 bytes.
        self.run = Path(tempfile.mkdtemp(prefix="lsd-", dir="/run"))
        self.options = options
        self.host = f"unix://{self.run}/docker.sock"
        self._children: dict[str, subprocess.Popen[bytes]] = {}
        self._network = subprocess.Popen(
            ["unshare", "--net", "sh", "-c", "ip link set lo up; exec sleep infinity"]
        )
        _await(self._has_own_network, "a network namespace of its own")

    @property
    def env(self) -> Mapping[str, str]:
        """What makes the docker command, Compose and the product talk to it."""
        return {"DOCKER_HOST": self.host}

    @property
    def inside(self) -> list[str]:
        """Words before a command that is to see its network, with what containers publish."""
        return ["nsenter", f"--net=/proc/{self._network.pid}/ns/net", "--"]

    def docker(self, *words: str, check: bool = True) -> str:
        """The docker command's answer."""
        done = subprocess.run(
            ["docker", *words],
            capture_output=True,
            text=True,
            timeout=SECONDS * 2,
            env={**os.environ, **self.env},
        )
        assert not check or done.returncode == 0, f"docker {' '.join(words)}: {done.stderr}"
        return done.stdout

    # its life -------------------------------------------------------------------------------

    def start(self) -> None:
        """Start it, also again; returns when it answers."""
        address = f"{self.run}/containerd.sock"
        if "containerd" not in self._children:
            words = [f"--root={self.folder}/containerd", f"--state={self.run}/containerd"]
            self._begin("containerd", [*words, f"--address={address}"])
            _await(lambda: Path(address).exists(), "a second containerd", self._said)
        words = [f"--data-root={self.folder}/docker", f"--exec-root={self.run}/docker"]
        words += [f"--pidfile={self.run}/pid", f"--host={self.host}", f"--containerd={address}"]
        self._begin("dockerd", [*words, "--storage-driver=overlay2", *self.options])
        _await(self._answers, "a second dockerd", self._said)

    def kill(self) -> None:
        """kill -9 of dockerd alone: what it runs goes on."""
        self._end("dockerd", signal.SIGKILL)

    def stop(self) -> None:
        """As `systemctl stop docker`: also what it runs is stopped, but with `--live-restore`."""
        self._end("dockerd", signal.SIGTERM)

    def power_off(self) -> None:
        """Everything of it dies at once, containers too; `start` is the next boot."""
        for name in ("dockerd", "containerd"):
            self._end(name, signal.SIGKILL)
        for shim in self._shims():
            for pid in (*_children_of(shim), shim):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        _await(lambda: not self._shims(), "the end of all containers")
        # What a boot finds empty.
        self._unmount()
        for left in self.run.iterdir():
            shutil.rmtree(left) if left.is_dir() else left.unlink()

    def close(self) -> None:
        """Nothing of it is left but its folder's files."""
        self.power_off()
        self._network.kill()
        self._network.wait()
        shutil.rmtree(self.run, ignore_errors=True)
        self._unmount(self.folder)
        shutil.rmtree(self.folder, ignore_errors=True)

    # content --------------------------------------------------------------------------------

    def load(self, *images: str) -> None:
        """Copy images from this machine's daemon."""
        saving = subprocess.Popen(["docker", "save", *images], stdout=subprocess.PIPE)
        loading = subprocess.run(
            ["docker", "load", "--quiet"],
            stdin=saving.stdout,
            capture_output=True,
            text=True,
            timeout=300,
            env={**os.environ, **self.env},
        )
        assert saving.wait() == 0
        assert loading.returncode == 0, loading.stderr

    # small things ---------------------------------------------------------------------------

    def _begin(self, name: str, words: list[str]) -> None:
        with (self.folder / f"{name}.log").open("ab") as log:
            self._children[name] = subprocess.Popen(
                [*self.inside, name, *words],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={k: v for k, v in os.environ.items() if k != "DOCKER_HOST"},
            )

    def _end(self, name: str, how: signal.Signals) -> None:
        process = self._children.pop(name, None)
        if process is not None:
            process.send_signal(how)
            try:
                process.wait(SECONDS)
            finally:
                process.kill()
                process.wait()

    def _answers(self) -> bool:
        words = ["docker", "version", "--format", "{{.Server.Version}}"]
        asked = subprocess.run(words, capture_output=True, env={**os.environ, **self.env})
        assert self._children["dockerd"].poll() is None, self._said()
        return asked.returncode == 0

    def _has_own_network(self) -> bool:
        mine, its = Path("/proc/self/ns/net"), Path(f"/proc/{self._network.pid}/ns/net")
        if mine.readlink() == its.readlink():
            return False
        words = [*self.inside, "ip", "-o", "link", "show", "up"]
        return b"lo:" in subprocess.run(words, capture_output=True).stdout

    def _shims(self) -> list[int]:
        found = []
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            with suppress(OSError):
                words = path.read_bytes()
                if b"containerd-shim" in words and f"{self.run}/".encode() in words:
                    found.append(int(path.parent.name))
        return found

    def _unmount(self, *more: Path) -> None:
        below = tuple(f"{folder}/" for folder in (self.run, *more))
        lines = Path("/proc/self/mountinfo").read_text().splitlines()
        for place in reversed([line.split()[4] for line in lines]):
            if place.startswith(below):
                subprocess.run(["umount", "--lazy", place], check=False)

    def _said(self) -> str:
        texts = [(f"{name}.log", self.folder / f"{name}.log") for name in ("containerd", "dockerd")]
        return "\n".join(f"{n}: {p.read_text()[-1500:]}" for n, p in texts if p.exists())


@contextmanager
def own_daemon(folder: Path, *options: str, images: tuple[str, ...] = ()) -> Iterator[OwnDaemon]:
    """A daemon that runs and has these images; gone afterwards."""
    daemon = OwnDaemon(folder, *options)
    try:
        daemon.start()
        if images:
            daemon.load(*images)
        yield daemon
    finally:
        daemon.close()


def _children_of(pid: int) -> list[int]:
    with suppress(OSError):
        return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


def _await(
    done: Callable[[], bool],
    what: str,
    said: Callable[[], str] = lambda: "",
    within: float = SECONDS,
) -> None:
    give_up = time.monotonic() + within
    while not done():
        assert time.monotonic() < give_up, f"{what}: not within {within:g} s\n{said()}"
        time.sleep(0.05)
