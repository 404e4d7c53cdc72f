"""Gates in whole switches: what they hold up, what they only say, and what stays of it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from reconciler import switch
from reconciler.errors import Reverted as WasReverted
from reconciler.gates.results import GateResult
from reconciler.records.ledger import Committed, Reverted
from tests.reconciler.trial import PYTHON, Trial, cache, web

SMOKE = """
import json, sys, urllib.request
facts = json.load(sys.stdin)
(web,) = facts["services"]["web"]
(address,) = web["addresses"].values()
answer = urllib.request.urlopen(f"http://{address}:8000/health", timeout=5).read().decode()
print(facts["release"], facts["from_release"], answer)
sys.exit(0 if f'"version": "{sys.argv[1]}"' in answer else 1)
"""


def results(trial: Trial) -> dict[str, GateResult]:
    return {gate.gate: gate for gate in trial.state.outcomes[-1][1].gates}


def smoke(version: str) -> dict[str, Any]:
    return {"name": "smoke", "host": ["python3", "smoke.py", version], "failure_limit": 0}


def test_a_release_shows_all_that_it_must(trial: Trial) -> None:
    (trial.folder / "smoke.py").write_text(SMOKE)
    breaker = {"redis": {"key": "breaker", "equals": "CLOSED", "reset": {"set": "CLOSED"}}}
    migrated = {"job": True, "gate": {"log": {"must": "migrated"}}}
    trial.write(
        {
            "web": web(),
            "cache": cache(**{"x-lockstep": {"gates": [breaker]}}),
            "job": {
                "image": PYTHON, "command": ["echo", "migrated all"], "x-lockstep": migrated,
                "volumes": ["work:/work"],
            },
            "twin": {
                "image": PYTHON, "command": ["sleep", "600"], "scale": 2, "volumes": ["work:/work"],
                "stop_signal": "SIGKILL",
            },
        }
    )  # fmt: skip
    trial.settings["gates"] = {"cache": {"tcp": 6379}}
    trial.new()
    trial.up()
    first = trial.world(1)
    trial.exec(first, "cache", "redis-cli", "SET", "breaker", "OPEN")
    trial.note("one")

    # What only warns, and what may stay open, is said; the rest must be so.
    trial.settings["gates"] = {
        "cache": [{"redis": {"key": "breaker", "equals": "OPEN"}}],
        "web": [
            {"name": "page", "http": {"port": 8000, "path": "/health", "latency": 4}, "passes": 2},
            {"name": "slow", "http": {"port": 8000, "latency": 1e-9}, "severity": "warn"},
            {"name": "odd", "command": ["no-such-tool"], "inconclusive": "warn"},
            {"log": {"must": "starting 2", "never": "Traceback"}},
            {"resources": {"memory": "2GiB", "restarts": 0}},
        ],
        "twin": [
            {"name": "each", "command": ["mkdir", "/tmp/asked"], "retries": 0},
            {"name": "one", "command": ["mkdir", "/work/asked"], "severity": "warn", "retries": 0},
        ],
    }
    trial.settings["stackGates"] = smoke("2")
    trial.new(VERSION="2")
    trial.up()
    found = results(trial)
    assert {name: str(gate.result) for name, gate in found.items()} == {
        "redis key breaker": "passed",
        "page": "passed",
        "slow": "warned",
        "odd": "inconclusive",
        "its log": "passed",
        "each": "passed",
        "one": "warned",
        "its memory and restarts": "passed",
        "smoke": "passed",
    }
    assert (found["page"].tries, found["slow"].tries) == (2, 6)
    assert [(found[name].service, found[name].tries) for name in ("each", "one")] == [
        ("twin", 2),
        ("twin", 2),
    ], "each container is asked"
    logs = [g for g in trial.state.outcomes[-1][1].gates if g.kind == "log"]
    assert {(g.service, g.excerpt) for g in logs if g.service == "job"} == {("job", "migrated all")}
    assert found["smoke"].excerpt.startswith("prod-002 prod-001 ")
    assert "gate slow of web warned: answered after" in " ".join(trial.said)
    assert "hush-hush" not in json.dumps([gate.model_dump(mode="json") for gate in found.values()])

    # The stack's own gate fails at once: it bears no wrong answer.
    trial.new(VERSION="3")
    with pytest.raises(WasReverted, match="the gate smoke ended with exit code 1"):
        trial.up()
    trial.insist_on_one_world(trial.world(2))
    outcome = trial.state.outcomes[-1][1]
    assert isinstance(outcome, Reverted)
    assert outcome.quarantine
    failed = results(trial)["smoke"]
    assert (failed.result, failed.means, failed.tries) == ("failed", "fail", 1)
    assert '"version": "3"' in failed.excerpt

    # On the way back the old data returns, and with it a state that is put right first.
    trial.settings["gates"] = {}
    trial.settings["stackGates"] = []
    trial.up("prod-001")
    assert isinstance(trial.state.outcomes[-1][1], Committed)
    assert "redis key breaker of cache is reset" in trial.said
    assert results(trial)["redis key breaker"].excerpt == "CLOSED"


def test_what_gates_said_outlives_a_crash(trial: Trial) -> None:
    trial.write({"web": web()})
    trial.new()
    trial.up()
    trial.note("one")
    trial.settings["gates"] = {"web": {"name": "page", "http": {"port": 8000, "path": "/health"}}}
    trial.new(VERSION="2")
    with pytest.raises(WasReverted, match="was killed"):
        trial.up(crash_at="proved")
    assert isinstance(trial.state.outcomes[-1][1], Reverted)
    assert results(trial)["page"].result == "passed"
    trial.insist_on_one_world(trial.world(1))
    assert switch.running(trial.catalog) is None


ENDS_ONCE = """
import os, sys, time
print("up", flush=True)
if not os.path.exists("/tmp/ended"):
    while not os.path.exists("/tmp/asked"):
        time.sleep(0.05)
    open("/tmp/ended", "w")
    sys.exit(5)
time.sleep(600)
"""


def test_what_was_started_again_after_it_passed_is_asked_again(trial: Trial) -> None:
    """It ends once its gate has let it pass, while another is not ready: it is started again, as
    its release would have that, and what it showed before counts no more."""
    late = web(environment={"VERSION": "1", "MODE": "late"})
    fickle = {
        "image": PYTHON, "command": ["python3", "-c", ENDS_ONCE], "restart": "always",
        "x-lockstep": {
            "gate": {"name": "well", "command": ["sh", "-c", "test ! -e /tmp/ended && touch "
            "/tmp/asked"], "failure_limit": 0},
        },
    }  # fmt: skip
    trial.write({"web": late, "fickle": fickle})
    trial.new()
    with pytest.raises(WasReverted, match="fickle at its gate"):
        trial.up()
    found = [g for g in trial.state.outcomes[-1][1].gates if g.gate == "well"]
    assert [str(g.result) for g in found] == ["passed", "failed"]
    assert any("fickle ended (exit code 5), started again" in said for said in trial.said)
