"""The file systems that things are measured on: the disk's own, and others in an image."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from bench import machine, tools
from bench.errors import BenchError
from bench.machine import ask

LOOPED = ("xfs", "btrfs")
MAKE = {
    "ext4": ["-q", "-F", "-i", "8192", "-E", "nodiscard,lazy_itable_init=0,lazy_journal_init=0"],
    "xfs": ["-q", "-f", "-m", "reflink=1"],
    "btrfs": ["-q", "-f"],
}
IMAGE, OWN = "image", "own"
"""What images in the bench's folder are called: for a kind of its own, and for the disk's kind."""
SMALLEST = 1 << 30
BUSY_SECONDS = 20.0


@dataclass(frozen=True)
class Ground:
    """A folder on one file system."""

    name: str
    path: Path


@contextmanager
def disk(folder: Path) -> Iterator[Ground]:
    """An empty folder on the file system that it lies on; gone afterwards."""
    clear(folder)
    folder.mkdir(parents=True)
    try:
        yield Ground(machine.filesystem(folder), folder)
    finally:
        clear(folder)


@contextmanager
def looped(kind: str, folder: Path, size: int) -> Iterator[Ground]:
    """A fresh `kind` of `size` bytes in a sparse image, mounted through a loop device without a
    second page cache; gone afterwards."""
    image, place = folder.with_suffix(f".{kind}.img"), folder.with_suffix(f".{kind}")
    release(place, image)
    place.mkdir(parents=True)
    with image.open("wb") as file:
        file.truncate(max(size, SMALLEST))
    try:
        ask(tools.program(f"mkfs.{kind}"), *MAKE[kind], image)
        losetup = tools.program("losetup")
        device = ask(losetup, "--direct-io=on", "--find", "--show", image)
        try:
            ask("mount", device, place)
        finally:
            # Busy while it is mounted: the kernel lets it go with the mount.
            ask(losetup, "--detach", device)
        yield Ground(kind, place)
    finally:
        release(place, image)


def release(place: Path, image: Path) -> None:
    """Unmount and remove what a run, this one or one that was killed, has mounted there."""
    for mounted in mounts_below(place):
        unmount(mounted)
    image.unlink(missing_ok=True)
    if place.is_dir():
        place.rmdir()


def unmount(mounted: Path) -> None:
    """Unmount; what still works there is ended. Raises BenchError."""
    until = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            ask("umount", mounted)
            return
        except BenchError:
            if not mounted.is_mount():
                return
            if time.monotonic() > until:
                raise
            for process in users_of(mounted):
                with suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
            time.sleep(0.2)


def users_of(mounted: Path) -> list[int]:
    """The processes that hold a mount: by their working folder, their root, an open file, or, in a
    container, by the folders that its own root is laid over."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        if int(process.name) == os.getpid():
            continue
        with suppress(OSError):
            places = [process / "cwd", process / "root", *(process / "fd").iterdir()]
            if any(_leads_below(place, mounted) for place in places) or _laid_over(
                process / "mountinfo", mounted
            ):
                found.append(int(process.name))
    return found


def _leads_below(link: Path, mounted: Path) -> bool:
    with suppress(OSError):
        return Path(os.readlink(link)).is_relative_to(mounted)
    return False


def _laid_over(mountinfo: Path, mounted: Path) -> bool:
    roots = (line for line in mountinfo.read_text().splitlines() if line.split()[4] == "/")
    return any(f"={mounted}/" in line for line in roots)


def mounts_below(place: Path) -> list[Path]:
    """What is mounted at a place and below it, the innermost first."""
    lines = Path("/proc/self/mounts").read_text().splitlines()
    found = [Path(line.split()[1].replace("\\040", " ")) for line in lines]
    return sorted((m for m in found if m.is_relative_to(place)), reverse=True)


def clear(folder: Path) -> None:
    """Remove a folder with all that is in it; gone already is fine."""
    if folder.is_dir():
        shutil.rmtree(folder)
