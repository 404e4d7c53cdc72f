"""The image of the helper container: a Python that is here already, with our code for folders.

It is made of files of this installation alone, so no registry and no network is needed. It is used
by its id, which is the hash of its content: whoever moves its tag changes nothing for us.
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import os
import py_compile
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
from collections.abc import Iterator
from functools import cache
from importlib import metadata
from pathlib import Path

from reconciler.docker import Docker
from reconciler.errors import DockerFailed, Unavailable
from reconciler.host.process import CODE

BASE = "lockstep-base/python:3"
"""Set-up pulls or builds it."""
REPOSITORY = "lockstep-helper"
LABEL = "lockstep.helper.content"
PACKAGES = ("failpoints", "snapshots")
WHEELS = ("backports.zstd", "blake3", "cffi", "cryptography", "zstandard")
"""What `snapshots` needs of others, as it is installed here from the lock file."""
HOME = "/usr/local/lib/lockstep"

_BUILD_SECONDS = 300
_TELL = "import sysconfig; print(sysconfig.get_config_var('SOABI'))"


def ensure(docker: Docker) -> str:
    """The id of the image with exactly this code, built if the daemon has none.

    Raises Unavailable when there is no base image, or one of another Python.
    """
    return _ensured(docker, docker.info.id)


@cache
def _ensured(docker: Docker, daemon: str) -> str:
    base = docker.image(BASE)
    if base is None:
        raise Unavailable(
            f"the helper container needs the image {BASE}, which is not there",
            next_step="make setup   (in a clone of Lockstep) pulls or builds it",
        )
    content = content_of(base.id)
    note = _note(daemon, content)
    note.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    # One builds, the others wait: two builds of the same files are two images.
    with open(note, "a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        known = file.read().strip()
        if known.startswith("sha256:") and docker.image(known) is not None:
            return known
        _insist_on_same_python(docker, base.id)
        made = _build(docker, base.id, content)
        file.truncate(0)
        file.write(made)
        return made


def _note(daemon: str, content: str) -> Path:
    """Where the id of the image with this content is remembered, for this user and daemon: a tag
    would be anybody's to move."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    where = hashlib.sha256(daemon.encode()).hexdigest()[:8]
    return cache / "lockstep" / f"helper-{content}-{where}"


def content_of(base: str) -> str:
    """A name for all that is in the image: another code is another image."""
    digest = hashlib.sha256(f"{_recipe(base)}{sys.version}".encode())
    for name, path in _sources():
        digest.update(b"%s\0%s" % (name.encode(), hashlib.sha256(path.read_bytes()).digest()))
    for wheel in WHEELS:
        digest.update((metadata.distribution(wheel).read_text("RECORD") or "").encode())
    return digest.hexdigest()[:24]


def _sources() -> Iterator[tuple[str, Path]]:
    """(path in the image, path here) of our own modules."""
    for package in PACKAGES:
        for path in sorted((CODE / package).rglob("*.py")):
            yield str(path.relative_to(CODE)), path


def _files() -> Iterator[tuple[str, bytes]]:
    """(path in the image, content) of our modules, compiled, too, and of what they need."""
    for name, path in _sources():
        yield name, path.read_bytes()
        cached = Path(name).parent / "__pycache__" / f"{path.stem}.{_tag()}.pyc"
        yield str(cached), _compiled(path)
    for wheel in WHEELS:
        found = metadata.distribution(wheel)
        for file in found.files or ():
            path = Path(str(found.locate_file(file)))
            if file.suffix in (".py", ".so") and ".." not in file.parts and path.is_file():
                yield str(file), path.read_bytes()
                if file.suffix == ".py":
                    cached = Path(file).parent / "__pycache__" / f"{path.stem}.{_tag()}.pyc"
                    yield str(cached), _compiled(path)


def _tag() -> str:
    return str(sys.implementation.cache_tag)


def _compiled(path: Path) -> bytes:
    """The container cannot write what it compiles, and would compile it at each start."""
    with tempfile.TemporaryDirectory(prefix="lockstep-") as folder:
        made = py_compile.compile(
            str(path),
            cfile=str(Path(folder) / "made.pyc"),
            dfile=f"{HOME}/{path.parent.name}/{path.name}",
            doraise=True,
            invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
        )
        return Path(str(made)).read_bytes()


def _recipe(base: str, content: str = "") -> str:
    return (
        f"FROM {base}\n"
        f"COPY lib {HOME}\n"
        f"ENV PYTHONPATH={HOME} PYTHONDONTWRITEBYTECODE=1 TMPDIR=/tmp\n"
        f"LABEL {LABEL}={content}\n"
        'USER 0\nWORKDIR /\nENTRYPOINT ["python3", "-s", "-m", "snapshots.serve"]\n'
    )


def _insist_on_same_python(docker: Docker, base: str) -> None:
    ours = sysconfig.get_config_var("SOABI")
    said = docker.ask(base, ["python3", "-c", _TELL]).stdout.strip()
    if said != ours:
        raise Unavailable(
            f"the helper container cannot be made: the Python of {BASE} is {said or 'missing'}, "
            f"this one is {ours}, and compiled modules of one do not load in the other",
            next_step=f"an environment with {said.split('-')[1] if '-' in said else 'its'} "
            "Python (3.11 is 311), or another base image of that name",
        )


def _build(docker: Docker, base: str, content: str) -> str:
    done = subprocess.run(
        ["docker", "build", "--quiet", "--pull=false", "--network", "none",
         "--tag", f"{REPOSITORY}:{content}", "-"],
        input=_context(base, content),
        env={**docker.cli_environment, "DOCKER_BUILDKIT": "0"},
        capture_output=True,
        timeout=_BUILD_SECONDS,
        check=False,
    )  # fmt: skip
    made = done.stdout.decode(errors="replace").strip()
    if done.returncode != 0 or not made.startswith("sha256:"):
        said = done.stderr.decode(errors="replace").strip()[-500:]
        raise DockerFailed(f"the image of the helper container cannot be built: {said}")
    return made


def _context(base: str, content: str) -> bytes:
    """What `docker build` reads: the recipe and the files, with nothing of this moment in it."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as tar:
        inside = {f"lib/{name}": body for name, body in _files()}
        for name, body in {"Dockerfile": _recipe(base, content).encode(), **inside}.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(body), 0o644
            tar.addfile(entry, io.BytesIO(body))
    return made.getvalue()
