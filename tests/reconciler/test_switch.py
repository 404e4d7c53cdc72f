"""The switch on real Docker: where it leads, what it leaves behind, and what it refuses."""

from __future__ import annotations

import threading
import time

import pytest

from reconciler import switch
from reconciler.errors import Refused, Reverted, WorldChanged
from reconciler.plan import Action, Move
from tests.reconciler.trial import HEALTH, POSTGRES, PYTHON, Trial, cache, docker_cli, web

NEEDS_CACHE = {"cache": {"condition": "service_healthy"}}
SOON = 6
"""Seconds: long enough for a busy machine, short enough to wait for a failure."""


def two_services(trial: Trial) -> None:
    trial.write({"web": web(depends_on=NEEDS_CACHE), "cache": cache()})


def test_first_forward_and_back(trial: Trial) -> None:
    two_services(trial)
    trial.new()
    assert trial.up().move is Move.FIRST
    trial.insist_on_one_world(trial.world(1))
    assert trial.policies(trial.world(1)) == {"web": "unless-stopped", "cache": "always"}
    assert trial.committed().downtime_seconds is None
    trial.note("one")
    trial.exec(trial.world(1), "cache", "redis-cli", "set", "k", "one")

    trial.new(VERSION="2")
    assert trial.up().move is Move.FORWARD
    trial.insist_on_one_world(trial.world(2))
    assert trial.ask() == {"version": "2", "notes": ["one"]}
    trial.note("two")
    outcome = trial.committed()
    assert set(outcome.sealed) == {"notes", "cache-data"}
    assert outcome.probes["notes"]["files"] == 1
    assert outcome.probes["cache-data"] == {"db0": 1}
    assert outcome.downtime_seconds is not None
    assert 0 < outcome.downtime_seconds < 10

    trial.said.clear()
    plan = trial.up("prod-001")
    assert {d.action for d in plan.datasets.values()} == {Action.ATTACH}
    trial.insist_on_one_world(trial.world(1))
    assert trial.ask() == {"version": "1", "notes": ["one"]}
    assert any("before the stop" in text and "cache" in text for text in trial.said)
    assert trial.policies(trial.world(1)) == {"web": "unless-stopped", "cache": "always"}

    trial.up("prod-002")
    trial.insist_on_one_world(trial.world(2))
    assert trial.ask() == {"version": "2", "notes": ["one", "two"]}


def test_fault_35_a_sick_release_is_reverted_with_its_data(trial: Trial) -> None:
    """A release that is never healthy: reverted at its deadline with image, config and data, and
    quarantined."""
    trial.write({"web": web()})
    trial.new()
    trial.up()
    trial.note("kept")
    trial.settings["deadline"] = SOON
    trial.new(VERSION="2", MODE="sick")
    with pytest.raises(Reverted) as raised:
        trial.up()
    trial.insist_on_one_world(trial.world(1))
    assert trial.ask() == {"version": "1", "notes": ["kept"]}
    said = str(raised.value)
    assert "prod-002 did not pass its proof: the health check of web ended with exit code 1" in said
    assert "HTTP Error 503" in said
    assert f"{trial.world(1)} is live again" in said
    assert "starting 2 sick" in said, "the last lines of its log"
    outcome = trial.reverted()
    assert (outcome.touched, outcome.quarantine) == (True, True)
    assert outcome.written["notes"]["files"] == 1
    assert outcome.sealed == {"notes": f"{trial.project}-prod_notes_g2"}
    assert trial.state.quarantined == {"prod-002": trial.world(2)}


def test_fault_35_a_container_that_ends_is_a_failure_at_once(trial: Trial) -> None:
    """A release that dies while it is proved: reverted then, with its exit code and last words."""
    trial.write({"web": web(environment={"MODE": "${MODE}", "TOKEN": "${TOKEN}"})})
    trial.new()
    trial.up()
    trial.new(MODE="crash")
    began = time.monotonic()
    with pytest.raises(Reverted) as raised:
        trial.up()
    assert time.monotonic() - began < 10 < trial.stack.settings.deadline
    assert "web ended with exit code 3" in str(raised.value)
    assert "cannot go on" in str(raised.value)
    logs = "".join(path.read_text() for path in trial.catalog.logs().iterdir())
    ledger = trial.catalog.ledger.path.read_text()
    assert "***" in str(raised.value)
    assert "hush-hush-token" not in str(raised.value) + logs + ledger
    trial.insist_on_one_world(trial.world(1))


