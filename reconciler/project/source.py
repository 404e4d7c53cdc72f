"""The project's own files: its compose model as it is now, and what it mounts from its folder."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from reconciler.config import Stack
from reconciler.docker import Compose
from reconciler.errors import BadInput
from reconciler.project import compose, definition
from reconciler.project.compose import Unfit
from reconciler.project.definition import CONFIG_BYTES, CONFIG_FILES, Definition, Found


def files(stack: Stack) -> list[Path]:
    """The compose folder, or the compose files in order, as absolute paths."""
    return [(stack.root / place).resolve() for place in stack.settings.compose]


def folder(stack: Stack) -> Path:
    """The compose project's folder."""
    first = files(stack)[0]
    return first if first.is_dir() else first.parent


def environment(stack: Stack) -> dict[str, str]:
    """What Compose interpolates: the settings' values, and placeholders for the secrets."""
    hidden = {name: compose.placeholder(name) for name in stack.secret_values}
    return {**stack.settings.environment, **hidden}


def read_model(
    stack: Stack, composer: Compose, warn: Callable[[str], None] = lambda _: None
) -> dict[str, Any]:
    """The compose model as it is now, with placeholders. Raises BadInput."""
    model = composer.model(
        files(stack),
        project=stack.project,
        env=environment(stack),
        profiles=stack.settings.profiles,
        warn=warn,
    )
    _hide_what_env_files_give(model, stack.secret_values)
    return model


def _hide_what_env_files_give(model: dict[str, Any], secrets: Mapping[str, str]) -> None:
    """A service that has a secret's variable from an `env_file`, as it stands in the config, gets
    it from the config: Compose has put the file's value into the model."""
    for body in compose.services(model).values():
        environment = body.get("environment") or {}
        for name in secrets.keys() & environment.keys():
            if compose.plain(environment[name]) == secrets[name]:
                environment[name] = compose.placeholder(name)


def hashes(stack: Stack, composer: Compose) -> dict[str, str]:
    """service -> Compose's hash of its definition as it is now, with the secrets' own values."""
    return composer.hashes(
        files(stack),
        project=stack.project,
        env=stack.settings.environment,
        secrets=stack.secret_values,
        profiles=stack.settings.profiles,
    )


def define(
    stack: Stack,
    model: Mapping[str, Any],
    image_volumes: Mapping[str, Sequence[str]],
    place: Callable[[str, str | None], Path | None] = lambda _name, _source: None,
) -> Definition:
    """The definition of a release from its model and what its mounts hold now.

    `place`: a dataset's name and source -> the folder (on this host) with its data, if it is known.
    """
    with _by_line(stack):
        return definition.define(
            model,
            stack.settings,
            roots=[folder(stack), stack.root.resolve()],
            look=look,
            image_volumes=image_volumes,
            detect=detect,
            looks_like=lambda name, source: looks_like(place(name, source)),
        )


def insist_on_services(stack: Stack, model: Mapping[str, Any]) -> None:
    """Raises BadInput, with file and line, for what no world can honour: to be asked before
    images are built or pulled."""
    with _by_line(stack):
        definition.insist_on_services(model)


@contextmanager
def _by_line(stack: Stack) -> Iterator[None]:
    """What the compose file says and cannot be honoured is named by file and line."""
    try:
        yield
    except Unfit as unfit:
        from reconciler.project import lines

        where = lines.place(stack, *unfit.at, holding=unfit.holding)
        raise BadInput(f"{unfit.message}{where}", next_step=unfit.next_step) from None


def detect(image: str, target: str) -> str:
    """The name of the driver for what an image keeps at a mount target."""
    from snapshots import drivers

    return drivers.detect(image, target).name


def looks_like(path: Path | None) -> str:
    """The name of the driver for what lies in a folder."""
    from reconciler.reaching import reach

    return reach.looks_like(path).name if path is not None else definition.DIRECTORY_DRIVER


def look(path: Path) -> Found:
    """What lies at the source of a bind mount, with content if it can be a config file."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return Found("missing")
    except OSError as error:
        raise BadInput(
            f"{path}, which a service mounts, cannot be read: {error.strerror}"
        ) from None
    if stat.S_ISDIR(found.st_mode):
        return _folder(path)
    return _file(path, found) if stat.S_ISREG(found.st_mode) else Found("other")


def _file(path: Path, found: os.stat_result) -> Found:
    mode = stat.S_IMODE(found.st_mode)
    if found.st_size > CONFIG_BYTES:
        return Found("file", mode=mode, simple=False)
    try:
        return Found("file", path.read_bytes(), mode)
    except OSError as error:
        raise BadInput(
            f"{path}, which a service mounts, cannot be read: {error.strerror}"
        ) from None


def _folder(path: Path) -> Found:
    """A folder; `simple` only if it is a few small regular files."""
    found: dict[str, Found] = {}
    left = CONFIG_BYTES
    for parent, folders, names in os.walk(path):
        for name in [*folders, *names]:
            here = Path(parent) / name
            status = here.lstat()
            if stat.S_ISDIR(status.st_mode):
                continue
            left -= status.st_size
            if not stat.S_ISREG(status.st_mode) or left < 0 or len(found) >= CONFIG_FILES:
                return Found("directory", simple=False)
            found[str(here.relative_to(path))] = _file(here, status)
    return Found("directory", files=found)
