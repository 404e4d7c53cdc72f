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
LONGEST_FIRST = (
    "tests/stacks/test_shop.py",
    "tests/stacks/test_moves.py",
    "tests/reconciler/test_switch_crash.py",
    "tests/chaos/",
    "tests/stacks/",
    "tests/snapshots/contract/",
    "tests/demo/",
    "tests/docs/",
    "tests/reconciler/",
)
"""Files go to the workers as wholes, in this order: short ones at the end keep both busy."""


# Before pytest looks at -m.
@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if FAULT.match(item.name):
            item.add_marker(pytest.mark.fault)
    items.sort(key=_rank)


def _rank(item: pytest.Item) -> int:
    ranks = enumerate(LONGEST_FIRST)
    return next((n for n, start in ranks if item.nodeid.startswith(start)), len(LONGEST_FIRST))


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[FaultDisk]:
    """A disk that fails, lies, fills up or loses power when it is told to."""
    with fault_disk(tmp_path) as mounted:
        yield mounted
