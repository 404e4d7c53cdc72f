"""The user's hooks in real switches: what they see, when they run, and what their failure does."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from typing import Any

import pytest

from reconciler import observe, switch
from reconciler.errors import DebtsUnpaid, Refused, Reverted
from reconciler.hooks import hookpreview
from reconciler.hooks.hooktable import PLACES, At
from reconciler.records.journal import JournalFile
from reconciler.trials import rehearsal
from reconciler.upkeep import debts
from tests.reconciler.test_switch import two_services
from tests.reconciler.trial import Trial, web

SCRIPT = r"""
import json, os, pathlib, signal, sys, time
facts = json.load(sys.stdin)
here = pathlib.Path(__file__).parent
with open(here / "seen.jsonl", "a") as seen:
    seen.write(json.dumps(facts) + "\n")
print("said by", facts["hook"], os.environ.get("PULUMI_CONFIG_PASSPHRASE"), "hush-hush-token")
if facts["dry"]:
    sys.exit(0)
do = here / f"do-{facts['at']}"
what = do.read_text().strip() if do.exists() else ""
if what == "kill":
    do.unlink()
    os.kill(os.getppid(), signal.SIGKILL)
if what == "hang":
    time.sleep(600)
sys.exit(int(what) if what.isdigit() else 0)
"""
SWITCH = [at for at in At if at.phase != "prune"]
FORWARD = [at for at in SWITCH if at.phase != "revert"]


def hook(at: Any, **more: Any) -> dict[str, Any]:
    return {"at": at, "command": ["python3", "hook.py"], **more}


class Watched:
    """A stack whose hook on the host notes what it was told, and does what the test says."""

    def __init__(self, trial: Trial) -> None:
        self.trial = trial
        (trial.folder / "hook.py").write_text(SCRIPT)

    def seen(self) -> list[dict[str, Any]]:
        path = self.trial.folder / "seen.jsonl"
        found = (
            [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        )
        path.unlink(missing_ok=True)
        return found

    def at(self) -> list[str]:
        return [facts["at"] for facts in self.seen()]

    def let(self, at: At, what: str) -> None:
        (self.trial.folder / f"do-{at}").write_text(what)

    def calm(self) -> None:
        for path in self.trial.folder.glob("do-*"):
            path.unlink()


def logged(trial: Trial) -> list[dict[str, Any]]:
    """Every line of the newest log of hooks."""
    newest = max((trial.catalog.logs() / "hooks").iterdir())
    assert newest.stat().st_mode & 0o777 == 0o600
    return [json.loads(line) for line in newest.read_text().splitlines()]


def left_over(trial: Trial) -> list[str]:
    """One-off containers of hooks."""
    listed = trial.docker.listing(labels=["lockstep.hook"])
    return [c.name for c in listed if c.project.startswith(trial.project)]


def test_hooks_run_before_and_after_each_phase_in_the_right_world(
    trial: Trial, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each place once, in the table's order, with facts on standard input; a migration runs in a
    one-off container of the coming world, on its generations alone; nothing is left of it."""
    monkeypatch.setenv("PULUMI_CONFIG_PASSPHRASE", "never-for-a-hook")
    watched = Watched(trial)
    trial.settings["hooks"] = {
        "trace": hook([*At], secrets=["TOKEN"]),
        "seal-notes": hook(["pre-seal", "post-seal"], dataset="notes", actions=["fork"]),
        "never": hook(["pre-stop"], moves=["back"]),
        "asked": hook("pre-stop", preview=True),
    }
    migrate = {
        "at": "pre-start",
        "moves": ["first", "forward"],
        "run": {"command": ["sh", "-c", "cat > /data/facts; echo migrated >> /data/notes"]},
    }
    look = {"at": "post-start", "exec": {"command": ["sh", "-c", "cat > /data/seen"]}}
    drain = {"at": "pre-stop", "exec": {"command": ["sh", "-c", "echo drained >> /data/notes"]}}
    notes = {"x-lockstep": {"hooks": {"migrate": migrate, "look": look, "drain": drain}}}
    two_services(trial)
    model = json.loads((trial.folder / "compose.yaml").read_text())
    model["services"]["web"].update(notes)
    (trial.folder / "compose.yaml").write_text(json.dumps(model))

    trial.new()
    trial.up()
    trial.insist_on_one_world(trial.world(1))
    without_old = [at for at in FORWARD if PLACES[at].side == "new"]
    assert watched.at() == without_old, "nothing is left, stopped or sealed"
    assert trial.notes() == ["migrated"]

    trial.new(VERSION="2")
    plan = trial.plan()
    facts = observe.observe(trial.stack, trial.catalog, trial.state, trial.docker, probe=False)
    shown = hookpreview.told(
        trial.stack, trial.catalog, trial.docker, trial.state, plan, facts.records
    ).hooks
    assert "hook migrate: pre-start of web" in shown
    assert "hook asked: pre-stop\n    said by asked None ***" in shown
    assert not [line for line in shown if "never" in line]
    (dry,) = watched.seen()
    assert (dry["dry"], dry["hook"], dry["to_world"]) == (True, "asked", trial.world(2))

    trial.up()
    trial.insist_on_one_world(trial.world(2))
    seen = watched.seen()
    of_stack = [f["at"] for f in seen if f["hook"] == "trace"]
    assert of_stack == FORWARD
    assert [f["at"] for f in seen if f["hook"] == "seal-notes"] == ["pre-seal", "post-seal"]
    assert trial.notes() == ["migrated", "drained", "migrated"]
    told = json.loads(trial.exec(trial.world(2), "web", "cat", "/data/facts"))
    assert told == {
        **told,
        "schema": 1,
        "hook": "migrate",
        "at": "pre-start",
        "phase": "start",
        "dry": False,
        "move": "forward",
        "release": "prod-002",
        "from_release": "prod-001",
        "world": trial.world(2),
        "from_world": trial.world(1),
        "service": "web",
        "secrets": {},
    }
    assert told["generations"]["notes"] == f"{trial.project}-prod_notes_g2"
    assert list(told["addresses"]) == ["cache"], "what web depends on, and nothing else yet"
    sealing = next(f for f in seen if f["hook"] == "seal-notes")
    assert (sealing["dataset"], sealing["action"]) == ("notes", "fork")
    assert sealing["generation"] == f"{trial.project}-prod_notes_g1"
    assert next(f for f in seen if f["hook"] == "trace")["secrets"] == {"TOKEN": "hush-hush-token"}
    assert left_over(trial) == []

    outcome = trial.committed()
    ran = {run.key: run.result for run in outcome.hooks}
    assert {"pre-start migrate web", "post-start look web", "pre-stop drain web"} <= ran.keys()
    assert set(ran.values()) == {"passed"}
    ((_, after), *_) = reversed(trial.state.hooked)
    assert [run.key for run in after.hooks] == ["post-commit trace"]
    lines = logged(trial)
    assert "said by trace None ***" in lines[0]["output"]

    with trial.locked():
        switch.stop_all(trial.stack, trial.catalog, trial.docker, trial.say)
    trial.up("prod-001")
    trial.insist_on_one_world(trial.world(1))
    at = [f["at"] for f in watched.seen() if f["hook"] == "trace"]
    assert at == [at for at in FORWARD if at.phase != "stop"], "what stood still is not stopped"
    assert trial.notes() == ["migrated", "drained"], "no migration of a release that goes back"
    everything = "".join(p.read_text() for p in trial.catalog.root.rglob("*.json*"))
    assert "hush-hush-token" not in everything


