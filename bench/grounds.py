"""The file systems that things are measured on: the disk's own, and XFS and btrfs in an image."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench import machine, tools
from bench.machine import ask

LOOPED = ("xfs", "btrfs")
SMALLEST = 1 << 30


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
        make = [tools.program(f"mkfs.{kind}"), "-q", "-f"]
        ask(*make, *(["-m", "reflink=1"] if kind == "xfs" else []), image)
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
        ask("umount", mounted)
    image.unlink(missing_ok=True)
    if place.is_dir():
        place.rmdir()


def mounts_below(place: Path) -> list[Path]:
    """What is mounted at a place and below it, the innermost first."""
    lines = Path("/proc/self/mounts").read_text().splitlines()
    found = [Path(line.split()[1].replace("\\040", " ")) for line in lines]
    return sorted((m for m in found if m.is_relative_to(place)), reverse=True)


def clear(folder: Path) -> None:
    """Remove a folder with all that is in it; gone already is fine."""
    if folder.is_dir():
        shutil.rmtree(folder)
