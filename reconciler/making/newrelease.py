"""Making a release: what `lockstep new` does. Nothing that runs is touched."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from failpoints import failpoint
from reconciler import clock, names
from reconciler.catalog import Catalog
from reconciler.config import COMMAND_DRIVER, Stack
from reconciler.docker import Compose, Docker, ImageInfo
from reconciler.errors import BadInput, CatalogDamaged, LockstepError, Refused
from reconciler.host.hostlock import HostLock
from reconciler.making import adoption
from reconciler.making.adoption import Draft
from reconciler.project import allowed, compose, definition, gitfacts, jobs, migrations, source
from reconciler.project.definition import Definition
from reconciler.records.release import Dataset, Git, Image, Release
from reconciler.world import places, worldmodel
from snapshots.drivers import driver_for
from snapshots.errors import Unsupported

Progress = Callable[[str], None]
_SHORTEST_SECRET = 6
"""Values shorter than this occur by chance, so they are not looked for in a record."""


def make(
    stack: Stack,
    catalog: Catalog,
    docker: Docker,
    composer: Compose,
    *,
    description: str,
    images: Mapping[str, str] = {},
    allow_dirty: bool = False,
    created_by: str = "",
    progress: Progress,
) -> tuple[Release, list[str]]:
    """(the new release, warnings): builds or finds its images, tags them, writes its record last.

    `images`: service -> reference of an image to take instead of building or pulling. Raises
    BadInput, Refused (dirty git tree, a dataset that vanished, nothing that could prove the
    release), DockerFailed; then neither tag nor record was made.
    """
    warnings: list[str] = []
    git = _git(stack, allow_dirty, warnings)
    model = source.read_model(stack, composer, warnings.append)
    source.insist_on_services(stack, model)
    allowed.insist_on_files(stack, model)
    found = _images(stack, docker, composer, model, images, progress)
    state = catalog.state()
    generations = state.worlds[state.live].generations if state.live else {}
    defined = source.define(
        stack,
        model,
        {s: i.volumes for s, i in found.items()},
        lambda name, source: places.plain(docker, stack, name, generations.get(name) or source),
    )
    warnings += defined.warnings
    warnings += worldmodel.engine_warnings(model, docker.api_version)
    warnings += jobs.unmarked(model, docker.containers(project=state.live or stack.project))
    _insist_on_drivers(stack, defined)
    _insist_on_groups(stack, defined)
    _insist_on_proof(stack, defined.model, found)
    parent, before, datasets = _ancestry(stack, catalog, docker, composer, defined, warnings)
    _insist_on_identity(before, defined, parent, warnings)
    with HostLock.acquire("new", f"{stack.project}/{stack.name}", wait=10):
        name = names.release_name(stack.name, catalog.next_number(catalog.state()))
        release = Release(
            name=name,
            parent=parent,
            previous=catalog.newest_link(),
            created=clock.now(),
            created_by=created_by,
            description=description,
            git=git,
            model=defined.model,
            images={
                service: Image(
                    service=service,
                    tag=names.image_tag(stack.project, service, name),
                    id=image.id,
                    digests=image.digests,
                    source=_reference(stack, model, service, images),
                    bytes=image.bytes,
                )
                for service, image in found.items()
            },
            datasets=datasets,
            configs=defined.configs,
            secrets=defined.secrets,
            dropped=defined.dropped,
            migrations=migrations.recorded(stack.root, stack.settings.migrations),
        )
        _insist_on_no_secret(stack, release, defined.contents)
        _record(catalog, docker, release, defined.contents)
    return release, warnings


def _git(stack: Stack, allow_dirty: bool, warnings: list[str]) -> Git:
    folder = source.folder(stack)
    state = (stack.releases, stack.store, stack.root / ".pulumi")

    def ours(path: Path) -> bool:
        settings = path.parent == stack.root and path.match("Pulumi.*.yaml")
        return settings or any(path == own or own in path.parents for own in state)

    git, changed = gitfacts.read(folder, ours)
    if git is None:
        warnings.append(f"{folder} is in no git work tree: no commit is recorded")
        return Git()
    if changed and not allow_dirty:
        shown = ", ".join(changed[:5]) + (f" and {len(changed) - 5} more" if changed[5:] else "")
        raise Refused(
            f"{folder} has changes that are not committed: {shown}",
            next_step="commit them, or lockstep new --allow-dirty   records that it was so",
        )
    if not git.commit:
        warnings.append(f"{folder} is in a git work tree without a commit")
    return git


def _images(
    stack: Stack,
    docker: Docker,
    composer: Compose,
    model: compose.Model,
    given: Mapping[str, str],
    progress: Progress,
) -> dict[str, ImageInfo]:
    services = compose.services(model)
    for service in given:
        if service not in services:
            raise BadInput(
                f"there is no service {service}; there are {', '.join(sorted(services))}"
            )
    built = [s for s, body in services.items() if body.get("build") and s not in given]
    if built:
        progress(f"building {', '.join(built)}")
        composer.build(
            source.files(stack),
            project=stack.project,
            env=stack.settings.environment,
            secrets=stack.secret_values,
            profiles=stack.settings.profiles,
            services=built,
            progress=progress,
        )
    found = {}
    for service, body in services.items():
        reference = _reference(stack, model, service, given)
        image = None
        if service in given or body.get("build") or body.get("pull_policy") != "always":
            image = docker.image(reference)
        if image is None and service in built:
            raise LockstepError(f"service {service} was built, but image {reference} is not there")
        if image is None:
            progress(f"pulling {reference}")
            image = docker.pull(reference, progress)
        if image.bytes == 0:
            raise Refused(
                f"image {reference} of service {service} is empty: there is nothing in it to run",
                next_step=f"docker rmi {reference}, then build or push it again",
            )
        found[service] = image
    return found


def _reference(stack: Stack, model: compose.Model, service: str, given: Mapping[str, str]) -> str:
    """What the service's image is called before the release names it."""
    if service in given:
        return given[service]
    body: Mapping[str, Any] = compose.services(model)[service]
    return str(compose.plain(body.get("image") or f"{stack.project}-{service}"))