def test_a_failed_first_release_leaves_nothing_running(trial: Trial) -> None:
    trial.write({"web": web()})
    trial.new(MODE="crash")
    with pytest.raises(Reverted, match="nothing is live"):
        trial.up()
    assert trial.running(trial.world(1)) == set()
    assert trial.state.live is None
    assert not trial.catalog.journal.exists()


def test_an_adopted_project_is_left_and_found_again(trial: Trial) -> None:
    quick = {"test": ["CMD", "redis-cli", "ping"], "interval": "1s"}
    trial.write({"web": web(depends_on=NEEDS_CACHE), "cache": cache(healthcheck=quick)})
    trial.plain("up", "-d")
    await_answer(trial)
    trial.note("plain")
    trial.new(VERSION="2")
    plan = trial.up()
    assert plan.move is Move.ADOPT
    trial.insist_on_one_world(trial.world(1))
    assert trial.ask() == {"version": "2", "notes": ["plain"]}
    trial.note("more")
    trial.up("prod-000")
    trial.insist_on_one_world(trial.project)
    assert trial.ask() == {"version": "1", "notes": ["plain"]}
    assert trial.policies(trial.project) == {"web": "unless-stopped", "cache": "always"}


@pytest.mark.parametrize("checked", [True, False])
def test_a_service_may_need_what_compose_does_not_know_of(trial: Trial, checked: bool) -> None:
    slow = cache(command=["sh", "-c", "sleep 1.5; exec redis-server --appendonly yes"])
    shown = web() if checked else web(healthcheck=None)
    trial.write({"web": shown, "cache": slow})
    trial.new(MODE="needs-cache")
    trial.up()
    trial.insist_on_one_world(trial.world(1))
    assert "web ended (exit code 1), started again" in trial.said
    assert trial.running(trial.world(1)) == {"web", "cache"}


def test_an_engine_without_a_health_check_has_time_to_answer(trial: Trial) -> None:
    slow = ["sh", "-c", "sleep 1.5; exec redis-server --appendonly yes"]
    engine = cache(command=slow)
    del engine["healthcheck"]
    trial.write({"web": web(), "cache": engine})
    trial.new()
    trial.up()
    trial.note("one")
    trial.new(VERSION="2")
    assert trial.up().datasets["cache-data"].action is Action.FORK
    assert trial.up("prod-001").datasets["cache-data"].action is Action.ATTACH
    trial.insist_on_one_world(trial.world(1))


def test_a_job_comes_first_and_may_fail(trial: Trial) -> None:
    job = web(ports=None, healthcheck=None, restart=None, environment={"MODE": "${JOB}"})
    needs = {"migrate": {"condition": "service_completed_successfully"}}
    trial.write({"web": web(depends_on=needs), "migrate": job})
    trial.new(JOB="job0")
    trial.up()
    assert trial.notes() == ["job 1"]
    assert trial.running(trial.world(1)) == {"web"}
    trial.new(JOB="job4")
    with pytest.raises(Reverted, match="migrate ended with exit code 4"):
        trial.up()
    trial.insist_on_one_world(trial.world(1))
    assert trial.notes() == ["job 1"], "the old world's job is not done again"


def test_services_for_after_the_commit(trial: Trial) -> None:
    worker = {
        "image": PYTHON,
        "command": ["sh", "-c", "date +%s.%N >> /work/starts; exec sleep 600"],
        "volumes": ["work:/work"],
        "restart": "always",
        "init": True,
        "stop_grace_period": "1s",
        "x-lockstep": {"start": "after-commit"},
    }
    trial.write({"web": web(), "worker": worker})
    trial.new()
    trial.up()
    assert trial.running(trial.world(1)) == {"web", "worker"}
    assert trial.policies(trial.world(1)) == {"web": "unless-stopped", "worker": "always"}
    trial.new(MODE="sick")
    trial.settings["deadline"] = SOON
    with pytest.raises(Reverted):
        trial.up()
    failed = next(
        c for c in trial.docker.containers(project=trial.world(2)) if c.service == "worker"
    )
    assert failed.state == "created"
    assert trial.running(trial.world(1)) == {"web", "worker"}
    assert len(trial.exec(trial.world(1), "worker", "cat", "/work/starts").split()) == 2


