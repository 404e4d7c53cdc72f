"""The demo's worlds on this host, as plain `docker` shows them, and their removal.

python3 -m demo.host        removes everything that `make demo` left, and nothing else
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PROJECT = "shop"
STACK = "prod"
MARK = "io.lockstep.demo=shop"
"""A label of the shop's images and volumes, which its containers get from their image."""

COMPOSE_PROJECT = "com.docker.compose.project"
COMPOSE_SERVICE = "com.docker.compose.service"
DATA = "/var/lib/postgresql/data"
SETTINGS = "Pulumi.prod.yaml"
PASSPHRASE = ".lockstep/passphrase"
SCHEMA = "lockstep.schema.json"
"""By which an editor completes the settings; `lockstep init` writes it."""
_WORLD = re.compile(rf"{PROJECT}(-{STACK}-\d{{3,6}}(_\d+)?)?")


class NotTheDemo(Exception):
    """Something on this host has a name that the demo needs, and is not the demo's."""


@dataclass(frozen=True)
class Container:
    name: str
    project: str
    service: str
    running: bool
    marked: bool
    volumes: dict[str, str]
    """Volume by the place where it is mounted."""


@dataclass(frozen=True)
class Database:
    """The database of one world: the plain project is called like the project itself."""

    world: str
    container: str
    running: bool
    volume: str


def databases() -> dict[str, Database]:
    """The database of every world on this host, by the world's name."""
    return {
        c.project: Database(c.project, c.name, c.running, c.volumes[DATA])
        for c in containers()
        if c.service == "postgres"
    }


def live_database() -> Database:
    """Raises NotTheDemo unless exactly one world's database runs."""
    running = [database for database in databases().values() if database.running]
    if len(running) != 1:
        raise NotTheDemo(f"one running database was expected, not {running}")
    return running[0]


def containers() -> list[Container]:
    """All containers of compose projects with the demo's names, running or not."""
    shape = f'{{{{.ID}}}} {{{{.Label "{COMPOSE_PROJECT}"}}}}'
    listed = _docker("ps", "--all", "--filter", f"label={COMPOSE_PROJECT}", "--format", shape)
    pairs = [line.split(maxsplit=1) for line in listed.splitlines()]
    # Only our own are looked at closer: those of others may go away in between.
    ids = [pair[0] for pair in pairs if len(pair) == 2 and _WORLD.fullmatch(pair[1])]
    return [_container(said) for said in _inspect("container", ids)]


def _container(said: dict[str, Any]) -> Container:
    labels = said["Config"]["Labels"] or {}
    return Container(
        name=said["Name"].lstrip("/"),
        project=labels.get(COMPOSE_PROJECT, ""),
        service=labels.get(COMPOSE_SERVICE, ""),
        running=said["State"]["Running"],
        marked=MARK.partition("=")[::2] in labels.items(),
        volumes={
            mount["Destination"]: mount["Name"]
            for mount in said["Mounts"]
            if mount["Type"] == "volume"
        },
    )


def remove_all(root: Path) -> list[str]:
    """Remove what an earlier demo of this clone left; returns what that was, in words.

    Goes by exact names and by the mark. Raises NotTheDemo, before anything is removed, when a
    project of the demo's name is not marked as the demo: it may be somebody's real shop.
    """
    recorded = _records(root / "releases")
    there = containers()
    worlds = {container.project for container in there}
    for project in sorted(worlds):
        marked = any(c.marked for c in there if c.project == project)
        if not marked and not mentioned(project, recorded):
            raise NotTheDemo(
                f"a compose project called {project} is on this host and is not this demo's; "
                "the demo needs that name, and leaves the project alone"
            )
    volumes = {volume for container in there for volume in container.volumes.values()}
    volumes |= set(_list("volume", f"label={MARK}", f"label={COMPOSE_PROJECT}={PROJECT}"))
    ours = _list("volume", f"label=lockstep.project={PROJECT}", f"label=lockstep.stack={STACK}")
    volumes |= {volume for volume in ours if mentioned(volume, recorded)}
    networks = {n for world in worlds for n in _list("network", f"label={COMPOSE_PROJECT}={world}")}
    of_demo = _tags(f"label={MARK}")
    tags = [tag for tag in _tags() if tag in of_demo or tagged_by(tag, recorded)]

    # Its images' mark is on the containers that hold them, too.
    holding = ["ps", "--all", "--format", "{{.Names}}", "--filter", f"label={MARK}"]
    holders = _docker(*holding, "--filter", f"label=lockstep.holds={PROJECT}/{STACK}").split()

    _remove("container", [*(container.name for container in there), *holders])
    _remove("volume", volumes)
    _remove("network", networks)
    _remove("image", tags)
    _docker("image", "prune", "--force", "--filter", f"label={MARK}")
    folders = [root / name for name in (".demo", ".pulumi", "releases") if (root / name).exists()]
    for folder in folders:
        shutil.rmtree(folder)
    (root / SCHEMA).unlink(missing_ok=True)
    forgotten = _forget_settings(root / SETTINGS)

    found = {"containers": there, "volumes": volumes, "networks": networks, "image tags": tags}
    counted = [f"{len(things)} {what}" for what, things in found.items() if things]
    return counted + [f"{folder.name}/" for folder in folders] + forgotten


