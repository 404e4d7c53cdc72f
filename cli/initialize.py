"""`lockstep init`: a project and a stack in the folder of a compose file.

What is missing is found first, shown, asked about once, and then made; what is there stays as it
is, so running it again changes nothing.
"""

from __future__ import annotations

import os
import re
import secrets
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli import ask, fence, options, stackschema
from cli.context import PASSPHRASE, Context
from cli.folder import COMPOSE_FILES, Folder, compose_name
from reconciler import names
from reconciler.errors import BadInput, Refused

if TYPE_CHECKING:
    from cli.findings import Proposal
    from cli.handmade import Written

IGNORED = ("releases/", ".lockstep/", ".pulumi/")
TEMPLATES = Path(__file__).parent / "templates"
_PROJECT = re.compile(r"[a-z0-9][a-z0-9_-]{0,60}")


@dataclass(frozen=True)
class Step:
    """One thing that is missing, and how it is made."""

    file: str
    """Where it stands, below the project."""
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
    as_json: options.Json = False,
) -> None:
    """Make a project of a folder with a compose file; --stack names its stack (prod)."""
    common = context.find_root().obj
    here = Context(common)
    root = common.cwd.resolve()
    show = partial(typer.echo, err=as_json)
    first = _write_compose_file(root, from_container, show, yes=yes) if from_container else None
    setting_up = Setup(root, common.stack or "prod", fenced=fenced)
    setting_up.insist_on_passphrase()
    setting_up.choose_name(name, yes=yes)
    for line in setting_up.findings():
        here.say(line)
    steps = list(setting_up.missing())
    if steps:
        show("to be made:")
    for step in steps:
        show(f"  {step.says}")
    if steps:
        ask.confirm("Make it so?", yes=yes)
    for step in steps:
        step.make()
    coming = [*(first.next if first else ()), *setting_up.next_commands()] if steps else []
    if as_json:
        from cli.releases import print_json

        print_json(document(setting_up, steps, first, coming))
    elif steps:
        show(f"stack {setting_up.stack} of project {setting_up.name} is ready")
    else:
        show("everything is there already; nothing was changed")
    for line in coming:
        here.say(line)


def document(
    made: Setup, steps: Sequence[Step], first: Written | None, coming: Sequence[str]
) -> dict[str, Any]:
    """`init`: what was found and why it is proposed so, and what was made."""
    room, reconciled = made.room, made.is_reconciled
    written = [{"file": f, "says": "of the container"} for f in (first.files if first else ())]
    return {
        "schema": 1,
        "project": made.name,
        "stack": made.stack,
        "folder": str(made.root),
        "compose_file": str(made.compose_file) if made.compose_file else None,
        "services": sorted((made.model or {}).get("services", {})),
        "datasets": [asdict(dataset) for dataset in made.datasets],
        "proof": {"by": made.proof.by, "says": made.proof.says.splitlines()},
        "room": {**asdict(room), "root": str(room.root), "store": str(room.store)}
        if room
        else None,
        "running": sorted(container.name for container in made.running),
        "adopts": f"{made.stack}-000" if made.running and not reconciled else None,
        "warnings": made.warnings,
        "made": [*written, *({"file": step.file, "says": step.says} for step in steps)],
        "left_out": first.left_out if first else (),
        "next": [line.strip() for line in coming if line.startswith(" ")],
    }


def _write_compose_file(
    root: Path, container: str, show: Callable[[str], None], *, yes: bool
) -> Written:
    """Raises Refused where there is a compose file already."""
    from cli import handmade
    from reconciler import docker

    there = [name for name in COMPOSE_FILES if (root / name).exists()]
    if there:
        raise Refused(
            f"{root / there[0]} is there already: it is not written over",
            next_step="lockstep init   goes on with it; or use an empty folder",
        )
    return handmade.write_compose_file(root, container, docker.connect(), show, yes=yes)


