"""The Compose plugin, as a program. Used through reconciler/docker, the seam to Docker."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import yaml

from reconciler import masking
from reconciler.docker.dockervalues import failed
from reconciler.errors import BadInput, DockerFailed, Unavailable
from reconciler.host import hostcommand
from reconciler.host.process import CODE


class _Loader(yaml.SafeLoader):
    """YAML as Compose writes it: what looks like a date or `yes` is text, as Compose means it."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012


for _tag, _pattern, _first in (
    ("bool", r"^(?:true|false)$", "tf"),
    ("int", r"^-?(?:0|[1-9][0-9]*)$", "-0123456789"),
    ("float", r"^-?[0-9]+(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?$", "-0123456789"),
    ("null", r"^(?:null|~|)$", ["n", "~", ""]),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(_pattern), list(_first))


FENCE_VARIABLE = "LOCKSTEP_FENCE"
FENCE_KEY = "x-lockstep-fence"
"""A project's override file may hold this member, with a variable that only Lockstep sets: nobody
starts the project's own containers by habit then."""


class Compose:
    """The Compose plugin. `root`: the project's folder, whose .tools may hold the plugin."""

    def __init__(self, root: Path | None = None, *, endpoint: str | None = None) -> None:
        self.environment = {**_compose_environment(root), FENCE_VARIABLE: "lockstep"}
        if endpoint is not None:
            self.environment["DOCKER_HOST"] = endpoint

    def model(
        self,
        files: Sequence[Path],
        *,
        project: str,
        env: Mapping[str, str],
        profiles: Sequence[str] = (),
        warn: Callable[[str], None] = lambda _: None,
    ) -> dict[str, Any]:
        """The model of one folder, or of compose files in order, as `docker compose config` has
        it; `$` in values stays doubled. Read as YAML: its JSON loses x-lockstep of volumes.

        Raises BadInput with Compose's own message.
        """
        where, options = _place(files, profiles)
        done = self._run(["-p", project, *options, "config"], env=env, cwd=where, timeout=60)
        warnings, complaint = _split_messages(done.stderr)
        if done.returncode != 0:
            shown = ", ".join(str(f) for f in files)
            raise BadInput(
                f"the compose file cannot be used ({shown}): {complaint}",
                next_step="docker compose config   in its folder shows the same",
            )
        for warning in warnings:
            warn(warning)
        model = yaml.load(done.stdout, Loader=_Loader)
        if not isinstance(model, dict) or not model.get("services"):
            raise BadInput(f"no service is declared in {', '.join(str(f) for f in files)}")
        model.pop(FENCE_KEY, None)
        return model

    def hashes(
        self,
        files: Sequence[Path],
        *,
        project: str,
        env: Mapping[str, str],
        secrets: Mapping[str, str] = {},
        profiles: Sequence[str] = (),
    ) -> dict[str, str]:
        """service -> the hash that Compose labels its containers with (CONFIG_HASH)."""
        where, options = _place(files, profiles)
        with _env_file(where, secrets) as given:
            argv = ["-p", project, *options, *given, "config", "--hash", "*"]
            done = self._run(argv, env=env, cwd=where, timeout=60, without=secrets)
        if done.returncode != 0:
            raise BadInput(f"the compose file cannot be used: {_split_messages(done.stderr)[1]}")
        return dict(line.split(" ", 1) for line in done.stdout.splitlines() if " " in line)

    def build(
        self,
        files: Sequence[Path],
        *,
        project: str,
        env: Mapping[str, str],
        secrets: Mapping[str, str] = {},
        profiles: Sequence[str] = (),
        services: Sequence[str],
        progress: Callable[[str], None],
    ) -> None:
        """Build the images of services. Raises DockerFailed with the end of the build's output."""
        where, options = _place(files, profiles)
        environment = dict(env)
        if not _plugin("docker-buildx", self.environment):
            environment.setdefault("DOCKER_BUILDKIT", "0")
        tail: list[str] = []
        with (
            _env_file(where, secrets) as given,
            subprocess.Popen(
                [*_COMPOSE, "-p", project, *options, *given, "build", *services],
                cwd=where,
                env=self._environment(environment, secrets),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                start_new_session=True,
            ) as child,
            _ended_after(BUILD_SECONDS, child),
        ):
            for line in child.stdout or ():
                if text := masking.masked(line.strip()):
                    tail = [*tail[-19:], text]
                    progress(text)
        if child.returncode < 0:
            tail.append(f"it was killed, or did not end within {BUILD_SECONDS:g} s")
        if child.returncode != 0:
            raise DockerFailed(
                f"the build of {', '.join(services)} failed:\n    " + "\n    ".join(tail)
            )

    def create(self, world: str, model: Mapping[str, Any], *, hide: Collection[str] = ()) -> None:
        """Create the world's missing containers and networks, stopped; existing ones stay as they
        are. The model goes in by stdin; `hide`: values that no message may show."""
        argv = ["-p", world, "-f", "-", "--env-file", os.devnull, "create"]
        argv += ["--no-build", "--no-recreate", "--pull", "never"]
        done = self._run(argv, stdin=json.dumps(model), cwd=Path("/"), timeout=600)
        if done.returncode != 0:
            said = _split_messages(done.stderr)[1]
            said = masking.masked(masking.without(said, masking.forms(hide)))
            raise failed(f"the containers of {world} could not be created", said)

    def run_once(
        self,
        world: str,
        model: Mapping[str, Any],
        service: str,
        command: Sequence[str],
        *,
        entrypoint: str | None,
        label: str,
        stdin: str,
        timeout: float,
    ) -> hostcommand.Ended:
        """A one-off container of a service, removed when it has ended; its input is `stdin`.

        The model goes in by a file in memory, for it holds secrets. Where the time is over the
        container may be left: it has `label`.
        """
        descriptor = os.memfd_create("lockstep")
        try:
            os.write(descriptor, json.dumps(model).encode())
            file = f"/proc/{os.getpid()}/fd/{descriptor}"
            argv = [*_COMPOSE, "--ansi", "never", "--progress", "quiet", "-p", world, "-f", file]
            argv += ["--project-directory", "/", "--env-file", os.devnull]
            argv += ["run", "--rm", "-T", "--no-deps", "--label", label]
            argv += ["--entrypoint", entrypoint] if entrypoint is not None else []
            return hostcommand.run(
                [*argv, service, *command],
                stdin=stdin,
                timeout=timeout,
                cwd=Path("/"),
                env=self._environment({"COMPOSE_IGNORE_ORPHANS": "1"}, ()),
            )
        finally:
            os.close(descriptor)

    def down(self, world: str) -> None:
        """Remove the world's containers and its own networks; volumes stay."""
        argv = ["-p", world, "down", "--remove-orphans"]
        done = self._run(argv, cwd=Path("/"), timeout=300)
        if done.returncode != 0:
            said = _split_messages(done.stderr)[1]
            raise DockerFailed(f"the containers of {world} could not be removed: {said}")

    def passthrough(self, world: str, args: Sequence[str]) -> int:
        """`docker compose -p WORLD ARGS` on this terminal; its exit code."""
        return subprocess.call(
            [*_COMPOSE, "-p", world, *args], env={**os.environ, **self.environment}
        )

    def _environment(self, env: Mapping[str, str], without: Collection[str]) -> dict[str, str]:
        """What a process of Compose is given; `without` names that an env-file gives it."""
        whole = {**os.environ, **self.environment, **env}
        return {name: value for name, value in whole.items() if name not in without}

    def _run(
        self,
        argv: Sequence[str],
        *,
        cwd: Path,
        timeout: float,
        env: Mapping[str, str] | None = None,
        without: Collection[str] = (),
        stdin: str = "",
    ) -> subprocess.CompletedProcess[str]:
        try:
            done = subprocess.run(
                [*_COMPOSE, "--ansi", "never", *argv],
                cwd=cwd,
                env=self._environment(env or {}, without),
                input=stdin,
                capture_output=True,
                encoding="utf-8",
                errors="replace",
                timeout=timeout,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise DockerFailed(
                f"docker compose {argv[-1]} did not end within {timeout:g} s"
            ) from None
        except OSError as error:
            raise Unavailable(f"docker compose cannot be run: {error.strerror}") from None
        if done.returncode != 0 and "'compose' is not a docker command" in done.stderr:
            raise _missing()
        return done


@contextmanager
def _ended_after(seconds: float, child: subprocess.Popen[str]) -> Iterator[None]:
    """A child with a session of its own is ended, with all that it started, when its time is over
    or the context is left by an error, so that what it prints ends as well."""

    def end() -> None:
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)

    limit = threading.Timer(seconds, end)
    limit.daemon = True
    limit.start()
    try:
        yield
    except BaseException:
        end()
        raise
    finally:
        limit.cancel()