def test_gates_prove_what_a_health_check_does_not(trial: Trial) -> None:
    trial.settings["gates"] = {
        "web": {"http": {"port": 8000, "path": "/health", "contains": '"version": "1"'}},
        "cache": {"tcp": 6379, "command": ["redis-cli", "ping"]},
    }
    two_services(trial)
    trial.new()
    trial.up()
    trial.new(VERSION="2")
    trial.settings["deadline"] = SOON
    with pytest.raises(Reverted) as raised:
        trial.up()
    assert "web at its gate (GET :8000/health) answered 200 without" in str(raised.value)
    gates = {g.gate: g for g in trial.state.outcomes[-1][1].gates}
    assert {name: (g.service, g.result) for name, g in gates.items()} == {
        "GET :8000/health": ("web", "failed"),
        "a connection to port 6379": ("cache", "passed"),
        "redis-cli ping": ("cache", "passed"),
    }
    failed = gates["GET :8000/health"]
    assert failed.said == """answered 200 without '"version": "1"' in it"""
    assert failed.excerpt.endswith('s: {"version": "2"}')
    assert any("starting 2 ok" in line for line in failed.log)
    assert "hush-hush" not in failed.model_dump_json()
    assert failed.tries > 1
    assert failed.since.startswith("20")
    trial.insist_on_one_world(trial.world(1))

    trial.settings["gates"] = {"cache": {"command": ["test", "-e", "/data/wanted"]}}
    trial.exec(trial.world(1), "cache", "touch", "/data/wanted")
    trial.new(VERSION="3")
    trial.settings["deadline"] = 60
    trial.up()
    trial.settings["gates"] = {"cache": {"command": ["test", "-e", "/data/missing"]}}
    trial.settings["deadline"] = SOON
    with pytest.raises(Reverted, match="cache at its gate"):
        trial.up("prod-001")
    assert any("starting cache" in text and "before the stop" in text for text in trial.said)
    trial.insist_on_one_world(trial.world(3))


def test_fault_35_a_release_that_docker_calls_unhealthy_is_not_waited_for(trial: Trial) -> None:
    """A release whose health check used up its retries is reverted then, not at its deadline."""
    trial.write({"web": web()})
    trial.new()
    trial.up()
    # The proxy waits for web, so it is never started: nobody waits for it either.
    check = {"test": HEALTH, "interval": "1s", "retries": 2}
    waiting = {"web": {"condition": "service_healthy"}}
    proxy = web(ports=None, volumes=None, command=["sleep", "60"], depends_on=waiting)
    trial.write({"web": web(healthcheck=check), "proxy": proxy})
    trial.settings["deadline"] = 200
    trial.new(VERSION="2", MODE="sick")
    with pytest.raises(Reverted, match="failed 2 times in a row: Docker calls it unhealthy"):
        trial.up()
    trial.insist_on_one_world(trial.world(1))


def test_a_dataset_must_not_lose_its_content(trial: Trial) -> None:
    trial.write({"web": web()})
    trial.new()
    trial.up()
    trial.note("precious")
    trial.new(MODE="empties")
    with pytest.raises(Reverted, match="notes is empty, although it held files 1"):
        trial.up()
    assert trial.notes() == ["precious"]


def test_what_changed_since_the_plan(trial: Trial) -> None:
    trial.write({"web": web()})
    trial.new()
    trial.up()
    trial.new(VERSION="2")
    with trial.locked() as lock:
        plan = trial.plan()
        trial.make(plan)
        switch.stop_all(trial.stack, trial.catalog, trial.docker, trial.say, "fire")
        with pytest.raises(WorldChanged):
            switch.carry_out(trial.stack, trial.catalog, plan, lock, trial.say)
    assert trial.running(trial.world(1)) == set()
    assert trial.running(trial.world(2)) == set()


def test_a_second_switch_to_the_live_world_does_nothing(trial: Trial) -> None:
    trial.write({"web": web()})
    trial.new()
    with trial.locked() as lock:
        plan = trial.plan()
        trial.make(plan)
        switch.carry_out(trial.stack, trial.catalog, plan, lock, trial.say)
        before = trial.state.seq
        switch.carry_out(trial.stack, trial.catalog, plan, lock, trial.say)
    assert trial.state.seq == before
    assert trial.said[-1] == f"{trial.world(1)} is live already"


