"""One compose file on real Docker: as `docker compose create` makes it, and as a world."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from reconciler.making import newrelease
from reconciler.project import source
from reconciler.records.release import Release
from reconciler.world import places
from tests.conformance import inspected
from tests.conformance.inspected import Names, Pair
from tests.conformance.meant import MEANT, Meant
from tests.reconciler.trial import Trial, docker_cli

PROJECTS = Path(__file__).parent / "projects"


@dataclass(frozen=True)
class Case:
    """A project's folder, and what its `case.yaml` says: settings of the stack, networks and
    volumes of others that it needs, files that are to be the same in containers that run."""

    name: str
    says: str
    spread: bool = False
    settings: Mapping[str, Any] = field(default_factory=dict)
    networks: Sequence[str] = ()
    volumes: Sequence[str] = ()
    files: Mapping[str, Sequence[str]] = field(default_factory=dict)


def cases() -> list[Case]:
    """All projects, by name."""
    return [
        Case(folder.name, **yaml.safe_load((folder / "case.yaml").read_text()))
        for folder in sorted(PROJECTS.iterdir())
    ]


@dataclass(frozen=True)
class Compared:
    """What differs and is not in the table, and which of its rows were needed."""

    unforgiven: list[Pair]
    rows: set[Meant]
    warnings: list[str]


def compare(case: Case, folder: Path) -> Compared:
    """Make both in an empty folder, compare them, and remove everything."""
    with _on_host(case, folder) as trial:
        release, warnings = newrelease.make(
            trial.stack, trial.catalog, trial.docker, trial.compose,
            description=case.says, progress=trial.say,
        )  # fmt: skip
        trial.settings["release"] = release.name
        with _plain(case, trial):
            plain = inspected.look(trial.project)
            files = _files(case, trial, trial.project)
        plan = trial.plan()
        assert not plan.refusals, plan.refusals
        trial.make(plan)
        world = trial.world(1)
        found = list(inspected.pairs(plain, inspected.look(world), _names(trial, release)))
        again = _files(case, trial, world)
        found += [
            Pair(f"{service} 1", file, said, again[service, file])
            for (service, file), said in files.items()
            if said != again[service, file]
        ]
    rows: set[Meant] = set()
    unforgiven = []
    for pair in found:
        row = next((row for row in MEANT if row.covers(pair, release)), None)
        if row is None:
            unforgiven.append(pair)
        else:
            rows.add(row)
    return Compared(unforgiven, rows, warnings)


def _names(trial: Trial, release: Release) -> Names:
    world = trial.state.worlds[trial.world(1)]
    return Names(
        str(places.files(trial.catalog, world.name)),
        {volume: release.datasets[d].source or d for d, volume in world.generations.items()},
    )


def _files(case: Case, trial: Trial, project: str) -> dict[tuple[str, str], str]:
    """Mode, owner and content of files, once the containers have been started."""
    found = {}
    for service, paths in case.files.items():
        words = ("ps", "--all", "-q", "--filter", f"label={inspected.PROJECT}={project}")
        ids = docker_cli(*words, "--filter", f"label={inspected.SERVICE}={service}").split()
        if project == trial.project:
            _compose(trial, "up", "--detach", "--no-recreate")
        else:
            docker_cli("start", *ids)
        for path in paths:
            script = f"stat -c '%a %u %g' {path}; cat {path}"
            found[service, path] = docker_cli("exec", ids[0], "sh", "-c", script)
    return found


@contextmanager
def _on_host(case: Case, folder: Path) -> Iterator[Trial]:
    """A stack of the case's folder, with what others have to have made for it."""
    shutil.copytree(PROJECTS / case.name, folder)
    (folder / "case.yaml").unlink()
    trial = Trial(folder)
    number = int(trial.project[-4:], 16)
    mine = {"P": trial.project, "NET": f"10.{200 + number % 50}.{number // 50 % 250}"}
    trial.environment = mine | dict(case.settings.get("environment", {}))
    trial.settings = {"secrets": {}} | {
        key: value for key, value in case.settings.items() if key != "environment"
    }
    try:
        for kind, names in (("network", case.networks), ("volume", case.volumes)):
            for name in names:
                docker_cli(kind, "create", name.replace("${P}", trial.project))
        yield trial
    finally:
        trial.clear()


@contextmanager
def _plain(case: Case, trial: Trial) -> Iterator[None]:
    """What `docker compose create` makes of it, gone afterwards."""
    files = source.files(trial.stack)
    options = [] if files[0].is_dir() else [o for file in files for o in ("-f", str(file))]
    for profile in case.settings.get("profiles", ()):
        options += ["--profile", profile]
    try:
        _compose(trial, *options, "create")
        yield
    finally:
        _compose(trial, *options, "down", "--volumes", "--timeout", "0")


def _compose(trial: Trial, *words: str) -> None:
    done = subprocess.run(
        ["docker", "compose", "-p", trial.project, *words],
        cwd=source.folder(trial.stack),
        env={**os.environ, **trial.environment, **trial.settings["secrets"]},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
