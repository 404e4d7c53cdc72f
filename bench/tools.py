"""The peers and the file system tools: installed where they are missing, from Debian's packages."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress

from bench.errors import BenchError
from bench.machine import ask
from setup.steps import SetupError, apt_install

PACKAGES = {
    "restic": "restic",
    "borg": "borgbackup",
    "mkfs.ext4": "e2fsprogs",
    "mkfs.xfs": "xfsprogs",
    "mkfs.btrfs": "btrfs-progs",
    "losetup": "mount",
}
_PLACES = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])


def ensure() -> None:
    """Raises BenchError when something is missing and cannot be installed."""
    if os.geteuid() != 0:
        raise BenchError("the bench mounts file systems and empties the page cache: run it as root")
    missing = [p for program, p in PACKAGES.items() if shutil.which(program, path=_PLACES) is None]
    if not missing:
        return
    try:
        apt_install(missing)
    except SetupError as error:
        raise BenchError(
            f"the peers cannot be installed; install {', '.join(missing)}: {error}"
        ) from None


def program(name: str) -> str:
    """The full path of a program that `ensure` found or installed."""
    found = shutil.which(name, path=_PLACES)
    if found is None:
        raise BenchError(f"{name} is not installed")
    return found


def versions() -> dict[str, str]:
    """Name -> version of each peer, as it says itself."""
    said = {}
    for name, argv in {
        "tar": ("tar", "--version"),
        "cp": ("cp", "--version"),
        "restic": ("restic", "version"),
        "borg": ("borg", "--version"),
    }.items():
        with suppress(BenchError, IndexError):
            first = ask(*argv).splitlines()[0]
            words = [w for w in first.split() if w[:1].isdigit()]
            said[name] = words[0]
    return said
