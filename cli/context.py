"""What a command works on: the project, its stack, the stack's config, catalog and Docker."""

from __future__ import annotations

import difflib
import hashlib
import json
import os
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reconciler.errors import BadInput, LockstepError, Refused

if TYPE_CHECKING:
    import typer

    from cli.backend import Backend
    from engine.project import Project
    from reconciler.catalog import Catalog
    from reconciler.config import Stack
    from reconciler.docker import Compose, Docker

PASSPHRASE = Path(".lockstep") / "passphrase"


@dataclass(frozen=True)
class Common:
    """The options that all commands share."""

    cwd: Path = Path()
    stack: str | None = None
    quiet: bool = False


class Context:
    """One stack of the project that the command was started in; everything is found when asked."""

    def __init__(self, common: Common) -> None:
        self.common = common

    @classmethod
    def of(cls, context: typer.Context) -> Context:
        """The context of a command."""
        return cls(context.find_root().obj)

    @cached_property
    def project(self) -> Project:
        """Raises BadInput when no Pulumi.yaml is in the folder or above it."""
        from engine.project import Project

        return Project.find(find_root(self.common.cwd))

    @cached_property
    def stack_name(self) -> str:
        """Raises BadInput when it cannot be told which stack is meant."""
        return choose_stack(
            self.common.stack,
            os.environ.get("PULUMI_STACK"),
            selected(self.project.name, self.project.root),
            known_stacks(self.project),
        )

    @cached_property
    def backend(self) -> Backend:
        """Pulumi, the official one or the embedded engine."""
        from cli import backend

        offer_passphrase(self.project.root)
        return backend.open_backend(self.project, self.stack_name)

    @cached_property
    def stack(self) -> Stack:
        """The stack's settings. Raises BadInput for a setting that cannot be used."""
        return read_stack(self.project, self.stack_name, self.backend.config())

    @property
    def settings_file(self) -> Path:
        """Pulumi.<stack>.yaml."""
        return self.project.stack_file(self.stack_name)

    @cached_property
    def catalog(self) -> Catalog:
        from reconciler.catalog import Catalog

        found = Catalog(self.stack)
        found.insist_private()
        return found

    @cached_property
    def reach(self) -> str:
        """How volumes are reached, as the stack's config says; outside of a stack: as it fits."""
        try:
            return self.stack.settings.reach
        except LockstepError:
            return "auto"

    @cached_property
    def docker(self) -> Docker:
        from reconciler import docker

        return docker.connect(self.reach)

    @cached_property
    def compose(self) -> Compose:
        from reconciler.docker import Compose

        return Compose(self.project.root)

    def say(self, text: str) -> None:
        """A line for the person, unless they asked for quiet."""
        from reconciler.masking import masked

        if not self.common.quiet:
            print(masked(text), file=sys.stderr, flush=True)

    def progress(self, text: str) -> None:
        """One step of work under way."""
        self.say(f"  {text}")


def find_root(start: Path) -> Path:
    """The folder of the Pulumi.yaml that `start` is in or below. Raises BadInput."""
    folder = start.resolve()
    if not folder.is_dir():
        raise BadInput(f"{start} is not a folder")
    for candidate in (folder, *folder.parents):
        if (candidate / "Pulumi.yaml").is_file() or (candidate / "Pulumi.yml").is_file():
            return candidate
    raise BadInput(
        f"no Pulumi.yaml in {folder} or above it",
        next_step="lockstep init   makes one, in the folder of a compose file",
    )


def known_stacks(project: Project) -> list[str]:
    """The project's stacks, as far as this host can tell without the official CLI."""
    from engine.errors import NotInEngine

    try:
        return project.stacks()
    except NotInEngine:
        # The state is kept elsewhere: the settings files still tell the names.
        found = project.stack_file("*").parent.glob("Pulumi.*.yaml")
        return sorted(path.name[len("Pulumi.") : -len(".yaml")] for path in found)


