"""`lockstep init`: a project and a stack in the folder of a compose file.

What is missing is found first, shown, asked about once, and then made; what is there stays as it
is, so running it again changes nothing.
"""

from __future__ import annotations

import os
import re
import secrets
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Annotated

import typer

from cli import ask, options
from cli.context import PASSPHRASE, Context, offer_passphrase, read_stack
from cli.envfile import read_env, secrets_in
from reconciler import names
from reconciler.errors import BadInput, LockstepError

if TYPE_CHECKING:
    from cli.backend import Backend
    from reconciler.config import Stack
    from reconciler.definition import Definition
    from reconciler.docker import Listed
    from reconciler.release import Dataset

COMPOSE_FILES = ("compose.yaml", "compose.yml", "docker-compose.yml", "docker-compose.yaml")
IGNORED = ("releases/", ".lockstep/", ".pulumi/")
TEMPLATES = Path(__file__).parent / "templates"
WORKING_DIR = "com.docker.compose.project.working_dir"
_PROJECT = re.compile(r"[a-z0-9][a-z0-9_-]{0,60}")


@dataclass(frozen=True)
class Step:
    """One thing that is missing, and how it is made."""

    says: str
    make: Callable[[], None]


def init(
    context: typer.Context,
    name: Annotated[
        str | None,
        typer.Option("--name", help="The compose project's name (found out if left out)."),
    ] = None,
    yes: options.Yes = False,
) -> None:
    """Make a project of a folder with a compose file; --stack names its stack (prod)."""
    common = context.find_root().obj
    setting_up = Setup(common.cwd.resolve(), common.stack or "prod")
    setting_up.insist_on_passphrase()
    setting_up.choose_name(name, yes=yes)
    here = Context(common)
    for line in setting_up.findings():
        here.say(line)
    steps = list(setting_up.missing())
    if not steps:
        typer.echo("everything is there already; nothing was changed")
        return
    typer.echo("to be made:")
    for step in steps:
        typer.echo(f"  {step.says}")
    ask.confirm("Make it so?", yes=yes)
    for step in steps:
        step.make()
    typer.echo(f"stack {setting_up.stack} of project {setting_up.name} is ready")
    for line in setting_up.next_commands():
        here.say(line)


