"""Gates that ask inside a container or Docker about it, with real engines that pass and fail."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from reconciler.docker import ContainerDetails, Docker, connect
from reconciler.gates import asking, inside
from reconciler.gates.asking import Ground
from reconciler.gates.judging import Answer, Verdict
from reconciler.gates.model import Gate
from tests.reconciler.trial import PYTHON, REDIS, docker_cli
from tests.snapshots import engines

MARIADB = "lockstep-base/mariadb:10.11"
PASSED, FAILED, UNSURE, SILENT = Verdict.PASSED, Verdict.FAILED, Verdict.UNSURE, Verdict.SILENT


@pytest.fixture(scope="module")
def docker() -> Docker:
    return connect()


def ask(docker: Docker, container: ContainerDetails, said: dict[str, Any], **ground: Any) -> Answer:
    (question,) = asking.questions("x", (Gate.model_validate(said),))
    return asking.ask(Ground(docker, **ground), question, container, question.seconds)


@contextmanager
def running(docker: Docker, *words: str) -> Iterator[ContainerDetails]:
    """A container of `docker run WORDS`, removed afterwards."""
    made = docker_cli("run", "-d", "--network", "none", *words).strip()
    try:
        yield docker.inspect(made)
    finally:
        docker_cli("rm", "-f", "-v", made)


def test_postgres(docker: Docker, tmp_path: Path) -> None:
    environment = {"POSTGRES_DB": "shop"}
    with engines.POSTGRES.running(tmp_path / "data", environment) as engine:
        engines.POSTGRES.write(engine, 30)
        container = docker.inspect(engine.name)
        for sql, verdict, said in (
            ({"query": "SELECT max(id) FROM orders", "equals": 30}, PASSED, ""),
            ({"query": "SELECT note, id FROM orders", "matches": "^x+$"}, PASSED, ""),
            ({"query": "SELECT 'a|b', 2", "equals": "a|b"}, PASSED, ""),
            ({"query": "SELECT max(id) FROM orders", "less": 30}, FAILED, "is '30', not below 30"),
            ({"query": "SELECT 1 WHERE false", "equals": 1}, FAILED, "answered no row"),
            ({"query": "DELETE FROM orders", "equals": 1}, FAILED, "read-only"),
            ({"table": "orders", "greater": 29}, PASSED, ""),
            ({"table": "orders", "greater": 30}, FAILED, "is '30', not above 30"),
            ({"table": "nothing", "greater": 0}, FAILED, "does not exist"),
            ({"table": "orders", "database": "postgres", "greater": 0}, FAILED, "does not exist"),
            ({"table": "orders", "share_of_before": 1.0}, PASSED, ""),
            ({"table": "public.orders", "share_of_before": 1.5}, FAILED, "is 30, of 30 before"),
            ({"table": "customers", "share_of_before": 1}, UNSURE, "had before is not known"),
        ):
            before = {"db": {"shop.public.orders": 30}}
            answer = ask(docker, container, {"sql": sql}, before=before)
            assert (answer.verdict, said in answer.said) == (verdict, True), (sql, answer)
        late = {"sql": {"query": "SELECT pg_sleep(30)", "matches": "^$"}, "timeout": 1}
        assert ask(docker, container, late).verdict is FAILED
        assert engines.sql(engine, "SELECT count(*) FROM orders", "shop").strip() == "30"


def test_mariadb(docker: Docker) -> None:
    engines.insist_on_images(MARIADB)
    secret = ("--env", "MARIADB_ROOT_PASSWORD=first", "--env", "MARIADB_DATABASE=shop")
    with running(docker, *secret, MARIADB) as container:
        ready = {"sql": {"query": "SELECT 1", "equals": 1}}
        for _ in range(300):
            if ask(docker, container, ready).verdict is PASSED:
                break
            threading.Event().wait(0.2)
        rows = "CREATE TABLE orders (id int); INSERT INTO orders VALUES (1), (2);"
        docker_cli("exec", container.id, "sh", "-c", f"mariadb -uroot -pfirst shop -e '{rows}'")
        for sql, verdict, said in (
            ({"table": "orders", "equals": 2}, PASSED, ""),
            ({"table": "shop.orders", "share_of_before": 0.5}, PASSED, ""),
            ({"table": "orders", "share_of_before": 0.9}, FAILED, "is 2, of 4 before"),
            ({"query": "SELECT id FROM orders WHERE id > 5", "equals": 1}, FAILED, "no row"),
            ({"query": "DELETE FROM orders", "equals": 1}, FAILED, "READ ONLY"),
            ({"table": "nothing", "greater": 0}, FAILED, "doesn't exist"),
        ):
            answer = ask(docker, container, {"sql": sql}, before={"db": {"shop.orders": 4}})
            assert (answer.verdict, said in answer.said) == (verdict, True), (sql, answer)


def test_redis(docker: Docker) -> None:
    with running(docker, REDIS) as container:
        written = 'SET breaker OPEN\nHSET shop mode "half open\\n"\nRPUSH list a\nSET odd "error"\n'
        for _ in range(100):
            if docker.exec(container.id, ["redis-cli"], stdin=written).code == 0:
                break
            threading.Event().wait(0.1)
        for redis, verdict, said in (
            ({"key": "breaker", "equals": "OPEN"}, PASSED, ""),
            ({"key": "breaker", "equals": "CLOSED"}, FAILED, "is 'OPEN', not 'CLOSED'"),
            ({"key": "breaker", "absent": True}, FAILED, "is there"),
            ({"key": "breaker", "db": 3, "absent": True}, PASSED, ""),
            ({"key": "breaker", "db": 3, "equals": "OPEN"}, FAILED, "is not there"),
            ({"key": "shop", "field": "mode", "equals": "half open\n"}, PASSED, ""),
            ({"key": "odd", "equals": "error"}, PASSED, ""),
            ({"key": "list", "equals": "a"}, FAILED, "WRONGTYPE"),
        ):
            answer = ask(docker, container, {"redis": redis})
            assert (answer.verdict, said in answer.said) == (verdict, True), (redis, answer)
        for place, now in (
            ({"key": "breaker", "reset": {"set": 'HALF "OPEN"'}}, 'HALF "OPEN"'),
            ({"key": "shop", "field": "mode", "reset": {"set": "on"}}, "on"),
            ({"key": "shop", "field": "mode", "reset": {"delete": True}}, None),
            ({"key": "breaker", "reset": {"delete": True}}, None),
        ):
            gate = Gate.model_validate({"redis": {**place, "equals": now or "never"}}).redis
            assert gate is not None
            inside.reset(docker, container, gate, 10)
            answer = ask(docker, container, {"redis": gate})
            assert answer.verdict is (PASSED if now else FAILED), (place, answer)


def test_a_redis_whose_password_only_its_command_says(docker: Docker) -> None:
    with running(docker, REDIS, "redis-server", "--requirepass", "only here") as container:
        gate = {"redis": {"key": "x", "absent": True}}
        for _ in range(100):
            answer = ask(docker, container, gate)
            if answer.verdict is PASSED:
                return
            threading.Event().wait(0.1)
        pytest.fail(f"it answered {answer}")


def test_commands_logs_and_health(docker: Docker) -> None:
    script = "echo starting; echo FATAL no disk >&2; echo ready; exec sleep 600"
    check = ("--health-cmd", "test -e /tmp/well", "--health-interval", "200ms")
    with running(docker, "--init", *check, PYTHON, "sh", "-c", script) as container:
        for said, verdict, why in (
            ({"command": ["true"]}, PASSED, ""),
            ({"command": ["sh", "-c", "echo no such luck; exit 3"]}, FAILED, "(no such luck)"),
            ({"command": ["sh", "-c", "exit 3"], "inconclusive_codes": [3]}, UNSURE, "code 3"),
            ({"command": ["no-such-tool"]}, UNSURE, "could not be run"),
            ({"sql": {"query": "SELECT 1", "equals": 1}}, UNSURE, "neither psql"),
            ({"redis": {"key": "x", "absent": True}}, UNSURE, "neither redis-cli"),
            ({"log": {"must": ["^starting", "ready"]}}, PASSED, ""),
            ({"log": {"must": "listening"}}, FAILED, "does not say /listening/"),
            ({"log": {"never": "FATAL|PANIC"}}, FAILED, "must never say"),
            ({"log": {"never": "PANIC"}}, PASSED, ""),
            ({"resources": {"memory": "1GiB", "restarts": 0}}, PASSED, ""),
        ):
            answer = ask(docker, container, said)
            assert (answer.verdict, why in answer.said) == (verdict, True), (said, answer)
        assert ask(docker, docker.inspect(container.id), {"health": True}).verdict is FAILED
        docker.exec(container.id, ["touch", "/tmp/well"])
        verdicts = set()
        for _ in range(100):
            verdicts = {ask(docker, docker.inspect(container.id), {"health": True}).verdict}
            if verdicts == {PASSED}:
                break
            threading.Event().wait(0.1)
        assert verdicts == {PASSED}
        docker_cli("restart", "-t", "1", container.id)
        since = docker.inspect(container.id)
        assert since.started != container.started
        for _ in range(100):
            if docker.logs(container.id, tail=100).count("starting") == 2:
                break
            threading.Event().wait(0.1)
        assert docker.logs(container.id, tail=100).count("starting") == 2
        docker.kill(container.id)
        assert ask(docker, since, {"command": ["true"]}).verdict is SILENT


def test_only_what_was_said_since_the_start_counts(docker: Docker, tmp_path: Path) -> None:
    script = "test -e /mark/second || echo FATAL; touch /mark/second; echo ready; exec sleep 600"
    with running(
        docker, "--init", "-v", f"{tmp_path}:/mark", PYTHON, "sh", "-c", script
    ) as container:
        never = {"log": {"must": "ready", "never": "FATAL"}}
        for _ in range(100):
            if "ready" in docker.logs(container.id):
                break
            threading.Event().wait(0.1)
        assert ask(docker, container, never).verdict is FAILED
        docker_cli("restart", "-t", "1", container.id)
        now = docker.inspect(container.id)
        answer = ask(docker, now, never)
        for _ in range(100):
            if answer.verdict is PASSED:
                break
            threading.Event().wait(0.1)
            answer = ask(docker, now, never)
        assert answer.verdict is PASSED, answer
        assert ask(docker, now, {"health": True}).said == "has no health check"
