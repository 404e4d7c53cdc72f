"""What a folder with a compose file has, read without changing anything."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cli.context import offer_passphrase, read_stack
from cli.envfile import read_env, secrets_in
from reconciler.errors import LockstepError

if TYPE_CHECKING:
    from cli.backend import Backend
    from cli.findings import FoundDataset, Proof, Room
    from reconciler.config import Stack
    from reconciler.docker import Docker, ImageInfo, Listed
    from reconciler.project.definition import Definition

COMPOSE_FILES = ("compose.yaml", "compose.yml", "docker-compose.yml", "docker-compose.yaml")
WORKING_DIR = "com.docker.compose.project.working_dir"


class Folder:
    """A folder with a compose file, and the stack that it has or will have."""

    def __init__(self, root: Path, stack: str) -> None:
        self.root = root
        self.stack = stack
        self.name = ""
        """The project's; "" until it is chosen."""
        self.compose_file = next((root / n for n in COMPOSE_FILES if (root / n).is_file()), None)

    def findings(self) -> Iterator[str]:
        """What is there, in lines for the person."""
        from cli import findings

        if self.compose_file is not None:
            yield f"compose file: {self.compose_file}"
        definition = self.definition
        if definition is not None:
            services = sorted(definition.model.get("services", {}))
            yield f"services: {', '.join(services)}"
            yield from findings.dataset_lines(self.datasets)
            yield self.proof.says
        for warning in self.warnings:
            yield f"warning: {warning}"
        if self.room is not None:
            yield from findings.room_lines(self.room)
        if self.is_reconciled:
            yield "running: what `lockstep list` calls live"
        elif self.running:
            number = len(self.running)
            yield (
                f"running: {number} container{'s' if number > 1 else ''} of project {self.name}; "
                f"the first up adopts what runs as {self.stack}-000, with its data: it is stopped "
                "then, gets restart: no, and stays for a rollback"
            )
        else:
            yield f"running: nothing of project {self.name}"

    @cached_property
    def datasets(self) -> list[FoundDataset]:
        """What a release has of data, as far as that can be told."""
        from cli import findings

        return findings.datasets(self.declaration, self.definition) if self.definition else []

    @cached_property
    def warnings(self) -> tuple[str, ...]:
        """What works, but not as one may think."""
        from reconciler.project import jobs

        found = list(self.definition.warnings) if self.definition is not None else []
        if self.running and self.model is not None:
            found += jobs.unmarked(self.model, self.docker.containers(project=self.name))
        return tuple(found)

    @cached_property
    def room(self) -> Room | None:
        """Disk and file system; None where Docker's are not this host's, or nothing can be told."""
        from cli import findings

        with suppress(LockstepError, OSError):
            if self.docker.is_local:
                return findings.room(self.declaration, self.docker, self.definition)
        return None

    @property
    def is_reconciled(self) -> bool:
        """Whether Lockstep made something live here already."""
        return (self.declaration.releases / f"ledger-{self.stack}.jsonl").exists()

    def known_name(self) -> str | None:
        """The project's name in Pulumi.yaml, if there is one."""
        if not (self.root / "Pulumi.yaml").is_file():
            return None
        from engine.project import Project

        return Project.find(self.root).name

    @cached_property
    def docker(self) -> Docker:
        """Raises Unavailable."""
        from reconciler import docker

        return docker.connect()

    @cached_property
    def _listed(self) -> tuple[Listed, ...]:
        try:
            return self.docker.listing()
        except LockstepError as error:
            _warn(error.message)
            return ()

    @property
    def running(self) -> list[Listed]:
        """Running containers of the plain compose project."""
        return [c for c in self._containers if c.state == "running"]

    @cached_property
    def images(self) -> dict[str, ImageInfo]:
        """service -> its image, of those that are on this host already."""
        from reconciler.project import compose

        found = {}
        for service, body in compose.services(self.model or {}).items():
            reference = str(compose.plain(body.get("image") or f"{self.name}-{service}"))
            image = self.docker.image(reference)
            if image is not None:
                found[service] = image
        return found

    @cached_property
    def proof(self) -> Proof:
        """What proves a release; the gate to propose where nothing does."""
        from cli import findings

        if self.definition is None:
            return findings.Proof((), "")
        return findings.proof(self.declaration, self.definition, self.images)

    @property
    def _containers(self) -> list[Listed]:
        return [c for c in self._listed if c.project == self.name]

    def running_project(self) -> str | None:
        """The name under which this folder's compose project runs now."""
        here = str(self.root)
        found = {c.project for c in self._listed if c.labels.get(WORKING_DIR) == here}
        ours = {c.project for c in self._listed if "lockstep.world" in c.labels}
        plain = sorted(found - ours)
        return plain[0] if len(plain) == 1 else None

    @cached_property
    def declaration(self) -> Stack:
        """The stack as it is declared, or as it will be at first."""
        from reconciler.config import Settings, Stack

        if self.declared is not None:
            return self._with_new_secrets(self.declared)
        settings = Settings(secrets=secrets_in(self.root / ".env"))
        return Stack(project=self.name, name=self.stack, root=self.root, settings=settings)

    @cached_property
    def model(self) -> dict[str, Any] | None:
        """What the compose file says; None where that cannot be told yet, which is said."""
        from reconciler.docker import Compose
        from reconciler.project import source

        try:
            return source.read_model(self.declaration, Compose(self.root), _warn)
        except LockstepError as error:
            _warn(str(error))
            return None

    @cached_property
    def definition(self) -> Definition | None:
        """What a release of it would be; None where that cannot be told, which is said."""
        from reconciler.project import source
        from reconciler.world import places

        if self.model is None:
            return None
        try:
            source.insist_on_services(self.declaration, self.model)
            return source.define(
                self.declaration,
                self.model,
                {service: image.volumes for service, image in self.images.items()},
                partial(places.plain, self.docker, self.declaration),
            )
        except LockstepError as error:
            _warn(str(error))
            return None

    def backend(self) -> Backend:
        """The stack in Pulumi, which may not know it yet."""
        from cli import backend
        from engine.project import Project

        offer_passphrase(self.root)
        return backend.open_backend(Project.find(self.root), self.stack)

    @cached_property
    def declared(self) -> Stack | None:
        """What the stack's settings say already, if there are any."""
        from engine.project import Project

        files = ("Pulumi.yaml", f"Pulumi.{self.stack}.yaml")
        if not all((self.root / file).is_file() for file in files):
            return None
        return read_stack(Project.find(self.root), self.stack, self.backend().config())

    def new_secrets(self) -> dict[str, str]:
        """What looks like a secret in the .env file of the compose project and is not set yet."""
        from reconciler.project import source

        if self.declared is None:
            return secrets_in(self.root / ".env")
        known = self.declared.settings
        found = secrets_in(source.folder(self.declared) / ".env")
        return {k: v for k, v in found.items() if k not in {*known.secrets, *known.environment}}

    def _with_new_secrets(self, declared: Stack) -> Stack:
        known = declared.settings
        secret = {**self.new_secrets(), **known.secrets}
        return declared.model_copy(
            update={"settings": known.model_copy(update={"secrets": secret})}
        )


def _warn(text: str) -> None:
    print(f"warning: {text}", file=sys.stderr)


def compose_name(root: Path, environ: Mapping[str, str] = os.environ) -> str:
    """What Compose calls the project of a folder: COMPOSE_PROJECT_NAME, `name:`, the folder."""
    variable = "COMPOSE_PROJECT_NAME"
    named = environ.get(variable) or read_env(root / ".env").get(variable) or _name_in_file(root)
    return named or re.sub(r"[^-_a-z0-9]", "", root.name.lower()).lstrip("_-")


def _name_in_file(root: Path) -> str | None:
    """`name:` of the compose file; None when it has none, or one that only Compose can read."""
    import yaml

    file = next((root / n for n in COMPOSE_FILES if (root / n).is_file()), None)
    try:
        top = yaml.safe_load(file.read_text()) if file is not None else None
    except yaml.YAMLError:
        return None
    name = top.get("name") if isinstance(top, dict) else None
    return name if isinstance(name, str) and "$" not in name else None
