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
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli import ask, fence, options, stackschema
from cli.context import PASSPHRASE, Context, offer_passphrase, read_stack
from cli.envfile import read_env, secrets_in
from reconciler import names
from reconciler.errors import BadInput, LockstepError, Refused

if TYPE_CHECKING:
    from cli.backend import Backend
    from cli.findings import Proposal
    from reconciler.config import Stack
    from reconciler.definition import Definition
    from reconciler.docker import Docker, ImageInfo, Listed

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
    from_container: Annotated[
        str | None,
        typer.Option(
            "--from-container",
            help="Write the compose file of a container that was started by hand.",
        ),
    ] = None,
    fenced: Annotated[
        bool,
        typer.Option(
            "--fence/--no-fence",
            help="Where the project runs: let `docker compose up` in its folder be refused.",
        ),
    ] = True,
    yes: options.Yes = False,
) -> None:
    """Make a project of a folder with a compose file; --stack names its stack (prod)."""
    common = context.find_root().obj
    here = Context(common)
    root = common.cwd.resolve()
    first = _write_compose_file(root, from_container, yes=yes) if from_container else []
    setting_up = Setup(root, common.stack or "prod", fenced=fenced)
    setting_up.insist_on_passphrase()
    setting_up.choose_name(name, yes=yes)
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
    for line in (*first, *setting_up.next_commands()):
        here.say(line)


def _write_compose_file(root: Path, container: str, *, yes: bool) -> list[str]:
    """Returns what to do next. Raises Refused where there is a compose file already."""
    from cli import handmade
    from reconciler import docker

    there = [name for name in COMPOSE_FILES if (root / name).exists()]
    if there:
        raise Refused(
            f"{root / there[0]} is there already: it is not written over",
            next_step="lockstep init   goes on with it; or use an empty folder",
        )
    return handmade.write_compose_file(root, container, docker.connect(), yes=yes)


class Setup:
    """What a folder has and lacks."""

    def __init__(self, root: Path, stack: str, *, fenced: bool = True) -> None:
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
                next_step="change to the folder of the compose file, or: lockstep -C FOLDER init; "
                "for a container that was started by hand: lockstep init --from-container NAME",
            )
        self.fenced = fenced

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
        from cli import findings

        if self.compose_file is not None:
            yield f"compose file: {self.compose_file}"
        definition = self._definition
        if definition is not None:
            services = sorted(definition.model.get("services", {}))
            yield f"services: {', '.join(services)}"
            yield from findings.dataset_lines(self._stack, definition)
            yield self._proof[0]
            for warning in definition.warnings:
                yield f"warning: {warning}"
        if self._running and self._model is not None:
            from reconciler import jobs

            for line in jobs.unmarked(self._model, self._docker.containers(project=self.name)):
                yield f"warning: {line}"
        with suppress(LockstepError, OSError):
            if self._docker.is_local:
                yield from findings.disk_lines(self._stack, self._docker, definition)
        if self._running:
            yield (
                f"running: {len(self._running)} containers of project {self.name}; the first up "
                f"adopts them as {self.stack}-000, with their data: they are stopped then, get "
                "restart: no, and stay for a rollback"
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
        schema = self.root / stackschema.FILE
        if not schema.is_file() or schema.read_text() != stackschema.text(self.name):
            yield Step(
                f"{stackschema.FILE}: by which editors complete the keys of Pulumi.*.yaml",
                lambda: _write(schema, stackschema.text(self.name)),
            )
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
        proposal = self._proof[1]
        if proposal is not None:
            yield Step(
                f"gates.{proposal.service}.tcp {proposal.port}: a release is proved when that port "
                "accepts a connection (a health check in the compose file says more)",
                self._setting_gate(proposal),
            )
        if self._override is not None:
            yield Step(
                f"{self._override.name}: the fence: `docker compose up` here is refused from now "
                "on, and says what to type instead (--no-fence: without)",
                partial(fence.build, self._override),
            )

    def next_commands(self) -> Iterator[str]:
        """What a person does next."""
        yield "next:"
        if (self.root / ".git").exists():
            files = (
                f"Pulumi.yaml Pulumi.{self.stack}.yaml __main__.py {stackschema.FILE} .gitignore"
            )
            if self._fence_file is not None and fence.stands(self._fence_file):
                files = f"{files} {self._fence_file.name}"
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
    def _docker(self) -> Docker:
        from reconciler import docker

        return docker.connect()

    @cached_property
    def _listed(self) -> tuple[Listed, ...]:
        try:
            return self._docker.listing()
        except LockstepError as error:
            _warn(error.message)
            return ()

    @property
    def _running(self) -> list[Listed]:
        return [c for c in self._containers if c.state == "running"]

    @property
    def _fence_file(self) -> Path | None:
        return fence.override_of(self.root, self.compose_file) if self.compose_file else None

    @property
    def _override(self) -> Path | None:
        """The file that lacks the fence, where a project runs that people start by habit."""
        file = self._fence_file
        if file is None or not self.fenced or not self._running or fence.stands(file):
            return None
        return file if fence.may_stand(file) else None

    @cached_property
    def _images(self) -> dict[str, ImageInfo]:
        """service -> its image, of those that are on this host already."""
        from reconciler import compose

        found = {}
        for service, body in compose.services(self._model or {}).items():
            reference = str(compose.plain(body.get("image") or f"{self.name}-{service}"))
            image = self._docker.image(reference)
            if image is not None:
                found[service] = image
        return found

    @cached_property
    def _proof(self) -> tuple[str, Proposal | None]:
        from cli import findings

        if self._definition is None:
            return "", None
        return findings.proof(self._stack, self._definition, self._images)

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

    @cached_property
    def _stack(self) -> Stack:
        """The stack as it is declared, or as it will be at first."""
        from reconciler.config import Settings, Stack

        if self._declared is not None:
            return self._with_new_secrets(self._declared)
        settings = Settings(secrets=secrets_in(self.root / ".env"))
        return Stack(project=self.name, name=self.stack, root=self.root, settings=settings)

    @cached_property
    def _model(self) -> dict[str, Any] | None:
        """What the compose file says; None where that cannot be told yet, which is said."""
        from reconciler import source
        from reconciler.docker import Compose

        try:
            return source.read_model(self._stack, Compose(self.root), _warn)
        except LockstepError as error:
            _warn(str(error))
            return None

    @cached_property
    def _definition(self) -> Definition | None:
        from reconciler import places, source

        if self._model is None:
            return None
        try:
            source.insist_on_services(self._stack, self._model)
            return source.define(
                self._stack,
                self._model,
                {service: image.volumes for service, image in self._images.items()},
                partial(places.plain, self._docker, self._stack),
            )
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
                "modeline": stackschema.MODELINE,
            }
            _write(self.root / file, Template(text).safe_substitute(values))

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

    def _setting_gate(self, proposal: Proposal) -> Callable[[], None]:
        key, port = f"gates.{proposal.service}.tcp", str(proposal.port)
        return lambda: self._backend().config_set(key, port, secret=False, path=True)

    def _setting_secret(self, name: str, value: str) -> Callable[[], None]:
        return lambda: self._backend().config_set(f"secrets.{name}", value, secret=True, path=True)


def _write(path: Path, text: str) -> None:
    path.write_text(text)


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


def virtual_environment(root: Path, prefix: Path) -> str:
    """The lines for Pulumi.yaml that name the virtual environment Lockstep runs in, if any."""
    if not (prefix / "pyvenv.cfg").is_file():
        return ""
    shown = prefix.relative_to(root) if prefix.is_relative_to(root) else prefix
    return f"\n  options:\n    virtualenv: {shown}"
