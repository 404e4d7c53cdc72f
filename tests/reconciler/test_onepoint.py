"""A group of datasets is captured at one point, on real Docker, while it is written to."""

from __future__ import annotations

import json
import os
import time
from datetime import datetime
from pathlib import Path

import pytest

from reconciler.errors import BadInput, LockstepError
from reconciler.facts import Container
from reconciler.plan import Move
from reconciler.upkeep import onepoint
from snapshots.restore import restore
from snapshots.store import SnapshotRecord, Store
from tests.reconciler.trial import PYTHON, Trial, cache
from tests.snapshots.engines import REDIS

# One number after the other goes to a file, to Redis, and to a file in another volume: at any
# point in time each is equal to the one before it, or one less.
COUNTER = """
import os, socket, time
def put(path, n):
    with open(path + ".new", "w") as file:
        file.write(str(n))
    os.replace(path + ".new", path)
n = 0
while True:
    try:
        with socket.create_connection(("cache", 6379), timeout=60) as redis:
            answers = redis.makefile("rb")
            while True:
                n += 1
                put("/first/n", n)
                redis.sendall(b"SET n %d\\r\\n" % n)
                assert answers.readline() == b"+OK\\r\\n"
                put("/second/n", n)
    except OSError:
        time.sleep(0.1)
"""
GROUP = ("first", "numbers", "second")


@pytest.fixture
def counting(trial: Trial) -> Trial:
    if os.geteuid() != 0:
        pytest.skip("only root can read volumes")
    (trial.folder / "counter.py").write_text(COUNTER)
    mounts = ["first:/first", "second:/second", "./counter.py:/counter.py:ro"]
    trial.write(
        {
            "counter": {
                "image": PYTHON,
                "command": ["python3", "/counter.py"],
                "volumes": mounts,
                "healthcheck": {"test": ["CMD", "test", "-s", "/second/n"], "interval": "1s"},
                "depends_on": {"cache": {"condition": "service_healthy"}},
                "stop_grace_period": "0s",
            },
            "cache": cache(
                command=["redis-server", "--save", "3600", "1"], volumes=["numbers:/data"]
            ),
        }
    )
    trial.settings["groups"] = {"all": list(GROUP)}
    trial.new()
    trial.up()
    return trial


def take(trial: Trial, limit: float) -> dict[str, SnapshotRecord]:
    world = trial.state.worlds[trial.world(1)]
    return onepoint.take(
        trial.stack, trial.catalog, trial.docker, world, "all", trial.say, freeze_limit=limit
    )


def states(trial: Trial) -> set[str]:
    return {c.state for c in containers(trial)}


def test_all_of_a_group_are_of_one_moment(counting: Trial, tmp_path: Path) -> None:
    store = Store.open(counting.stack.store)
    known: set[str] = set()
    for attempt in range(2):
        taken = take(counting, 60)
        assert states(counting) == {"running"}
        assert set(taken) == set(GROUP)
        assert len({record.tags[onepoint.POINT] for record in taken.values()}) == 1
        known |= {record.id for record in taken.values()}
        assert set(store.ids()) == known, "what was read in advance is no snapshot to keep"
        restored = {name: tmp_path / f"{name}-{attempt}" for name in GROUP}
        for name, folder in restored.items():
            restore(store, taken[name].id, folder)
        with REDIS.running(restored["numbers"]) as redis:
            middle = int(redis(["redis-cli", "GET", "n"]).stdout)
        first, second = (int((restored[n] / "n").read_text()) for n in ("first", "second"))
        assert first >= middle >= second >= first - 1
    assert any("stood still" in text for text in counting.said)


def test_who_would_stand_still_for_too_long_goes_on_and_there_is_no_snapshot(
    counting: Trial,
) -> None:
    insist_on_names(counting)
    with pytest.raises(LockstepError, match="no snapshot of group all") as failed:
        take(counting, 0.05)
    assert "--freeze-limit" in failed.value.next_step
    assert Store.open(counting.stack.store).ids() == []
    assert states(counting) == {"running"}
    before = counting.exec(counting.world(1), "cache", "redis-cli", "GET", "n")
    deadline = time.monotonic() + 30
    while (
        counting.exec(counting.world(1), "cache", "redis-cli", "GET", "n") == before
        and time.monotonic() < deadline
    ):
        time.sleep(0.1)
    assert counting.exec(counting.world(1), "cache", "redis-cli", "GET", "n") != before
    for container in containers(counting):
        counting.docker.pause(container.id)  # as if everything of ours had been killed meanwhile
    assert counting.up().move is Move.REPAIR
    assert states(counting) == {"running"}


SLOW = """
import os, signal, time
def end(*_):
    time.sleep(2)
    os._exit(0)
signal.signal(signal.SIGTERM, end)
while True:
    time.sleep(1)
"""


def test_a_switch_seals_a_group_only_when_all_who_write_it_have_stopped(trial: Trial) -> None:
    alive = {"healthcheck": {"test": ["CMD", "true"], "interval": "1s"}, "image": PYTHON}
    waiting = ["python3", "-c", SLOW]
    trial.write(
        {
            "quick": {**alive, "command": ["sleep", "600"], "init": True, "volumes": ["left:/a"]},
            "slow": {**alive, "command": waiting, "volumes": ["right:/b"]},
        }
    )
    trial.settings["groups"] = {"both": ["left", "right"]}
    trial.new()
    trial.up()
    trial.new()
    trial.up()
    stopped = {c.service: trial.docker.inspect(c.id).finished for c in containers(trial)}
    log = max(trial.catalog.logs().glob("deploy-*.jsonl"))
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    (sealed,) = [line["at"] for line in lines if line.get("say", "").startswith("left: the last")]
    assert stopped["quick"] < stopped["slow"]
    assert moment(stopped["slow"]) < moment(sealed)


def containers(trial: Trial) -> tuple[Container, ...]:
    return trial.docker.containers(project=trial.world(1))


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text[:23].rstrip("Z") + "+00:00")


def insist_on_names(counting: Trial) -> None:
    """What is not there is refused by name, when a release is made and when it is captured."""
    record = counting.catalog.record("prod-001")
    with pytest.raises(BadInput, match="no group some; it has all"):
        onepoint.datasets_of(counting.stack, record, "some")
    counting.settings["groups"] = {"all": ["first", "frist"]}
    with pytest.raises(BadInput, match="names frist, which prod-001 does not have"):
        onepoint.datasets_of(counting.stack, record, "all")
    with pytest.raises(BadInput, match=r"config groups.all names frist, but .* it has first, num"):
        counting.new()
    counting.settings["groups"] = {"all": list(GROUP)}
