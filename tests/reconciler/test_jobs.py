"""Which services look like jobs that nobody marked."""

from __future__ import annotations

from typing import Any

import pytest

from reconciler.facts import Container
from reconciler.project import compose, jobs

MODEL = {
    "services": {
        "seed": {},
        "web": {"depends_on": {"migrate": {"condition": "service_completed_successfully"}}},
        "migrate": {},
        "sweep": {"x-lockstep": {"job": "again"}},
    }
}


def container(service: str, state: str = "exited", code: int = 0, **more: Any) -> Container:
    return Container(
        id=f"{service}{state}", name=service, project="shop", service=service, state=state,
        exit_code=code, restart_policy="no", image_id="", volumes={}, **more,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("containers", "told"),
    [
        ([container("seed")], True),
        ([container("seed", code=1)], False),
        ([container("seed"), container("seed", "running")], False),
        ([container("seed", one_off=True)], False),
        ([container("migrate"), container("sweep"), container("gone")], False),
        ([container("web", "created")], False),
    ],
)
def test_a_service_that_ended_well_is_told_of(containers: list[Container], told: bool) -> None:
    said = jobs.unmarked(MODEL, containers)
    assert bool(said) == told
    assert all("seed ended with exit code 0 here" in line for line in said)


def test_what_is_adopted_has_its_ended_services_as_jobs() -> None:
    made = jobs.marked(MODEL, [container("seed"), container("web", "running")])
    assert [s for s in made["services"] if compose.is_job(made, s)] == ["seed", "migrate", "sweep"]
    assert not compose.is_job(MODEL, "seed")