def _insist_on_drivers(stack: Stack, defined: Definition) -> None:
    for name, dataset in defined.datasets.items():
        commands = stack.settings.commands(name)
        try:
            driver_for(dataset.driver, commands)
        except Unsupported as error:
            raise BadInput(f"dataset {name}: {error}") from None
        if dataset.driver == COMMAND_DRIVER:
            said = stack.settings.datasets[name].commands if commands else None
            missing = said.incomplete if said else "probe"
            if missing is not None:
                raise BadInput(
                    f"dataset {name} has driver: {COMMAND_DRIVER}, but no command {missing}",
                    next_step=f"lockstep config set --path datasets.{name}.commands.{missing} ...",
                )


def _insist_on_groups(stack: Stack, defined: Definition) -> None:
    known = ", ".join(sorted(defined.datasets)) or "none"
    for group, datasets in stack.settings.groups.items():
        for name in datasets:
            if name not in defined.datasets:
                raise BadInput(
                    f"config groups.{group} names {name}, but the compose file has no such "
                    f"dataset; it has {known}",
                    next_step=f"lockstep config rm --path groups.{group}",
                )


def _insist_on_proof(stack: Stack, model: compose.Model, images: Mapping[str, ImageInfo]) -> None:
    """Without a health check or a gate nobody could tell a good release from a bad one."""
    late = compose.after_commit(model)
    for service in compose.services(model):
        if service in late or compose.is_job(model, service):
            continue
        declared = compose.has_health_check(model, service)
        by_image = declared is None and images[service].health is not None
        if declared or by_image or compose.gates(model, stack.settings, service):
            return
    some = next(iter(compose.services(model)))
    raise Refused(
        "the release could not be proved: no service has a health check or a gate",
        next_step=(
            f"add to service {some} in the compose file `healthcheck: {{test: [CMD, ...]}}`, or "
            f"`x-lockstep: {{gate: {{http: {{port: 8000, path: /health}}}}}}` (or `command`, or "
            "`tcp`)"
        ),
    )