def _forget_settings(path: Path) -> list[str]:
    before = path.read_text()
    after = plain_settings(before)
    if after == before:
        return []
    path.write_text(after)
    return [f"what it set in {path.name}"]


def plain_settings(text: str) -> str:
    """A stack's settings without what the story sets: the release, its wishes, the secrets."""
    told = rf"  {PROJECT}:(release|restore|retry|secrets):.*\n(    .*\n)*"
    return re.sub(rf"(?m)^(encryptionsalt:.*\n|{told})", "", text)


def forget_passphrase(root: Path) -> list[str]:
    """Remove the passphrase, if no stack of this clone has secrets any more that need it."""
    path = root / PASSPHRASE
    needed = any("encryptionsalt:" in file.read_text() for file in root.glob("Pulumi.*.yaml"))
    if needed or not path.exists():
        return []
    path.unlink()
    return [PASSPHRASE]


def volumes_of(world: str) -> set[str]:
    """The volumes that a world's containers mount."""
    return {v for c in containers() if c.project == world for v in c.volumes.values()}


def traces(release: str, world: str, volumes: Collection[str], releases: Path) -> list[str]:
    """What is left of a release on this host: its folder, image tags, containers, volumes."""
    found = [str(releases / release)] if (releases / release).exists() else []
    found += [tag for tag in _tags() if tag.endswith(f":{release}")]
    found += [container.name for container in containers() if container.project == world]
    return found + sorted(set(volumes) & set(_list("volume")))


def _records(releases: Path) -> str:
    """All that this clone's catalog says; names are looked up in it."""
    files = [*releases.glob("*.json*"), *releases.glob("*/release-info.json")]
    return "\n".join(file.read_text(errors="replace") for file in files)


def mentioned(name: str, text: str) -> bool:
    """Whether the name stands in the text, whole."""
    return re.search(rf"(?<![\w.-]){re.escape(name)}(?![\w.-])", text) is not None


def tagged_by(tag: str, text: str) -> bool:
    """Whether a tag's repository stands in the text with any release: `latest` and the tags of
    releases that were pruned since stand nowhere themselves."""
    repository = re.escape(tag.rpartition(":")[0])
    return re.search(rf"(?<![\w./-]){repository}:{STACK}-\d", text) is not None


def _tags(*filters: str) -> list[str]:
    """Tags of the services' images: shop-web:latest, shop-web:prod-001, ..."""
    listed = _docker(
        "image", "ls", "--format", "{{.Repository}}:{{.Tag}}", *_filters(filters)
    ).split()
    pattern = rf"{PROJECT}-(web|worker|postgres|redis):(latest|{STACK}-\d{{3,6}})"
    return [tag for tag in listed if re.fullmatch(pattern, tag)]


def _list(kind: str, *filters: str) -> list[str]:
    return _docker(kind, "ls", "--format", "{{.Name}}", *_filters(filters)).split()


def _filters(filters: Sequence[str]) -> list[str]:
    return [word for text in filters for word in ("--filter", text)]


def _inspect(kind: str, names: Sequence[str]) -> list[dict[str, Any]]:
    return list(json.loads(_docker(kind, "inspect", *names))) if names else []


def _remove(kind: str, names: Collection[str]) -> None:
    if names:
        force = ["--force"] if kind == "container" else []
        _docker(kind, "rm", *force, *sorted(names))


def _docker(*arguments: str) -> str:
    """A docker command's output. Raises NotTheDemo with Docker's own words when it fails."""
    done = subprocess.run(
        ["docker", *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
    )
    if done.returncode != 0:
        raise NotTheDemo(f"docker {' '.join(arguments[:2])}: {done.stderr.strip()}")
    return done.stdout


def main() -> int:
    root = Path(__file__).resolve().parent.parent
    try:
        removed = remove_all(root) + forget_passphrase(root)
    except (NotTheDemo, OSError, subprocess.TimeoutExpired) as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    print(f"demo: removed {', '.join(removed)}" if removed else "demo: nothing is left of it")
    return 0


if __name__ == "__main__":
    sys.exit(main())
