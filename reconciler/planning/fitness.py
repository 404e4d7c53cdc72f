"""Whether data can be taken along, and run on, seen before anything stops: where an engine keeps
some of it elsewhere, or the new image's engine cannot open it, the move is refused by name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path

from reconciler.config import Stack
from reconciler.docker import Docker, ExecResult, VolumeInfo
from reconciler.errors import Refused
from reconciler.plan import Action, DatasetPlan, Plan, Refusal
from reconciler.reaching.reach import driver_for
from reconciler.records.release import Dataset, Release
from reconciler.world import places
from snapshots.drivers import Driver

_LOOK_LONG = ("sqlite",)
"""Drivers that read all data to say whether it could be taken along."""
_TOOK_TOO_LONG = 124
_ANSWERS: dict[tuple[str, ...], ExecResult] = {}


def refusals(
    stack: Stack, docker: Docker, plan: Plan, records: Mapping[str, Release], live: str | None
) -> tuple[Refusal, ...]:
    """For the preview, what `insist_on_sources` would raise; what takes long is left to `up`.
    `live`: the release that runs now."""
    release = records.get(plan.target or "")
    if not plan.new_world or plan.refusals or release is None:
        return ()
    found = []
    ran, volumes = records.get(live or ""), docker.volumes()
    for planned in plan.datasets.values():
        try:
            _insist_on_source(stack, docker, volumes, planned, ran, release, quick=True)
        except Refused as refused:
            found.append(Refusal(refused.message, refused.next_step, refused.exit_code))
    return tuple(found)


def insist_on_sources(
    stack: Stack,
    docker: Docker,
    datasets: Iterable[DatasetPlan],
    before: Release | None,
    release: Release,
) -> None:
    """What is forked or worked on in place must lie in one place, and suit the release's images.
    `before`: the release that runs on it now. Raises Refused."""
    volumes = docker.volumes()
    for planned in datasets:
        _insist_on_source(stack, docker, volumes, planned, before, release)


def _insist_on_source(
    stack: Stack,
    docker: Docker,
    volumes: Mapping[str, VolumeInfo],
    planned: DatasetPlan,
    before: Release | None,
    release: Release,
    *,
    quick: bool = False,
) -> None:
    dataset = release.datasets.get(planned.name)
    if dataset is None or planned.action not in (Action.FORK, Action.IN_PLACE):
        return
    source = planned.source or planned.generation
    if planned.snapshot is not None or not _exists(volumes, source):
        return  # what is put in its place may be what saves it
    driver = _driver(stack, dataset)
    if quick and driver.name in _LOOK_LONG:
        return
    path = places.place(docker, source, volumes)
    problems = driver.check_path(path)
    problems = problems or _unfit(docker, driver, dataset, path, before, release)
    _refuse(release, dataset, problems)


def insist_on_restored(
    stack: Stack, docker: Docker, planned: DatasetPlan, release: Release
) -> None:
    """What was restored must suit the release's images: another release may have left it. Raises
    Refused."""
    dataset = release.datasets[planned.name]
    if planned.source_release != release.name:
        path = places.place(docker, planned.generation)
        driver = _driver(stack, dataset)
        _refuse(release, dataset, _unfit(docker, driver, dataset, path, None, release))


def _driver(stack: Stack, dataset: Dataset) -> Driver:
    return driver_for(dataset.driver, stack.settings.commands(dataset.name))


def _exists(volumes: Mapping[str, VolumeInfo], source: str) -> bool:
    return Path(source).is_dir() if source.startswith("/") else source in volumes


def _unfit(
    docker: Docker,
    driver: Driver,
    dataset: Dataset,
    path: Path,
    before: Release | None,
    release: Release,
) -> list[str]:
    mounts = [mount for mount in dataset.mounts if mount.service in release.images]
    # An image of one's own has any name: then each that mounts the data is asked.
    known = [m for m in mounts if driver.recognises(release.images[m.service].source, m.target)]
    problems: dict[str, None] = {}
    for mount in known or mounts:
        image = release.images[mount.service]
        ran = before.images.get(mount.service) if before is not None else None
        if ran is None or ran.id != image.id:
            problems |= dict.fromkeys(driver.unfit(path, partial(_ask, docker, image.id)))
    return list(problems)


def _ask(docker: Docker, image_id: str, argv: Sequence[str]) -> ExecResult:
    """An image never changes, so each question is asked once, for preview and update."""
    asked = (image_id, *argv)
    if asked not in _ANSWERS:
        answer = docker.ask(image_id, argv)
        if answer.code != _TOOK_TOO_LONG:
            _ANSWERS[asked] = answer
        return answer
    return _ANSWERS[asked]


def _refuse(release: Release, dataset: Dataset, problems: list[str]) -> None:
    if problems:
        raise Refused(
            f"dataset {dataset.name} cannot go along to {release.name}: {'; '.join(problems)}",
            next_step="nothing was stopped. If it is no "
            f"{dataset.driver} data at all: lockstep config set --path "
            f"datasets.{dataset.name}.driver directory, and declare the release anew",
        )