@contextmanager
def _env_file(folder: Path, secrets: Mapping[str, str]) -> Iterator[list[str]]:
    """Options that give Compose the secrets by a file in memory: an environment can be read in
    /proc, and files on a disk outlive a crash. What it reads without them is named, too."""
    if not secrets:
        yield []
        return
    default = os.environ.get("COMPOSE_ENV_FILES", "")
    own = [*filter(None, default.split(","))] or [".env"] * (folder / ".env").is_file()
    descriptor = os.memfd_create("lockstep")
    try:
        lines = "".join(f"{name}={_quoted(value)}\n" for name, value in secrets.items())
        os.write(descriptor, lines.encode())
        memory = f"/proc/{os.getpid()}/fd/{descriptor}"
        yield [option for file in (*own, memory) for option in ("--env-file", file)]
    finally:
        os.close(descriptor)


def _quoted(value: str) -> str:
    """A value as an env-file has it."""
    for special in ("\\", '"', "$"):
        value = value.replace(special, "\\" + special)
    return f'"{value}"'


BUILD_SECONDS = 7200.0
_COMPOSE = ("docker", "compose")
_PLUGIN_FOLDERS = (
    "/usr/local/lib/docker/cli-plugins",
    "/usr/local/libexec/docker/cli-plugins",
    "/usr/lib/docker/cli-plugins",
    "/usr/libexec/docker/cli-plugins",
)