def test_a_hook_that_fails_does_what_the_table_says(trial: Trial) -> None:
    """Aborts refuse or revert, quarantined only where the release is to blame; nothing undoes a
    commit, and nothing keeps the old world from coming back."""
    watched = Watched(trial)
    trial.settings["hooks"] = {"trace": hook([*SWITCH], timeout=20)}
    trial.write({"web": web()})
    trial.new()
    trial.up()
    trial.note("kept")
    watched.seen()
    trial.new(VERSION="2")

    watched.let(At.PRE_PREPARE, "3")
    with pytest.raises(Refused, match=r"hook trace \(pre-prepare\): ended with exit code 3"):
        trial.up()
    assert watched.at() == ["pre-prepare"]
    assert len(trial.state.outcomes) == 1
    trial.insist_on_one_world(trial.world(1))
    watched.calm()

    watched.let(At.POST_STOP, "4")
    with pytest.raises(Reverted, match=r"could not be made live: hook trace \(post-stop\)"):
        trial.up()
    assert watched.at()[-3:] == ["post-stop", "pre-revert", "post-revert"]
    trial.insist_on_one_world(trial.world(1))
    assert not trial.reverted().quarantine
    watched.calm()

    trial.settings["hooks"]["late"] = {
        "at": "pre-start",
        "service": "web",
        "run": {"command": ["sh", "-c", "echo half >> /data/notes; exit 5"]},
    }
    rehearsed = rehearsal.carry_out(
        trial.stack, trial.catalog, trial.docker, trial.compose, trial.plan(), trial.say
    )
    assert "hook late (pre-start): ended with exit code 5" in rehearsed.problem
    assert watched.at() == [], "nothing of a rehearsal works on the host"
    assert trial.notes() == ["kept"]
    assert left_over(trial) == []
    watched.let(At.PRE_REVERT, "hang")
    trial.settings["hooks"]["trace"]["timeout"] = 2
    watched.let(At.POST_REVERT, "6")
    with pytest.raises(Reverted, match=r"hook late \(pre-start\): ended with exit code 5"):
        trial.up()
    trial.insist_on_one_world(trial.world(1))
    assert trial.notes() == ["kept"]
    outcome = trial.reverted()
    assert outcome.quarantine
    assert [(g.gate, g.service, g.kind) for g in outcome.gates if g.result != "passed"] == [
        ("hook late (pre-start)", "web", "hook")
    ]
    assert outcome.touched, "a one-off container may have written the data"
    assert outcome.sealed == {"notes": f"{trial.project}-prod_notes_g2"}
    results = {run.key: run.result for run in outcome.hooks}
    assert results["pre-start late web"] == "failed"
    assert results["pre-revert trace"] == "timed-out"
    assert (
        trial.state.hooked[-1][1].hooks[0].said == "ended with exit code 6: said by trace None ***"
    )
    watched.calm()
    watched.seen()

    trial.settings["hooks"]["late"]["on_failure"] = "ignore"
    hangs = {"command": ["sleep", "300"]}
    trial.settings["hooks"] |= {
        "deaf": {"at": "post-start", "service": "web", "exec": hangs, "timeout": 0.5,
                 "on_failure": "warn"},
        "stuck": {"at": "pre-start", "service": "web", "run": hangs, "timeout": 2, "order": 1,
                  "on_failure": "ignore"},
    }  # fmt: skip
    trial.settings["retry"] = trial.world(2)
    watched.let(At.POST_COMMIT, "7")
    trial.up()
    assert trial.committed().to_world.startswith(trial.world(2))
    assert any("post-commit): ended with exit code 7" in said for said in trial.said)
    ran = {run.key: run.result for run in trial.committed().hooks}
    assert [
        ran[f"{at} web"] for at in ("pre-start late", "pre-start stuck", "post-start deaf")
    ] == [
        "failed",
        "timed-out",
        "timed-out",
    ]
    assert "hook stuck (pre-start): not finished after 2 s (ignored)" in trial.said
    assert trial.notes() == ["kept", "half"], "data of the failed world was not taken over"
    assert left_over(trial) == []


