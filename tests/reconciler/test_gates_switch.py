"""Gates in whole switches: what they hold up, what they only say, and what stays of it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from reconciler import switch
from reconciler.errors import Reverted as WasReverted
from reconciler.gates.results import GateResult
from reconciler.ledger import Committed, Reverted
from tests.reconciler.trial import Trial, cache, web

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
    trial.write({"web": web(), "cache": cache(**{"x-lockstep": {"gates": [breaker]}})})
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
        "its memory and restarts": "passed",
        "smoke": "passed",
    }
    assert (found["page"].tries, found["slow"].tries) == (2, 6)
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