class Setup(Folder):
    """What a folder lacks, and how that is made."""

    def __init__(self, root: Path, stack: str, *, fenced: bool = True) -> None:
        names.check_stack(stack)
        if not root.is_dir():
            raise BadInput(f"{root} is not a folder")
        super().__init__(root, stack)
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
        known = self.known_name()
        if known is not None and wanted not in (None, known):
            raise BadInput(f"Pulumi.yaml calls this project {known}, not {wanted}")
        default = known or wanted or self.running_project() or compose_name(self.root)
        chosen = known or wanted or ask.text("Name of the compose project", default, yes=yes)
        if _PROJECT.fullmatch(chosen) is None:
            raise BadInput(
                f"{chosen!r} cannot be the name of a compose project: use lower-case letters, "
                "digits, - and _",
                next_step="lockstep init --name NAME",
            )
        self.name = chosen

    def missing(self) -> Iterator[Step]:
        """What has to be made, in the order in which it has to be made."""
        for file, template in (
            ("Pulumi.yaml", "Pulumi.yaml"),
            ("__main__.py", "__main__.py"),
            (f"Pulumi.{self.stack}.yaml", "Pulumi.stack.yaml"),
        ):
            if not (self.root / file).exists():
                yield Step(file, file, self._writing(file, template))
        schema = self.root / stackschema.FILE
        if not schema.is_file() or schema.read_text() != stackschema.text(self.name):
            yield Step(
                stackschema.FILE,
                f"{stackschema.FILE}: by which editors complete the keys of Pulumi.*.yaml",
                lambda: _write(schema, stackschema.text(self.name)),
            )
        lacking = [line for line in IGNORED if line.strip("/") not in self._ignored_now()]
        if lacking:
            says = f".gitignore: {', '.join(lacking)}"
            yield Step(".gitignore", says, lambda: self._ignore_also(lacking))
        if not self._passphrase_given():
            yield Step(
                str(PASSPHRASE),
                f"{PASSPHRASE}: a random passphrase for the stack's secrets (keep a copy of it)",
                self._write_passphrase,
            )
        if not self._stack_exists():
            says = f"the state of stack {self.stack}, in .pulumi/"
            yield Step(".pulumi", says, self._make_stack)
        for name, value in self.new_secrets().items():
            yield Step(
                f"Pulumi.{self.stack}.yaml",
                f"secrets.{name}, encrypted, from .env (its name looks like a secret)",
                self._setting_secret(name, value),
            )
        proposal = self.proof.proposal
        if proposal is not None:
            yield Step(
                f"Pulumi.{self.stack}.yaml",
                f"gates.{proposal.service}.tcp {proposal.port}: a release is proved when that port "
                "accepts a connection (a health check in the compose file says more)",
                self._setting_gate(proposal),
            )
        if self._override is not None:
            yield Step(
                self._override.name,
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

    @property
    def _fence_file(self) -> Path | None:
        return fence.override_of(self.root, self.compose_file) if self.compose_file else None

    @property
    def _override(self) -> Path | None:
        """The file that lacks the fence, where a project runs that people start by habit."""
        file = self._fence_file
        if file is None or not self.fenced or not self.running or fence.stands(file):
            return None
        return file if fence.may_stand(file) else None

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
        return self.backend().exists()

    def _make_stack(self) -> None:
        """The project's only stack is also the one that `pulumi` means in this folder."""
        from cli import context
        from engine.project import Project

        self.backend().init()
        project = Project.find(self.root)
        if context.known_stacks(project) == [self.stack]:
            context.select(project.name, self.root, self.stack)

    def _setting_gate(self, proposal: Proposal) -> Callable[[], None]:
        key, port = f"gates.{proposal.service}.tcp", str(proposal.port)
        return lambda: self.backend().config_set(key, port, secret=False, path=True)

    def _setting_secret(self, name: str, value: str) -> Callable[[], None]:
        return lambda: self.backend().config_set(f"secrets.{name}", value, secret=True, path=True)


def _write(path: Path, text: str) -> None:
    path.write_text(text)


def virtual_environment(root: Path, prefix: Path) -> str:
    """The lines for Pulumi.yaml that name the virtual environment Lockstep runs in, if any."""
    if not (prefix / "pyvenv.cfg").is_file():
        return ""
    shown = prefix.relative_to(root) if prefix.is_relative_to(root) else prefix
    return f"\n  options:\n    virtualenv: {shown}"
