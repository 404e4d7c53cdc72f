"""Faults of containers and engines during a switch, on real Docker and Redis."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from reconciler import program
from reconciler.errors import Reverted
from reconciler.plan import Action
from tests.reconciler.trial import PYTHON, REDIS, Trial, cache, web

FLAPPING = (
    "import sys, time, pathlib as p; f = p.Path('/tmp/looks'); "
    "n = int(f.read_text()) if f.exists() else 0; f.write_text(str(n + 1)); sys.exit(n > 0)"
)
"""A health check that passes once and then never again."""


def sleeper(command: str, **more: object) -> dict[str, object]:
    return {"image": PYTHON, "command": ["sh", "-c", command], **more}


@pytest.mark.chaos
def test_fault_35_a_release_that_flaps_or_dies_while_it_is_watched(trial: Trial) -> None:
    """With `steady`, a release whose health check passes and fails later, and one that ends by
    itself after it was healthy, are reverted and quarantined; a sound one goes live."""
    trial.settings["steady"] = 4
    trial.write({"web": web()})
    trial.new()
    trial.up()
    trial.note("kept")
    check = {"test": ["CMD", "python3", "-c", FLAPPING], "interval": "30s", "retries": 1}
    trial.write({"web": web(), "flapping": sleeper("sleep 99", init=True, healthcheck=check)})
    flapping = trial.new()
    with pytest.raises(Reverted, match=r"the health check of flapping .* while it was watched"):
        trial.up()
    assert flapping in trial.state.quarantined
    trial.write({"web": web(), "mortal": sleeper("sleep 3; exit 7", restart="always")})
    mortal = trial.new()
    with pytest.raises(Reverted, match="mortal ended with exit code 7"):
        trial.up()
    assert mortal in trial.state.quarantined
    trial.insist_on_one_world(trial.world(1))
    assert trial.notes() == ["kept"]


def test_fault_37_38_deaf_and_restarting_services_of_the_old_world(trial: Trial) -> None:
    """One service ignores SIGTERM, another ends and is started again by Docker (restart: always)
    all the time: preview says what the first costs; after the switch neither runs or comes back."""
    trial.write(
        {
            "web": web(),
            "deaf": sleeper("trap '' TERM; while :; do sleep 0.2; done", stop_grace_period="2s"),
            "restless": sleeper(
                "while [ ! -e /tmp/go ]; do sleep 0.1; done; sleep 0.3; exit 1", restart="always"
            ),
        }
    )
    trial.new()
    trial.up()
    trial.exec(trial.world(1), "restless", "touch", "/tmp/go")
    trial.write({"web": web()})
    trial.new(VERSION="2")
    warned = program.facts_and_plan(trial.stack, probe=False).warnings
    said = "service deaf ignores SIGTERM: stopping it takes its whole grace period of 2 s"
    assert said in warned
    trial.up()
    trial.insist_on_one_world(trial.world(2))
    time.sleep(1.5)  # longer than Docker waits before it starts `restless` again
    trial.insist_on_one_world(trial.world(2))
    assert trial.ask()["version"] == "2"


def folder(trial: Trial, number: int) -> Path:
    volume = trial.docker.volume(f"{trial.project}-prod_cache-data_g{number}")
    assert volume is not None
    return volume.path


@pytest.mark.chaos
def test_fault_75_redis_saves_at_sigterm_into_the_old_volume_only(trial: Trial) -> None:
    """A Redis that writes its RDB only when it is told to stop: what it saves at a switch is in the
    old generation and goes along; what the new one saves later changes nothing in the old."""
    saving = cache(command=["redis-server", "--save", "3600 1", "--appendonly", "no"])
    trial.write({"cache": saving})
    trial.new()
    trial.up()
    trial.exec(trial.world(1), "cache", "redis-cli", "set", "who", "one")
    assert not (folder(trial, 1) / "dump.rdb").exists()
    trial.new()
    trial.up()
    assert trial.exec(trial.world(2), "cache", "redis-cli", "get", "who").strip() == "one"
    sealed = (folder(trial, 1) / "dump.rdb").read_bytes()
    trial.exec(trial.world(2), "cache", "redis-cli", "set", "who", "two")
    trial.exec(trial.world(2), "cache", "redis-cli", "save")
    assert (folder(trial, 1) / "dump.rdb").read_bytes() == sealed
    assert trial.up("prod-001").datasets["cache-data"].action is Action.ATTACH
    assert trial.exec(trial.world(1), "cache", "redis-cli", "get", "who").strip() == "one"


def test_fault_77_a_cut_append_only_file_is_no_proof_though_ping_answers(trial: Trial) -> None:
    """The append-only file of a sealed generation that is not in the store yet is cut to nothing:
    Redis starts and answers PING, but holds no key; reverted, and production has its data."""
    trial.write({"cache": cache()})
    trial.new()
    trial.up()
    keys = [word for n in range(50) for word in (f"key{n}", "value")]
    trial.exec(trial.world(1), "cache", "redis-cli", "mset", *keys)
    trial.new()
    trial.up()
    trial.exec(trial.world(2), "cache", "redis-cli", "set", "later", "kept")
    for part in (folder(trial, 1) / "appendonlydir").glob("*.incr.aof"):
        part.write_bytes(b"")
    with pytest.raises(Reverted, match="cache-data: Redis has AOF on and started empty"):
        trial.up("prod-001")
    trial.insist_on_one_world(trial.world(2))
    assert trial.exec(trial.world(2), "cache", "redis-cli", "dbsize").strip() == "51"


def test_fault_42_a_mount_below_an_images_own_volume(trial: Trial) -> None:
    """An image laid out as postgres:18, whose VOLUME is /var/lib/postgresql, with our volume at the
    data folder of before: refused with the line to add, and nothing is made."""
    (trial.folder / "Dockerfile").write_text(f"FROM {REDIS}\nVOLUME /var/lib/postgresql\n")
    body = cache(volumes=["db:/var/lib/postgresql/data"])
    del body["image"]
    trial.write({"db": {**body, "build": {"context": "."}}})
    with pytest.raises(Exception, match="/var/lib/postgresql") as refused:
        trial.new()
    assert getattr(refused.value, "exit_code", 1) in (2, 3)
    assert trial.catalog.records()[0] == {}
