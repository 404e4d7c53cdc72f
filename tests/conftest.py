"""What is a fault of the plan or an attack says so in its name, and is marked by it: `make chaos`
runs them all, also those that take long."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests.faultdisk.mount import FaultDisk, fault_disk

settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

FAULT = re.compile(r"test_(fault_\d|attack_)")


# Before pytest looks at -m.
@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if FAULT.match(item.name):
            item.add_marker(pytest.mark.fault)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[FaultDisk]:
    """A disk that fails, lies, fills up or loses power when it is told to."""
    with fault_disk(tmp_path) as mounted:
        yield mounted
