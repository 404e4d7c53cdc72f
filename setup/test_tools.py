"""`python3 -m setup.test_tools`: programs and images that only the tests need, where missing."""

from __future__ import annotations

import os
import shutil
import sys

from setup import test_images
from setup.steps import SetupError, apt_install, say

PACKAGES = {
    "mkfs.xfs": "xfsprogs",
    "mkfs.btrfs": "btrfs-progs",
    "setfacl": "acl",
    "setfattr": "attr",
    "setcap": "libcap2-bin",
    "fusermount3": "fuse3",
    "shellcheck": "shellcheck",
    "strace": "strace",
    "newuidmap": "uidmap",
    "rootlesskit": "rootlesskit",
    "slirp4netns": "slirp4netns",
    "restic": "restic",
    "borg": "borgbackup",
    "faketime": "faketime",
}
PLACES = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])


def missing() -> list[str]:
    """The Debian packages whose programs are not here."""
    return [pkg for program, pkg in PACKAGES.items() if shutil.which(program, path=PLACES) is None]


def ensure() -> None:
    """Install what is missing. Without root and apt-get, tests that need it say so and skip."""
    packages = missing()
    if not packages:
        return
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        say(f"tests that need {', '.join(packages)} are skipped: install them to run all")
        return
    say(f"installing {', '.join(packages)} for the tests ...")
    apt_install(packages)


if __name__ == "__main__":
    try:
        ensure()
        test_images.ensure()
    except SetupError as error:
        sys.exit(f"set-up: {error}")