def choose_stack(
    asked: str | None, environment: str | None, chosen: str | None, known: Sequence[str]
) -> str:
    """The stack that is meant: the option, PULUMI_STACK, the selected one, or the only one.

    Raises BadInput when there is none of that name, none at all, or several.
    """
    for wanted in (asked, environment):
        if wanted:
            name = wanted.rpartition("/")[2]
            if name not in known:
                raise BadInput(
                    f"there is no stack {name} in this project{nearest(name, known)}",
                    next_step="lockstep stack ls   shows the stacks there are",
                )
            return name
    if chosen in known:
        return str(chosen)
    if not known:
        raise BadInput("this project has no stack yet", next_step="lockstep init   makes one")
    if len(known) > 1:
        raise BadInput(
            f"this project has several stacks: {', '.join(known)}",
            next_step="say which one: --stack NAME, or PULUMI_STACK=NAME",
        )
    return known[0]


def selected(project: str, root: Path) -> str | None:
    """The stack that `pulumi stack select` chose for this folder."""
    try:
        stack = json.loads(_workspace_file(project, root).read_text()).get("stack")
    except (OSError, ValueError, AttributeError):
        return None
    return stack.rpartition("/")[2] if isinstance(stack, str) and stack else None


def select(project: str, root: Path, stack: str) -> None:
    """What `pulumi stack select` does for this folder, for either engine."""
    path = _workspace_file(project, root)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.write_text(json.dumps({"stack": stack}))


def _workspace_file(project: str, root: Path) -> Path:
    """Where Pulumi keeps what `pulumi stack select` chose for this folder."""
    home = Path(os.environ.get("PULUMI_HOME") or Path.home() / ".pulumi")
    name = "Pulumi.yml" if (root / "Pulumi.yml").is_file() else "Pulumi.yaml"
    digest = hashlib.sha1(str(root / name).encode(), usedforsecurity=False).hexdigest()
    return home / "workspaces" / f"{project}-{digest}-workspace.json"


def offer_passphrase(root: Path) -> None:
    """Let either engine use the project's own passphrase file, where the user set none."""
    given = {"PULUMI_CONFIG_PASSPHRASE", "PULUMI_CONFIG_PASSPHRASE_FILE"} & os.environ.keys()
    if not given and (root / PASSPHRASE).is_file():
        from snapshots import private

        wrong = private.complaint((root / PASSPHRASE).parent)
        if wrong is not None:
            why, _, command = wrong.partition(": ")
            raise Refused(f"the passphrase is not private: {why}", next_step=command)
        os.environ["PULUMI_CONFIG_PASSPHRASE_FILE"] = str(root / PASSPHRASE)


def read_stack(project: Project, name: str, config: Mapping[str, Any]) -> Stack:
    """The stack's settings from its Pulumi config (`shop:release` -> value)."""
    from reconciler import config as settings

    return settings.read(project.name, name, project.root, own_values(project.name, config))


def own_values(project: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """The project's own keys without their prefix; JSON text of objects and lists is read."""
    prefix = f"{project}:"
    return {
        key.removeprefix(prefix): _structured(value)
        for key, value in config.items()
        if key.startswith(prefix)
    }


def _structured(value: Any) -> Any:
    if isinstance(value, str) and value[:1] in ("{", "["):
        try:
            return json.loads(value)
        except ValueError:
            return value
    return value


def replace_file(path: Path, content: bytes) -> None:
    """Give a file of the user other content, whole or not at all; its mode stays. A new one is
    readable to its owner alone."""
    draft = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        draft.touch(mode=0o600)
        draft.write_bytes(content)
        if path.exists():
            draft.chmod(path.stat().st_mode & 0o777)
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


def nearest(name: str, known: Collection[str]) -> str:
    """`; the nearest are prod-001, prod-002`, or nothing where nothing is near."""
    near = difflib.get_close_matches(name, sorted(known), n=3, cutoff=0.5)
    if not near:
        return ""
    return f"; the nearest {'is' if len(near) == 1 else 'are'} {', '.join(near)}"


def check_release(name: str, stack: str, known: Collection[str], pruned: Collection[str]) -> None:
    """Raises BadInput unless there is such a release: its form, the pruned ones, the nearest."""
    from reconciler import names

    if name in known:
        return
    if name in pruned:
        raise BadInput(
            f"{name} was pruned: it left the window, and its record and data are gone",
            next_step="lockstep list   shows the releases there are",
        )
    near = nearest(name, known)
    try:
        names.check_release_of_stack(name, stack)
    except BadInput as error:
        raise BadInput(f"{error.message}{near}", next_step=error.next_step) from None
    raise BadInput(
        f"there is no release {name}{near}",
        next_step="lockstep list   shows the releases there are",
    )