def _ancestry(
    stack: Stack,
    catalog: Catalog,
    docker: Docker,
    composer: Compose,
    defined: Definition,
    warnings: list[str],
) -> tuple[str | None, Mapping[str, Dataset], dict[str, Dataset]]:
    """(parent, its datasets, the new release's datasets with the places of their data)."""
    live = catalog.state().live_release
    if live is not None:
        try:
            return live, catalog.record(live).datasets, defined.datasets
        except CatalogDamaged as error:
            warnings.append(f"{error.message}: datasets could not be compared with it")
            return live, {}, defined.datasets
    plain = adoption.draft(stack, docker, composer)
    if plain is None or not set(plain.release.images) & set(compose.services(defined.model)):
        return None, {}, defined.datasets
    datasets = {
        name: _in_plain_project(dataset, plain) for name, dataset in defined.datasets.items()
    }
    return plain.release.name, plain.release.datasets, datasets


def _in_plain_project(dataset: Dataset, plain: Draft) -> Dataset:
    """A dataset whose data the plain project has in a volume that the model does not name: one
    without a name, or one under the dataset's former name."""
    before = plain.release.datasets.get(dataset.was or dataset.name)
    if before is None or before.source is None or before.source == dataset.source:
        return dataset
    return dataset.model_copy(update={"source": before.source})


def _insist_on_identity(
    before: Mapping[str, Dataset], defined: Definition, parent: str | None, warnings: list[str]
) -> None:
    problems = definition.changed(before, defined, release=parent or "")
    refused = [p for p in problems if p.refused]
    if refused:
        raise Refused(
            "\n".join(p.message for p in refused),
            next_step="\n  ".join(p.remedy for p in refused),
        )
    warnings += [f"{p.message}; {p.remedy}" for p in problems]


def _insist_on_no_secret(stack: Stack, release: Release, contents: Mapping[str, bytes]) -> None:
    """A value that reached the record by another way than its variable would stay in it."""
    recorded = release.model_dump(mode="json")
    files = {
        path: contents[config.sha256].decode(errors="replace")
        for path, config in release.configs.items()
    }
    for name, value in stack.secret_values.items():
        if len(value) < _SHORTEST_SECRET:
            continue
        path = _place_of(value, files, "")
        if path is not None:
            raise Refused(
                f"the value of secret {name} stands in plain text in the file {path}: it "
                "would be recorded",
                next_step=f"in the compose file, `configs: {{NAME: {{content: ...}}}}` with "
                f"${{{name}}} in it can take the file's place",
            )
        place = _place_of(value, recorded, "")
        if place is not None:
            raise Refused(
                f"the value of secret {name} stands in plain text at {place}: it would be recorded",
                next_step=f"write ${{{name}}} there; values from env_file are plain text, too",
            )


def _place_of(value: str, part: Any, place: str) -> str | None:
    if isinstance(part, str):
        return place if value in part or value in compose.plain(part) else None
    items: list[tuple[str, Any]] = []
    if isinstance(part, Mapping):
        items = [(str(k), v) for k, v in part.items()]
    elif isinstance(part, list | tuple):
        items = [(str(n), v) for n, v in enumerate(part)]
    for key, inner in items:
        found = _place_of(value, inner, f"{place}.{key}".lstrip("."))
        if found is not None:
            return found
    return None


def _record(
    catalog: Catalog, docker: Docker, release: Release, contents: Mapping[str, bytes]
) -> None:
    """Tags first, the record last: what has a record has its images."""
    made: list[str] = []
    try:
        for image in release.images.values():
            # Made before the tag exists: an interrupt in between must not leave it behind.
            made.append(image.tag)
            docker.tag(image.id, image.tag)
        failpoint("catalog.tagged")
        catalog.write(release, contents)
    except BaseException:
        for tag in made:
            docker.untag(tag)
        raise
