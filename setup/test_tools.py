"""`python3 -m setup.test_tools`: programs, files and images that only the tests need."""

from __future__ import annotations

import os
import shutil
import sys
import tarfile

from setup import test_images
from setup.steps import TOOLS, SetupError, apt_install, say

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
    "chromium": "chromium",
}
PLACES = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])

NPM = "https://registry.npmjs.org"
AXE = "axe-core/-/axe-core-4.14.1.tgz"
AXE_SHA256 = "e6b0ce02b84d892e2e33e403485e7f3d6c29e2be6df65daf44d89ba564139745"
AXE_SCRIPT = TOOLS / "axe.min.js"
"""The checker of accessibility that runs inside a page."""


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


def ensure_axe() -> None:
    """Raises SetupError when it cannot be had."""
    if AXE_SCRIPT.exists():
        return
    with tarfile.open(test_images.download(AXE, AXE_SHA256, NPM)) as package:
        script = package.extractfile("package/axe.min.js")
        assert script is not None
        AXE_SCRIPT.write_bytes(script.read())


if __name__ == "__main__":
    try:
        ensure()
        ensure_axe()
        test_images.ensure()
    except SetupError as error:
        sys.exit(f"set-up: {error}")
