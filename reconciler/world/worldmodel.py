"""From a release's record to the compose model of one world. Pure."""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reconciler.config import Ingress
from reconciler.docker import dockervalues
from reconciler.ingress import ingressports
from reconciler.project import compose
from reconciler.records.release import ConfigFile, Dataset, Kind, Release

_START_INTERVAL = (1, 44)
_ANNOTATIONS = (1, 43)
_NO_INGRESS = Ingress()


@dataclass(frozen=True)
class Injected:
    """A file that is put into a container before it first starts."""

    target: str
    content: bytes
    mode: int
    uid: int
    gid: int


def world_model(
    release: Release,
    *,
    project: str,
    stack: str,
    world: str,
    volumes: Mapping[str, str],
    created: Collection[str],
    networks: Mapping[str, str],
    files: Path,
    secrets: Mapping[str, str],
    engine_api: str,
    one_off: bool = False,
    ingress: Ingress = _NO_INGRESS,
) -> dict[str, Any]:
    """What `docker compose create` gets for this world, or (`one_off`) `docker compose run`, which
    itself gives its container the files that are given by content.

    `volumes`: dataset -> volume it mounts; `created`: datasets that start empty, which Docker
    fills from the image; `networks`: key of a shared network -> its name; `files`: folder where
    the world's config files lie (`config_place`). Raises BadInput when a secret is missing.
    """
    model = copy.deepcopy(release.model)
    model["name"] = world
    if not one_off:
        _leave_out_what_is_injected(model)
    services: dict[str, dict[str, Any]] = model["services"]
    for service, body in services.items():
        _keep_name_on_networks(body)
        _pin(body, release.images[service].tag)
        _leave_out_unknown_needs(body, services)
        _label(body, project, stack, world)
        ingressports.put_behind(body, service, ingress)
        _fit_to_engine(body, engine_api)
        _mount_generations(service, body, release.datasets, volumes, created)
        _mount_files(body, release.configs, files)
    _declare_volumes(model, volumes)
    _declare_networks(model, networks)
    _declare_files(model, release.configs, files)
    for body in (model, *services.values()):
        for key in [k for k in body if k.startswith("x-")]:
            del body[key]
    resolved: dict[str, Any] = compose.with_secrets(model, secrets)
    return resolved


def config_place(files: Path, config: ConfigFile) -> Path:
    """Where a config file of a world lies, below the world's folder of files."""
    return files / config.path.lstrip("/")


def engine_warnings(model: compose.Model, engine_api: str) -> list[str]:
    """What this engine cannot do and is therefore left out."""
    found = []
    for service, body in compose.services(model).items():
        if not _at_least(engine_api, _START_INTERVAL) and "start_interval" in (
            body.get("healthcheck") or {}
        ):
            found.append(
                f"healthcheck.start_interval of {service} needs Docker Engine 25: left out"
            )
        if not _at_least(engine_api, _ANNOTATIONS) and body.get("annotations"):
            found.append(f"annotations of {service} need Docker Engine 24: left out")
    return found


def _at_least(engine_api: str, needed: tuple[int, int]) -> bool:
    return tuple(int(part) for part in engine_api.split(".")[:2]) >= needed


def _pin(body: dict[str, Any], tag: str) -> None:
    for key in ("build", "container_name", "develop", "env_file", "profiles"):
        body.pop(key, None)
    body["image"] = tag
    body["pull_policy"] = "never"
    # Until it is proved, a reboot must not bring this world up.
    body["restart"] = "no"
    (body.get("deploy") or {}).pop("restart_policy", None)
    environment = body.get("environment") or {}
    # Without a value Compose would take one from whoever creates the world.
    for name in [n for n, value in environment.items() if value is None]:
        del environment[name]


def _keep_name_on_networks(body: dict[str, Any]) -> None:
    """Others may call a container by its container_name, which a world's cannot have."""
    name, networks = body.get("container_name"), body.get("networks")
    if name and networks:
        body["networks"] = {
            key: {**(said or {}), "aliases": [*((said or {}).get("aliases") or ()), name]}
            for key, said in networks.items()
        }


def _leave_out_unknown_needs(body: dict[str, Any], services: Mapping[str, Any]) -> None:
    """Optional dependencies that no profile brought in: Compose knows them by its files alone."""
    needs = body.get("depends_on") or {}
    for name in [name for name in needs if name not in services]:
        del needs[name]


def _label(body: dict[str, Any], project: str, stack: str, world: str) -> None:
    labels = body.setdefault("labels", {})
    labels.update(
        {
            dockervalues.OUR_PROJECT: project,
            dockervalues.OUR_STACK: stack,
            dockervalues.OUR_WORLD: world,
        }
    )


def _fit_to_engine(body: dict[str, Any], engine_api: str) -> None:
    if not _at_least(engine_api, _START_INTERVAL):
        (body.get("healthcheck") or {}).pop("start_interval", None)
    if not _at_least(engine_api, _ANNOTATIONS):
        body.pop("annotations", None)


def _mount_generations(
    service: str,
    body: dict[str, Any],
    datasets: Mapping[str, Dataset],
    volumes: Mapping[str, str],
    created: Collection[str],
) -> None:
    by_target = {
        m.target: (dataset, m.read_only)
        for dataset in datasets.values()
        for m in dataset.mounts
        if m.service == service and dataset.name in volumes
    }
    mounts = []
    for mount in body.get("volumes") or ():
        found = by_target.pop(compose.plain(mount["target"]), None)
        mounts.append(mount if found is None else _generation(mount, found[0].name, created))
    for target, (dataset, read_only) in by_target.items():
        bare = {"target": target.replace("$", "$$"), "read_only": read_only}
        mounts.append(_generation(bare, dataset.name, created))
    if mounts:
        body["volumes"] = mounts


