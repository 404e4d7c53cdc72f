"""A world's compose model as it is rehearsed: beside the live one, on networks of its own. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from reconciler.project import compose, dangers
from reconciler.project.compose import Model
from reconciler.trials.drillplan import foreign, harmless

_NOT_BESIDE = (
    "cgroup_parent", "external_links", "mac_address", "ports", "restart", "scale",
)  # fmt: skip
_ADDRESSES = ("ipv4_address", "ipv6_address", "link_local_ips", "mac_address")
_CPU_SHARES = 128
"""Of 1024 that a container has by default: whoever serves comes first."""
_KILLED_FIRST = 1000
_WRONG = re.compile(
    r"\b(error|fatal|panic|critical|exception|traceback|segfault|unhandled)\b", re.IGNORECASE
)
_SHOWN = 3


@dataclass(frozen=True)
class Wrong:
    """Lines of a service's log that speak of errors: how many, and the last of them."""

    count: int
    last: tuple[str, ...]


def held_back(model: Model) -> dict[str, str]:
    """Services that are not started in a rehearsal -> why: they act on the world outside."""
    found = dict.fromkeys(compose.after_commit(model), "start: after-commit")
    for danger in dangers.find(model):
        if danger.place not in ("build", "network_mode"):
            found.setdefault(danger.service, danger.what)
    return found


def beside(
    model: Model,
    without: Collection[str],
    *,
    label: tuple[str, str],
    files: str,
    outgoing: bool,
) -> dict[str, Any]:
    """The compose model of a world, for containers that nobody outside reaches: no port, no
    network that others have, nothing of the host that they could write, and what the host has too
    little of goes to others first.

    `without`: services to leave out; `label`: name and value; `files`: the folder with the config
    files that were laid out for them; `outgoing`: they may reach other hosts.
    """
    bodies = {
        name: _service(body, without, label, files)
        for name, body in model["services"].items()
        if name not in without
    }
    networks = {key: dict[str, Any]() for key in model.get("networks") or {}}
    networks.setdefault("default", {})
    for body in networks.values():
        body["internal"] = not outgoing
    kept = {k: v for k, v in model.items() if k not in ("services", "networks")}
    return {**kept, "services": bodies, "networks": networks}


def _service(
    body: Mapping[str, Any], without: Collection[str], label: tuple[str, str], files: str
) -> dict[str, Any]:
    found = {k: v for k, v in body.items() if k not in _NOT_BESIDE}
    for shared in ("cgroup", "ipc", "network_mode", "pid", "userns_mode", "uts"):
        kind, _, other = str(found.get(shared, "")).partition(":")
        if kind in ("host", "container", "bridge") or (kind == "service" and other in without):
            del found[shared]
    if "network_mode" not in found:
        said = found.get("networks") or {"default": None}
        found["networks"] = {key: _without_addresses(settings) for key, settings in said.items()}
    found["depends_on"] = {
        other: how for other, how in (found.get("depends_on") or {}).items() if other not in without
    }
    for key in ("links", "volumes_from"):
        left = [text for text in found.get(key) or () if text.split(":")[0] not in without]
        found[key] = [text for text in left if not text.startswith("container:")]
    if "deploy" in found:
        found["deploy"] = {k: v for k, v in found["deploy"].items() if k != "replicas"}
    found["labels"] = {**foreign(found.get("labels") or {}), label[0]: label[1]}
    found["volumes"] = [harmless(mount, files) for mount in found.get("volumes") or ()]
    found["cpu_shares"] = _CPU_SHARES
    found["oom_score_adj"] = _KILLED_FIRST
    return found


def _without_addresses(settings: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if not settings:
        return None
    return {key: value for key, value in settings.items() if key not in _ADDRESSES}


def wrong_lines(log: str) -> Wrong:
    """What in a log speaks of errors."""
    lines = [line.rstrip()[:300] for line in log.splitlines() if _WRONG.search(line)]
    return Wrong(len(lines), tuple(lines[-_SHOWN:]))


def differences(
    before: Mapping[str, int], after: Mapping[str, int]
) -> dict[str, tuple[int | None, int | None]]:
    """What was counted not alike -> (before, after); None: it was not there."""
    names: Sequence[str] = sorted({*before, *after})
    return {
        name: (before.get(name), after.get(name))
        for name in names
        if before.get(name) != after.get(name)
    }