def _compose_environment(root: Path | None) -> dict[str, str]:
    """What has to be added to the environment so that `docker compose` is there."""
    if shutil.which("docker") is None:
        raise Unavailable("the docker command is missing", next_step="install Docker's CLI")
    if _plugin("docker-compose", {}):
        return {}
    for folder in (root, CODE):
        config = folder / ".tools" / "docker-config" if folder else None
        if config and (config / "cli-plugins" / "docker-compose").exists():
            return {"DOCKER_CONFIG": str(config.resolve())}
    answer = subprocess.run([*_COMPOSE, "version"], capture_output=True, timeout=30, check=False)
    if answer.returncode != 0:
        raise _missing()
    return {}


def _missing() -> Unavailable:
    return Unavailable(
        "the Compose plugin is missing: `docker compose version` fails",
        next_step="install docker-compose-plugin, or run `make setup` in Lockstep's clone",
    )


def _plugin(name: str, environment: Mapping[str, str]) -> bool:
    own = environment.get("DOCKER_CONFIG") or os.environ.get("DOCKER_CONFIG")
    folders = [Path(own or Path.home() / ".docker") / "cli-plugins", *map(Path, _PLUGIN_FOLDERS)]
    return any((folder / name).exists() for folder in folders)


def _place(files: Sequence[Path], profiles: Sequence[str]) -> tuple[Path, list[str]]:
    """(working folder, options) that make Compose read these files with these profiles."""
    chosen = [option for profile in profiles for option in ("--profile", profile)]
    if len(files) == 1 and files[0].is_dir():
        names = ("compose.yaml", "compose.yml", "docker-compose.yaml", "docker-compose.yml")
        if not any((files[0] / name).exists() for name in names):
            raise BadInput(
                f"there is no compose file in {files[0]}",
                next_step="lockstep config set compose PATH   names its folder, or the file",
            )
        return files[0], chosen
    for file in files:
        if not file.is_file():
            raise BadInput(
                f"the compose file {file} does not exist",
                next_step="lockstep config set compose PATH   names its folder, or the file",
            )
    return files[0].parent, [o for file in files for o in ("-f", str(file))] + chosen


_LOGGED = re.compile(r'^time="[^"]*" level=(\w+) msg="(.*)"$')


def _split_messages(stderr: str) -> tuple[list[str], str]:
    """Compose's stderr -> (its warnings, each once; the rest as one text)."""
    warnings: list[str] = []
    rest: list[str] = []
    for line in stderr.splitlines():
        match = _LOGGED.match(line)
        if match is None:
            rest.append(line.strip())
            continue
        text = match[2].replace('\\"', '"')
        if match[1] != "warning":
            rest.append(text)
        elif text not in warnings:
            warnings.append(text)
    return warnings, "\n".join(line for line in rest if line)
