"""Data that could not go along is refused before anything stops, on a real PostgreSQL."""

from __future__ import annotations

import re
import subprocess

import pytest

from reconciler import program
from reconciler.errors import Refused
from reconciler.plan import Move
from tests.reconciler.trial import POSTGRES, Trial

SQL = ("psql", "-U", "postgres", "-qc")


def another_image(trial: Trial) -> str:
    """PostgreSQL of the same version in an image with another id."""
    tag = f"{trial.project}-another/postgres:15"
    subprocess.run(
        ["docker", "build", "--quiet", "--tag", tag, "-"],
        input=f"FROM {POSTGRES}\nLABEL another={trial.project}\n",
        text=True,
        check=True,
        capture_output=True,
        timeout=120,
    )
    return tag


def insist_on_refusal(trial: Trial, says: str) -> None:
    shown = program.facts_and_plan(trial.stack, probe=False).refusals
    assert any(re.search(says, refusal.message) for refusal in shown), shown
    running = trial.docker.listing(running=True, labels=[f"lockstep.project={trial.project}"])
    volumes = set(trial.docker.volumes())
    with pytest.raises(Refused, match=says) as refused:
        trial.up()
    assert "nothing was stopped" in refused.value.next_step
    after = trial.docker.listing(running=True, labels=[f"lockstep.project={trial.project}"])
    assert {c.id for c in after} == {c.id for c in running}
    assert {v for v in trial.docker.volumes() if v.startswith(trial.project)} <= volumes


def test_fault_78_79_80_a_database_that_could_not_go_along_is_refused_by_name(
    trial: Trial,
) -> None:
    """A tablespace outside of the volume, files of another major version: preview and `up` refuse
    by name before anything stops; another version of the sort order: live, and said which
    databases to reindex."""
    database = {
        "image": POSTGRES,
        "environment": {"POSTGRES_PASSWORD": "${TOKEN}"},
        "volumes": ["db:/var/lib/postgresql/data"],
        "healthcheck": {"test": ["CMD", "pg_isready", "-h", "127.0.0.1", "-U", "postgres"]},
    }
    trial.write({"db": database})
    trial.new()
    trial.up()
    trial.new()
    trial.exec(trial.world(1), "db", "sh", "-c", "mkdir /fast && chown postgres /fast")
    trial.exec(trial.world(1), "db", *SQL, "CREATE TABLESPACE fast LOCATION '/fast'")
    insist_on_refusal(trial, "dataset db cannot go along to prod-002: tablespace .*/fast")
    trial.exec(trial.world(1), "db", *SQL, "DROP TABLESPACE fast")

    trial.write({"db": {**database, "image": another_image(trial)}})
    trial.new()
    volume = trial.docker.volume(trial.state.worlds[trial.world(1)].generations["db"])
    assert volume is not None
    written_by = volume.path / "PG_VERSION"
    written_by.write_text("14\n")
    insist_on_refusal(trial, "written by PostgreSQL 14, and the image has PostgreSQL 15")
    written_by.write_text("15\n")

    icu = "LOCALE_PROVIDER icu ICU_LOCALE 'en-US' ENCODING 'UTF8' TEMPLATE template0"
    trial.exec(trial.world(1), "db", *SQL, f"CREATE DATABASE sorted {icu}")
    older = "UPDATE pg_database SET datcollversion = '2.1' WHERE datname = 'sorted'"
    trial.exec(trial.world(1), "db", *SQL, older)
    assert trial.up().move is Move.FORWARD
    trial.insist_on_one_world(trial.world(3))
    assert any('REINDEX DATABASE "sorted"' in text for text in trial.said)
