"""`python3 -m setup.guard_image`: the image in which `lockstep guard` can run as a container.

It is our base image with the code of this clone and the libraries of its virtual environment, so
neither a registry nor a package index is asked. Docker's command and the Compose plugin of this
host go in as well: the guard makes containers that are missing.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

from setup.steps import SetupError, Stopwatch, say

IMAGE = "lockstep-guard"
BASE = "lockstep-base/python:3"
ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("cli", "engine", "failpoints", "reconciler", "snapshots")
PLUGIN_FOLDERS = (
    ROOT / ".tools" / "docker-config" / "cli-plugins",
    Path.home() / ".docker" / "cli-plugins",
    Path("/usr/local/lib/docker/cli-plugins"),
    Path("/usr/local/libexec/docker/cli-plugins"),
    Path("/usr/lib/docker/cli-plugins"),
    Path("/usr/libexec/docker/cli-plugins"),
)
RECIPE = """\
FROM {base}
COPY lockstep /usr/local/lib/lockstep
COPY docker /usr/local/bin/docker
COPY docker-compose /usr/local/lib/docker/cli-plugins/docker-compose
ENV PYTHONPATH=/usr/local/lib/lockstep PYTHONDONTWRITEBYTECODE=1
ENTRYPOINT ["python3", "-P", "-m", "cli.main"]
"""


def build() -> None:
    """Make the image. Raises SetupError when something that goes into it is not here."""
    watch = Stopwatch()
    with tempfile.TemporaryDirectory(prefix="lockstep-") as folder:
        context = Path(folder)
        (context / "Dockerfile").write_text(RECIPE.format(base=BASE))
        shutil.copy(_program(), context / "docker")
        shutil.copy(_plugin(), context / "docker-compose")
        _copy_code(context / "lockstep")
        _docker_build(context)
    say(f"the image {IMAGE} is built ({watch})")


def _copy_code(to: Path) -> None:
    for package in PACKAGES:
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / package, to / package, ignore=ignored)
    for library in sorted(_libraries()):
        found = metadata.distribution(library)
        for file in found.files or ():
            source = Path(str(found.locate_file(file)))
            if ".." in file.parts or file.suffix == ".pyc" or not source.is_file():
                continue
            (to / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, to / file)


def _libraries() -> set[str]:
    """What the product needs, and what that needs, as it is installed here."""
    seen: set[str] = set()
    waiting = [Requirement(line) for line in _needs_of_product()]
    while waiting:
        needed = waiting.pop()
        if needed.marker and not needed.marker.evaluate({"extra": ""}):
            continue
        key = needed.name.lower().replace("_", "-")
        if key in seen:
            continue
        seen.add(key)
        try:
            waiting += [Requirement(line) for line in metadata.requires(needed.name) or ()]
        except metadata.PackageNotFoundError:
            raise SetupError(f"{needed.name} is not installed here: make setup") from None
    return seen


def _needs_of_product() -> list[str]:
    with (ROOT / "pyproject.toml").open("rb") as file:
        return list(tomllib.load(file)["project"]["dependencies"])


def _program() -> Path:
    found = shutil.which("docker")
    if found is None:
        raise SetupError("the docker command is missing: make setup")
    return Path(found).resolve()


def _plugin() -> Path:
    for folder in PLUGIN_FOLDERS:
        if (folder / "docker-compose").is_file():
            return (folder / "docker-compose").resolve()
    raise SetupError("the Compose plugin is missing: make setup")


def _docker_build(context: Path) -> None:
    # The classic builder: BuildKit needs a plugin that may be missing.
    done = subprocess.run(
        ["docker", "build", "--quiet", "--tag", IMAGE, str(context)],
        capture_output=True,
        text=True,
        timeout=600,
        env={**os.environ, "DOCKER_BUILDKIT": "0"},
    )
    if done.returncode != 0:
        raise SetupError(f"the image {IMAGE} cannot be built: {done.stderr.strip()[-500:]}")


if __name__ == "__main__":
    try:
        build()
    except SetupError as error:
        sys.exit(f"set-up: {error}")
