"""From a release's record to the compose model of one world. Pure."""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from reconciler import compose, dockervalues
from reconciler.release import ConfigFile, Dataset, Kind, Release

_START_INTERVAL = (1, 44)
_ANNOTATIONS = (1, 43)


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
) -> dict[str, Any]:
    """What `docker compose create` gets for this world.

    `volumes`: dataset -> volume it mounts; `created`: datasets that start empty, which Docker
    fills from the image; `networks`: key of a shared network -> its name; `files`: folder where
    the world's config files lie (`config_place`). Raises BadInput when a secret is missing.
    """
    model = copy.deepcopy(release.model)
    model["name"] = world
    services: dict[str, dict[str, Any]] = model["services"]
    for service, body in services.items():
        _pin(body, release.images[service].tag)
        _label(body, project, stack, world)
        _fit_to_engine(body, engine_api)
        _mount_generations(service, body, release.datasets, volumes, created)
        _mount_files(body, release.configs, files)
        _secrets_as_configs(body, model)
    _declare_volumes(model, volumes)
    _declare_networks(model, networks)
    _declare_files(model, release.configs, files)
    _drop_secrets_given_by_content(model)
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


def _secrets_as_configs(body: dict[str, Any], model: dict[str, Any]) -> None:
    """A secret with a value goes in by content, on standard input, like Compose's own."""
    declared = model.get("secrets") or {}
    kept = []
    for reference in body.get("secrets") or ():
        value = (declared.get(reference["source"]) or {}).get("environment")
        if value is None:
            kept.append(reference)
            continue
        key = f"secret-{reference['source']}"
        model.setdefault("configs", {})[key] = {"content": value}
        target = reference.get("target") or reference["source"]
        target = target if target.startswith("/") else f"/run/secrets/{target}"
        body.setdefault("configs", []).append({**reference, "source": key, "target": target})
    if "secrets" in body:
        body["secrets"] = kept


def _drop_secrets_given_by_content(model: dict[str, Any]) -> None:
    declared = model.get("secrets") or {}
    for name in [n for n, body in declared.items() if (body or {}).get("environment")]:
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