class Setup:
    """What a folder has and lacks."""

    def __init__(self, root: Path, stack: str) -> None:
        names.check_stack(stack)
        if not root.is_dir():
            raise BadInput(f"{root} is not a folder")
        self.root = root
        self.stack = stack
        self.name = ""
        self.compose_file = next((root / n for n in COMPOSE_FILES if (root / n).is_file()), None)
        if self.compose_file is None and not (root / "Pulumi.yaml").is_file():
            raise BadInput(
                f"there is no compose file in {root} ({', '.join(COMPOSE_FILES)})",
                next_step="change to the folder of the compose file, or: lockstep -C FOLDER init",
            )

    def insist_on_passphrase(self) -> None:
        """Raises BadInput where the stack's secrets need a passphrase that is not here: a new
        one would not open them."""
        path = self.root / f"Pulumi.{self.stack}.yaml"
        sealed = path.is_file() and re.search(r"^encryptionsalt:", path.read_text(), re.M)
        if sealed and not self._passphrase_given():
            raise BadInput(
                f"the secrets in {path.name} were encrypted with a passphrase that is not here",
                next_step=f"put it into {self.root / PASSPHRASE}, or set "
                "PULUMI_CONFIG_PASSPHRASE_FILE to the file that holds it",
            )

    def choose_name(self, wanted: str | None, *, yes: bool) -> None:
        """The project's name: that of Pulumi.yaml, else the option, else what Compose calls it."""
        known = self._known_name()
        if known is not None and wanted not in (None, known):
            raise BadInput(f"Pulumi.yaml calls this project {known}, not {wanted}")
        default = known or wanted or self._running_project() or compose_name(self.root)
        chosen = known or wanted or ask.text("Name of the compose project", default, yes=yes)
        if _PROJECT.fullmatch(chosen) is None:
            raise BadInput(
                f"{chosen!r} cannot be the name of a compose project: use lower-case letters, "
                "digits, - and _",
                next_step="lockstep init --name NAME",
            )
        self.name = chosen

    def findings(self) -> Iterator[str]:
        """What is there, in lines for the person."""
        if self.compose_file is not None:
            yield f"compose file: {self.compose_file}"
        definition = self._definition()
        if definition is not None:
            services = sorted(definition.model.get("services", {}))
            yield f"services: {', '.join(services)}"
            yield from dataset_lines(definition)
            for warning in definition.warnings:
                yield f"warning: {warning}"
        running = [c for c in self._containers if c.state == "running"]
        if running:
            yield (
                f"running: {len(running)} containers of project {self.name}; the first up adopts "
                f"them as {self.stack}-000, with their data"
            )
        else:
            yield f"running: nothing of project {self.name}"

    def missing(self) -> Iterator[Step]:
        """What has to be made, in the order in which it has to be made."""
        for file, template in (
            ("Pulumi.yaml", "Pulumi.yaml"),
            ("__main__.py", "__main__.py"),
            (f"Pulumi.{self.stack}.yaml", "Pulumi.stack.yaml"),
        ):
            if not (self.root / file).exists():
                yield Step(file, self._writing(file, template))
        lacking = [line for line in IGNORED if line.strip("/") not in self._ignored_now()]
        if lacking:
            yield Step(f".gitignore: {', '.join(lacking)}", lambda: self._ignore_also(lacking))
        if not self._passphrase_given():
            yield Step(
                f"{PASSPHRASE}: a random passphrase for the stack's secrets (keep a copy of it)",
                self._write_passphrase,
            )
        if not self._stack_exists():
            yield Step(f"the state of stack {self.stack}, in .pulumi/", self._make_stack)
        for name, value in self._new_secrets().items():
            yield Step(
                f"secrets.{name}, encrypted, from .env (its name looks like a secret)",
                self._setting_secret(name, value),
            )

    def next_commands(self) -> Iterator[str]:
        """What a person does next."""
        yield "next:"
        if (self.root / ".git").exists():
            files = f"Pulumi.yaml Pulumi.{self.stack}.yaml __main__.py .gitignore"
            yield f'  git add {files} && git commit -m "declare releases"'
        yield '  lockstep new "first release"   records what the compose file says now'
        yield "  lockstep preview               shows what up will do"
        yield "  lockstep up"

    def _known_name(self) -> str | None:
        if not (self.root / "Pulumi.yaml").is_file():
            return None
        from engine import Project

        return Project.find(self.root).name

    @cached_property
    def _listed(self) -> tuple[Listed, ...]:
        from reconciler import docker

        try:
            return docker.connect().listing()
        except LockstepError as error:
            _warn(error.message)
            return ()

    @property
    def _containers(self) -> list[Listed]:
        return [c for c in self._listed if c.project == self.name]

    def _running_project(self) -> str | None:
        """The name under which this folder's compose project runs now."""
        here = str(self.root)
        found = {c.project for c in self._listed if c.labels.get(WORKING_DIR) == here}
        ours = {c.project for c in self._listed if "lockstep.world" in c.labels}
        plain = sorted(found - ours)
        return plain[0] if len(plain) == 1 else None

    def _definition(self) -> Definition | None:
        """What the compose file says; None where that cannot be told yet, which is said."""
        from reconciler import source
        from reconciler.config import Settings, Stack
        from reconciler.docker import Compose

        settings = Settings(secrets=secrets_in(self.root / ".env"))
        first = Stack(project=self.name, name=self.stack, root=self.root, settings=settings)
        try:
            stack = self._with_new_secrets(self._declared) if self._declared else first
            model = source.read_model(stack, Compose(self.root), _warn)
            # Images may not be built yet: what their own VOLUMEs add, `new` will say.
            return source.define(stack, model, image_volumes={})
        except LockstepError as error:
            _warn(str(error))
            return None

    def _writing(self, file: str, template: str) -> Callable[[], None]:
        def write() -> None:
            text = (TEMPLATES / template).read_text()
            values = {
                "name": self.name,
                "stack": self.stack,
                "virtualenv": virtual_environment(self.root, Path(sys.prefix)),
            }
            (self.root / file).write_text(Template(text).safe_substitute(values))

        return write

    def _ignored_now(self) -> list[str]:
        path = self.root / ".gitignore"
        lines = path.read_text().splitlines() if path.is_file() else []
        return [line.strip().strip("/") for line in lines]

    def _ignore_also(self, lines: list[str]) -> None:
        path = self.root / ".gitignore"
        before = path.read_text() if path.is_file() else ""
        gap = "" if before.endswith("\n") or not before else "\n"
        path.write_text(f"{before}{gap}" + "".join(f"{line}\n" for line in lines))

    def _passphrase_given(self) -> bool:
        given = {"PULUMI_CONFIG_PASSPHRASE", "PULUMI_CONFIG_PASSPHRASE_FILE"} & os.environ.keys()
        return bool(given) or (self.root / PASSPHRASE).is_file()

    def _write_passphrase(self) -> None:
        path = self.root / PASSPHRASE
        path.parent.mkdir(mode=0o700, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_urlsafe(32) + "\n")

    def _stack_exists(self) -> bool:
        if not (self.root / "Pulumi.yaml").is_file() or not self._passphrase_given():
            return False
        return self._backend().exists()

    def _make_stack(self) -> None:
        """The project's only stack is also the one that `pulumi` means in this folder."""
        from cli import context
        from engine import Project

        self._backend().init()
        project = Project.find(self.root)
        if context.known_stacks(project) == [self.stack]:
            context.select(project.name, self.root, self.stack)

    def _backend(self) -> Backend:
        """The stack in Pulumi, which may not know it yet."""
        from cli import backend
        from engine import Project

        offer_passphrase(self.root)
        return backend.open_backend(Project.find(self.root), self.stack)

    @cached_property
    def _declared(self) -> Stack | None:
        """What the stack's settings say already, if there are any."""
        from engine import Project

        files = ("Pulumi.yaml", f"Pulumi.{self.stack}.yaml")
        if not all((self.root / file).is_file() for file in files):
            return None
        return read_stack(Project.find(self.root), self.stack, self._backend().config())

    def _new_secrets(self) -> dict[str, str]:
        """What looks like a secret in the .env file of the compose project and is not set yet."""
        from reconciler import source

        if self._declared is None:
            return secrets_in(self.root / ".env")
        known = self._declared.settings
        found = secrets_in(source.folder(self._declared) / ".env")
        return {k: v for k, v in found.items() if k not in {*known.secrets, *known.environment}}

    def _with_new_secrets(self, declared: Stack) -> Stack:
        known = declared.settings
        secret = {**self._new_secrets(), **known.secrets}
        return declared.model_copy(
            update={"settings": known.model_copy(update={"secrets": secret})}
        )

    def _setting_secret(self, name: str, value: str) -> Callable[[], None]:
        return lambda: self._backend().config_set(f"secrets.{name}", value, secret=True, path=True)


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


