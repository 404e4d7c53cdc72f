"""The images that demo and tests stand on: official ones if they can be pulled, else local ones.

Either way they have the same names afterwards: lockstep-base/postgres:15, lockstep-base/redis:7,
lockstep-base/python:3 (Python with the clients of both) and lockstep-base/haproxy:2, which is also
what a stack's ingress runs unless its config names another.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from setup.steps import SetupError, Stopwatch, answer, apt_install, run, say

RECIPES = Path(__file__).parent / "images"
DEBIAN = "lockstep-base/debian:12"
FIRST_PULL_SECONDS = 90
PULL_SECONDS = 600
TOGETHER = 2
"""Images that are built at once: half of a build is waiting for packages."""


@dataclass(frozen=True)
class BaseImage:
    name: str
    official: str
    recipe: str
    always_built: bool = False


IMAGES = [
    BaseImage("lockstep-base/redis:7", "redis:7", "redis"),
    BaseImage("lockstep-base/postgres:15", "postgres:15", "postgres"),
    BaseImage("lockstep-base/haproxy:2", "haproxy:2.8", "haproxy"),
    BaseImage("lockstep-base/python:3", "python:3.11-slim", "python", always_built=True),
]


def ensure() -> None:
    """Raises SetupError when an image can neither be pulled nor built."""
    missing = [image for image in IMAGES if not exists(image.name)]
    if not missing:
        return
    watch = Stopwatch()
    say(f"getting the base images {', '.join(image.official for image in missing)} ...")
    if pull_all(missing):
        for image in missing:
            take_official(image)
        say(f"the base images were pulled ({watch})")
        return
    say("no image registry can be reached: building them from Debian packages ...")
    if not exists(DEBIAN):
        import_debian()
    with ThreadPoolExecutor(TOGETHER) as pool:
        list(pool.map(lambda i: build(RECIPES / i.recipe, i.name, DEBIAN), missing))
    say(f"the base images are built ({watch})")


def exists(name: str) -> bool:
    return answer(["docker", "image", "inspect", "--format", "{{.Id}}", name]) is not None


def pull_all(images: Sequence[BaseImage]) -> bool:
    """One attempt; the first image decides soon whether a registry can be reached at all."""
    limit = FIRST_PULL_SECONDS
    for image in images:
        if answer(["docker", "pull", "--quiet", image.official], timeout=limit) is None:
            return False
        limit = PULL_SECONDS
    return True


def take_official(image: BaseImage) -> None:
    if image.always_built:
        build(RECIPES / image.recipe, image.name, image.official)
    else:
        run(["docker", "tag", image.official, image.name], timeout=30)


def build(recipe: Path, name: str, base: str) -> None:
    # The classic builder is asked for because BuildKit needs a plugin that may be missing; the
    # host's network because the default bridge has no name server on some hosts.
    run(
        [
            "docker", "build", "--network", "host", "--build-arg", f"BASE={base}",
            "--tag", name, str(recipe),
        ],
        timeout=900,
        env={"DOCKER_BUILDKIT": "0"},
    )  # fmt: skip


def import_debian() -> None:
    """A minimal Debian 12 as image, from its packages. Needs root and apt-get."""
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise SetupError(
            "no image registry can be reached, and building base images from Debian packages "
            "needs root on Debian or Ubuntu; let this host pull "
            + ", ".join(image.official for image in IMAGES)
        )
    if shutil.which("mmdebstrap") is None:
        apt_install(["mmdebstrap", "debian-archive-keyring"])
    with tempfile.TemporaryDirectory(prefix="lockstep-") as folder:
        tarball = Path(folder) / "debian.tar"
        run(
            ["mmdebstrap", "--variant=minbase", "bookworm", str(tarball),
             "http://deb.debian.org/debian"],
            timeout=600,
        )  # fmt: skip
        # `docker import` of a file through the client: the daemon may be on another file system.
        with tarball.open("rb") as content:
            done = subprocess.run(
                ["docker", "import", "--change", 'CMD ["bash"]', "-", DEBIAN],
                stdin=content,
                capture_output=True,
                text=True,
                timeout=300,
            )
    if done.returncode != 0:
        raise SetupError(f"`docker import` failed: {done.stderr.strip()}")
