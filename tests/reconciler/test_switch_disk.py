"""A switch whose catalog lies on a disk that gets full, fails, or a memory limit that ends it."""

from __future__ import annotations

import errno
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from reconciler.errors import LockstepError
from reconciler.host import hostlock
from reconciler.records.journal import JournalFile
from tests.failing import failing
from tests.faultdisk.mount import FaultDisk
from tests.memorylimit import enter, killed_in, memory_limit
from tests.reconciler.test_switch_crash import follower, until
from tests.reconciler.trial import Trial, docker_cli, web


def in_chaos(value: str) -> Any:
    return pytest.param(value, marks=pytest.mark.chaos)


FILES = {"journal": "*journal-*", "ledger": "*ledger-*", "all of it": "*"}


@pytest.fixture
def shop(trial: Trial, disk: FaultDisk) -> Trial:
    """prod-001 is live; its catalog lies on the disk that fails."""
    (trial.folder / "releases").symlink_to(disk.path)
    disk.path.chmod(0o700)
    # One network for all worlds: there are more of them than Docker has address ranges.
    network = f"{trial.project}-shared"
    docker_cli("network", "create", network)
    trial.write({"web": web()}, networks={"default": {"name": network, "external": True}})
    trial.new()
    trial.up()
    trial.note("one")
    return trial


def insist_on_old_or_new(trial: Trial) -> None:
    """One world answers with its data; what was interrupted is put right by the next operation."""
    trial.recover()
    live = trial.state.live
    assert live is not None
    trial.insist_on_one_world(live)
    assert trial.notes() == ["one"]


def fails_at(
    shop: Trial, disk: FaultDisk, what: str, kind: str, code: int, nth: int, version: int
) -> bool:
    """One switch in which the Nth such operation fails, and a full disk stays full. Whether it
    came to that."""
    shop.new(VERSION=str(version))
    before, failure = shop.state.live, None
    with shop.locked():
        shop.make(shop.plan())
    disk.fail(kind, nth, code, lasting=code == errno.ENOSPC, of=FILES[what])
    try:
        shop.up()
    except (LockstepError, OSError) as error:
        failure = error
    failed = disk.heal()
    until(lambda: hostlock.holder() is None)
    insist_on_old_or_new(shop)
    if shop.state.live == before:
        assert failure is not None
        assert not shop.state.quarantined, "the disk failed, not the release"
        shop.up()
    assert shop.ask()["version"] == str(version)
    return failed > 0


@pytest.mark.parametrize(
    "what",
    ["journal", *(pytest.param(w, marks=pytest.mark.chaos) for w in ("ledger", "all of it"))],
)
def test_fault_13_the_disk_is_full_in_the_midst_of_a_switch(
    what: str, shop: Trial, disk: FaultDisk
) -> None:
    """No space left for the journal, the ledger or anything of the catalog, from the first write of
    a switch on, and from a later one: the old or the new release serves with its data, the release
    is not blamed, and the next up goes all the way."""
    for version, nth in enumerate((1, 2) if what == "ledger" else (1, 5), start=2):
        fails_at(shop, disk, what, "write", errno.ENOSPC, nth, version)


@pytest.mark.chaos
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("kind", ["write", "fsync", "rename"])
@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC], ids=["broken", "full"])
def test_fault_13_16_each_operation_of_a_switch_on_its_catalog_fails(
    code: int, kind: str, shop: Trial, disk: FaultDisk
) -> None:
    """The Nth write, sync or rename of a switch in its catalog fails, for every N: old or new
    serves with its data, and the next up goes all the way."""
    version = nth = 1
    while True:
        version += 1
        if not fails_at(shop, disk, "all of it", kind, code, nth, version):
            break
        nth += 1
    assert nth > 5


@pytest.mark.parametrize("step", ["started", in_chaos("stop"), in_chaos("committed")])
def test_fault_7_a_memory_limit_ends_the_switch(step: str, trial: Trial) -> None:
    """The kernel kills the switch for want of memory after its stop, before and after its commit:
    the old or the new release serves with its data, and the next up converges."""
    trial.write({"web": web()})
    trial.new()
    trial.up()
    trial.note("one")
    trial.new(VERSION="2")
    with trial.locked():
        trial.make(trial.plan())
    with memory_limit(0) as group, failing(f"switch.{step} stop") as points:
        caller = follower(trial)
        journal = JournalFile(trial.catalog.journal)
        until(lambda: points.happened)
        intent = journal.read()
        assert intent is not None
        until(lambda: _is_stopped(intent.pid))
        enter(group, intent.pid)
        os.kill(intent.pid, signal.SIGCONT)
        until(lambda: not Path(f"/proc/{intent.pid}").exists() or _is_zombie(intent.pid))
        assert killed_in(group) == 1
        caller.wait()
        until(lambda: hostlock.holder() is None)
    insist_on_old_or_new(trial)
    if trial.state.live != trial.world(2):
        assert step != "committed"
        trial.up()
    assert trial.ask()["version"] == "2"


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def _is_stopped(pid: int) -> bool:
    return _state(pid) == "T"


def _is_zombie(pid: int) -> bool:
    return _state(pid) == "Z"
