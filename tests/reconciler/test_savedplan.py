"""A saved plan is carried out as it is, or not at all."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from reconciler.catalog import Catalog
from reconciler.config import Stack
from reconciler.errors import BadInput, WorldChanged
from reconciler.plan import AGREED, DiskNeed
from reconciler.planning import savedplan
from tests.reconciler.hostmodel import Host

MADE = "2026-01-01T00:00:00+00:00"


@pytest.fixture
def host() -> Host:
    host = Host()
    for _ in range(2):
        host.new()
        host.up()
    host.release = "prod-001"
    return host


def stack_of(host: Host, root: Path) -> Stack:
    return host.stack().model_copy(update={"root": root})


def saved(host: Host, root: Path) -> tuple[savedplan.Saved, Stack, Catalog]:
    stack = stack_of(host, root)
    catalog = Catalog(stack)
    savedplan.save(root / "plan", stack, catalog, host.state, host.plan(), MADE)
    return savedplan.read(root / "plan", stack), stack, catalog


def test_what_only_measures_may_differ_and_what_is_done_may_not(host: Host, tmp_path: Path) -> None:
    found, stack, catalog = saved(host, tmp_path)
    assert (tmp_path / "plan").stat().st_mode & 0o777 == 0o600
    plan = host.plan()
    assert found.plan == plan
    datasets = {n: replace(d, age_seconds=9.0, bytes=9) for n, d in plan.datasets.items()}
    later = replace(plan, datasets=datasets, disk=DiskNeed(9, 9, 9), warnings=("x",))
    savedplan.insist_on_same(found, stack, catalog, host.state, later)
    name, planned = next(iter(plan.datasets.items()))
    for other, why in (
        (replace(plan, target="prod-002"), "target"),
        (replace(plan, prune=("prod-002",)), "prune"),
        (replace(plan, datasets={**plan.datasets, name: replace(planned, new=True)}), name),
    ):
        with pytest.raises(WorldChanged, match=why):
            savedplan.insist_on_same(found, stack, catalog, host.state, other)


def test_a_ledger_or_a_config_that_went_on_is_another_world(host: Host, tmp_path: Path) -> None:
    found, stack, catalog = saved(host, tmp_path)
    moved = replace(host.state, chain="f" * 64)
    with pytest.raises(WorldChanged, match="something was done"):
        savedplan.insist_on_same(found, stack, catalog, moved, host.plan())
    secrets = stack.settings.model_copy(update={"secrets": {"A": "another"}})
    changed = stack.model_copy(update={"settings": secrets})
    with pytest.raises(WorldChanged, match="the config was changed"):
        savedplan.insist_on_same(found, changed, catalog, host.state, host.plan())


def test_the_program_carries_out_what_was_agreed_to_alone(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = host.plan()
    monkeypatch.delenv(AGREED, raising=False)
    savedplan.insist_on_agreed(plan)
    monkeypatch.setenv(AGREED, "")
    savedplan.agree(plan)
    savedplan.insist_on_agreed(plan)
    with pytest.raises(WorldChanged, match="to_world"):
        savedplan.insist_on_agreed(replace(plan, to_world="shop-prod-009"))


@pytest.mark.parametrize("content", [b"", b"{}", b"[1]", b'{"format": "lockstep-plan"}'])
def test_what_is_no_plan_is_bad_input(host: Host, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "plan").write_bytes(content)
    with pytest.raises(BadInput, match="holds no plan"):
        savedplan.read(tmp_path / "plan", stack_of(host, tmp_path))
    with pytest.raises(BadInput, match="cannot be read"):
        savedplan.read(tmp_path / "nothing", stack_of(host, tmp_path))
    found, stack, _ = saved(host, tmp_path)
    other = stack.model_copy(update={"name": "test"})
    with pytest.raises(BadInput, match="not of shop/test"):
        savedplan.read(tmp_path / "plan", other)
    assert found.stack == "prod"
