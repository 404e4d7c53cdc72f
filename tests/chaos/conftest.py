from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.chaos.kills import Tally
from tests.chaos.rounds import Rounds
from tests.chaos.stage import Writer, chaos_project


@pytest.fixture(scope="module")
def rounds(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Rounds]:
    """One stack for all rounds of a file, its first release live."""
    project = chaos_project(tmp_path_factory.mktemp("chaos") / "stack")
    try:
        with Writer(project.port) as writer:
            made = Rounds(project, writer, Tally(), seed=request.module.__name__)
            made.first()
            yield made
    finally:
        project.remove()