def test_an_image_that_moved_is_refused_before_anything_stops(trial: Trial) -> None:
    trial.write({"web": web()})
    trial.new()
    trial.up()
    started = trial.docker.containers(project=trial.world(1))
    trial.new(VERSION="2")
    with trial.locked() as lock:
        plan = trial.plan()
        trial.make(plan)
        docker_cli("tag", POSTGRES, f"{trial.project}-web:prod-002")
        with pytest.raises(Refused, match="is another image now"):
            switch.carry_out(trial.stack, trial.catalog, plan, lock, trial.say)
    assert trial.docker.containers(project=trial.world(1)) == started
    assert not trial.catalog.journal.exists()


def test_fault_44_a_foreign_container_on_the_data_is_refused(trial: Trial) -> None:
    """A container of somebody else mounts the live volume: refused before anything stops, the
    container named."""
    trial.write({"web": web()})
    trial.new()
    trial.up()
    trial.new(VERSION="2")
    name = f"{trial.project}-foreign"
    with trial.locked() as lock:
        plan = trial.plan()
        trial.make(plan)
        volume = f"{trial.project}-prod_notes_g1:/data"
        docker_cli("run", "-d", "--name", name, "-v", volume, PYTHON, "sleep", "60")
        try:
            with pytest.raises(Refused, match=f"notes is in use by {name}"):
                switch.carry_out(trial.stack, trial.catalog, plan, lock, trial.say)
        finally:
            docker_cli("rm", "--force", "--volumes", name)
    trial.insist_on_one_world(trial.world(1))


def test_a_writable_directory_is_changed_in_place_and_put_back(trial: Trial) -> None:
    place = trial.folder / "files"
    place.mkdir()
    trial.write({"web": web(volumes=["./files:/data", "./app.py:/app.py:ro"])})
    trial.new()
    trial.up()
    trial.note("one")
    trial.new(VERSION="2")
    plan = trial.up()
    assert [d.action for d in plan.datasets.values()] == [Action.IN_PLACE]
    assert len(trial.committed().snapshots) == 1
    trial.note("two")
    trial.up("prod-001")
    assert trial.notes() == ["one"], "what prod-001 left, put back in place"
    trial.up("prod-002")
    assert trial.notes() == ["one", "two"]
    trial.new(MODE="empties", VERSION="3")
    with pytest.raises(Reverted):
        trial.up()
    assert trial.ask() == {"version": "2", "notes": ["one", "two"]}
    assert trial.reverted().snapshots.keys() == plan.datasets.keys(), "what it wrote is kept"
    trial.insist_on_one_world(trial.world(2))


def test_repair_starts_what_stands_still(trial: Trial) -> None:
    two_services(trial)
    trial.new()
    trial.up()
    trial.new(VERSION="2")
    trial.up()
    for container in trial.docker.containers(project=trial.world(2)):
        if container.service == "web":
            trial.docker.stop(container.id)
    left = next(c for c in trial.docker.containers(project=trial.world(1)) if c.service == "cache")
    trial.docker.start(left.id)
    plan = trial.up()
    assert plan.move is Move.REPAIR
    trial.insist_on_one_world(trial.world(2))
    assert trial.recovered().reason == "web stood still"
    assert trial.ask()["version"] == "2"


def test_the_emergency_stop_and_the_way_back(trial: Trial) -> None:
    two_services(trial)
    trial.new()
    trial.up()
    trial.note("kept")
    with trial.locked():
        assert switch.stop_all(trial.stack, trial.catalog, trial.docker, trial.say) == 2
    assert trial.running(trial.world(1)) == set()
    assert set(trial.policies(trial.world(1)).values()) == {"no"}
    still = trial.state
    assert still.stopped
    assert trial.up().move is Move.REPAIR
    again = trial.state
    assert not again.stopped
    assert trial.policies(trial.world(1)) == {"web": "unless-stopped", "cache": "always"}
    assert trial.notes() == ["kept"]