def dataset_lines(definition: Definition) -> Iterator[str]:
    """Each dataset with its driver and strategy, and why it is so."""
    if not definition.datasets:
        yield "datasets: none (no volume is mounted)"
    for name, dataset in sorted(definition.datasets.items()):
        mounts = ", ".join(f"{m.service}:{m.target}" for m in dataset.mounts)
        yield f"dataset {name}: driver {dataset.driver}, {strategy_text(dataset)} ({mounts})"


def strategy_text(dataset: Dataset) -> str:
    """`fork: every release gets its own copy`."""
    from reconciler.release import Kind, Strategy

    if dataset.shared:
        return "left as it is: it is shared with others"
    if dataset.strategy is Strategy.FORK:
        return "forked: a new release works on a copy"
    if dataset.kind is Kind.BIND:
        return "in place: it is a directory of the host"
    if dataset.kind is Kind.EXTERNAL:
        return "in place: the volume is external"
    return "in place"


def virtual_environment(root: Path, prefix: Path) -> str:
    """The lines for Pulumi.yaml that name the virtual environment Lockstep runs in, if any."""
    if not (prefix / "pyvenv.cfg").is_file():
        return ""
    shown = prefix.relative_to(root) if prefix.is_relative_to(root) else prefix
    return f"\n  options:\n    virtualenv: {shown}"
