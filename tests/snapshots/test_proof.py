"""The proof: what was forked from a database under load is, to the last byte, what it left.

LOCKSTEP_ROUNDS=50 makes it as thorough as it was when it was written down; by default it is short.
"""

from __future__ import annotations

import mmap
import os
import random
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from snapshots.compare import tree_equal
from snapshots.fork import Fork
from snapshots.pace import Pace
from tests.snapshots.engines import POSTGRES, Container, docker, insist, insist_on_images
from tests.snapshots.trees import MIB

ROUNDS = int(os.environ.get("LOCKSTEP_ROUNDS", "2"))
PGBENCH = "/usr/lib/postgresql/15/bin/pgbench"


@contextmanager
def mapped_writer(path: Path) -> Iterator[None]:
    """Somebody who writes only through a mapping, into pages that are dirty and writable."""
    with open(path, "w+b") as file:
        file.truncate(8 * MIB)
        mapped, stop = mmap.mmap(file.fileno(), 8 * MIB), threading.Event()

    def write() -> None:
        while not stop.is_set():
            for _ in range(50):
                at = random.randrange(8 * MIB - 8)
                mapped[at : at + 8] = random.randbytes(8)
            time.sleep(0.001)

    thread = threading.Thread(target=write)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        mapped.close()


def load(run: Container) -> None:
    insist(docker("exec", "-d", run.name, PGBENCH, "-n", "-U", "shop", "-c2", "-T600", "shop"))


@pytest.mark.timeout(60 + 30 * ROUNDS)
def test_the_fork_of_a_database_under_load_is_what_it_left(tmp_path: Path) -> None:
    insist_on_images(POSTGRES.image)
    data, target = tmp_path / "data", tmp_path / "target"
    with POSTGRES.running(data) as run:
        insist(run([PGBENCH, "-i", "-q", "-s", "2", "-U", "shop", "shop"]))
        for number in range(ROUNDS):
            target.mkdir()
            load(run)
            with mapped_writer(data / "mapped"):
                fork = Fork(data, target, index=tmp_path / "index", pace=Pace(200 * MIB))
                fork.first_pass()
                for _ in range(number % 4):
                    insist(run(["psql", "-qX", "-U", "shop", "-d", "shop", "-c", "CHECKPOINT"]))
                    fork.catch_up()
                time.sleep(random.random() / 2)
                run.stop()
            stats = Fork(data, target, index=tmp_path / "index").final_pass()
            assert tree_equal(data, target) == [], f"round {number}"
            assert stats.changed > 0
            shutil.rmtree(target)
            insist(docker("start", run.name))
            run.wait_until(POSTGRES.ready)