def test_a_hook_that_was_begun_is_not_begun_again_after_a_crash(trial: Trial) -> None:
    """The switch dies while a hook runs, before and after the commit: the recovery runs what was
    not begun, repeats only what may be, and removes the one-off container that was left."""
    watched = Watched(trial)
    trial.settings["hooks"] = {
        "once": hook(["post-commit"], order=1),
        "again": hook(["post-commit"], order=1, repeatable=True),
        "next": hook(["post-commit"], order=2),
    }
    trial.write({"web": web()})
    trial.new()
    watched.let(At.POST_COMMIT, "kill")
    trial.up()
    names = [facts["hook"] for facts in watched.seen()]
    assert names == ["again", "again", "once", "next"]
    trial.insist_on_one_world(trial.world(1))
    trial.settings["hooks"]["again"]["repeatable"] = False

    trial.new(VERSION="2")
    watched.let(At.POST_COMMIT, "kill")
    trial.up()
    assert [facts["hook"] for facts in watched.seen()] == ["again", "once", "next"]
    trial.insist_on_one_world(trial.world(2))

    trial.settings["hooks"] = {
        "dies": hook("pre-revert"),
        "migrate": {
            "at": "pre-start",
            "service": "web",
            "run": {"command": ["sh", "-c", "echo half >> /data/notes; sleep 300"]},
            "timeout": 60,
        },
    }
    trial.new(VERSION="3")
    kill_when_a_one_off_runs(trial)
    with pytest.raises(Reverted, match="was killed"):
        trial.up()
    trial.insist_on_one_world(trial.world(2))
    assert trial.notes() == []
    assert left_over(trial) == []
    assert trial.reverted().touched
    assert [facts["at"] for facts in watched.seen()] == ["pre-revert"]


def kill_when_a_one_off_runs(trial: Trial) -> None:
    """Another thread kills the process of the switch as soon as its hook's container is there."""

    def wait() -> None:
        until = time.monotonic() + 60
        while not left_over(trial) and time.monotonic() < until:
            time.sleep(0.1)
        intent = JournalFile(trial.catalog.journal).read()
        assert intent is not None
        os.kill(intent.pid, signal.SIGKILL)

    threading.Thread(target=wait, daemon=True).start()


def test_hooks_of_prune(trial: Trial) -> None:
    """Once for each release that leaves the window; one that fails keeps it, and all is tried
    again."""
    watched = Watched(trial)
    trial.settings |= {"hooks": {"trace": hook(["pre-prune", "post-prune"])}, "window": 1}
    trial.write({"web": web()})
    for version in "123":
        trial.new(VERSION=version)
        plan = trial.up()
        if version == "3":
            watched.let(At.PRE_PRUNE, "1")
            with pytest.raises(DebtsUnpaid, match=r"hook trace \(pre-prune\)"):
                pay(trial, plan)
            assert trial.state.pruned == ()
            watched.calm()
        pay(trial, plan)
    assert trial.state.pruned == ("prod-001",)
    seen = [(f["at"], f["pruned"], f["world"]) for f in watched.seen()]
    assert seen[1:] == [
        ("pre-prune", "prod-001", trial.world(3)),
        ("post-prune", "prod-001", trial.world(3)),
    ]


def pay(trial: Trial, plan: Any) -> None:
    with trial.locked():
        debts.pay(trial.stack, trial.catalog, trial.docker, trial.compose, plan, trial.say)
