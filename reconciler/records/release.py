"""The record of a release: immutable, complete, without a secret in it."""

from __future__ import annotations

import os.path
from enum import StrEnum
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator


class Frozen(BaseModel):
    """A value object: unknown keys are refused, nothing changes after it was made."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Kind(StrEnum):
    """Where a dataset lives when the user runs plain compose."""

    VOLUME = "volume"
    BIND = "bind"
    EXTERNAL = "external"
    ANONYMOUS = "anonymous"


class Strategy(StrEnum):
    """Whether a new world gets its own generation or works on the data in place."""

    FORK = "fork"
    IN_PLACE = "in-place"


class Mount(Frozen):
    """One place where a service sees a dataset."""

    service: str
    target: str
    read_only: bool = False


class Dataset(Frozen):
    """One piece of state a release reads and writes; its name is its identity."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,80}$")
    kind: Kind
    driver: str
    strategy: Strategy = Strategy.FORK
    shared: bool = False
    source: str | None = Field(
        None,
        description="bind: the host path; volume and external: the volume's own name",
    )
    mounts: tuple[Mount, ...] = ()
    was: str | None = None
    stop_owner: bool = False


class Image(Frozen):
    """What a service runs: the tag that holds it, and the id that proves it."""

    service: str
    tag: str
    id: str
    digests: tuple[str, ...] = ()
    source: str = Field("", description="the reference in the compose file")
    bytes: int = 0


class Git(Frozen):
    """Where the source stood when the release was made."""

    commit: str = ""
    branch: str = ""
    dirty: bool = False


class ConfigFile(Frozen):
    """A file of the project that a service reads; its content lies beside the record."""

    path: str
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    mode: int = Field(0o444, ge=0, le=0o7777)

    @field_validator("path")
    @classmethod
    def _leads_nowhere_else(cls, path: str) -> str:
        """It is laid below a folder of ours, by root."""
        if not path.startswith("/") or os.path.normpath(path) != path or "\0" in path:
            raise ValueError(f"{path[:200]!r} is no absolute path without detours")
        return path


class Release(Frozen):
    """One release (`prod-003`), as it lies in releases/prod-003/release-info.json.

    `model` is Compose's own resolved model (its YAML form, `$` still doubled), in which every
    secret's value is replaced by its placeholder (compose.placeholder) and every bind-mounted
    file of the project stands in `configs`.
    """

    schema_version: Literal[1] = 1
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_]{0,30}-[0-9]{3,6}$")
    parent: str | None
    previous: str = Field("", description="sha256 of the record that was the newest until now")
    created: str
    created_by: str = ""
    description: str = ""
    git: Git = Git()
    model: dict[str, Any]
    images: dict[str, Image]
    datasets: dict[str, Dataset]
    configs: dict[str, ConfigFile] = {}
    secrets: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()
    migrations: dict[str, str] | None = Field(
        None, description="path -> sha256 of the files in the folders that the config names"
    )
    adopted: bool = Field(False, description="the compose project that ran before Lockstep came")