def test_the_old_password_fits_after_a_rotation(trial: Trial) -> None:
    database = {
        "image": POSTGRES,
        "environment": {"POSTGRES_PASSWORD": "${DB_PASSWORD}"},
        "volumes": ["db:/var/lib/postgresql/data"],
        "healthcheck": {"test": ["CMD", "pg_isready", "-h", "127.0.0.1", "-U", "postgres"]},
        "restart": "always",
    }
    trial.write({"db": database})
    trial.settings["secrets"] = {"DB_PASSWORD": "first-password"}
    trial.new()
    trial.up()

    def insist_on(password: str, world: str) -> None:
        query = ["psql", "-h", "127.0.0.1", "-U", "postgres", "-tc", "select count(*) from t"]
        hba = "sed -i '/^host/s/trust$/scram-sha-256/' $PGDATA/pg_hba.conf; kill -HUP 1"
        trial.exec(world, "db", "sh", "-c", hba)
        assert trial.exec(world, "db", "env", f"PGPASSWORD={password}", *query).strip() == "1"

    create = "create table t as select 1"
    trial.exec(trial.world(1), "db", "psql", "-U", "postgres", "-c", create)
    insist_on("first-password", trial.world(1))
    trial.new()
    trial.up()
    trial.settings["secrets"] = {"DB_PASSWORD": "second-password"}
    assert trial.up().move is Move.REFRESH
    insist_on("second-password", f"{trial.world(2)}_2")
    plan = trial.up("prod-001")
    assert plan.to_world == f"{trial.world(1)}_2"
    insist_on("second-password", f"{trial.world(1)}_2")
    assert trial.committed().probes["db"] == {"postgres.public.t": 1}


@pytest.mark.parametrize("stop_owner", [True, False])
def test_a_shared_redis_of_another_project(trial: Trial, stop_owner: bool) -> None:
    volume, owner = f"{trial.project}_elsewhere", f"{trial.project}-owner"
    docker_cli("volume", "create", volume)
    docker_cli("run", "-d", "--name", owner, "-v", f"{volume}:/data", "lockstep-base/redis:7")
    try:
        trial.settings["datasets"] = {
            "sessions": {
                "driver": "redis",
                "volume": volume,
                "shared": True,
                "stop_owner": stop_owner,
            }
        }
        trial.write({"web": web()})
        trial.new()
        trial.up()
        docker_cli("exec", owner, "redis-cli", "set", "k", "one")
        trial.new(VERSION="2")
        trial.up()
        assert trial.committed().snapshots.keys() == {"sessions"}
        docker_cli("exec", owner, "redis-cli", "set", "k", "two")
        trial.up("prod-001")
        assert docker_cli("exec", owner, "redis-cli", "get", "k").strip() == "two", "left alone"
        trial.up("prod-002")
        docker_cli("exec", owner, "redis-cli", "set", "k", "three")
        trial.settings["restore"] = {"release": "prod-001", "shared": ["sessions"]}
        trial.settings["release"] = "prod-001"
        if not stop_owner:
            assert "must be stopped" in trial.plan().refusals[0].message
            return
        trial.up()
        trial.insist_on_one_world(trial.world(1))
        value = docker_cli("exec", owner, "redis-cli", "get", "k").strip()
        assert value == "two", "as it was when prod-001 was left"
        assert trial.committed().wish is not None
    finally:
        docker_cli("rm", "-f", owner)


def test_a_gap_of_a_rollback_is_shorter_with_an_early_start(trial: Trial) -> None:
    slow = cache(command=["sh", "-c", "sleep 5; exec redis-server --appendonly yes"])
    trial.write({"web": web(depends_on=NEEDS_CACHE), "cache": slow})
    trial.new()
    trial.up()
    trial.new(VERSION="2")
    trial.up()
    forward = trial.committed().downtime_seconds
    answers = Answers(trial)
    trial.up("prod-001")
    seen = answers.longest_gap()
    back = trial.committed().downtime_seconds
    assert forward is not None
    assert back is not None
    assert forward > 5 > back, "the slow engine starts before the stop"
    assert abs(seen - back) < 2.0, "what is recorded is what a client sees"


class Answers:
    """A client that asks all the time and remembers when it was answered."""

    def __init__(self, trial: Trial) -> None:
        self._trial = trial
        self._times: list[float] = [time.monotonic()]
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._end.is_set():
            try:
                self._trial.ask("/health", timeout=1)
                self._times.append(time.monotonic())
            except OSError:
                pass
            time.sleep(0.01)

    def longest_gap(self) -> float:
        """Seconds; ends the client."""
        time.sleep(0.2)
        self._end.set()
        self._thread.join()
        return max(b - a for a, b in zip(self._times, self._times[1:], strict=False))


def await_answer(trial: Trial) -> None:
    for _ in range(100):
        try:
            trial.ask("/health", timeout=1)
            return
        except OSError:
            time.sleep(0.1)
    raise AssertionError("it never answered")
