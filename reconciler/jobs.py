"""Services that look like jobs, by what their containers did, and are not marked as such. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from reconciler import compose
from reconciler.facts import Container


def unmarked(model: compose.Model, containers: Iterable[Container]) -> list[str]:
    """A sentence for each service whose containers ended well, but which a release would be
    expected to keep running."""
    states: dict[str, list[bool]] = {}
    for container in containers:
        if not container.one_off:
            ended = container.state == "exited" and container.exit_code == 0
            states.setdefault(container.service, []).append(ended)
    return [
        f"{service} ended with exit code 0 here: if it is a job, say `x-lockstep: {{job: true}}` "
        "on it in the compose file, or no release with it can be proved"
        for service, ended in sorted(states.items())
        if all(ended) and service in compose.services(model) and not compose.is_job(model, service)
    ]
