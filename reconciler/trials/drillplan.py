"""What a drill restores and starts, and what it makes of what it finds. Pure."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from reconciler.docker import dockervalues
from reconciler.errors import BadInput
from reconciler.planning import retention
from reconciler.project.compose import Model
from reconciler.records.ledger import Departure, State
from reconciler.records.release import Dataset, Mount, Release

LABEL = "lockstep.drill"
"""Marks a drill's containers and volumes; its value is `project/stack`."""

_FILES_TELL = ("directory", "sqlite")
"""Drivers that look at files alone: whatever service has them need not run for that."""
_SHORTEST_ID = 6
_NOT_ALONE = (
    "depends_on", "dns", "dns_opt", "dns_search", "expose", "external_links", "extra_hosts",
    "links", "logging", "mac_address", "networks", "ports", "scale", "volumes_from",
)  # fmt: skip


@dataclass(frozen=True)
class Wanted:
    """One dataset of a drill: the snapshot to restore, and what it held when it was left."""

    dataset: Dataset
    snapshot: str | None
    """None: nothing of it is in the store."""
    recorded: Mapping[str, int] = field(default_factory=dict)


def wanted(state: State, record: Release, at: str, present: Mapping[str, str]) -> list[Wanted]:
    """The datasets of a release as it was at `at`: departure, arrival, or one snapshot (its id, or
    how that begins).

    `present`: snapshot -> dataset, of the store. Raises BadInput when there is no such content.
    """
    if at in ("departure", "arrival"):
        content = _content(state, record.name, at)
        return [
            _of(dataset, content, present)
            for dataset in record.datasets.values()
            if {dataset.name, dataset.was} & {*content.generations, *content.snapshots}
        ]
    begins = [s for s in present if len(at) >= _SHORTEST_ID and s.startswith(at)]
    meant = [at] if at in present else begins
    for dataset in record.datasets.values():
        if len(meant) == 1 and present[meant[0]] in (dataset.name, dataset.was):
            return [Wanted(dataset, meant[0], _counts(state, meant[0]))]
    raise BadInput(
        f"the store has no snapshot {at[:40]!r} of a dataset of {record.name}",
        next_step=f"lockstep info {record.name}   shows its snapshots",
    )


def _content(state: State, release: str, at: str) -> Departure:
    if at == "arrival":
        found = list(retention.arrivals(state, release).values())[:1]
    else:
        found = state.departures_of(release)[-1:]
    if found:
        return found[0]
    why = "has not been left yet" if at == "departure" else "started from no data of a release"
    raise BadInput(
        f"there is no {at} of {release} to restore: it {why}",
        next_step="lockstep list   shows the releases; --at takes departure, arrival or a snapshot",
    )


def _of(dataset: Dataset, content: Departure, present: Mapping[str, str]) -> Wanted:
    name = dataset.name if dataset.name in content.snapshots else dataset.was or dataset.name
    snapshot = content.snapshots.get(name)
    found = snapshot if snapshot in present else None
    return Wanted(dataset, found, content.probes.get(name, {}))


def _counts(state: State, snapshot: str) -> Mapping[str, int]:
    for departure in reversed(state.departures):
        for dataset, known in departure.snapshots.items():
            if known == snapshot:
                return departure.probes.get(dataset, {})
    return {}


def engine_of(
    dataset: Dataset, record: Release, recognises: Callable[[str, str], bool]
) -> Mount | None:
    """Where the service that serves a dataset mounts it; None when it is only files to everybody.

    `recognises`: whether the dataset's driver knows an image with data at that path.
    """
    if dataset.driver in _FILES_TELL:
        return None
    for mount in dataset.mounts:
        image = record.images.get(mount.service)
        if image is not None and recognises(image.source or image.tag, mount.target):
            return mount
    return next((m for m in dataset.mounts if not m.read_only), None)


def mounted(record: Release, services: Collection[str]) -> set[str]:
    """Datasets that any of the services mounts: none of them may be the one that is in use."""
    return {
        dataset.name
        for dataset in record.datasets.values()
        if any(mount.service in services for mount in dataset.mounts)
    }


def alone(model: Model, services: Collection[str], owner: str, files: str) -> dict[str, Any]:
    """A world's compose model reduced to services that stand alone: no network, no port, nothing
    of the host that they could write. `owner`: the label's value; `files`: the folder with the
    config files that were laid out for them."""
    bodies = {}
    for name in services:
        body = {k: v for k, v in model["services"][name].items() if k not in _NOT_ALONE}
        for shared in ("ipc", "pid", "uts"):
            if str(body.get(shared, "")).startswith(("service:", "container:", "host")):
                del body[shared]
        if "deploy" in body:
            body["deploy"] = {k: v for k, v in body["deploy"].items() if k != "replicas"}
        body["network_mode"] = "none"
        body["labels"] = {**foreign(body.get("labels") or {}), LABEL: owner}
        body["volumes"] = [harmless(mount, files) for mount in body.get("volumes") or ()]
        bodies[name] = body
    used = {
        mount.get("source")
        for body in bodies.values()
        for mount in body["volumes"]
        if mount.get("type") == "volume"
    }
    volumes = {k: v for k, v in (model.get("volumes") or {}).items() if k in used}
    kept = {k: v for k, v in model.items() if k not in ("networks", "services", "volumes")}
    return {**kept, "services": bodies, "volumes": volumes}


def foreign(labels: Mapping[str, str]) -> dict[str, str]:
    """Without ours: who looks for a stack's containers must not find these."""
    ours = (dockervalues.OUR_PROJECT, dockervalues.OUR_STACK, dockervalues.OUR_WORLD)
    return {k: v for k, v in labels.items() if k not in ours}


def harmless(mount: Mapping[str, Any], files: str) -> dict[str, Any]:
    """A mount by which nothing of the host can be written; `files`: where ours may be."""
    inside = str(mount.get("source", "")).startswith(f"{files}/")
    if mount.get("type") == "bind" and not inside:
        return {**mount, "read_only": True}
    return dict(mount)


def lost(recorded: Mapping[str, int], found: Mapping[str, int]) -> list[str]:
    """What held something when the release was left and is empty or missing now, in words.

    Other differences are no loss: an engine is counted a moment before it stops.
    """
    return [
        f"{what} is {'empty' if what in found else 'missing'}, although it held {count}"
        for what, count in sorted(recorded.items())
        if count > 0 and not found.get(what)
    ]


def differing(recorded: Mapping[str, int], found: Mapping[str, int]) -> dict[str, tuple[int, int]]:
    """What was counted both times, but not alike -> (recorded, found)."""
    return {
        what: (count, found[what])
        for what, count in sorted(recorded.items())
        if what in found and found[what] != count
    }
