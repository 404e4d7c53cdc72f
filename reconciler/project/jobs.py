"""Services that look like jobs, by what their containers did, and are not marked as such. Pure."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

from reconciler.facts import Container
from reconciler.project import compose


def unmarked(model: compose.Model, containers: Iterable[Container]) -> list[str]:
    """A sentence for each service whose containers ended well, but which a release would be
    expected to keep running."""
    return [
        f"{service} ended with exit code 0 here: if it is a job, say `x-lockstep: {{job: true}}` "
        "on it in the compose file, or no release with it can be proved"
        for service in _ended_well(model, containers)
    ]


def marked(model: compose.Model, containers: Iterable[Container]) -> dict[str, Any]:
    """The model in which they are jobs: what is adopted can be gone back to as it was."""
    made: dict[str, Any] = copy.deepcopy(dict(model))
    for service in _ended_well(model, containers):
        body = made["services"][service]
        body[compose.NOTE] = {**(body.get(compose.NOTE) or {}), "job": True}
    return made


def _ended_well(model: compose.Model, containers: Iterable[Container]) -> list[str]:
    states: dict[str, list[bool]] = {}
    for container in containers:
        if not container.one_off:
            ended = container.state == "exited" and container.exit_code == 0
            states.setdefault(container.service, []).append(ended)
    return [
        service
        for service, ended in sorted(states.items())
        if all(ended) and service in compose.services(model) and not compose.is_job(model, service)
    ]
