"""The images of database engines that only the tests of their drivers need, built locally."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import urllib.request
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from setup.base_images import DEBIAN, RECIPES, TOGETHER, build, exists
from setup.steps import TOOLS, SetupError, Stopwatch, say

OFFICIAL_DEBIAN = "debian:12-slim"
CENTRAL = "https://repo1.maven.org/maven2"


@dataclass(frozen=True)
class EngineImage:
    """`files`: what the recipe copies into the image, as path in Maven Central -> sha256."""

    name: str
    recipe: str
    files: Mapping[str, str] = field(default_factory=dict)


IMAGES = [
    EngineImage("lockstep-base/mariadb:10.11", "mariadb"),
    EngineImage(
        "lockstep-base/questdb:9.3.4",
        "questdb",
        {
            "org/questdb/questdb/9.3.4/questdb-9.3.4.jar": (
                "939bc53ab22f93dbaa6545143a6e7c536d4904c07b7f2d381e8eef10436be062"
            ),
            "org/questdb/questdb-client/1.0.1/questdb-client-1.0.1.jar": (
                "c0451aafa50502cc03c2cde6ad24c37a7c05cefc53317510d5a1e8e0911c7cf4"
            ),
        },
    ),
]


def ensure() -> None:
    """Build what is missing. Raises SetupError when one cannot be built."""
    missing = [image for image in IMAGES if not exists(image.name)]
    if not missing:
        return
    watch = Stopwatch()
    say(f"building {', '.join(image.name for image in missing)} for the tests ...")
    # Set-up made a Debian image where it could pull none.
    base = DEBIAN if exists(DEBIAN) else OFFICIAL_DEBIAN
    with ThreadPoolExecutor(TOGETHER) as pool:
        list(pool.map(lambda image: make(image, base), missing))
    say(f"the images for the tests are built ({watch})")


def make(image: EngineImage, base: str) -> None:
    with tempfile.TemporaryDirectory(prefix="lockstep-") as folder:
        context = Path(folder) / image.recipe
        shutil.copytree(RECIPES / image.recipe, context)
        for path, sha256 in image.files.items():
            shutil.copy(download(path, sha256), context)
        build(context, image.name, base)


def download(path: str, sha256: str, registry: str = CENTRAL) -> Path:
    """A registry's file, kept in .tools. Raises SetupError when it is not that content."""
    file = TOOLS / path.rsplit("/", 1)[-1]
    if not file.exists():
        TOOLS.mkdir(exist_ok=True)
        draft = file.with_suffix(".new")
        try:
            with urllib.request.urlopen(f"{registry}/{path}", timeout=120) as there:
                draft.write_bytes(there.read())
        except OSError as error:
            raise SetupError(f"{registry}/{path} cannot be downloaded: {error}") from None
        draft.replace(file)
    found = hashlib.sha256(file.read_bytes()).hexdigest()
    if found != sha256:
        file.unlink()
        raise SetupError(f"{registry}/{path} is not what it was: its sha256 is {found}")
    return file