def _generation(mount: Mapping[str, Any], dataset: str, created: Collection[str]) -> dict[str, Any]:
    options = dict(mount.get("volume") or {})
    if dataset not in created:
        # Docker would fill an empty volume from the image when the container is created.
        options["nocopy"] = True
    kept = {k: v for k, v in mount.items() if k not in ("bind", "consistency")}
    return {**kept, "type": "volume", "source": dataset, "volume": options}


def _mount_files(body: dict[str, Any], configs: Mapping[str, ConfigFile], files: Path) -> None:
    for mount in body.get("volumes") or ():
        if mount.get("type") == "bind" and _kept_by_content(mount["source"], configs):
            source = compose.plain(mount["source"])
            mount["source"] = str(files / source.lstrip("/")).replace("$", "$$")


def _kept_by_content(source: str, configs: Mapping[str, ConfigFile]) -> bool:
    path = Path(compose.plain(source))
    return any(path == Path(c.path) or path in Path(c.path).parents for c in configs.values())


def _declare_files(model: dict[str, Any], configs: Mapping[str, ConfigFile], files: Path) -> None:
    for body in (model.get("configs") or {}).values():
        if body.get("file") and _kept_by_content(body["file"], configs):
            source = compose.plain(body["file"])
            body["file"] = str(files / source.lstrip("/")).replace("$", "$$")


def injected(release: Release, secrets: Mapping[str, str]) -> dict[str, tuple[Injected, ...]]:
    """service -> files given by content: `configs` with content, and secrets with a value.

    Compose puts them into a container just before it starts it; who starts containers without
    Compose has to do it. Raises BadInput when a secret is missing.
    """
    found = {}
    for service, body in compose.services(release.model).items():
        files = [
            Injected(
                target=compose.plain(target),
                content=compose.plain(compose.with_secrets(content, secrets)).encode(),
                mode=_mode(reference.get("mode")),
                uid=int(reference.get("uid") or 0),
                gid=int(reference.get("gid") or 0),
            )
            for reference, target, content in given_by_content(release.model, body)
        ]
        if files:
            found[service] = tuple(files)
    return found


def has_injected(release: Release) -> bool:
    """Whether any service gets files by content."""
    model = release.model
    return any(given_by_content(model, body) for body in compose.services(model).values())


def given_by_content(
    model: compose.Model, body: Mapping[str, Any]
) -> list[tuple[Mapping[str, Any], str, str]]:
    """(reference, target, content) of a service's configs and secrets that are no files."""
    found = []
    for reference in body.get("configs") or ():
        content = ((model.get("configs") or {}).get(reference["source"]) or {}).get("content")
        if content is not None:
            found.append((reference, reference.get("target") or f"/{reference['source']}", content))
    for reference in body.get("secrets") or ():
        value = ((model.get("secrets") or {}).get(reference["source"]) or {}).get("environment")
        if value is not None:
            target = reference.get("target") or reference["source"]
            target = target if target.startswith("/") else f"/run/secrets/{target}"
            found.append((reference, target, value))
    return found


def _mode(said: str | int | None) -> int:
    if said is None:
        return 0o444
    return int(said, 8) if isinstance(said, str) else said


def _leave_out_what_is_injected(model: dict[str, Any]) -> None:
    for body in model["services"].values():
        gone = [reference for reference, _, _ in given_by_content(model, body)]
        for kind in ("configs", "secrets"):
            if kind in body:
                body[kind] = [reference for reference in body[kind] if reference not in gone]
    for kind, given in (("configs", "content"), ("secrets", "environment")):
        declared = model.get(kind) or {}
        for name in [n for n, said in declared.items() if (said or {}).get(given) is not None]:
            del declared[name]


def _declare_volumes(model: dict[str, Any], volumes: Mapping[str, str]) -> None:
    declared: dict[str, Any] = {
        # Scratch volumes (tmpfs) belong to the world and are removed with it.
        name: {k: v for k, v in (body or {}).items() if k != "name" and not k.startswith("x-")}
        for name, body in (model.get("volumes") or {}).items()
        if name not in volumes
    }
    declared.update({name: {"name": v, "external": True} for name, v in volumes.items()})
    model["volumes"] = declared


def _declare_networks(model: dict[str, Any], networks: Mapping[str, str]) -> None:
    declared = model.get("networks") or {}
    for key, body in declared.items():
        if key in networks:
            declared[key] = {"name": networks[key], "external": True}
        elif body:
            declared[key] = {k: v for k, v in body.items() if k != "name"}


def volumes_of(release: Release, generations: Mapping[str, str]) -> dict[str, str]:
    """dataset -> volume that a world mounts: its generation, or in place the dataset's own.

    Bind directories worked on in place (or attached where they are) stay binds and are left out,
    as are datasets that none of the release's services mounts.
    """
    found = {}
    for name, dataset in release.datasets.items():
        generation = generations.get(name)
        if not dataset.mounts or (generation or "").startswith("/"):
            continue
        if generation is not None:
            found[name] = generation
        elif dataset.kind is not Kind.BIND and dataset.source:
            found[name] = dataset.source
    return found
