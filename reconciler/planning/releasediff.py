"""Two releases side by side: what a preview tells of going from one to the other. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

from reconciler.facts import Container
from reconciler.plan import Action, Move, Plan
from reconciler.planning.outlook import EngineJump, Migrations, Outlook, ServiceChange
from reconciler.project import compose
from reconciler.records.release import Image, Release

_VERSION = re.compile(r"v?(\d+(?:\.\d+)*)")
_TOLD_APART = ("images", "datasets", "files", "services", "dropped")
_IMAGE = ("image", "build")
"""Of a service: told by the image that it runs."""


def between(before: Release | None, after: Release) -> Outlook:
    """What going from one release to the other changes; without a `before`, all is added."""
    if before is None:
        names = sorted(compose.services(after.model))
        return Outlook(tuple(ServiceChange(n, "added", ("", _image(after, n))) for n in names))
    old, new = compose.comparable(before), compose.comparable(after)
    services = tuple(_services(before, after, old, new))
    told = {change.service for change in services}
    rest = [{k: v for k, v in one.items() if k not in _TOLD_APART} for one in (old, new)]
    files = {**old["files"], **new["files"]}
    return Outlook(
        services=services,
        unchanged=tuple(sorted(name for name in new.get("services", {}) if name not in told)),
        others=tuple(compose.changed(*rest)),
        files=tuple(sorted(f for f in files if old["files"].get(f) != new["files"].get(f))),
        engines=tuple(_engines(before, after)),
        migrations=_migrations(before, after),
    )


def adopting(running: Iterable[Container], after: Release) -> Outlook:
    """What differs from a plain compose project that runs, as far as its containers tell."""
    runs: dict[str, set[str]] = {}
    for container in running:
        runs.setdefault(container.service, set()).add(container.image_id)
    services = []
    for name in sorted({*runs, *compose.services(after.model)}):
        image = after.images.get(name)
        if name not in runs or image is None:
            word = "added" if name not in runs else "removed"
            services.append(ServiceChange(name, word, ("", _image(after, name)) if image else None))
        elif runs[name] != {image.id}:
            was = ", ".join(sorted(_short(i) for i in runs[name]))
            services.append(ServiceChange(name, "changed", (was, _image(after, name))))
    told = {change.service for change in services}
    return Outlook(tuple(services), unchanged=tuple(sorted({*runs} - told)))


def _services(
    before: Release, after: Release, old: dict[str, Any], new: dict[str, Any]
) -> Iterator[ServiceChange]:
    was, will = old.get("services", {}), new.get("services", {})
    for name in sorted({*was, *will}):
        images = _image(before, name), _image(after, name)
        if name not in was or name not in will:
            yield ServiceChange(name, "added" if name in will else "removed", images)
            continue
        definition = compose.changed(_defined(was[name]), _defined(will[name]))
        other = old["images"].get(name) != new["images"].get(name)
        if definition or other:
            yield ServiceChange(name, "changed", images if other else None, tuple(definition))


def _defined(body: Any) -> Any:
    if not isinstance(body, dict):
        return body
    return {key: value for key, value in body.items() if key not in _IMAGE}


def _image(release: Release, service: str) -> str:
    """`postgres:16 (1a2b3c4d5e6f)`."""
    image = release.images.get(service)
    return f"{_name(image)} ({_short(image.id)})" if image else ""


def _short(image_id: str) -> str:
    return image_id.removeprefix("sha256:")[:12]


def _name(image: Image) -> str:
    return (image.source or image.tag).partition("@")[0]


def _engines(before: Release, after: Release) -> Iterator[EngineJump]:
    from reconciler.reaching.reach import driver_for
    from snapshots.errors import Unsupported

    for name, dataset in after.datasets.items():
        for mount in dataset.mounts:
            was, will = before.images.get(mount.service), after.images.get(mount.service)
            if was is None or will is None or was.id == will.id:
                continue
            try:
                driver = driver_for(dataset.driver)
            except Unsupported:
                continue
            versions = _version(was), _version(will)
            if driver.recognises(will.source, mount.target) and versions[0] != versions[1]:
                yield EngineJump(name, dataset.driver, *versions)


def _version(image: Image) -> str:
    """`15.4` of `postgres:15.4-bookworm`; "" where the name does not tell."""
    found = _VERSION.match(_name(image).rpartition("/")[2].partition(":")[2])
    return found[1] if found else ""


def _migrations(before: Release, after: Release) -> Migrations | None:
    if before.migrations is None or after.migrations is None:
        return None
    was, will = before.migrations, after.migrations
    return Migrations(
        new=tuple(sorted(will.keys() - was.keys())),
        unknown=tuple(sorted(was.keys() - will.keys())),
        altered=tuple(sorted(f for f in was.keys() & will.keys() if was[f] != will[f])),
    )


def warnings(plan: Plan, outlook: Outlook) -> tuple[str, ...]:
    """What in the differences may do harm to the data."""
    found = []
    migrations = outlook.migrations
    along = sorted(n for n, d in plan.datasets.items() if d.action is Action.FORK)
    if plan.move is Move.BACK and along and migrations is not None and migrations.unknown:
        found.append(
            f"{', '.join(along)} goes along to {plan.target} as it is now, after "
            f"{len(migrations.unknown)} migrations that {plan.target} does not know"
        )
    return tuple(found)
